"""The records on the wire and their schema files."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from stream_rec import codec
from stream_rec.events import Kind, Record, Topic
from stream_rec.stream.privacy import Sealer

RELEASED = Path(__file__).parent / "released_schemas"


@pytest.mark.parametrize("name", sorted(codec.WIRE))
def test_schema_files_are_current(name: str) -> None:
    text = (codec.SCHEMA_DIR / f"{name}.json").read_text(encoding="utf-8")
    assert text == codec.schema_text(codec.json_schemas()[name]), "run python -m stream_rec.codec"


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*.json")), ids=lambda p: p.stem)
def test_schemas_stay_compatible_with_the_released_ones(path: Path) -> None:
    old, new = json.loads(path.read_text()), codec.json_schemas()[path.stem]
    assert codec.breaking_changes(old, new, is_input=path.stem in codec.INPUTS) == []


@pytest.mark.parametrize("schema", codec.json_schemas().values(), ids=codec.json_schemas())
def test_schemas_are_valid_draft_2020_12(schema: dict) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_event_types_of_schema_and_kinds_agree() -> None:
    assert list(codec.EventType.__args__) == [kind.name.lower() for kind in Kind]


def test_an_input_may_gain_an_optional_field_and_a_wider_type() -> None:
    old = codec.json_schemas()["event"]
    new = copy.deepcopy(old)
    new["properties"]["color"] = {"type": "string"}
    new["properties"]["event_type"] = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    assert codec.breaking_changes(old, new, is_input=True) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["properties"].pop("query"), "query: removed"),
        (lambda s: s["required"].append("user_id"), "user_id: now required"),
        (lambda s: s["properties"].update(event_at={"type": "integer"}), "event_at: its type changed"),
        (lambda s: s["$defs"]["EventItem"]["properties"].pop("price"), "EventItem.price: removed"),
    ],
)
def test_an_input_change_that_breaks_old_records_is_named(change, said: str) -> None:
    old = codec.json_schemas()["event"]
    new = copy.deepcopy(old)
    change(new)
    assert codec.breaking_changes(old, new, is_input=True) == [said]


def test_an_output_may_not_loosen_what_readers_rely_on() -> None:
    old = codec.json_schemas()["slate"]
    new = copy.deepcopy(old)
    new["required"].remove("decision_id")
    assert codec.breaking_changes(old, new, is_input=False) == ["decision_id: now optional"]


def test_a_breaking_change_is_not_written(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(codec, "SCHEMA_DIR", tmp_path)
    assert codec.main([]) == 0
    schema = codec.json_schemas()["item"]
    schema["properties"]["weight"] = {"type": "number"}
    (tmp_path / "item.json").write_text(codec.schema_text(schema))
    assert codec.main([]) == 1
    assert "item: weight: removed" in capsys.readouterr().err
    assert codec.main(["--break"]) == 0


def test_a_dead_letter_fits_its_schema() -> None:
    letter = Sealer(b"k").seal(Record(Topic.EVENTS, 0, 1, 2, b"k", b"v"), reason="not_json", stage="decode")
    jsonschema.validate(json.loads(letter.value or b""), codec.json_schemas()["dead-letter"])


def test_the_strict_event_reads_what_the_event_writes() -> None:
    event = codec.Event(event_type="click", event_at=1, items=[codec.EventItem(item_id="a", price=2.0)], rating=4)
    strict = msgspec.json.decode(msgspec.json.encode(event), type=codec.StrictEvent)
    assert msgspec.to_builtins(strict) == msgspec.to_builtins(event)


@pytest.mark.parametrize(
    "extra", [b'{"event_type":"a","event_at":1,"x":1}', b'{"event_type":"a","event_at":1,"items":[{"x":1}]}']
)
def test_the_strict_event_refuses_unknown_fields(extra: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(extra, type=codec.StrictEvent)

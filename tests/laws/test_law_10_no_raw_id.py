"""Law 10: no raw id in any output, checkpoint, log or run, wherever in the input it was planted."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec import assemble, config, summary
from stream_rec.errors import StreamRecError
from stream_rec.events import Record, Topic
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.folder import FolderPublisher, FolderWeights
from stream_rec.io.memory import MemorySource
from stream_rec.loop import Loop
from stream_rec.ports import Ports
from stream_rec.replay import run_replay
from stream_rec.stream.privacy import Sealer
from tests.laws.world import DAY_MS, KEY, LAW, SMALL, Chunk, identity_of, new_broker, pipeline_of, settings_of

NOW_MS = 1_767_600_000_000
USER, SESSION, ORDER = "raw-user-7f3a91", "raw-session-55c0de", "raw-order-90ab12"
EMAIL, PHONE, CARD = "ann.planted@shop.example", "+44 20 7946 0958", "4111 1111 1111 1111"
PLANTED = (USER, SESSION, ORDER, EMAIL, PHONE, CARD, CARD.replace(" ", ""), PHONE.replace(" ", ""))


def spellings(raw: str) -> Iterator[bytes]:
    """The ways a raw value could slip through."""
    yield raw.encode()
    yield raw.encode("utf-16-le")
    yield raw.encode().hex().encode()
    for shift in range(3):  # inside base64 at any of its three alignments
        padded = base64.b64encode(b"\0" * shift + raw.encode())
        yield padded[4 if shift else 0 : -4]
    yield json.dumps(raw)[1:-1].encode()


NEEDLES = {spelling: raw for raw in PLANTED for spelling in spellings(raw)}


def leaks(content: bytes) -> list[str]:
    """Planted values that some bytes show."""
    lower = content.lower()
    return sorted({raw for spelling, raw in NEEDLES.items() if spelling in content or spelling.lower() in lower})


def event(n: int, **said: Any) -> bytes:
    return json.dumps({"event_id": f"{USER}-{n}", "event_at": NOW_MS + n, "event_type": "view_item", **said}).encode()


def planted() -> list[Record]:
    """Every place of a record that can name somebody."""
    ids = {"user_id": USER, "session_id": SESSION, "order_id": ORDER}
    who = f"{USER} {SESSION} {ORDER} {EMAIL} {PHONE} {CARD}"
    headers = (("user", USER.encode()), (USER, EMAIL.encode()), ("ce_specversion", b"1.0"), ("ce_id", USER.encode()))
    values: list[bytes | None] = [
        event(1, **ids, item_id="a"),
        event(2, session_id=SESSION, item_id="a"),
        event(3, order_id=ORDER, item_id="a"),
        event(4, **ids, event_type="purchase", items=[{"item_id": "a"}, {"item_id": "b"}]),
        event(5, **ids, event_type="search", query=f"mug for {who}"),
        event(6, **ids, event_type="search", query=f"{EMAIL.upper()} {CARD.replace(' ', '-')}"),
        event(7, **ids, item_id="a", customer_email=EMAIL, phone=PHONE, nested={"card": CARD, USER: [USER]}),
        event(8, **ids, item_id="a", quantity=f"two of {USER}", price=EMAIL),
        event(9, **ids, item_id={"id": USER}),
        event(10, user_id={"raw": USER}, item_id="a"),
        event(11, **ids, event_type=f"login of {USER}", item_id="a"),
        event(12, **ids, item_id="a", event_at=f"the birthday of {USER}"),
        event(13, **ids, event_type="purchase", item_id="a", quantity=-3),
        event(14, **ids, event_type="refund", item_id="a"),
        event(15, **ids, event_type="impression", decision_id=USER, items=[{"item_id": "a", "position": USER}]),
        event(16, **ids, event_type="click", decision_id=f"{SESSION}", item_id="a", currency=USER, value=EMAIL),
        event(17, **ids, event_type="review", item_id="a", rating=USER, text=who),
        event(18, **ids, item_id="a", event_at=NOW_MS + 400 * DAY_MS),
        event(19, **ids, item_id="a", event_at=NOW_MS - 30 * DAY_MS),
        event(19, **ids, item_id="a"),
        event(20, user_id=f"  {USER} ", item_id="a"),
        event(21, user_id=f"{USER}\x00", item_id="a"),
        event(22, user_id=USER * 40, item_id="a"),
        event(23, **ids, item_id="a")[:-9],
        b"not json of " + who.encode(),
        b"\xff\xfe" + who.encode(),
        b'["' + who.encode() + b'"]',
        json.dumps({"specversion": "1.0", "id": USER, "source": EMAIL, "data": USER}).encode(),
        b"x" * 3_000 + who.encode(),
        None,
    ]  # fmt: skip
    out = [Record(Topic.EVENTS, i % 2, 0, NOW_MS + i, USER.encode(), v) for i, v in enumerate(values)]
    out += [Record(Topic.EVENTS, i % 2, 0, NOW_MS + i, EMAIL.encode(), v, headers) for i, v in enumerate(values)]
    out += [
        Record(Topic.ITEMS, 0, 0, NOW_MS, b"a", b'{"title":"Mug","owner":"' + who.encode() + b'"}', headers),
        Record(Topic.ITEMS, 0, 0, NOW_MS, b"b", b'{"title":"Jug","price":"' + USER.encode() + b'"}'),
        Record(Topic.ITEMS, 0, 0, NOW_MS, b"c", b"broken " + who.encode()),
        Record(Topic.ITEMS, 0, 0, NOW_MS, b"d", b'{"title":"Cup","updated_at":"' + USER.encode() + b'"}'),
        Record(Topic.CONTROL, 0, 0, NOW_MS, USER.encode(), b'{"command":"forget","user_key":"' + USER.encode() + b'"}'),
        Record(Topic.CONTROL, 0, 0, NOW_MS, None, b'{"command":"' + USER.encode() + b'"}', headers),
    ]
    return out


def run_into(
    folder: Path, records: list[Record], sets: tuple[str, ...] = (*SMALL, "quality.max_record_bytes=2048")
) -> Loop:
    """The real loop from memory into a run folder, with a checkpoint at its end."""
    broker = new_broker()
    broker.extend(records)
    publisher = FolderPublisher(folder)
    checkpoints, weights = (
        FolderCheckpoints(folder / "checkpoints"),
        FolderWeights(folder / "weights", synchronous=True),
    )
    loop = Loop(
        lambda: pipeline_of(sets), Ports(MemorySource(broker), publisher, checkpoints, weights), identity_of(sets)
    )
    try:
        loop.recover()
        while loop.step(cut_at_ms=NOW_MS + 1_000):
            pass
        loop.checkpoint()
    finally:
        checkpoints.close()
        weights.close()
        publisher.close()
    return loop


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every byte that a run leaves, and every file name."""
    for path in sorted(folder.rglob("*")):
        yield f"name {path.relative_to(folder)}", str(path.relative_to(folder)).encode()
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("run")
    chunk = Chunk(NOW_MS, tuple(planted()))
    loop = run_into(folder, list(chunk.records))
    totals = loop.pipeline.facts.accounting.totals
    assert totals["accepted"] >= 12
    assert totals["dead_lettered"] > 25
    said = settings_of(*SMALL, f"run.dir={folder}")
    (folder / summary.NAME).write_bytes(msgspec.json.encode(summary.of_state(loop.pipeline, said)))
    return folder


def test_the_needles_would_be_found() -> None:
    assert leaks(b"xx" + USER.encode() + b"xx") == [USER]
    assert leaks(base64.b64encode(b"12" + USER.encode() + b"3")) == [USER]
    assert leaks(USER.encode().hex().encode()) == [USER]
    assert leaks(EMAIL.upper().encode()) == [EMAIL]


def test_no_output_ledger_entry_checkpoint_weight_or_summary_shows_a_raw_id(run_folder: Path) -> None:
    names = [name for name, _ in contents(run_folder)]
    assert {"slates.jsonl", "dead-letters.jsonl", "ledger.jsonl", "summary.json"} <= set(names)
    assert any(name.startswith("checkpoints/") for name in names)
    assert {name: found for name, content in contents(run_folder) if (found := leaks(content))} == {}


def test_only_the_key_opens_a_dead_letter(run_folder: Path) -> None:
    letters = (run_folder / "dead-letters.jsonl").read_bytes().splitlines()
    opened = [Sealer(KEY.encode()).unseal(letter).record for letter in letters]
    assert sum(bool(leaks((record.key or b"") + (record.value or b""))) for record in opened) > 20
    for letter in letters[:5]:
        with pytest.raises(StreamRecError) as refused:
            Sealer(b"another key").unseal(letter)
        assert leaks(str(refused.value).encode()) == []


def test_no_log_line_or_message_shows_a_raw_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    bad = [Record(Topic.EVENTS, 0, 0, NOW_MS, USER.encode(), b"broken " + USER.encode())] * 400
    sets = tuple(s for s in SMALL if not s.startswith("quality.dead_letter_share"))
    run_into(tmp_path / "fine", planted())
    with pytest.raises(StreamRecError) as refused:
        run_into(tmp_path / "refused", bad, sets)
    out, err = capfd.readouterr()
    shown = "\n".join([str(refused.value), repr(refused.value), out, err, caplog.text])
    assert "events" in shown
    assert leaks(shown.encode()) == []
    assert {name: found for name, content in contents(tmp_path) if (found := leaks(content))} == {}


def test_a_replay_of_a_file_leaves_no_raw_id(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The program itself: its run folder, its summary and what it prints."""
    lines = [(r.value or b"").replace(b"\n", b" ") for r in planted() if r.topic == Topic.EVENTS and not r.headers]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    made = config.load(None, list(SMALL), {}, {"run.dir": ("--out", tmp_path / "run")})
    said = run_replay(made, events=tmp_path / "events.jsonl")
    assert said["consumed"] == len(lines)
    out, err = capfd.readouterr()
    assert leaks(json.dumps(said).encode() + out.encode() + err.encode()) == []
    assert {name: found for name, content in contents(tmp_path / "run") if (found := leaks(content))} == {}
    assert assemble.open_run(tmp_path / "run").folder == tmp_path / "run"


@settings(LAW, max_examples=25)
@given(
    raw=st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=6, max_size=30).map("who:".__add__),
    form=st.sampled_from(["user", "session", "order", "body", "query", "type", "header"]),
)
def test_whatever_the_raw_id_it_does_not_come_out(raw: str, form: str) -> None:
    said: dict[str, Any] = {"event_type": "view_item", "event_at": NOW_MS, "item_id": "a", "user_id": raw}
    record = Record(Topic.EVENTS, 0, 0, NOW_MS, raw.encode(), None)
    match form:
        case "user":
            said |= {"event_id": raw, "nickname": raw}
        case "session" | "order":
            said = {**said, f"{form}_id": raw, "user_id": None}
        case "query":
            said |= {"event_type": "search", "query": f"gift for {raw} now"}
        case "type":
            said |= {"event_type": raw}
        case "header":
            record = record._replace(headers=(("x-user", raw.encode()),))
    value = f"{raw} is not json {raw}".encode() if form == "body" else json.dumps(said, ensure_ascii=False).encode()
    pipeline = pipeline_of()
    loop = Loop(lambda: pipeline, memory_ports([record._replace(value=value)]), identity_of())
    loop.recover()
    while loop.step(cut_at_ms=NOW_MS):
        pass
    needles = [raw.encode(), json.dumps(raw)[1:-1].encode()]
    for name, snapshot in pipeline.snapshot().items():
        for column, values in snapshot.items():
            content = (
                values.tobytes() if hasattr(values, "tobytes") else json.dumps(values, ensure_ascii=False).encode()
            )
            assert not any(needle in content for needle in needles), f"{name}.{column}"
    for topic in (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS, Topic.METRICS, Topic.LEDGER):
        for output in loop._ports.publisher._broker.outputs(topic):  # type: ignore[attr-defined]
            assert not any(needle in output.key + (output.value or b"") for needle in needles), topic


def memory_ports(records: list[Record]) -> Ports:
    from tests.laws.world import World

    world = World(recovered=False)
    world.broker.extend(records)
    world.make()
    return world.ports

"""Settings: one name in every source, the later source wins, wrong ones are refused by name, secrets never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_rec import config
from stream_rec.config import load
from stream_rec.errors import SettingsError
from stream_rec.stream import privacy

SECRET = "a-key-that-must-not-be-shown"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(*sets: str, environ: dict[str, str] | None = None, file: Path | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(file, sets, environ or {})
    return str(caught.value)


def test_defaults_need_no_source() -> None:
    loaded = load(None, [], {})
    assert (loaded.pipeline.name, loaded.slate.n_slots, loaded.explore.policy) == ("stream-rec", 20, "igw")
    assert loaded.run_dir == Path("runs/stream-rec")


def test_file_then_environment_then_set_then_option_win_in_this_order(tmp_path: Path) -> None:
    file = write(tmp_path / "shop.toml", "[slate]\nn_slots=1\n[run]\nseed=1\ndir='a'\n[learn]\nmin_rating=3.5\n")
    environ = {"STREAM_REC_SLATE__N_SLOTS": "2", "STREAM_REC_RUN__SEED": "2", "STREAM_REC_RUN__DIR": "b"}
    loaded = load(file, ["run.seed=3", "run.dir=c"], environ, {"run.dir": ("--out", Path("d"))})
    assert (loaded.learn.min_rating, loaded.slate.n_slots, loaded.run.seed, loaded.run_dir) == (3.5, 2, 3, Path("d"))
    where = {v.name: v.source for v in config.sources(loaded)}
    assert where["learn.min_rating"] == f"file {file}"
    assert where["slate.n_slots"] == "environment STREAM_REC_SLATE__N_SLOTS"
    assert (where["run.seed"], where["run.dir"], where["tick.max_records"]) == ("--set", "--out", "default")


def test_stream_rec_toml_of_the_working_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / "stream-rec.toml", "[tick]\nmax_records = 7\n")
    assert load(None, [], {}).tick.max_records == 7


def test_a_list_is_words_between_commas_and_its_order_does_not_matter(tmp_path: Path) -> None:
    by_text = load(None, ["learn.positives=purchase, click,click"], {})
    by_file = load(write(tmp_path / "a.toml", '[learn]\npositives = ["click", "purchase"]\n'), [], {})
    assert by_text.learn.positives == by_file.learn.positives == ("click", "purchase")
    assert config.semantic_digest(by_text) == config.semantic_digest(by_file)


@pytest.mark.parametrize("name", ["slate.n_slot", "slates.n_slots", "n_slots", "SLATE.NSLOTS"])
def test_an_unknown_name_is_refused_and_the_right_one_suggested(name: str) -> None:
    assert "did you mean slate.n_slots?" in refusal(f"{name}=3")


def test_an_unknown_name_is_refused_in_file_and_environment_too(tmp_path: Path) -> None:
    assert "did you mean tick.max_wait_ms?" in refusal(file=write(tmp_path / "a.toml", "[tick]\nmax_wait = 3\n"))
    assert "did you mean tick.max_wait_ms?" in refusal(environ={"STREAM_REC_TICK__MAX_WAIT": "3"})


def test_one_underscore_for_two_is_noticed_and_other_variables_are_left_alone() -> None:
    assert "STREAM_REC_PRIVACY__KEY" in refusal(environ={"STREAM_REC_PRIVACY_KEY": SECRET})
    load(None, [], {"STREAM_REC_DATA": "somewhere", "PATH": "x"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slate.n_slots=0", ["slate.n_slots = '0' (--set)", "greater than or equal to 1"]),
        ("learn.min_rating=nan", ["learn.min_rating", "finite"]),
        ("learn.positives=", ["learn.positives", "at least 1"]),
        ("learn.positives=stares", ["learn.positives", "'click'"]),
        ("pipeline.name=a/b", ["pipeline.name", "letters, digits"]),
        ("events.format=csv", ["events.format", "'ga4'"]),
        ("slate.n_slots", ["section.key=value"]),
    ],
)
def test_a_wrong_value_is_told_with_its_name_value_source_and_fix(text: str, words: list[str]) -> None:
    message = refusal(text)
    assert all(word in message for word in words), message


def test_a_file_that_is_no_toml_is_refused_by_line_without_its_content(tmp_path: Path) -> None:
    message = refusal(file=write(tmp_path / "a.toml", f"[privacy]\nkey = {SECRET}\n"))
    assert "line 2" in message
    assert SECRET not in message
    assert "there is no settings file" in refusal(file=tmp_path / "none.toml")
    assert "write [slate]" in refusal(file=write(tmp_path / "b.toml", "slate = 3\n"))


def test_no_secret_is_shown_by_anything() -> None:
    loaded = load(None, [f"privacy.key={SECRET}"], {})
    shown = [repr(loaded), str(config.sources(loaded)), str(config.semantic(loaded)), loaded.model_dump_json()]
    assert not any(SECRET in text for text in shown)
    for bad in (
        f"privacy.key_file.x={SECRET}",
        f"privacy.kye={SECRET}",
        f"privacy.key:{SECRET}",
        f"privacy:{SECRET}=1",
    ):
        assert SECRET not in refusal(bad)


def test_the_key_file_gives_the_key_without_its_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "privacy.key"
    path.write_bytes(SECRET.encode() + b"\n")
    by_file = load(None, [f"privacy.key_file={path}"], {})
    by_value = load(None, [], {"STREAM_REC_PRIVACY__KEY": SECRET})
    assert config.privacy_key(by_file) == config.privacy_key(by_value) == SECRET.encode()
    assert config.semantic_digest(by_file) == config.semantic_digest(by_value)


def test_a_missing_empty_doubled_or_unreadable_key_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "bad.key").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.key").write_bytes(b"\n")
    for sets in ([], ["privacy.key="], *([f"privacy.key_file={name}.key"] for name in ("none", "bad", "empty"))):
        with pytest.raises(SettingsError, match=r"token_hex"):
            config.privacy_key(load(None, sets, {}))
    with pytest.raises(SettingsError, match="both"):
        config.privacy_key(load(None, ["privacy.key=a", "privacy.key_file=empty.key"], {}))


def test_the_digest_changes_with_every_semantic_setting_and_with_no_operational_one() -> None:
    base = config.semantic_digest(load(None, [], {}))
    changed = {
        "slate.n_slots": "19", "privacy.key": "k", "learn.positives": "click", "events.format": "ga4", "run.seed": "1",
        "quality.dead_letter_share": "1",
        "run.dir": "elsewhere", "checkpoint.keep": "9", "worker.instance": "other", "tick.max_wait_ms": "7",
    }  # fmt: skip
    for name, value in changed.items():
        differs = config.semantic_digest(load(None, [f"{name}={value}"], {})) != base
        assert differs == (config.KNOBS[name].effect == "semantic"), name


def test_the_fingerprint_in_the_digest_is_the_key_id_of_the_outputs() -> None:
    loaded = load(None, [f"privacy.key={SECRET}"], {})
    assert config.semantic(loaded)["privacy.key"] == privacy.fingerprint(SECRET.encode())


def test_what_the_ledger_keeps_puts_the_semantic_settings_back() -> None:
    then = load(None, ["slate.n_slots=5", "learn.positives=click", "checkpoint.keep=9", "privacy.key=k"], {})
    now = load(None, ["checkpoint.keep=4", "privacy.key=k"], {})
    back = config.with_semantic(now, config.semantic(then))
    assert config.semantic(back) == config.semantic(then)
    assert back.checkpoint.keep == 4


def test_every_setting_has_a_description_and_an_effect() -> None:
    for knob in config.KNOBS.values():
        assert knob.effect in {"semantic", "operational"}
        assert knob.field.description
        assert knob.field.description.endswith(".")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.dictionaries(st.text(max_size=12).map(lambda s: f"STREAM_REC_{s}"), st.text(max_size=12), max_size=3))
def test_any_environment_loads_or_is_refused_in_words(environ: dict[str, str]) -> None:
    try:
        load(None, [], environ)
    except SettingsError as error:
        assert "\n" not in str(error)


def test_what_logs_in_at_mlflow_is_not_shown():
    settings = load(None, ["registry.tracking_uri=https://ml:hush@flow.shop", "privacy.key=k"], {})
    assert {v.name: v.value for v in config.sources(settings)}["registry.tracking_uri"] == "https://flow.shop"

"""A replay into a run folder: resumable at any tick, finished once, refused where it should be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream_rec import assemble, replay, slates
from stream_rec.cli import main
from stream_rec.errors import InputRefused, JobFailed, LedgerMismatch, SettingsError
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.loop import Loop
from stream_rec.stream.dedupe import Dedupe
from tests.shop_files import KEY, small_settings, write_shop

FILES = ("slates", "versions", "dead-letters", "ledger", "metrics")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def whole(shop, tmp_path_factory):
    """An uninterrupted run: its folder and summary."""
    out = tmp_path_factory.mktemp("whole")
    events, items = shop
    with pytest.MonkeyPatch.context() as waiting:
        # The checkpoint of a version's cut is passed over while a slow disk still writes the one before.
        waiting.setattr(FolderCheckpoints, "n_unwritten", lambda store: store.flush() or 0)
        return out, replay.run_replay(small_settings(out), events=events, items=items)


class Stop(KeyboardInterrupt):
    """The person pressed Ctrl-C."""


def interrupted(monkeypatch, settings, shop, *, after_ticks, in_fold):
    """Run until the `after_ticks`-th tick and stop there, between ticks or inside a fold."""
    steps = [0]
    step = Loop.step

    def stopping(self, **given):
        steps[0] += 1
        if steps[0] > after_ticks:
            if in_fold:
                monkeypatch.setattr(self.pipeline, "_metrics", lambda *_: (_ for _ in ()).throw(Stop))
                return step(self, **given)
            raise Stop
        return step(self, **given)

    monkeypatch.setattr(Loop, "step", stopping)
    with pytest.raises(Stop):
        replay.run_replay(settings, events=shop[0], items=shop[1])
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("after_ticks", "in_fold"), [(0, False), pytest.param(3, False, marks=pytest.mark.slow), (9, True)]
)
def test_an_interrupted_replay_goes_on_to_the_same_bytes(monkeypatch, tmp_path, shop, whole, after_ticks, in_fold):
    settings = small_settings(tmp_path)
    interrupted(monkeypatch, settings, shop, after_ticks=after_ticks, in_fold=in_fold)
    resumed = replay.run_replay(settings, events=shop[0], items=shop[1])
    for name in FILES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (whole[0] / f"{name}.jsonl").read_bytes(), name
    assert resumed["state_digest"] == whole[1]["state_digest"]
    assert resumed["ledger_chain"] == whole[1]["ledger_chain"]


def test_a_replay_promotes_versions_whose_weights_are_stored(whole):
    notices = [json.loads(line) for line in (whole[0] / "versions.jsonl").read_text().splitlines()]
    served = [n for n in notices if n["event"] != "champion"]
    assert [n["event"] for n in served] == ["initial", *["promote"] * (len(served) - 1)] and len(served) > 2
    assert all((whole[0] / n["url"]).is_file() for n in served)


def test_a_finished_folder_is_not_run_again(shop, whole):
    before = (whole[0] / "ledger.jsonl").stat().st_mtime_ns
    again = replay.run_replay(small_settings(whole[0]), events=shop[0], items=shop[1])
    assert again == json.loads((whole[0] / "summary.json").read_text())
    assert (whole[0] / "ledger.jsonl").stat().st_mtime_ns == before


def test_a_folder_of_other_settings_is_refused(shop, whole):
    with pytest.raises(SettingsError, match="other settings"):
        replay.run_replay(small_settings(whole[0], "slate.n_slots=3"), events=shop[0], items=shop[1])


def test_a_folder_of_other_input_is_refused(shop, whole, tmp_path):
    other = tmp_path / "events.jsonl"
    other.write_bytes(shop[0].read_bytes()[:-2000])
    with pytest.raises(SettingsError, match="other input"):
        replay.run_replay(small_settings(whole[0]), events=other, items=shop[1])


def test_an_operational_setting_may_differ_on_resume(monkeypatch, tmp_path, shop, whole):
    interrupted(monkeypatch, small_settings(tmp_path), shop, after_ticks=2, in_fold=False)
    resumed = replay.run_replay(small_settings(tmp_path, "checkpoint.every_ms=100"), events=shop[0], items=shop[1])
    assert resumed["state_digest"] == whole[1]["state_digest"]


def test_a_replay_without_its_checkpoints_is_rebuilt_from_the_ledger(monkeypatch, tmp_path, shop, whole):
    settings = small_settings(tmp_path)
    interrupted(monkeypatch, settings, shop, after_ticks=6, in_fold=False)
    for path in (tmp_path / "checkpoints").glob("*/manifest.json"):
        path.write_bytes(b"torn")
    assert replay.run_replay(settings, events=shop[0], items=shop[1])["state_digest"] == whole[1]["state_digest"]


def test_an_input_that_is_mostly_dead_is_refused_with_its_first_position(tmp_path):
    events = tmp_path / "events.jsonl"
    events.write_text("not json\n" * 300)
    with pytest.raises(InputRefused, match=r"events/0 offset 0.*dead_letter_share"):
        replay.run_replay(small_settings(tmp_path / "out"), events=events)


def test_the_refusal_exits_3_and_the_override_finishes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STREAM_REC_PRIVACY__KEY", KEY)
    events = tmp_path / "events.jsonl"
    events.write_text("not json\n" * 300)
    command = ["replay", str(events), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["stream-rec", *command])
    with pytest.raises(SystemExit, match="3"):
        main()
    monkeypatch.setattr("sys.argv", ["stream-rec", *command, "--set", "quality.dead_letter_share=1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "dead_lettered 300" in capsys.readouterr().out


def test_a_second_writer_of_the_folder_is_told_so(shop, tmp_path):
    settings = small_settings(tmp_path)
    ports = assemble.replay_ports(settings, events=shop[0], items=shop[1], since_ms=None, until_ms=None)
    try:
        with pytest.raises(Exception, match="another program is writing"):
            replay.run_replay(settings, events=shop[0], items=shop[1])
    finally:
        assemble.close(ports)


def test_since_and_until_take_events_by_their_time(shop, tmp_path):
    lines = [json.loads(x) for x in Path(shop[0]).read_text().splitlines() if x.startswith('{"event_id"')]
    assert lines
    first = small_settings(tmp_path / "a")
    begin = 1_767_571_200_000 + 86_400_000
    part = replay.run_replay(first, events=shop[0], items=shop[1], since=begin, until=begin + 86_400_000)
    ledger = [json.loads(x) for x in (tmp_path / "a" / "ledger.jsonl").read_text().splitlines()]
    assert 0 < part["consumed"] < len(shop[0].read_text().splitlines())
    assert max(e["tick"]["cut_at_ms"] for e in ledger if e["kind"] == "tick") < begin + 86_400_000


def test_the_cuts_of_the_newest_version_its_parent_and_the_one_before_stay(whole):
    pinned = json.loads((whole[0] / "checkpoints" / "pinned.json").read_text())
    names = pinned if isinstance(pinned, list) else pinned["names"]
    assert len(names) == 3 and all((whole[0] / "checkpoints" / name / "manifest.json").is_file() for name in names)


def test_a_store_that_cannot_write_does_not_stop_the_run(monkeypatch, tmp_path, shop, whole, caplog):
    def refuse(*_):
        raise JobFailed("cannot write: No space left on device")

    monkeypatch.setattr(FolderCheckpoints, "save", refuse)
    summary = replay.run_replay(small_settings(tmp_path), events=shop[0], items=shop[1])
    assert summary["state_digest"] == whole[1]["state_digest"]
    assert "could not be written" in caplog.text


def test_another_build_goes_on_and_records_which_ticks_it_folded_otherwise(monkeypatch, tmp_path, shop):
    settings = small_settings(tmp_path)
    interrupted(monkeypatch, settings, shop, after_ticks=6, in_fold=False)
    for path in (tmp_path / "checkpoints").glob("*/manifest.json"):
        path.write_bytes(b"torn")
    monkeypatch.setattr(replay.assemble, "build_digest", lambda _: "another build")
    monkeypatch.setattr(slates, "POLICY_VERSION", 99)
    replay.run_replay(settings, events=shop[0], items=shop[1])
    ledger = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [entry["differed"] for entry in ledger if "differed" in entry] == [[1, 2, 3, 4, 5, 6]]


def test_the_same_build_stops_when_a_tick_does_not_come_out_the_same(monkeypatch, tmp_path, shop):
    settings = small_settings(tmp_path)
    interrupted(monkeypatch, settings, shop, after_ticks=6, in_fold=False)
    for path in (tmp_path / "checkpoints").glob("*/manifest.json"):
        path.write_bytes(b"torn")
    monkeypatch.setattr(slates, "POLICY_VERSION", 99)
    with pytest.raises(LedgerMismatch, match="tick 1 gave other effects"):
        replay.run_replay(settings, events=shop[0], items=shop[1])


def test_the_key_champion_points_at_the_version_that_serves(whole):
    notices = [json.loads(line) for line in (whole[0] / "versions.jsonl").read_text().splitlines()]
    pointers = [n["version"] for n in notices if n["event"] == "champion"]
    assert pointers == [n["version"] for n in notices if n["event"] != "champion"]
    assert pointers[-1] == whole[1]["champion"]


def test_nothing_is_published_before_the_first_event(whole):
    said = [json.loads(line) for line in (whole[0] / "slates.jsonl").read_text().splitlines()]
    slates_ = [slate for slate in said if "tombstone" not in slate]
    assert min(s["event_at"] for s in slates_) > 1_767_571_200_000 and min(s["watermark"] for s in slates_) > 0


def test_a_catalogue_exported_after_the_history_is_known_from_the_start_and_that_is_recorded(shop, tmp_path):
    lines = [json.loads(line) for line in shop[1].read_text().splitlines()]
    newer = tmp_path / "items.jsonl"
    newer.write_text("".join(json.dumps({**x, "updated_at": "2030-01-01T00:00:00Z"}) + "\n" for x in lines))
    summary = replay.run_replay(small_settings(tmp_path / "out"), events=shop[0], items=newer)
    first = json.loads((tmp_path / "out" / "slates.jsonl").read_text().splitlines()[0])
    assert summary["input"]["items_newer_than_range"] == len(lines)
    assert first["candidates"]["n"] > 50


def test_a_checkpoint_of_other_tables_is_passed_over_and_the_ledger_folded(monkeypatch, tmp_path, shop, whole, caplog):
    settings = small_settings(tmp_path)
    interrupted(monkeypatch, settings, shop, after_ticks=6, in_fold=False)
    monkeypatch.setattr(Dedupe, "scalars", (*Dedupe.scalars, "n_of_a_later_build"))
    monkeypatch.setattr(Dedupe, "n_of_a_later_build", 0, raising=False)
    resumed = replay.run_replay(settings, events=shop[0], items=shop[1])
    assert "other tables" in caplog.text
    assert resumed["ledger_chain"] == whole[1]["ledger_chain"]

"""A worker that is started again under other settings."""

from __future__ import annotations

import shutil

import pytest

from stream_rec import config
from stream_rec.errors import SettingsError
from stream_rec.replay_topics import Asked, run_replay
from stream_rec.worker_run import Start
from tests.integration.ground import KEY, Ground

OTHER_KEY = "quite another key"
RATE = "learn.learning_rate=0.01"


@pytest.fixture
def lived(ground: Ground) -> Ground:
    """A pipeline that has taken twenty events and drained."""
    ground.create_topics().put_events(20)
    worker = ground.worker()
    ground.await_taken(20)
    worker.stop()
    return ground


def forget_checkpoints(ground: Ground) -> None:
    shutil.rmtree(ground.run_dir / "checkpoints")


def is_refusal_of_a_key(error: BaseException) -> bool:
    """Whether it names both keys by their fingerprints alone, and what to do."""
    both = [config.key_fingerprint(key.encode()) for key in (KEY, OTHER_KEY)]
    named = all(fingerprint in str(error) for fingerprint in both) and "bring the old key back" in str(error)
    secret = KEY in str(error) or OTHER_KEY in str(error)
    return isinstance(error, SettingsError) and error.exit_status == 2 and named and not secret


@pytest.mark.parametrize("by", ["checkpoint", "ledger"])
def test_another_privacy_key_stops_the_start_before_anything_is_claimed(lived: Ground, by: str) -> None:
    """Users would be strangers, and whoever asks to be forgotten could not be found."""
    if by == "ledger":
        forget_checkpoints(lived)
    assert is_refusal_of_a_key(lived.worker(f"privacy.key={OTHER_KEY}").ended())
    assert "claim" not in lived.kinds()
    lived.put_events(5, first=20)
    worker = lived.worker()
    lived.await_taken(25)
    assert worker.stop()["accepted"] == 25


def test_another_privacy_key_stops_a_replay_of_the_ledger(lived: Ground) -> None:
    asked = lived.settings(f"privacy.key={OTHER_KEY}", "replay.name=proof", out=lived.folder / "proof")
    with pytest.raises(SettingsError) as caught:
        run_replay(asked, Asked(from_ledger=True))
    assert is_refusal_of_a_key(caught.value)


def test_the_command_ends_with_2_and_says_no_secret(lived: Ground) -> None:
    worker = lived.process("worker", given={"STREAM_REC_PRIVACY__KEY": OTHER_KEY})
    assert worker.wait() == 2
    assert config.key_fingerprint(OTHER_KEY.encode()) in worker.words()
    assert OTHER_KEY not in worker.words()


def test_a_changed_setting_counts_from_the_claim_on_that_holds_it(lived: Ground) -> None:
    worker = lived.worker(RATE)
    lived.put_events(5, first=20)
    lived.await_taken(25)
    told = worker.stop()
    claims = [entry for entry in lived.entries() if entry["kind"] == "claim"]
    assert [claim["semantic"]["learn.learning_rate"] for claim in claims] == [0.01]
    digests = [entry["settings"] for entry in lived.entries()]
    assert digests == sorted(digests, key=[digests[0], claims[0]["settings"]].index)
    assert digests[0] != digests[-1]
    forget_checkpoints(lived)
    again = lived.worker(RATE, start=Start())
    lived.put_events(1, first=25)
    lived.await_taken(26)
    assert again.stop()["accepted"] == told["accepted"] + 1
    last = [entry for entry in lived.entries() if entry["kind"] == "claim"][-1]
    assert last["n"] > claims[-1]["n"] and "semantic" not in last, "what counts already is not said again"


def test_a_setting_of_operation_changes_nothing_in_the_ledger(lived: Ground) -> None:
    worker = lived.worker("tick.max_wait_ms=50")
    lived.put_events(5, first=20)
    lived.await_taken(25)
    worker.stop()
    assert len({entry["settings"] for entry in lived.entries()}) == 1


def test_a_setting_that_sizes_a_table_stops_the_start_and_is_named(lived: Ground) -> None:
    error = lived.worker("users.capacity=600").ended()
    assert isinstance(error, SettingsError) and error.exit_status == 2
    assert "users.capacity cannot be changed while a pipeline runs" in str(error)
    assert "claim" not in lived.kinds()

"""Two workers of one pipeline, each a process: who waits, who takes over, and who ends."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from tests.integration.ground import Ground, Process, until

FENCED = 4
SILENCE = "worker.silence_ms=2500"


def start(ground: Ground, name: str, *words: str, sets: Sequence[str] = ()) -> Process:
    """A worker of this name, with a run folder of its own as on another machine."""
    return ground.process(
        "worker",
        "--start",
        "earliest",
        *words,
        sets=(f"worker.instance={name}", SILENCE, *sets),
        out=ground.folder / name,
    )


@pytest.fixture
def first(ground: Ground) -> Process:
    """A worker that has taken ten events and lives."""
    ground.create_topics().put_events(10)
    made = start(ground, "first")
    ground.await_taken(10)
    return made


def learners(ground: Ground) -> list[str]:
    """Who has begun or claimed the ledger, in order."""
    return [entry["learner"] for entry in ground.entries() if entry["kind"] != "tick"]


def test_while_the_first_lives_the_second_ends_with_4_and_changes_nothing(ground: Ground, first: Process) -> None:
    second = start(ground, "second")
    assert second.wait() == FENCED
    assert "error: learner first is alive on this pipeline" in second.words() and "--take-over" in second.words()
    ground.put_events(5, first=10)
    ground.await_taken(15)
    assert learners(ground) == ["first"]
    assert first.state() == "running"
    assert first.stop() == 0, first.words()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_first_is_gone_the_second_stands_by_for_its_silence_and_takes_over(
    ground: Ground, first: Process, how: signal.Signals
) -> None:
    first.send(how)
    first.wait()
    second = start(ground, "second")
    second.await_state("standing by")
    assert (second.asked("/healthz")[0], second.asked("/readyz")[0]) == (200, 503)
    assert learners(ground) == ["first"], "nothing is claimed yet"
    second.await_state("running")
    ground.put_events(5, first=10)
    ground.await_taken(15)
    assert second.stop() == 0, second.words()
    assert learners(ground) == ["first", "second"]
    assert ground.totals()["accepted"] == 15 == ground.totals()["consumed"]


def test_a_take_over_fences_the_first_which_ends_with_4_and_the_name_of_the_second(
    ground: Ground, first: Process
) -> None:
    second = start(ground, "second", "--take-over")
    assert first.wait() == FENCED
    assert "error: learner second has claimed this pipeline at tick" in first.words()
    assert "must not be started again at once" in first.words()
    ground.put_events(5, first=10)
    ground.await_taken(15)
    assert second.stop() == 0, second.words()
    assert learners(ground) == ["first", "second"]
    assert ground.totals()["accepted"] == 15 == ground.totals()["consumed"]


def test_a_first_that_was_frozen_and_comes_back_ends_with_4_and_publishes_nothing(
    ground: Ground, first: Process
) -> None:
    first.send(signal.SIGSTOP)
    second = start(ground, "second")
    second.await_state("running")
    ground.put_events(5, first=10)
    ground.await_taken(15)
    first.send(signal.SIGCONT)
    assert first.wait() == FENCED
    assert "learner second has claimed this pipeline" in first.words()
    assert second.stop() == 0, second.words()
    assert learners(ground) == ["first", "second"]
    assert ground.totals()["accepted"] == 15 == ground.totals()["consumed"]


def test_a_twin_of_the_same_name_on_one_machine_is_kept_out_also_when_it_would_take_over(
    ground: Ground, first: Process
) -> None:
    twin = ground.process(
        "worker", "--take-over", sets=("worker.instance=first", SILENCE), out=ground.folder / "elsewhere"
    )
    assert twin.wait() == FENCED
    assert f"error: a worker of the name {ground.prefix}-first runs on this machine already" in twin.words()
    assert "give worker.instance another name" in twin.words()
    assert first.stop() == 0, first.words()
    assert learners(ground) == ["first"]


def test_two_names_cannot_share_a_run_folder(ground: Ground, first: Process) -> None:
    second = ground.process("worker", "--take-over", sets=("worker.instance=second",), out=ground.folder / "first")
    assert second.wait() == 1
    assert f"another program is writing to {ground.folder / 'first'}" in second.words()
    assert first.stop() == 0, first.words()


def test_the_same_name_goes_on_at_once_after_a_kill(ground: Ground, first: Process) -> None:
    """Were it to wait for a silence of ten minutes, this test would fail."""
    first.kill()
    again = start(ground, "first", sets=("worker.silence_ms=600000",))
    ground.put_events(5, first=10)
    ground.await_taken(15)
    until(lambda: again.asked("/readyz")[0] == 200, "it is ready")
    assert again.stop() == 0, again.words()
    assert learners(ground) == ["first", "first"]

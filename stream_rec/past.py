"""States that the fold of the ledger went through, for rollbacks: found by tick, proved by digest.

A worker takes what it has: a checkpoint that its ledger vouches for. A bounded replay must not depend on what its disk
kept, so it goes back to the cut of a version only and folds its ledger up to there where no checkpoint is left. A tick
that is folded again names the state it wants, and gets it either way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from stream_rec.component import SCALARS
from stream_rec.errors import CheckpointRefused, InputGone
from stream_rec.fold import Fold, vouched
from stream_rec.ports import Ports
from stream_rec.rollback import State, digest_of, learned_names
from stream_rec.stream.tick import Restore
from stream_rec.stream.watermark import BEFORE_TIME

NO_STATE = Restore(-1, "", "")


class Past:
    """Looks for earlier states.

    Args:
        ports: checkpoints, the ledger and its inputs.
        make_fold: a fold in the initial state, to go through the ledger again.
        live: whether only checkpoints are taken.
    """

    def __init__(self, ports: Ports, make_fold: Callable[[], Fold], *, live: bool) -> None:
        self._ports, self._make_fold, self._live = ports, make_fold, live
        self._found: tuple[Restore, State] | None = None
        """The state of the last answer, until it is taken."""

    def keep(self, name: str, ticks: Collection[int]) -> None:
        """Pin a checkpoint that is about to be saved, and let go of those that are of none of these ticks.

        Raises:
            JobFailed: an earlier save failed; the pins are set all the same.
        """
        store = self._ports.checkpoints
        store.pin(name)
        for pinned in store.pinned():
            if int(pinned.partition("-")[0]) not in ticks:
                store.unpin(pinned)

    def answer(self, fold: Fold) -> Restore | None:
        """The fact that answers the rollback which a state wants; None when it wants none."""
        wanted = fold.pipeline.wanted
        if wanted is None:
            return None
        try:
            number, state = self._look(wanted)
        except (CheckpointRefused, InputGone) as error:
            return NO_STATE._replace(refused=str(error))
        names = learned_names(fold.pipeline.components())
        if missing := sorted(set(names) - state.keys()):
            return NO_STATE._replace(refused=f"the state of tick {number} was written by a build without {missing[0]}")
        if wanted["version"] and wanted["version"] not in _versions_of(state):
            return NO_STATE._replace(refused=f"the state of tick {number} is not of that version's cut")
        answer = Restore(number, digest_of(state, names))
        self._found = answer, state
        return answer

    def state(self, restore: Restore) -> State:
        """The state that a tick names, from wherever it can be had.

        Raises:
            InputGone: there is no checkpoint of it and its inputs or ledger entries are gone.
        """
        found, self._found = self._found, None
        if found is not None and found[0] == restore:
            return found[1]
        return self._state_of(restore.tick)

    def _look(self, wanted: Mapping[str, Any]) -> tuple[int, State]:
        """The tick and the state to go back to.

        Raises:
            CheckpointRefused: there is none; says why.
            InputGone: as `state`.
        """
        if not self._live:
            if wanted["tick"] < 0:
                raise CheckpointRefused("no version had been cut by that time")
            return wanted["tick"], self._state_of(wanted["tick"])
        for manifest, name in self._vouched():
            seen_ms = manifest.get("event_at_ms", manifest["cut_at_ms"])
            in_time = not wanted["version"] and BEFORE_TIME < seen_ms <= wanted["event_at_ms"]
            if in_time or (wanted["version"] and manifest["tick"] == wanted["tick"]):
                state = self._ports.checkpoints.load(name)[1]
                # Kept until a version is cut: the next start may have to fold this rollback again.
                self._ports.checkpoints.pin(name)
                return int(manifest["tick"]), state
        what = f"the state at the cut of {wanted['version']}" if wanted["version"] else "a state as old as that"
        raise CheckpointRefused(f"{what} is not kept any more")

    def _vouched(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Manifests and names of the checkpoints that the ledger vouches for, newest first."""
        store = self._ports.checkpoints
        for name in store.names():
            try:
                manifest: dict[str, Any] = store.manifest(name)
            except CheckpointRefused:
                continue
            if vouched(manifest, self._ports.publisher):
                yield manifest, name

    def _state_of(self, number: int) -> State:
        for manifest, name in self._vouched():
            if manifest["tick"] == number:
                try:
                    return self._ports.checkpoints.load(name)[1]
                except CheckpointRefused:
                    break
        return self._folded(number)

    def _folded(self, number: int) -> State:
        """The state of a tick, by folding; see `fold_to`."""
        fold, _ = self.fold_to(number, newest=number)
        if fold.positions.number != number:
            raise InputGone(f"the state of tick {number} is wanted for a rollback, and the ledger does not reach it")
        return fold.pipeline.snapshot()

    def fold_to(
        self, number: int, *, newest: int, folded: Callable[[int, int], None] = lambda *_: None
    ) -> tuple[Fold, int]:
        """Fold the ledger up to a tick, muted, from the newest checkpoint before it.

        Args:
            number: the tick.
            newest: tick of the newest checkpoint that may be taken; -1: none, the fold begins with the ledger.
            folded: hears after each tick how many are folded, and of how many.

        Returns:
            The fold, at that tick or at the end of the ledger, and the tick that it began after, -1 without a
            checkpoint.

        Raises:
            InputGone: inputs or entries can no longer be read.
            LedgerMismatch: a tick gave other effects than its entry records, or the input differs.
        """
        fold = self._make_fold()
        fold.past = self.state
        first = fold.restore(self._ports.checkpoints, self._ports.publisher, newest=newest)
        began = fold.positions.number
        for offset, raw in self._ports.publisher.read_ledger(first):
            if fold.positions.number >= number:
                break
            fold.redo(offset, raw, self._ports.source)
            folded(fold.positions.number - began, number - began)
        return fold, began


def _versions_of(state: State) -> set[str]:
    progress = state["progress"][SCALARS]
    return {progress["champion"], progress["challenger"]}

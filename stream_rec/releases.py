"""Which version serves: cuts, promotions, calls back and rollbacks of a tick, and the records that say them.

A rollback needs a state of the past, which the pipeline does not hold. It goes the way of durable weights: the tick
that reads the command puts what is wanted into the state (`Release.wanted`), the loop looks for that state between
ticks, and the tick fact `restore` names it by its tick and digest, or says why there is none. The fold of that tick is
given the state itself, and any fold of the ledger can have it: from a checkpoint, or by folding the ledger up to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy

from stream_rec.component import Component
from stream_rec.events import Output, Topic
from stream_rec.learn.learner import Learner
from stream_rec.stream.intake import Facts
from stream_rec.stream.tick import Tick

Array = np.ndarray[Any, np.dtype[Any]]
MAX_CUTS = 8
"""Versions that are remembered with the tick of their cut."""


class Release(Component):
    """Versions on their way, and whether promotion is stopped."""

    scalars = ("frozen", "waiting", "stored", "cuts", "pinned", "wanted", "restored", "judged")

    def __init__(self) -> None:
        self.frozen = False
        """Promotion is stopped, by a control record, a call back or a rollback, until `unfreeze`."""
        self.waiting: dict[str, dict[str, Any]] = {}
        """Versions that are not yet promoted, with what their notice will say."""
        self.stored: list[str] = []
        """Those of them whose weights are stored: they wait for `unfreeze` or the brake only."""
        self.cuts: list[dict[str, Any]] = []
        """The newest versions that were to serve, in order: `version`, `tick` of the cut, `at_ms` of the newest event
        then, `sha256` of the weights file."""
        self.pinned = ""
        """Version that people want to be able to return to; empty: none."""
        self.wanted: dict[str, Any] | None = None
        """Rollback on its way: `version` or `event_at_ms`, the `tick` of the cut that this means, `command_id`."""
        self.restored = -1
        """Tick whose learned half was restored last; -1: none was."""
        self.judged: dict[str, Any] | None = None
        """Verdict on the last challenger, for the next metrics line."""


class Releases:
    """Decides which version serves from a tick on.

    Args:
        learner: cuts, judges and promotes.
        facts: tell event time; verdicts are counted there.
    """

    def __init__(self, learner: Learner, facts: Facts) -> None:
        self._learner, self._facts, self._accounting = learner, facts, facts.accounting
        self.state = Release()

    def pending_weights(self) -> dict[str, dict[str, Array]]:
        """Candidates whose weights must still become durable."""
        versions = self._learner.versions
        return {
            version: versions.tensors("champion" if version == versions.champion_version else "challenger")
            for version in self.state.waiting
            if version not in self.state.stored
        }

    def freeze(self, frozen: bool) -> None:
        """Stop promotion or let it go on; to let it go on also accepts a stream that the brake does not."""
        self.state.frozen = frozen
        if not frozen and self._learner.oversight.braking:
            self._learner.oversight.brake.accept()
            self._accounting.note("brake_accepted")

    def first(self, tick: Tick) -> tuple[list[Output], dict[str, dict[str, Array]]]:
        """The notice and the weights of the version that serves before anything was learned."""
        versions = self._learner.versions
        version, tensors = versions.champion_version, versions.tensors("champion")
        says = self.state.waiting[version] = _stored(tensors)
        self._remember(tick, version, says["sha256"])
        return [_notice(tick, version, "initial", says), _pointer(tick, version)], {version: tensors}

    def step(self, tick: Tick) -> tuple[list[Output], dict[str, dict[str, Array]]]:
        """Call back, cut, promote: the notices of a tick, and weights to be stored."""
        out = self._call_back(tick)
        weights = {} if self._stopped() else self._cut(tick)
        return out + self._promote(tick), weights

    def take_judged(self) -> dict[str, Any] | None:
        """Verdict on the last challenger since the last call: `version`, `verdict`, `reasons` and the difference."""
        judged, self.state.judged = self.state.judged, None
        return judged

    def _stopped(self) -> bool:
        return self.state.frozen or self._learner.oversight.braking

    def _call_back(self, tick: Tick) -> list[Output]:
        """Let the previous champion serve again when the guard has shown the new one to be worse."""
        guard, versions, state = self._learner.versions.guard, self._learner.versions, self.state
        record = guard.look()
        if record["verdict"] == "passed":
            guard.end()
        if record["verdict"] != "roll_back" or not versions.progress.previous:
            return []
        called_back = versions.champion_version
        versions.roll_back()
        state.frozen = True
        return self._back(tick, called_back, record)

    def _back(self, tick: Tick, called_back: str, record: Mapping[str, Any]) -> list[Output]:
        """An earlier version serves again; what waited is dropped."""
        version = self._learner.versions.champion_version
        self.state.waiting, self.state.stored = {}, []
        self._accounting.note("version_rollback")
        says = {"parent": called_back, "verdict": record, "sha256": self._sum_of(version)}
        return [_notice(tick, version, "rollback", says), _pointer(tick, version)]

    def returned(self, tick: Tick, called_back: str, record: Mapping[str, Any]) -> list[Output]:
        """The notices of a rollback whose state has just been restored; promotion stays frozen.

        Args:
            tick: names the restored state.
            called_back: version that served until now.
            record: what was asked for.
        """
        assert tick.restore is not None
        self.state.frozen, self.state.restored = True, tick.restore.tick
        return self._back(tick, called_back, record)

    def _promote(self, tick: Tick) -> list[Output]:
        """Candidates whose weights this tick reports durable become champion, in order."""
        state, out = self.state, []
        state.stored += [version for version in tick.weights_durable if version in state.waiting]
        if self._stopped():
            return []
        for version in state.stored:
            says = state.waiting.pop(version)
            if self._learner.promote(version):
                out += [_notice(tick, version, "promote", says), _pointer(tick, version)]
        state.stored = []
        return out

    def _cut(self, tick: Tick) -> dict[str, dict[str, Array]]:
        """A challenger, when one is due; its weights are stored before it may serve."""
        if not self._learner.cut_due():
            return {}
        cut = self._learner.cut()
        verdict = {name: value for name, value in cut.verdict.items() if name not in ("version", "parent")}
        told = ("verdict", "reasons", "recall_difference", "interval", "n_visits", "n_users")
        self.state.judged = {"version": cut.version, **{name: verdict[name] for name in told}}
        if verdict["verdict"] != "promote":
            self._accounting.note(f"version_{verdict['verdict']}")
            return {}
        record = {
            "parent": cut.verdict["parent"],
            "verdict": verdict,
            "n_examples": self._learner.versions.progress.n_examples,
        }
        self._await(tick, cut.version, record, cut.tensors)
        return {cut.version: cut.tensors}

    def revive(self, tick: Tick, version: str) -> dict[str, dict[str, Array]]:
        """Let a challenger that the gate held serve as soon as its weights are stored; empty when there is none such.

        Returns:
            Weights to be stored.
        """
        tensors = self._learner.versions.revive(version)
        if tensors is None:
            return {}
        progress = self._learner.versions.progress
        verdict = {"verdict": "promote", "reasons": ["held by the gate, promoted by command"]}
        record = {"parent": progress.champion, "verdict": verdict, "n_examples": progress.n_examples}
        self._await(tick, version, record, tensors)
        return {version: tensors}

    def _await(self, tick: Tick, version: str, record: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
        says = self.state.waiting[version] = {**record, **_stored(tensors)}
        self._remember(tick, version, says["sha256"])

    # ---- what can be returned to

    def cut_of(self, version: str) -> dict[str, Any] | None:
        """What is remembered of the cut of a version; see `Release.cuts`."""
        return next((cut for cut in self.state.cuts if cut["version"] == version), None)

    def newest_cut(self, event_at_ms: int) -> dict[str, Any] | None:
        """The newest cut before which no event was later than `event_at_ms`."""
        return next((cut for cut in reversed(self.state.cuts) if cut["at_ms"] <= event_at_ms), None)

    def kept_ticks(self) -> set[int]:
        """Ticks whose state must be kept to return to.

        They are the cuts of the champion, the one before it, the one that waits and the pinned one, and the state
        restored last.
        """
        progress = self._learner.versions.progress
        named = {progress.champion, progress.previous, progress.challenger, self.state.pinned}
        ticks = {cut["tick"] for cut in self.state.cuts if cut["version"] in named}
        return ticks | {self.state.restored} - {-1}

    def _remember(self, tick: Tick, version: str, sha256: str) -> None:
        """Note a cut; of the others the newest stay, and those that could be returned to in any case."""
        others = [cut for cut in self.state.cuts if cut["version"] != version]
        at_ms = int(self._facts.watermarks.newest_ms.max())
        cuts = [*others, {"version": version, "tick": tick.number, "at_ms": at_ms, "sha256": sha256}]
        kept = self.kept_ticks()
        self.state.cuts = [cut for cut in cuts[:-MAX_CUTS] if cut["tick"] in kept] + cuts[-MAX_CUTS:]

    def _sum_of(self, version: str) -> str | None:
        cut = self.cut_of(version)
        return None if cut is None else str(cut["sha256"])


def _stored(tensors: Mapping[str, Array]) -> dict[str, str]:
    """Digest of the weights file that these tensors make."""
    return {"sha256": hashlib.sha256(safetensors.numpy.save(dict(tensors))).hexdigest()}


def _notice(tick: Tick, version: str, event: str, says: Mapping[str, Any]) -> Output:
    body = {
        "version": version,
        "event": event,
        "tick": tick.number,
        "event_at": tick.cut_at_ms,
        "url": f"weights/{version}.safetensors",
        **says,
    }
    return Output(Topic.VERSIONS, version.encode(), msgspec.json.encode(body))


def _pointer(tick: Tick, version: str) -> Output:
    """The record under the key `champion`: which version serves from this tick on."""
    body = {"version": version, "event": "champion", "tick": tick.number, "event_at": tick.cut_at_ms}
    return Output(Topic.VERSIONS, b"champion", msgspec.json.encode(body))

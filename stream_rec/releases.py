"""Which version serves: cuts, promotions and calls back of a tick, and the records that say them."""

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
from stream_rec.stream.accounting import Accounting
from stream_rec.stream.tick import Tick

Array = np.ndarray[Any, np.dtype[Any]]


class Release(Component):
    """Versions on their way, and whether promotion is stopped."""

    scalars = ("frozen", "waiting", "stored", "sums", "judged")

    def __init__(self) -> None:
        self.frozen = False
        """Promotion is stopped, by a control record or a call back, until `unfreeze`."""
        self.waiting: dict[str, dict[str, Any]] = {}
        """Versions that are not yet promoted, with what their notice will say."""
        self.stored: list[str] = []
        """Those of them whose weights are stored: they wait for `unfreeze` or the brake only."""
        self.sums: dict[str, str] = {}
        """SHA-256 of the weights files of the champion and the one before it."""
        self.judged: dict[str, Any] | None = None
        """Verdict on the last challenger, for the next metrics line."""


class Releases:
    """Decides which version serves from a tick on.

    Args:
        learner: cuts, judges and promotes.
        accounting: where verdicts are counted.
    """

    def __init__(self, learner: Learner, accounting: Accounting) -> None:
        self._learner, self._accounting = learner, accounting
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
        self.state.sums[version] = says["sha256"]
        return [_notice(tick, version, "initial", says), _pointer(tick, version)], {version: tensors}

    def step(self, tick: Tick) -> tuple[list[Output], dict[str, dict[str, Array]]]:
        """Call back, cut, promote: the notices of a tick, and weights to be stored."""
        out = self._call_back(tick)
        weights = {} if self._stopped() else self._cut()
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
        called_back, dropped = versions.champion_version, versions.progress.challenger
        versions.roll_back()
        state.frozen = True
        state.waiting.pop(dropped, None)
        state.stored = [version for version in state.stored if version != dropped]
        self._accounting.note("version_rollback")
        version = versions.champion_version
        says = {"parent": called_back, "verdict": record, "sha256": state.sums[version]}
        return [_notice(tick, version, "rollback", says), _pointer(tick, version)]

    def _promote(self, tick: Tick) -> list[Output]:
        """Candidates whose weights this tick reports durable become champion, in order."""
        state, out = self.state, []
        state.stored += [version for version in tick.weights_durable if version in state.waiting]
        if self._stopped():
            return []
        for version in state.stored:
            says = state.waiting.pop(version)
            if self._learner.promote(version):
                before = self._learner.versions.progress.previous
                state.sums = {before: state.sums[before], version: says["sha256"]}
                out += [_notice(tick, version, "promote", says), _pointer(tick, version)]
        state.stored = []
        return out

    def _cut(self) -> dict[str, dict[str, Array]]:
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
        self.state.waiting[cut.version] = {**record, **_stored(cut.tensors)}
        return {cut.version: cut.tensors}


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

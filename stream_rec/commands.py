"""What people tell the running pipeline, and its answers: a notice a command, done or refused with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from stream_rec.component import Component
from stream_rec.errors import JobFailed
from stream_rec.events import MISSING, Output, Topic
from stream_rec.learn.learner import Learner
from stream_rec.releases import Releases
from stream_rec.rollback import State, go_back
from stream_rec.slates import SlateStage
from stream_rec.stream.forgetting import forget_users
from stream_rec.stream.intake import Intake, Taken
from stream_rec.stream.tick import Tick
from stream_rec.stream.users import stable, words_of

Array = np.ndarray[Any, np.dtype[Any]]
Weights = dict[str, dict[str, Array]]


class Commands:
    """Obeys the control records of a tick, when its events are folded.

    - `freeze`, `unfreeze`: stop promotion, let it go on; the latter also accepts a stream that the brake does not.
    - `promote` lets the challenger serve that the gate held at the last cut; not while promotion is stopped.
    - `pin` keeps the state at a version's cut until another one is pinned, so that it can be returned to.
    - `rollback` to a version restores the learned half as of its cut, to an event time as of the newest kept state
      that had seen nothing later; promotion is frozen from the command on. It is answered when the state is there.
    - `explore` lets slates be drawn, or not, whatever was measured of the shop's clicks.
    - `forget` removes a user.

    Args:
        intake: holds the facts.
        learner: holds the learned half.
        releases: decide which version serves.
        slates: refresh slates.
    """

    def __init__(self, intake: Intake, learner: Learner, releases: Releases, slates: SlateStage) -> None:
        self._intake, self._learner, self._releases, self._slates = intake, learner, releases, slates
        self._facts = intake.facts

    def obey(self, tick: Tick, taken: Taken) -> tuple[list[Output], Weights]:
        """Outputs of a tick's commands, in order, and weights to be stored."""
        out: list[Output] = []
        weights: Weights = {}
        found = self._forget(taken)
        times = Counter[str]()
        for word, arguments in taken.controls:
            refused: str | None = ""
            says: dict[str, Any] = {}
            match word:
                case "freeze" | "unfreeze":
                    self._releases.freeze(word == "freeze")
                case "forget":
                    key = arguments["user_key"]
                    # Also for a user who is not known (any more): a slate of theirs may still be out.
                    out.append(Output(Topic.SLATES, key.encode(), None))
                    says["found"] = found.get(key, False) and not times[key]
                    times[key] += 1
                case "promote":
                    refused, stored = self._promote(tick, arguments["version"])
                    weights |= stored
                case "pin":
                    refused = self._pin(arguments["version"])
                    if not refused:
                        out.append(_pinned(tick, arguments["version"]))
                case "rollback":
                    refused = self._ask_back(arguments)
                case _:
                    refused = self._explore(arguments["explore"])
            if refused is not None:
                out.append(_answer(tick, word, arguments, refused=refused, **says))
        return out, weights

    # ---- versions

    def _promote(self, tick: Tick, version: str) -> tuple[str, Weights]:
        """Why it is refused, "" when it is not, and the weights to be stored."""
        state, oversight = self._releases.state, self._learner.oversight
        if state.wanted is not None:
            return "a rollback is on its way", {}
        if oversight.braking:
            return f"the brake is on ({'; '.join(oversight.brake.state().reasons)}); unfreeze accepts the stream", {}
        if state.frozen:
            return "promotion is frozen; unfreeze comes first", {}
        if version in state.waiting:
            return "", {}
        if version == self._learner.versions.champion_version:
            return "it serves already", {}
        weights = self._releases.revive(tick, version)
        if weights:
            return "", weights
        held = self._learner.versions.progress.held
        return f"only the challenger that the gate held at the last cut can be promoted: {held or 'there is none'}", {}

    def _pin(self, version: str) -> str:
        cut = self._releases.cut_of(version)
        if cut is None:
            return self._unknown(version)
        if cut["tick"] not in self._releases.kept_ticks():
            return f"the state at its cut is not kept any more; kept are those of {self._kept()}"
        self._releases.state.pinned = version
        return ""

    def _ask_back(self, arguments: Mapping[str, Any]) -> str | None:
        """Why a rollback is refused; None when it is on its way and answered later."""
        state, version, at_ms = self._releases.state, arguments.get("version"), arguments.get("event_at_ms")
        if state.wanted is not None:
            return "another rollback is on its way"
        if not state.cuts:
            return "nothing has been learned yet"
        cut = self._releases.newest_cut(int(at_ms)) if at_ms is not None else self._releases.cut_of(str(version))
        if cut is None and version is not None:
            return self._unknown(version)
        state.wanted = {
            "version": version,
            "event_at_ms": at_ms,
            "tick": -1 if cut is None else cut["tick"],
            "command_id": arguments.get("command_id"),
            "was_frozen": state.frozen,
        }
        state.frozen = True
        return None

    def restored(self, tick: Tick, then: State | None, components: Mapping[str, Component]) -> list[Output]:
        """Go back to the state that the tick names, or say why there is none.

        Args:
            tick: its `restore` answers the rollback that is wanted.
            then: that state; None when it is refused.
            components: the component table.

        Raises:
            JobFailed: nothing was wanted, or the state is not given.
        """
        answer, state = tick.restore, self._releases.state
        wanted, state.wanted = state.wanted, None
        if answer is None or wanted is None or (then is None and not answer.refused):
            raise JobFailed(f"tick {tick.number} restores a state that nobody asked for; this is a bug, report it")
        if then is None:
            state.frozen = wanted["was_frozen"]
            return [_answer(tick, "rollback", wanted, refused=answer.refused)]
        called_back, version = self._learner.versions.champion_version, wanted["version"] or ""
        go_back(self._facts, self._learner, components, then=then, version=version)
        where = f"to the cut of {version}" if version else f"to event time {wanted['event_at_ms']}"
        record = {"verdict": "roll_back", "reasons": [f"by command, {where}: the state of tick {answer.tick}"]}
        out = self._releases.returned(tick, called_back, record)
        serves = self._learner.versions.champion_version
        return [*out, _answer(tick, "rollback", {**wanted, "version": serves}, state_tick=answer.tick)]

    def _explore(self, is_on: bool) -> str:
        exploration = self._learner.exploration
        if not exploration.draws_at_all:
            return f"explore.policy is {exploration.plan.draws.policy}, which draws nothing; set another one"
        exploration.switch.tell(is_on)
        return ""

    def _unknown(self, version: str) -> str:
        return f"no version {version} is known to this pipeline; the state is kept at the cuts of {self._kept()}"

    def _kept(self) -> str:
        ticks = self._releases.kept_ticks()
        return ", ".join(cut["version"] for cut in self._releases.state.cuts if cut["tick"] in ticks) or "none"

    # ---- users

    def _forget(self, taken: Taken) -> dict[str, bool]:
        """Remove the users that `forget` names from the state, what they did in this tick too; whether each was known.

        What stays of them is said in `stream_rec.stream.forgetting`.
        """
        keys = {a["user_key"]: bytes.fromhex(a["user_key"]) for word, a in taken.controls if word == "forget"}
        if not keys:
            return {}
        rows = forget_users(self._facts, list(keys.values()))
        self._slates.refresh.forget(rows)
        self._learner.forget_users(stable(words_of(list(keys.values()))))
        self._intake.forget_ids()
        return {key: row != MISSING for key, row in zip(keys, rows, strict=True)}


def _answer(tick: Tick, word: str, arguments: Mapping[str, Any], *, refused: str = "", **says: Any) -> Output:
    body = {
        "event": "command",
        "command": word,
        "status": "refused" if refused else "done",
        "tick": tick.number,
        "event_at": tick.cut_at_ms,
        "command_id": arguments.get("command_id"),
        **says,
    }
    # A version that is named in the topic is one whose weights are stored; a refusal says in words what was asked for.
    if refused:
        body["reason"] = refused
    elif arguments.get("version"):
        body["version"] = arguments["version"]
    return Output(Topic.VERSIONS, f"command-{word}".encode(), msgspec.json.encode(body))


def _pinned(tick: Tick, version: str) -> Output:
    """The record under the key `pinned`: which version can be returned to whatever comes after it."""
    body = {"version": version, "event": "pinned", "tick": tick.number, "event_at": tick.cut_at_ms}
    return Output(Topic.VERSIONS, b"pinned", msgspec.json.encode(body))

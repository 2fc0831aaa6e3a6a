"""What one tick asks of the outside world. The pipeline only says it; the loop performs it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_rec.events import Output


@dataclass(frozen=True, slots=True)
class Effects:
    """Output records in order, and weights to be stored off the loop."""

    outputs: Sequence[Output]
    weights: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """Version to tensors, of a candidate that waits for its weights to be durable."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The tick's `consumed = accepted + duplicate + late + dead_lettered + ignored`."""
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Outcome to reason to records of the tick."""
    brake: Sequence[str] = ()
    """Why nothing is learned or promoted now; empty when it is."""

    def digest(self) -> str:
        """SHA-256 over the output records, topic, key and value length-prefixed."""
        parts: list[bytes] = []
        for topic, key, value in self.outputs:
            name = topic.encode()
            parts += (
                struct.pack("<qqq", len(name), len(key), -1 if value is None else len(value)),
                name,
                key,
                value or b"",
            )
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def sizes(self) -> dict[str, list[int]]:
        """Topic to [records, bytes of their lines in a run folder]."""
        out: dict[str, list[int]] = {}
        for output in self.outputs:
            entry = out.setdefault(output.topic, [0, 0])
            entry[0] += 1
            entry[1] += len(line_of(output))
        return out


def line_of(output: Output) -> bytes:
    """The line of a run folder that stands for an output record; a tombstone names its key."""
    if output.value is None:
        return b'{"key":"' + output.key + b'","tombstone":true}\n'
    return output.value + b"\n"

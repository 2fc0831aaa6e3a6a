"""A checkpoint at rest in memory: what a process that died leaves behind for the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from stream_rec.component import SCALARS, Snapshot


class StoredCheckpoint:
    """A checkpoint at rest: manifest and scalars as JSON, columns as private copies."""

    def __init__(self, manifest: Mapping[str, object], components: Mapping[str, Snapshot]) -> None:
        self.torn = False
        self._manifest = json.dumps(manifest)
        self._scalars = {name: json.dumps(snapshot[SCALARS]) for name, snapshot in components.items()}
        self._columns = {name: _copy_columns(snapshot) for name, snapshot in components.items()}

    def read(self) -> tuple[dict[str, object], dict[str, Snapshot]]:
        """Fresh copies, as `CheckpointStore.load` gives them."""
        components: dict[str, Snapshot] = {
            name: {**_copy_columns(columns), SCALARS: json.loads(self._scalars[name])}
            for name, columns in self._columns.items()
        }
        return json.loads(self._manifest), components


def _copy_columns(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: column.copy() if isinstance(column, np.ndarray) else list(column)
        for name, column in snapshot.items()
        if name != SCALARS
    }

"""Seconds to save and load 500 MB of state, beside a bare write with fsync of as many bytes in the same run.

Run: python tests/bench/bench_checkpoint.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stream_rec.component import Snapshot
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.durable import write_file

N_COMPONENTS = 10
BYTES_EACH = 50_000_000


def state() -> dict[str, Snapshot]:
    """Ten components of 50 MB, and 200,000 titles."""
    rng = np.random.default_rng(0)
    out: dict[str, Snapshot] = {
        f"c{n}": {"column": rng.integers(0, 2**62, BYTES_EACH // 8), "": {"n": n}} for n in range(N_COMPONENTS)
    }
    out["items"] = {"titles": [f"title of item {n}" for n in range(200_000)], "": {}}
    return out


def seconds(since: float) -> float:
    return round(time.perf_counter() - since, 3)


def main() -> None:
    components = state()
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        began = time.perf_counter()
        write_file(
            Path(folder) / "bare", [components[f"c{n}"]["column"].view(np.uint8).data for n in range(N_COMPONENTS)]
        )
        bare_s = seconds(began)
        store = FolderCheckpoints(Path(folder) / "checkpoints")
        began = time.perf_counter()
        store.save("1-a", {"cut_at_ms": 0}, components)
        returned_s = seconds(began)
        store.flush()
        durable_s = seconds(began)
        began = time.perf_counter()
        store.load("1-a")
        load_s = seconds(began)
        store.close()
    print(f"bare write and fsync  {bare_s:.3f} s")
    print(f"save returned after   {returned_s:.4f} s")
    print(f"durable after         {durable_s:.3f} s  ({durable_s / bare_s:.2f} x the bare write)")
    print(f"loaded and verified   {load_s:.3f} s  ({load_s / bare_s:.2f} x the bare write)")


if __name__ == "__main__":
    main()

"""A year of versions: how long `versions list` takes, and what `versions gc` leaves of the weights on the disk.

    python -m tests.bench.bench_versions [--versions 10000] [--days 365] [--weights-bytes 4096]

The run folder is written as a replay writes one: a ledger entry and two notices a version, with a verdict. MLflow's
store is not part of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of, encode
from stream_rec.version_facts import DAY_MS

LIMIT_S = 2.0
BEGAN_MS = 1_767_225_600_000
CELL = {"judged": "not worse", "p": 1.0, "n_visits": 270, "n_users": 204, "margin": 0.02, "recall_difference": 0.004}
VERDICT = {
    "verdict": "promote", "reasons": ["not shown worse than champion"], "recall_difference": 0.004,
    "interval": [-0.02, 0.03], "n_visits": 270, "rivals": dict.fromkeys(("champion", "yesterday", "linear"), CELL),
    "slices": dict.fromkeys(("new_users", "new_items", "head", "tail"), CELL),
}  # fmt: skip


def write_run(folder: Path, n: int, days: int, weights_bytes: int) -> None:
    """A run folder with `n` versions over `days`."""
    (folder / "weights").mkdir()
    chain, entries, lines = GENESIS_CHAIN, [], []
    for number in range(n):
        name, at = f"v{number}-{number:012x}", BEGAN_MS + number * days * DAY_MS // n
        told = {"version": name, "event": "promote", "tick": number, "event_at": at, "sha256": "0" * 64}
        parent = {"parent": f"v{number - 1}-{number - 1:012x}", "verdict": VERDICT} if number else {}
        pointer = {"version": name, "event": "champion", "tick": number, "event_at": at}
        both = [json.dumps(notice).encode() + b"\n" for notice in (told | parent, pointer)]
        outputs = {"versions": [2, sum(map(len, both))]}
        body = {"outputs": outputs, "mode": "replay", "settings": "0" * 16, "build": "0" * 16}
        entry = encode(number, chain, "tick" if number else "genesis", body)
        chain = chain_of(entry)
        entries.append(entry + b"\n")
        lines += both
        (folder / "weights" / f"{name}.safetensors").write_bytes(b"\0" * weights_bytes)
    (folder / "versions.jsonl").write_bytes(b"".join(lines))
    (folder / "ledger.jsonl").write_bytes(b"".join(entries))


def timed(*words: str) -> tuple[float, str]:
    """Seconds that a command takes in a process of its own, and what it said."""
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "stream_rec.cli", "versions", *words], capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began_s, done.stdout


def main() -> None:
    """Print the times beside the limit, and the bytes before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--weights-bytes", type=int, default=4_096)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_run(Path(name), given.versions, given.days, given.weights_bytes)
        for words in (("list",), ("list", "--json"), ("show", "champion"), ("gc",)):
            took_s, said = timed(*words, "--out", name)
            limit = f" (limit {LIMIT_S:g} s)" if words[0] == "list" else ""
            print(f"versions {' '.join(words)}: {took_s:.2f} s{limit}, {len(said.splitlines()):,} lines")
        print(said.splitlines()[-1])
        left = len(list((Path(name) / "weights").iterdir()))
        print(f"{left} weights files are left of {given.versions:,}")


if __name__ == "__main__":
    main()

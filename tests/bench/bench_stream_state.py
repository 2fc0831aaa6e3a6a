"""CPU microseconds per event of the stream state at full size: 1M users, 4M history rows, 2M digests, ticks of 1,024.

Run at the top of the tree: PYTHONPATH=. python tests/bench/bench_stream_state.py [n_ticks]
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict

import numpy as np

from stream_rec.stream.dedupe import Dedupe
from stream_rec.stream.histories import Histories, NewRows
from stream_rec.stream.users import Users
from stream_rec.stream.watermark import Watermarks

TICK = 1_024
N_USERS = 1_200_000
STAGES = (
    "dedupe",
    "watermark",
    "users.rows",
    "users.link",
    "users.visits",
    "histories.append",
    "histories.gather 300x50",
)


def main(n_ticks: int) -> None:
    rng = np.random.default_rng(1)
    dedupe, marks, users, histories = Dedupe(), Watermarks(), Users(), Histories()
    spent: dict[str, list[float]] = defaultdict(list)
    at_ms = 1_700_000_000_000
    for _ in range(n_ticks):
        digests = rng.integers(0, 1 << 63, TICK).tolist()
        who = (rng.random(TICK) ** 2 * N_USERS).astype(np.int64)
        raw = np.stack((who, who * 31), axis=1).tobytes()
        keys: list[bytes | None] = [raw[i * 16 : i * 16 + 16] for i in range(TICK)]
        sessions = (who + 1).tolist()
        times = at_ms + rng.integers(0, 20_000, TICK)
        at_ms += 10_000
        partitions = (who % 4).tolist()
        item, zero = (who % 5_000).astype(np.int32), np.zeros(TICK, np.int64)
        stamps = [time.process_time()]
        dedupe.admit_many(digests)
        stamps.append(time.process_time())
        marks.judge_many(partitions, times)
        marks.advance()
        stamps.append(time.process_time())
        rows = users.rows(keys, times, [0] * TICK)
        stamps.append(time.process_time())
        before = users.link(rows, np.ones(TICK, np.bool_), histories.next_serial)
        stamps.append(time.process_time())
        visits = users.visits(rows, sessions, times, before)
        stamps.append(time.process_time())
        histories.append_many(NewRows(item, times, np.full(TICK, 2, np.int8), visits.serial, zero, before, rows))
        stamps.append(time.process_time())
        histories.gather(before[:300], 50)
        stamps.append(time.process_time())
        users.take_evicted()
        for stage, a, b in zip(STAGES, stamps, stamps[1:], strict=False):
            spent[stage].append(b - a)
    for stage in STAGES:
        us = np.array(spent[stage]) * 1e6
        last = us[len(us) * 9 // 10 :]
        print(
            f"{stage:24} median {np.median(us) / TICK:6.3f} us/event  last tenth {np.median(last) / TICK:6.3f}"
            f"  mean {us.mean() / TICK:6.3f}  worst tick {us.max() / 1e3:7.2f} ms"
        )
    for part in (dedupe, users, histories):
        name = type(part).__name__
        start = time.process_time()
        copy = part.snapshot()
        taken = time.process_time() - start
        fresh = type(part)()
        start = time.process_time()
        fresh.restore(copy)
        restored = time.process_time() - start
        size = part.n_bytes() / 1e6
        print(f"{name:10} {size:6.0f} MB  snapshot {taken * 1e3:6.1f} ms  restore {restored * 1e3:7.1f} ms")
    print(f"users {users.n_users}, history rows {histories.used()}, overflow {dedupe._index.n_overflowed}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000)

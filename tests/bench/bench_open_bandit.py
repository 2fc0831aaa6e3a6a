"""Each of two policies' value from the other's log, beside what it earned itself (Open Bandit, men's campaign).

Run: `STREAM_REC_DATA=... python -m tests.bench.bench_open_bandit`

The logs are the small release: 10,000 rows each, one of uniform choice and one of Bernoulli Thompson sampling, with 46
and 69 clicks. Prints a Markdown table: value a slot with its 95 % interval, effective sample size, largest weight and
verdict.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from stream_rec import config
from stream_rec.evaluate import Asked, evaluate

LOGS = {"uniform": "random_men.csv.gz", "Thompson": "bts_men.csv.gz"}


def folder() -> Path:
    found = Path(os.environ.get("STREAM_REC_DATA", "../shared/data")) / "open-bandit-small"
    if not found.is_dir():
        sys.exit(f"there is no {found}; set STREAM_REC_DATA")
    return found


def line(what: str, row: dict[str, Any]) -> str:
    interval = f"{100 * row['low']:.2f} to {100 * row['high']:.2f}"
    ess = f"{row['ess']:,.0f} ({row['ess_share']:.1%})"
    verdict = "yes" if row["verdict"] else f"no: {row['reason']}"
    cells = (
        what,
        row["estimator"],
        f"{100 * row['value']:.2f}",
        interval,
        ess,
        f"{row['largest_weight']:.1f}",
        verdict,
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    print("| policy, log | estimator | clicks % | interval | ESS | largest weight | verdict |")
    print("|---|---|---|---|---|---|---|")
    for policy, log in (("uniform", "Thompson"), ("Thompson", "uniform")):
        rows = evaluate(config.Settings(), Asked(folder() / LOGS[log], str(folder() / LOGS[policy]))).rows
        print(line(f"{policy}, its own", rows[-1]))
        for row in rows[1:-1]:
            print(line(f"{policy}, that of {log}", row))


if __name__ == "__main__":
    main()

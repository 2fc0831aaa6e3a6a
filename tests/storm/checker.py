"""What came out of a storm, judged in a process of its own: `python -m tests.storm.checker BOOTSTRAP [SUMMARY...]`.

Reads every topic under read_committed and asks: is the ledger gapless and chained, does it take every input once and
in order, are the outputs exactly those of a fold of the ledger from its genesis, byte for byte, and is that fold right
by a batch computation over the log (tests/laws/batch.py), written by other hands? The state must be the one that the
last worker said it had. Prints one JSON line; exit status 0 only when all of it holds.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from stream_rec import assemble, summary
from stream_rec.events import MISSING, Kind, Record, Topic
from stream_rec.io.kafka import Admin, Reader
from stream_rec.pipeline import Pipeline
from stream_rec.stream.ledger import GENESIS_CHAIN, chain_of
from stream_rec.stream.privacy import Pseudonymiser
from stream_rec.stream.tick import Tick
from tests.laws.batch import Batch
from tests.storm.pipeline import KEY, access_of, settings_of

INPUTS = (Topic.CONTROL, Topic.ITEMS, Topic.EVENTS)
OUTPUTS = (Topic.SLATES, Topic.VERSIONS, Topic.DEAD_LETTERS)
WORDS = ("exact", "implied", "weak", "none", "exposed", "repeated", "unknown_decision", "no_user")
SHOWN = 10

Log = dict[tuple[str, int], list[Record]]


@dataclass
class Verdict:
    """What is wrong; `faults` is empty when nothing is."""

    faults: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def must(self, holds: bool, words: str) -> None:
        """Note a fault unless it holds."""
        if not holds and len(self.faults) < 200:
            self.faults.append(words)


def read_all(bootstrap: str, topics: Sequence[str]) -> Log:
    """Every committed record of some topics, by partition, in offset order."""
    admin, reader = Admin(access_of(bootstrap)), Reader(access_of(bootstrap))
    there = admin.topics(topics)
    partitions = [(topic, n) for topic in topics for n in range(there[topic].n_partitions)]
    admin.close()
    reader.assign(partitions)
    for at in partitions:
        reader.seek(at, 0)
    ends = reader.ends(partitions)
    log: Log = {at: [] for at in partitions}
    while any(reader.position(at) < ends[at] for at in partitions):
        for at, polled in reader.poll(500, 10_000).items():
            log[at[0], at[1]] += [
                Record(at[0], at[1], r.offset, max(r.timestamp, 0), r.key, r.value, tuple(r.headers)) for r in polled
            ]
    reader.close()
    return log


def check_ledger(entries: list[bytes], log: Log, verdict: Verdict) -> list[dict[str, Any]]:
    """Gapless and chained, and every input taken once, in order, to its end."""
    decoded, chain = [], GENESIS_CHAIN
    for n, raw in enumerate(entries):
        said = msgspec.json.decode(raw, type=dict[str, Any])
        verdict.must((said["n"], said["prev"]) == (n, chain), f"ledger: entry {n} is {said['n']} or unchained")
        chain = chain_of(raw)
        decoded.append(said)
    verdict.must(bool(decoded) and decoded[0]["kind"] == "genesis", "ledger: no genesis")
    taken = {(t, p): o for t, p, o in decoded[0]["start"]} if decoded else {}
    for said in decoded:
        for topic, partition, first, after, count, _ in said.get("tick", {}).get("ranges", ()):
            at = topic, partition
            verdict.must(
                taken.get(at, 0) == first, f"ledger: {topic}/{partition} goes on at {first}, not {taken.get(at)}"
            )
            inside = sum(first <= r.offset < after for r in log[at][first:after])
            verdict.must(
                inside == count, f"ledger: {topic}/{partition} {first}-{after} counts {count}, there are {inside}"
            )
            taken[at] = after
    for at, records in log.items():
        if at[0] in INPUTS and records:
            left = records[-1].offset + 1 - taken.get(at, 0)
            verdict.must(left == 0, f"lost: {left} records of {at[0]}/{at[1]} were never taken")
    return decoded


def fold_again(
    entries: list[dict[str, Any]], log: Log, verdict: Verdict
) -> tuple[Pipeline, dict[str, list[Any]], Batch]:
    """The state, the outputs and the batch that the ledger's ticks come to, from scratch."""
    pipeline = assemble.pipeline_of(settings_of("nowhere:1"))
    said: dict[str, list[Any]] = {topic: [] for topic in OUTPUTS}
    batch = Batch(KEY.encode(), [p for topic, p, _ in entries[0]["start"] if topic == Topic.EVENTS])
    for entry in entries:
        if entry["kind"] == "genesis":
            pipeline.begin({(t, p): o for t, p, o in entry["start"]}, entry.get("topic_ids"))
        elif entry["kind"] == "tick":
            tick = Tick.from_json(entry["n"], entry["tick"])
            ranges = [(r.topic, r.partition, r.first, r.next) for r in tick.ranges]
            records = pipeline.positions.order({(t, p): log[t, p][first:after] for t, p, first, after in ranges})
            effects = pipeline.fold(tick, records)
            verdict.must(
                effects.digest() == entry["effects_digest"], f"wrong state: tick {entry['n']} gives other effects"
            )
            for output in effects.outputs:
                if output.topic in said:
                    said[output.topic].append((output.key or None, output.value))
            slates = [json.loads(o.value) for o in effects.outputs if o.topic == Topic.SLATES and o.value]
            batch.tick(entry["tick"]["ranges"], entry["tick"]["cut_at_ms"], log, slates)
        pipeline.positions.number = entry["n"]
    return pipeline, said, batch


def check_outputs(said: Mapping[str, list[Any]], log: Log, verdict: Verdict) -> None:
    """Each effect once, and those of one key in order."""
    for topic, expected in said.items():
        there = [(r.key, r.value) for (name, _), records in log.items() if name == topic for r in records]
        wanted, found = Counter(expected), Counter(there)
        n_lost, n_doubled = sum((wanted - found).values()), sum((found - wanted).values())
        verdict.figures[f"{topic} lost"], verdict.figures[f"{topic} doubled"] = n_lost, n_doubled
        verdict.must(n_lost == 0, f"lost: {n_lost} of {len(expected)} records of {topic}")
        verdict.must(
            n_doubled == 0, f"doubled: {n_doubled} records of {topic} beyond the {len(expected)} of the ledger"
        )
        if not n_lost and not n_doubled:
            verdict.must(_by_key(expected) == _by_key(there), f"order: records of a key of {topic} are out of order")


def _by_key(records: Sequence[tuple[bytes | None, bytes | None]]) -> dict[bytes | None, list[bytes | None]]:
    out: dict[bytes | None, list[bytes | None]] = {}
    for key, value in records:
        out.setdefault(key, []).append(value)
    return out


def check_fold(pipeline: Pipeline, batch: Batch, verdict: Verdict) -> None:
    """Counts, dedupe, watermark, window and joins by a batch computation over the log."""
    facts, settings = pipeline.facts, settings_of("nowhere:1")
    reasons = facts.accounting.reasons
    counted = Counter({(o, r): n for o, table in reasons.items() for r, n in table.items() if o != "repaired"})
    verdict.must(counted == batch.outcomes, f"fold: counts differ: {_difference(counted, batch.outcomes)}")
    event = Pseudonymiser(KEY.encode()).event
    known = not any(facts.dedupe.admit_many([event(event_id) for event_id in sorted(batch.seen)]))
    verdict.must(known and len(batch.seen) == facts.dedupe.n_admitted, "fold: the dedupe set differs")
    verdict.must(facts.watermarks.global_ms == batch.watermark_ms, "fold: the watermark differs")
    joins = facts.joiner.counts()
    ours, theirs = {w: joins[w] for w in WORDS}, {w: batch.joins[w] for w in WORDS}
    verdict.must(ours == theirs, f"fold: joins differ: {ours} and {theirs}")
    window = facts.window
    content = sorted(
        (
            "" if user == MISSING else facts.users.key[user].tobytes().hex(),
            facts.items.ids[window.item[row]],
            int(window.at_ms[row]),
            Kind(window.kind[row]).name.lower(),
        )
        for row in window.rows().tolist()
        for user in [int(window.user[row])]
    )
    wanted = batch.window(settings.window.capacity, settings.window.length_ms)
    verdict.must(content == wanted, "fold: the window differs")
    verdict.figures |= {"window": len(content), "exact joins": joins["exact"], "outcomes": len(batch.outcomes)}


def _difference(a: Counter[Any], b: Counter[Any]) -> dict[str, tuple[int, int]]:
    return {str(k): (a[k], b[k]) for k in {*a, *b} if a[k] != b[k]}


def check(bootstrap: str, summaries: Sequence[Path]) -> Verdict:
    """Judge everything; `summaries` are those of the workers that ended, the newest of them is compared."""
    verdict = Verdict()
    log = read_all(bootstrap, [*INPUTS, *OUTPUTS, Topic.LEDGER])
    raw = [r.value or b"" for r in log.pop((Topic.LEDGER, 0))]
    entries = check_ledger(raw, log, verdict)
    kinds = Counter(entry["kind"] for entry in entries)
    n_inputs = sum(len(records) for (topic, _), records in log.items() if topic in INPUTS)
    verdict.figures |= {"inputs": n_inputs, **kinds, "rebuilt": sum(bool(e.get("differed")) for e in entries)}
    if verdict.faults:
        return verdict
    pipeline, said, batch = fold_again(entries, log, verdict)
    check_outputs(said, log, verdict)
    pipeline.positions.number, pipeline.positions.chain = entries[-1]["n"], chain_of(raw[-1])
    ours = summary.of_state(pipeline, settings_of("nowhere:1"))
    told = [json.loads(path.read_text()) for path in summaries if path.exists()]
    newest = max(told, key=lambda s: s["n_ticks"], default=None)
    verdict.must(newest is not None and newest["n_ticks"] == entries[-1]["n"], "no worker ended at the ledger's end")
    if newest is not None:
        same = newest["state_digest"] == ours["state_digest"]
        verdict.must(same, "wrong state: the worker's state is not the fold of the ledger")
    check_fold(pipeline, batch, verdict)
    verdict.figures["slates"] = len(said[Topic.SLATES])
    verdict.figures["versions"] = int(np.sum([o[0] == b"champion" for o in said[Topic.VERSIONS]]))
    return verdict


def main(bootstrap: str, *summaries: str) -> int:
    """Print the verdict; 0 when all holds."""
    verdict = check(bootstrap, [Path(s) for s in summaries])
    print(json.dumps({"exact": not verdict.faults, "faults": verdict.faults[:SHOWN], **verdict.figures}))
    return 0 if not verdict.faults else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

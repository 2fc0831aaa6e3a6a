"""A small simulated shop written to files, as a user's recorded history would be."""

from __future__ import annotations

from pathlib import Path

from stream_rec.config import Settings, load
from stream_rec.events import Topic
from stream_rec.simulate import Shop, ShopPlan

SMALL = ShopPlan(days=3, n_users=120, n_items=150, visits_per_day=150)
KEY = "a key of the tests"


def write_shop(folder: Path, *, seed: int = 5, plan: ShopPlan = SMALL) -> tuple[Path, Path]:
    """(events file, items file) of a shop whose visitors were shown nothing."""
    shop = Shop(seed, plan)
    records = shop.catalogue() + shop.step(shop.end_ms, lambda user: None)
    events, items = folder / "events.jsonl", folder / "items.jsonl"
    for path, topic in ((events, Topic.EVENTS), (items, Topic.ITEMS)):
        values = [r.value for r in records if r.topic == topic and r.value is not None]
        path.write_bytes(b"".join(v.replace(b"\n", b" ") + b"\n" for v in values))
    return events, items


def small_settings(out: Path, *sets: str) -> Settings:
    """Settings of a small run into `out`, with several versions."""
    base = [
        f"run.dir={out}",
        f"privacy.key={KEY}",
        "tick.max_records=128",
        "slate.refresh_users_per_tick=8",
        "learn.light_cut_examples=400",
        "learn.sample_one_in=1",
        "gate.min_users=0",
        "report.interval_ms=21600000",
    ]
    return load(None, [*base, *sets], {})

"""The checker has teeth: workers that are broken on purpose do not pass it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.broken import VARIANTS
from tests.storm.storm import Storm

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kafka_origin")]

AIMED: dict[str, tuple[str, ...]] = {
    "checkpoint_before_commit": ("kill",),
    "outputs_outside": ("kill",),
    "unchecked_sends": ("terminate",),
    "no_fencing": ("rival over frozen",),
    "next_from_position": ("kill",),
}


@pytest.mark.parametrize("how", sorted(VARIANTS))
def test_a_worker_that_breaks_a_rule_is_found_out(how: str, tmp_path: Path) -> None:
    storm = Storm(7, tmp_path, module=("tests.storm.broken", how), only=AIMED[how])
    storm.patience_s = 20
    figures = storm.run(4, load_s=20)
    assert not figures["exact"], figures

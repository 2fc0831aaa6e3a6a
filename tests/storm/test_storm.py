"""A short storm of every kind of fault, for each change; the long ones are run by `python -m tests.storm.storm`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm.storm import Storm

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kafka_origin")]


def test_after_a_storm_every_effect_is_there_once_and_the_state_is_the_fold_of_the_ledger(tmp_path: Path) -> None:
    storm = Storm(3, tmp_path)
    figures = storm.run(14, load_s=60)
    assert figures["exact"], (figures, storm.main.words())
    assert figures["caught_up"] and figures["ended_with"] == 0

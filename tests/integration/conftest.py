"""What only the tests on a real broker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.broker import Broker
from tests.integration.ground import Ground


@pytest.fixture
def ground(broker: Broker, names: str, tmp_path: Path) -> Iterator[Ground]:
    """A pipeline of this test's own on the session's broker, its topics not made yet; what it started ends with it."""
    made = Ground(broker.bootstrap, names, tmp_path)
    yield made
    made.close()

"""One real broker for the whole test session, a fault proxy before it and topic names that never clash."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from stream_rec import assemble_registry
from stream_rec import config as of_commands
from tests.integration.broker import Broker, find
from tests.integration.origins import Origin
from tests.integration.proxy import Proxy

with warnings.catch_warnings():
    # kafka-python reads its schemas by functions that Python 3.11 and 3.12 call deprecated.
    warnings.filterwarnings("ignore", r"(read|open)_text is deprecated", DeprecationWarning)
    from kafka import KafkaAdminClient

HERE = Path(__file__).resolve().parent
ON_A_BROKER = (HERE / "integration", HERE / "storm")
NO_BROKER = "no Kafka broker: set KAFKA_HOME to a folder with bin/kafka, or start docker"
FAST = "not slow"
"""The marks that the fast suite takes; it leaves everything on a real broker to .ci/run, and draws fewer examples."""
FEWER = 3
DRAWN = "_hypothesis_internal_use_settings"
"""Where hypothesis keeps what `@settings` said of a test."""
_numbers = itertools.count(1)
os.environ.setdefault("STREAM_REC_MODEL__ENCODER", "none")
"""Commands that tests start rank on statistics alone, unless a test is about the encoder."""
of_commands.installed_encoder = lambda: "none"
os.environ.setdefault("STREAM_REC_REGISTRY__ENABLED", "false")
registry_wanted = assemble_registry.wanted
"""Neither commands nor calls log to MLflow, which takes seconds to import, unless a test is about it."""
assemble_registry.wanted = lambda settings: False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in ON_A_BROKER) or item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.kafka)
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))

    if config.getoption("markexpr") == FAST:
        for test in {item.function for item in items if hasattr(item, "function") and hasattr(item.function, DRAWN)}:
            whole = getattr(test, DRAWN)
            setattr(test, DRAWN, settings(whole, max_examples=max(2, whole.max_examples // FEWER)))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the garbage collector need not walk through it at every full pass."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """kafka-python leaves the socket of a refused connection to the garbage collector, whose complaint no later test
    shall get."""
    yield
    if any(request.path.is_relative_to(folder) for folder in (*ON_A_BROKER, HERE / "contracts")):
        gc.collect()


@pytest.fixture(scope="session")
def kafka_origin() -> Origin:
    """What can run a broker, for a test that needs one of its own; none: skipped, or failed where one is required."""
    origin = find()
    if origin is None and os.environ.get("STREAM_REC_KAFKA_REQUIRED") == "1":
        pytest.fail(NO_BROKER, pytrace=False)
    if origin is None:
        pytest.skip(NO_BROKER)
    return origin


@pytest.fixture(scope="session")
def broker(kafka_origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The session's broker; a test may stop, kill or freeze it, the next one finds it up again."""
    with Broker(kafka_origin, tmp_path_factory.mktemp("kafka"), proxied=True) as started:
        yield started


@pytest.fixture(autouse=True)
def _mended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "broker" in request.fixturenames:
        request.getfixturevalue("broker").mend()


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    """A fault proxy before the session's broker: clients bootstrap from `proxy.bootstrap` and stay behind it."""
    with Proxy(broker.proxy_port, broker.target_port) as listening:
        yield listening


@pytest.fixture
def names(request: pytest.FixtureRequest) -> str:
    """A prefix for this test's topics, groups and transactional ids, unique within the session's broker."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()
    return f"t{next(_numbers)}-{digest[:8]}"


@pytest.fixture
def topic(broker: Broker, names: str) -> str:
    """A new topic of one partition."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.create_topics({names: {"num_partitions": 1}}, wait_for_metadata=True)
    admin.close()
    return names

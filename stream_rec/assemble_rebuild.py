"""Settings to a version made again: a ledger folded up to the tick at which it began to serve. Nothing is published."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.numpy

from stream_rec import assemble, assemble_kafka, config
from stream_rec.errors import SettingsError
from stream_rec.fold import Beginning, Fold, Identity
from stream_rec.io.checkpoint import FolderCheckpoints
from stream_rec.io.files import FileSource
from stream_rec.io.folder import FolderWeights
from stream_rec.io.folder_ledger import FolderLedger
from stream_rec.io.kafka import Admin
from stream_rec.io.kafka_publisher import KafkaPublisher
from stream_rec.io.kafka_source import KafkaSource
from stream_rec.io.kafka_topics import InputTopics
from stream_rec.past import Past
from stream_rec.ports import Ports


class Given(NamedTuple):
    """What a rebuild is made from."""

    events: Path | None
    """File of the run's events; None: events and ledger are topics."""
    items: Path | None
    init_from: Path | None
    """Folder of the run whose state the ledger continues."""
    whole: bool
    """Fold from the beginning of the ledger, whatever checkpoints there are."""


class Rebuilt(NamedTuple):
    """A version made again."""

    version: str
    after_tick: int
    """Tick of the checkpoint that the fold began from; -1: it began with the ledger."""
    tick: int
    """Tick that the fold arrived at."""
    sha256: str | None
    """Of the weights; None where another version serves there."""
    told: str | None
    """The digest that the version's notice told."""
    n_differed: int
    """Ticks that gave other effects than their entries record, under another build."""


class _Ledger(NamedTuple):
    """An open ledger with its input, to read."""

    ports: Ports
    make_fold: Callable[[], Fold]
    live: bool


def rebuilt(
    settings: config.Settings,
    notice: Mapping[str, Any],
    given: Given,
    *,
    write: bool,
    folded: Callable[[int, int], None] = lambda *_: None,
) -> Rebuilt:
    """Fold a ledger again up to the tick at which a version began to serve, and look at its weights.

    Args:
        settings: name the run folder, the privacy key, and the brokers; what can change a result is taken from the
            ledger.
        notice: what was told of the version.
        given: the run's input.
        write: put the weights into the run folder when they are the ones that were told.
        folded: hears after each tick how many are folded, and of how many.

    Raises:
        SettingsError: the run's input is not what was given, or its privacy key was another one.
        InputGone: records, entries or checkpoints that the ledger names are there no more.
        LedgerMismatch: they are others, or a tick gave other effects under the same build.
        Unreachable: no broker lets us in.
    """
    version, tick = str(notice["version"]), int(notice["tick"])
    with closing(FolderWeights(settings.run_dir / "weights", synchronous=True)) as weights, _apart(settings) as apart:
        with (_topics if given.events is None else _files)(settings, apart, given, weights) as ledger:
            past = Past(ledger.ports, ledger.make_fold, live=ledger.live)
            fold, began = past.fold_to(tick, newest=-1 if given.whole else tick, folded=folded)
        sets = fold.pipeline.learner.versions
        tensors = sets.tensors("champion") if sets.champion_version == version else {}
        found = hashlib.sha256(safetensors.numpy.save(tensors)).hexdigest() if tensors else None
        if write and tensors and found == notice.get("sha256"):
            weights.put(version, tensors)
    return Rebuilt(version, began, fold.positions.number, found, notice.get("sha256"), len(fold.differed))


@contextmanager
def _apart(settings: config.Settings) -> Iterator[config.Settings]:
    """Settings whose encoder keeps its states in a copy: under other sizes it would cut off a worker's own file."""
    with tempfile.TemporaryDirectory(prefix="stream-rec-") as folder:
        assemble.copy_cache(settings.run_dir, Path(folder))
        yield settings.model_copy(update={"run": settings.run.model_copy(update={"dir": Path(folder)})})


@contextmanager
def _files(
    settings: config.Settings, apart: config.Settings, given: Given, weights: FolderWeights
) -> Iterator[_Ledger]:
    """The ledger of a replayed file, in the run folder."""
    folder = settings.run_dir
    genesis = assemble.open_run(folder).genesis()
    if genesis.get("mode") != "replay" or "input" not in genesis:
        raise SettingsError(f"{folder} is no replay of a file; leave out --events where the input is in topics")
    own = config.with_semantic(apart, genesis["semantic"])
    now = config.semantic(own)
    if other := sorted(name for name, value in genesis["semantic"].items() if now.get(name) != value):
        raise SettingsError(
            f"this run was made with another {', '.join(other)}; set what it had, in this build's words"
        )
    identity = Identity(genesis["settings"], assemble.build_digest(own), "replay", genesis)
    since, until = genesis["input"]["since"], genesis["input"]["until"]
    assert given.events is not None
    with closing(FileSource(given.events, given.items, since_ms=since, until_ms=until)) as source:
        ports = Ports(source, FolderLedger(folder), FolderCheckpoints(folder / "checkpoints"), weights)
        yield _Ledger(ports, lambda: Fold(lambda: assemble.pipeline_of(own), identity), live=False)


@contextmanager
def _topics(
    settings: config.Settings, apart: config.Settings, given: Given, weights: FolderWeights
) -> Iterator[_Ledger]:
    """The ledger of a worker, or of a replay of topics; whoever writes it is not disturbed."""
    if assemble.is_run(settings.run_dir):
        raise SettingsError(
            f"the ledger of {settings.run_dir} is its own and not in a topic; name the file it was replayed from with "
            "--events. The input of a demo is kept nowhere"
        )
    access, topics = assemble_kafka.access_of(settings), InputTopics(assemble_kafka.input_names(settings))
    with closing(Admin(access)) as admin:
        topics.refresh(admin)
    identity = Identity(
        config.semantic_digest(settings)[:16], assemble.build_digest(settings), "rebuild",
        {"semantic": config.semantic(settings)},
    )  # fmt: skip
    init = given.init_from
    beginning = Beginning(
        init=None if init is None else lambda: assemble_kafka.newest_checkpoint(init),
        make_under=lambda kept: assemble_kafka.pipeline_under(apart, kept),
    )
    with (
        closing(KafkaSource(access, topics)) as source,
        closing(KafkaPublisher(access, assemble_kafka.output_names(settings), "reads only")) as publisher,
    ):
        ports = Ports(source, publisher, assemble_kafka.checkpoints_of(settings), weights)
        yield _Ledger(ports, lambda: Fold(lambda: assemble.pipeline_of(apart), identity, beginning), live=True)

"""The exception tree, drawn at the top; every class states its one fate.

StreamRecError
|- SettingsError     stop at start-up, exit 2: the settings or the command line are wrong
|- InputRefused      stop, exit 3: more than half of an input topic's recent records died
|- Fenced            stop, exit 4: another learner owns this pipeline
|- JobFailed         stop, exit 1: one line says why and what to do
|  |- LedgerMismatch      a muted tick did not reproduce what its ledger entry says
|  |- InputGone           records a ledger entry names can no longer be read
|  |- CheckpointRefused   a checkpoint is torn, foreign or of a newer format
|  `- Unreachable         a service does not answer or lets nobody in; a worker that ran before waits instead
|- Unsettled         retry: whether a transaction was committed is not known; the ledger will say
`- BadRecord         dead-letter: one record cannot be used; never stops the worker
"""

from __future__ import annotations


class StreamRecError(Exception):
    """Base of everything this package raises on purpose."""

    exit_status = 1


class SettingsError(StreamRecError):
    """A setting or argument is wrong; the message names the field, the value and the fix."""

    exit_status = 2


class InputRefused(StreamRecError):
    """An input topic is mostly unusable; the message names the first position and the override."""

    exit_status = 3


class Fenced(StreamRecError):
    """Another learner has claimed the pipeline."""

    exit_status = 4


class JobFailed(StreamRecError):
    """The job cannot go on; the message says why and what to do."""


class LedgerMismatch(JobFailed):
    """Replaying a ledger entry gave other counts, bytes or effects than it recorded."""


class InputGone(JobFailed):
    """Records that the ledger names are no longer in the input."""


class CheckpointRefused(JobFailed):
    """A checkpoint cannot be used: torn, foreign, or written by a newer format."""


class Unreachable(JobFailed):
    """A service outside does not answer, or does not let us in: a client cannot tell these apart."""


class Unsettled(StreamRecError):
    """A transaction failed on the way; only the ledger tells whether it was committed. Drop the state and recover.

    `counts` says whether the tick itself may be at fault: three such failures of one tick end the worker. `fenced`
    says that the brokers named another producer, or our own time-out, which look alike.
    """

    def __init__(self, message: str, *, counts: bool = True, fenced: bool = False) -> None:
        super().__init__(message)
        self.counts, self.fenced = counts, fenced


class BadRecord(StreamRecError):
    """One record cannot be used. `reason` is a word of the dead-letter table and never quotes a value."""

    def __init__(self, reason: str, stage: str = "decode") -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage

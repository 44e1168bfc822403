"""What can go wrong, as nouns. Each class's docstring is the sentence a user reads first.

Messages of these errors are stored in Redis and printed in logs: they name files, lines, columns and
keys, never a value out of a client's row.
"""

from typing import ClassVar


class EtlError(Exception):
    """Something went wrong.

    Args:
        what: What happened and where, one line, without row values.
        cure: What the user can do about it, one line.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what}\n  {self.cure}" if self.cure else self.what


class ConfigError(EtlError):
    """The configuration is wrong.

    Args:
        mistakes: Every mistake found, each one line with its key path.
    """

    exit_code = 2

    def __init__(self, what: str, cure: str = "", mistakes: tuple[str, ...] = ()) -> None:
        super().__init__(what, cure)
        self.mistakes = mistakes or (what,)

    def __str__(self) -> str:
        lines = list(self.mistakes)
        return "\n".join([*lines, f"  {self.cure}"] if self.cure else lines)


class UnknownName(ConfigError):
    """No pipeline, client, target or run has that name."""


class SourceMissing(EtlError):
    """No file matches the source's path."""


class BadSource(EtlError):
    """A source can't be read as it is described."""


class ForeignFile(BadSource):
    """A file is of another kind than its source's: a web page, an archive, a document.

    Args:
        file: Its name.
        kind: What it is, such as "a PDF".
        other: What it is not.
        cure: What the user can do about it.
    """

    def __init__(self, file: str, kind: str, other: str, cure: str) -> None:
        super().__init__(f"{file} is {kind}, not {other}", cure)
        self.kind = kind


class SourceUnreachable(BadSource):
    """The database that rows come from can't be reached."""

    exit_code = 3
    retryable = True


class MissingColumn(BadSource):
    """A file lacks a column that the pipeline needs."""


class FunctionFailed(EtlError):
    """A function of the user's own raised, or returned what it must not."""


class TooManyRejects(EtlError):
    """More rows were rejected than `max_rejects` allows, so nothing was loaded."""


class AllRejected(TooManyRejects):
    """Every row that was read was rejected, so there was nothing to load."""


class UnexpectedDelivery(EtlError):
    """A delivery has other rows than the pipeline expects, so nothing was loaded."""


class ChangedFile(EtlError):
    """A file that an append has loaded before has changed since."""


class CursorMoved(EtlError):
    """The cursor has moved since the run read it, so an append would load rows twice."""


class TargetUnreachable(EtlError):
    """The target can't be reached."""

    exit_code = 3
    retryable = True


TRIED_AGAIN = "it is tried again by itself, as often as retries says; after that rq-etl retry does it"


class TargetBusy(EtlError):
    """The target was locked or dropped the connection; trying again may help."""

    retryable = True


class TargetRefused(EtlError):
    """The target can be reached but does not take the rows (read-only, no permission, disk full)."""


class TableMismatch(TargetRefused):
    """A table in the target has other columns or types than the pipeline."""


class ReceiptMismatch(EtlError):
    """A run's counts of rows in and out do not balance."""


class StagingFailed(EtlError):
    """Staging can't be written or read."""

    retryable = True


class DamagedArtifact(StagingFailed):
    """A file that a stage has published is damaged or gone."""

    retryable = False


class RedisAway(EtlError):
    """Redis can't be reached, or can't be used as it is."""

    exit_code = 3
    retryable = True


BrokerUnreachable = RedisAway  # its name until callers outside were given it


class AlreadyRunning(EtlError):
    """A run of this client and pipeline is active already.

    Args:
        run: Id of the run that holds the place.
    """

    def __init__(self, what: str, cure: str = "", run: str = "") -> None:
        super().__init__(what, cure)
        self.run = run

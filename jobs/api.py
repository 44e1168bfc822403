"""The same verbs as the command line, from Python."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from os import PathLike
from typing import Any

from redis import Redis
from typing_extensions import override

from etl.config.pipeline import resolve
from etl.errors import EtlError
from jobs.run import backfill
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.session import Session, session
from jobs.store.redis_errors import translated
from jobs.views import history


@dataclass(frozen=True)
class Rows:
    """A run's rows by kind; read + added = rejected + dropped + superseded + loaded + unchanged."""

    read: int = 0
    added: int = 0
    rejected: int = 0
    dropped: int = 0
    superseded: int = 0
    loaded: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class Reject:
    """A row that failed a check: its file, physical line (header = line 1), column, value and reason."""

    file: str
    row: int
    column: str | None
    value: str | None
    reason: str


class Run:
    """One execution of a pipeline for one client.

    Args:
        session: The broker and configuration it belongs to.
        id: The run's id.
    """

    def __init__(self, session: Session, id: str) -> None:
        self.session = session
        self.id = id

    @override
    def __repr__(self) -> str:
        try:
            found = self.json()
        except EtlError:  # as where Redis is away: who debugs that wants to see which run it is
            return f"<Run {self.id}>"
        return f"<Run {self.id} {found['client']}/{found['pipeline']} {found['state']}>"

    def json(self) -> dict[str, Any]:
        """Return the run in its public JSON shape, as Redis knows it now, or else as its target remembers it.

        Raises:
            UnknownName: Both have forgotten the run.
            RedisAway: Redis can't be reached.
        """
        with translated():
            found = history.snapshot(self.session, [self.id])
            return found[0] if found else history.find(self.session, self.id)

    @property
    def client(self) -> str:
        """The client whose run it is."""
        return str(self.json()["client"])

    @property
    def pipeline(self) -> str:
        """The pipeline it executes."""
        return str(self.json()["pipeline"])

    @property
    def state(self) -> str:
        """held, queued, running, succeeded, failed or canceled."""
        return str(self.json()["state"])

    @property
    def waiting(self) -> str | None:
        """Why the run does not go on, in a sentence, or None where nothing holds it up."""
        found = self.json().get("waiting")
        return None if found is None else str(found)

    @property
    def started(self) -> datetime | None:
        """When its first stage began, in UTC, or None."""
        return _moment(self.json()["started"])

    @property
    def finished(self) -> datetime | None:
        """When it ended, in UTC, or None."""
        return _moment(self.json()["finished"])

    @property
    def seconds(self) -> float | None:
        """How long it has been running, until now or its end, or None before it has started."""
        found = self.json()["seconds"]
        return None if found is None else float(found)

    @property
    def rows(self) -> Rows:
        """The run's rows by kind, so far."""
        return Rows(**self.json()["rows"])

    @property
    def error(self) -> str | None:
        """Why the run failed, without row values, or None."""
        found = self.json()["error"]
        return None if found is None else str(found)

    @property
    def partitions(self) -> dict[str, int]:
        """How many partitions there are: total, done, failed, blocked."""
        return dict(self.json()["partitions"])

    @property
    def odd(self) -> list[str]:
        """What its delivery was expected to be and was not, a sentence each."""
        return list(self.json().get("odd", ()))

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The partitions that failed: partition, file, stage, error."""
        return list(self.json()["failures"])

    @property
    def warnings(self) -> list[str]:
        """What the run noticed but did not fail for."""
        return list(self.json()["warnings"])

    def wait(self, timeout: float | None = None) -> "Run":
        """Wait until the run has ended and return it; a failed run is returned, not raised.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.

        Raises:
            TimeoutError: It has not ended by then.
            RedisAway: Redis has been away for a minute, or until then.
        """
        for _ in wait([self], timeout):
            pass
        return self

    def rejects(self) -> list[Reject]:
        """Return the rejected rows, by file and line.

        Raises:
            RedisAway: Redis can't be reached.
        """
        from jobs.views.rejects import listed

        keys = ("file", "row", "column", "value", "reason")
        with translated():
            return [Reject(**{key: entry[key] for key in keys}) for entry in listed(self.session, self.id)]

    def cancel(self) -> "Run":
        """Stop the run; what is loaded stays loaded.

        Raises:
            RedisAway: Redis can't be reached.
        """
        with translated():
            cancel_run(self.session.connection, self.id)
        return self

    def retry(self) -> "Run":
        """Run again what is missing, with today's configuration and code.

        Raises:
            EtlError: It has neither failed nor been canceled, or can't be run any more.
            RedisAway: Redis can't be reached.
        """
        with translated():
            retry_run(self.session.config, self.session.connection, history.recall(self.session, self.id))
        return self


def submit(
    pipeline: str,
    client: str,
    *,
    params: Mapping[str, Any] | None = None,
    start: date | str | None = None,
    end: date | str | None = None,
    full_refresh: bool = False,
    config: str | PathLike[str] | None = None,
    queue: bool = False,
    redis: str | Redis | None = None,
) -> Run:
    """Enqueue a run of a pipeline for a client.

    Args:
        params: Values for `{name}` in paths, `:name` in SQL and parameters of functions.
        start, end: The run's window: dates or moments, as ISO text too; without a zone they are the client's.
        full_refresh: Read and load again what is loaded already.
        config: Path of etl.toml; None means ETL_CONFIG or the working directory.
        queue: Wait for the active run of this client and pipeline to end instead of raising AlreadyRunning.
        redis: A URL or a connection; None means REDIS_URL, else a private broker for the life of this process.

    Raises:
        AlreadyRunning: A run of this client and pipeline is active.
        ConfigError: The configuration has mistakes, a name is unknown, or a parameter or the window is wrong.
        RedisAway: Redis can't be reached.
    """
    with translated():
        opened = session(config, redis)
        resolved = resolve(opened.config, pipeline, client, params=params)
        first, last = backfill.window(start, end, resolved.timezone)
        id = submit_run(opened.connection, resolved, start=first, end=last, full_refresh=full_refresh, queue=queue)
        opened.say_whose()
        return Run(opened, id)


def wait(runs: Iterable[Run], timeout: float | None = None) -> Iterator[Run]:
    """Yield runs as each ends.

    Args:
        timeout: Seconds to wait at most, for all of them together.

    Raises:
        TimeoutError: Some have not ended by then.
        RedisAway: Redis has been away for a minute, or until then.
    """
    pending = list(runs)
    deadline = None if timeout is None else time.monotonic() + timeout
    sessions = {run.session for run in pending}
    loops = {
        opened: opened.ended([run.id for run in pending if run.session is opened], deadline) for opened in sessions
    }
    while pending:
        for opened, loop in loops.items():
            with translated():
                over = next(loop, [])
            yield from [run for run in pending if run.session is opened and run.id in over]
            pending = [run for run in pending if run.session is not opened or run.id not in over]
        if pending and deadline is not None and time.monotonic() > deadline:
            ids = ", ".join(run.id for run in pending[:5])
            raise TimeoutError(f"{len(pending)} runs have not ended after {timeout} s: {ids}")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

"""A broker, a configuration and, where the broker is ours, its workers, for the life of a process."""

import atexit
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from redis import Redis

from etl.errors import EtlError, RedisAway
from jobs import broker, settings
from jobs.process.supervisor import Supervisor
from jobs.store import malformed, redis_errors, runs

if TYPE_CHECKING:
    from etl.config.pipeline import Config
    from jobs.process.inprocess import InProcessWorker


Answer = TypeVar("Answer")

WORKERS = 2
POLL = 0.1  # seconds between two looks at the runs that are waited for
PATIENCE = 60.0  # seconds that whoever waits for runs waits for Redis, where it is away


class Session:
    """The broker that runs are sent to, and who works on them.

    Args:
        config: Path of etl.toml, or None for ETL_CONFIG or the working directory.
        redis: A URL, a connection, or None for REDIS_URL or a private broker.
        inline: Work in this process, whatever brokers there are.
        workers: How many worker processes to start; None starts two where the broker is private.

    Raises:
        RedisAway: Redis can't be reached.
    """

    def __init__(
        self,
        config: str | PathLike[str] | None = None,
        redis: str | Redis | None = None,
        *,
        inline: bool = False,
        workers: int | None = None,
    ) -> None:
        settings.use(config)
        self._worker: InProcessWorker | None = None
        self._supervisor: Supervisor | None = None
        self._inline = inline
        self._unsaid: int | None = None  # workers that are started with a Redis of which nothing was said yet
        if isinstance(redis, Redis):
            self.broker = broker.given(redis)
        elif inline:
            self.broker = broker.in_process()
        else:
            url = redis or settings.redis_url()
            if not url:
                settings.config()  # there must be one, or a private Redis would be started in any folder
            self.broker = broker.connect(url, settings.path().parent)
            self._unsaid = WORKERS if workers is None else workers
        self.connection = self.broker.connection
        malformed.set_aside(self.connection, malformed.FIXED, only_types=True)
        if not self.in_process:
            self.start_workers(workers if workers is not None else WORKERS if self.is_ours else 0)
        atexit.register(self.close)

    @property
    def config(self) -> "Config":
        """The configuration, read again where it has changed."""
        return settings.config()

    @property
    def in_process(self) -> bool:
        """Whether jobs run in this process."""
        return self.broker.kind == "in-process"

    @property
    def is_ours(self) -> bool:
        """Whether the broker ends with this process, so that runs must be waited for."""
        return self.in_process or (self.broker.kind == "private" and self.broker.owned)

    @property
    def has_workers(self) -> bool:
        """Whether worker processes were started here, which end with this process."""
        return self._supervisor is not None

    def start_workers(self, count: int) -> None:
        """Start worker processes that end with this one; what they print is in .rq-etl/workers.log."""
        if self._supervisor is None and count:
            folder = settings.path().parent / ".rq-etl"
            folder.mkdir(exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            self._supervisor = Supervisor(self.broker.url, folder / "workers.log")
        if self._supervisor is not None:
            self._supervisor.start(count)

    def active(self) -> frozenset[str]:
        """Return the ids of the runs that have not ended, held ones included."""
        # In this order: a run goes from held to active, never back.
        held = runs.held(self.connection)
        return frozenset([*held, *runs.active(self.connection)])

    def ended(self, ids: Iterable[str], deadline: float | None = None) -> Iterator[list[str]]:
        """Yield the ids of runs as they end, and an empty list whenever none has for a moment.

        Args:
            deadline: Until when a Redis that is away is waited for at most, by the monotonic clock; see `patiently`.

        Raises:
            RedisAway: Redis has been away for too long.
        """
        pending = list(ids)
        while pending:
            active = self.patiently(self.active, deadline)
            yield [id for id in pending if id not in active]
            pending = [id for id in pending if id in active]
            if pending:
                self.advance(POLL)

    def patiently(self, ask: Callable[[], Answer], deadline: float | None = None) -> Answer:
        """Ask Redis for what a waiter wants to know; where it is away, say so, and wait until it is back.

        Args:
            deadline: Until when, at most, by the monotonic clock; None means a minute after it went away.

        Raises:
            RedisAway: It has been away until then, or for a minute.
        """
        away: float | None = None
        last = 0.0
        while True:
            try:
                answer = ask()
            except redis_errors.AWAY as error:
                now = time.monotonic()
                if away is None:
                    away = now
                    last = away + PATIENCE if deadline is None else min(deadline, away + PATIENCE)
                    left = f"waiting up to {max(0.0, last - away):.0f} s for it"
                    print(f"rq-etl: Redis is away; {left}", file=sys.stderr, flush=True)
                if now > last:
                    raise RedisAway(
                        f"Redis has been away for {now - away:.0f} s",
                        "start it: workers go on by themselves, and rq-etl wait waits for the runs again",
                    ) from error
                self.broker.keep()
                time.sleep(0.2)
                continue
            if away is not None:
                print(f"rq-etl: Redis is back after {time.monotonic() - away:.0f} s", file=sys.stderr, flush=True)
            return answer

    def say_whose(self) -> None:
        """Say once whose the Redis is, where it is this process's own; an error before stands alone."""
        if self._unsaid is not None:
            broker.announce(self.broker, self._unsaid)
            self._unsaid = None

    def advance(self, seconds: float) -> None:
        """Let work go on for a moment: here, where jobs run in this process, else by waiting."""
        self.say_whose()
        if not self.in_process:
            self.broker.keep()
            if self._supervisor is not None:
                self._supervisor.replace_dead()
            time.sleep(seconds)
            return
        if self._worker is None:
            from jobs.process.inprocess import InProcessWorker

            self._worker = InProcessWorker(self.connection, inline=self._inline)
        self._worker.work_for(seconds)

    def close(self) -> None:
        """Stop the workers started here, letting each finish its job, and then the broker."""
        if self._supervisor is not None:
            self._supervisor.end()
        if self.in_process and self.broker.owned:
            from jobs.store import leftover

            with suppress(EtlError):  # what staging doesn't take is what a killed process leaves
                leftover.keep(self.connection, settings.staging())
        self.broker.close()
        atexit.unregister(self.close)


_sessions: dict[tuple[str, object], Session] = {}


def session(config: str | PathLike[str] | None = None, redis: str | Redis | None = None) -> Session:
    """Return this process's session for a configuration and a broker, opened once."""
    path = str(Path(config).resolve()) if config else str(settings.config_path())
    key = (path, redis if isinstance(redis, str | None) else id(redis))
    if key not in _sessions:
        _sessions[key] = Session(config, redis)
    else:
        settings.use(config)
    return _sessions[key]

"""The process that runs a worker's jobs, one after another, for as long as it stays healthy.

A horse in which the user's code has run for a client works for that client only; the next client's job gets a new one,
forked from the worker, which has imported what stages need and never the user's code: it is clean and costs little.
"""

import contextlib
import gc
import importlib
import os
import random
import resource
import signal
import socket
import stat
import sys
from dataclasses import asdict
from itertools import takewhile

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from rq.executions import Execution

from etl import output
from etl.errors import EtlError
from jobs import settings
from jobs.job import EtlJob
from jobs.process.complete import Outcome, failure, perform
from jobs.process.keeper import is_dead, keep, kill
from jobs.process.lines import LONGEST, Lines
from jobs.store.redis_errors import AWAY

PRELOADED = (
    "jobs.stages", "etl.sources.join", "etl.sources.formats.blocks", "fsspec.implementations.local",
    "pandas.core.arrays.arrow._arrow_utils", "etl.load.targets.sqlite", "sqlalchemy.dialects.sqlite.pysqlite",
    "etl.load.targets.postgres", "sqlalchemy.dialects.postgresql.psycopg", "psycopg",
)  # fmt: skip


class Horse:
    """A process that runs jobs, below a keeper that kills it and all it started when the worker is gone.

    Args:
        connection: The worker's; the horse makes its own sockets of it.
    """

    def __init__(self, connection: Redis) -> None:
        self.pid = 0  # 0 where there is no process, and until it is ready
        self.ready = False  # once it has imported what it needs: a job's time is counted from then on
        self._connection = connection
        self._jobs = 0
        self._sources: dict[str, int] = {}
        self._keeper = 0
        self._job: list[str | None] = [None, None]  # the job in hand and its execution
        self._user = ("", False)  # the queue of the last job, and whether that was a stage
        self._is_used = False  # whether the user's code has run in it

    def start(self) -> None:
        """Start the process, if there is none."""
        if self._keeper:
            return
        self.ready, self._is_used, self._jobs, self._sources = False, False, 0, {}
        if settings.path().is_file():
            with contextlib.suppress(EtlError):
                settings.config()  # once for all horses; it is read again where it has changed
        ours, theirs = socket.socketpair()
        self._keeper = os.fork()
        if self._keeper == 0:
            try:
                ours.close()
                keep(theirs, lambda: serve(Lines(theirs), self._connection))
            finally:
                os._exit(1)
        theirs.close()
        self._lines = Lines(ours, LONGEST)

    def send(self, job: EtlJob) -> None:
        """Give the horse a job.

        One that has died since its last job, runs old code, or has run another client's code is replaced first; so is
        one that has run a stage's functions before a job that is no stage, where what they left behind would print.
        """
        fields = {key.decode(): value.decode("latin-1") for key, value in job.raw.items()}
        self._job = [job.id, job.execution.id if job.execution else None]
        user = (job.origin, job.is_ours)
        if self._is_outdated() or self._is_lost() or (self._is_used and user != self._user):
            self.stop()
        self._user = user
        try:
            self.start()
            self._lines.put([*self._job, fields])
        except OSError:
            self.stop()
            self.start()
            self._lines.put([*self._job, fields])
        self._jobs += 1

    def _is_lost(self) -> bool:
        """Whether it or its keeper has died, or something that a job has left behind speaks in its place."""
        return self.ready and (self._lines.has_more or is_dead(self._keeper))

    def _is_outdated(self) -> bool:
        """Whether a file of the user's code has changed since the horse imported it."""
        return any(settings.changed(file) != moment for file, moment in self._sources.items())

    def outcome(self, patience: float) -> Outcome | None:
        """Wait for the job's end; a horse that has died, grown or worked long is stopped.

        Args:
            patience: Seconds to wait at most.

        Returns:
            The outcome, `lost` where the horse has died, or None where it is still running, or has just become ready.
        """
        try:
            outcome = self._answer(patience)
        except (EOFError, OSError, TypeError, ValueError):  # or what came is no answer
            outcome = Outcome("lost")
        if outcome is None:
            return None
        if outcome.kind == "lost" or self._jobs >= settings.JOBS_PER_HORSE or outcome.memory > settings.HORSE_MEMORY:
            self.stop()
        return outcome

    def _answer(self, patience: float) -> Outcome | None:
        if (said := self._lines.take(patience)) is not None:
            job, process, answer, sources, self._is_used = said
            if not self.ready:
                self.pid = process
            if process != self.pid or job != (self._job if answer else None):
                return Outcome("lost")  # a process that has nothing to answer holds the socket
            self.ready = True
            self._sources = {**sources, **self._sources} if sources else self._sources
            return Outcome(**answer) if answer else None
        # Its keeper ends with it, and what the job left behind may hold the socket open.
        return Outcome("lost") if is_dead(self._keeper) else None

    def kill(self) -> None:
        """Kill the horse and all it started; safe from signal handlers and other threads, and when it is dead."""
        if self._keeper:
            kill(self._keeper, self.pid)

    def stop(self) -> None:
        """Kill the horse and all it started, and wait until that is gone."""
        if not self._keeper:
            return
        self.kill()
        self._lines.close()  # its keeper waits for that
        keeper, self._keeper, self.pid, self.ready = self._keeper, 0, 0, False
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(keeper, signal.SIGCONT)
            os.waitpid(keeper, 0)


def preload() -> None:
    """Import what stages need, in the worker, whose horses then have it from their first moment."""
    if settings.path().is_file():
        with contextlib.suppress(Exception):
            for module in PRELOADED:
                importlib.import_module(module)
        gc.freeze()  # so that a horse's collections don't copy what it shares with its worker


def serve(worker: Lines, connection: Redis) -> None:
    """Run jobs as they come until the worker closes its end or kills this process; the horse's whole life.

    Each message is a job's id, execution and hash. Each answer repeats the first two and says which process it is of;
    then come the outcome, the user's files that were imported, where there are new ones, and whether the user's code
    has run. The first answer, before any job, says that the horse is ready.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core has rows in it, and anyone might read it
    connection.connection_pool.reset()
    _drop_sockets(worker.end.fileno())
    # A job waits for Redis as its worker does; where that takes too long, its timeout or its lease ends it.
    connection.set_retry(Retry(ConstantBackoff(0.5), 240, AWAY))
    try:
        output.capture_from_now_on()
        worker.put([None, os.getpid(), None, None, False])
        worker.flush()
        known, is_used = next(reversed(sys.modules)), False
        while True:
            id, execution, fields = worker.take()
            random.seed()
            job = EtlJob(id, connection=connection)
            job.read({key.encode(): value.encode("latin-1") for key, value in fields.items()})
            job.execution = Execution(execution, id, connection, worker_name=job.worker_name or "")
            if not job.is_ours:
                output.give_back()
            try:
                outcome = perform(job)
            except KeyboardInterrupt as interrupt:  # nobody's but the function's own: Ctrl-C is ignored here
                outcome = failure(job, interrupt)
            answer = {**asdict(outcome), "memory": _memory()}
            output.flush()
            new = _imported_since(known)
            sources, is_used = _sources(new) if new else None, is_used or _is_users_code(new)
            known = next(reversed(sys.modules))
            worker.put([[id, execution], os.getpid(), answer, sources, is_used])
            worker.flush()
    except EOFError:
        os._exit(0)
    except BaseException:
        os._exit(1)


def _drop_sockets(own: int) -> None:
    """Part with the worker's sockets, such as that to Redis: the user's code would speak for the worker there.

    They lead nowhere from now on; were they closed, their owners here might close what has their numbers next.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/dev/fd")):
        with contextlib.suppress(OSError):  # it was that of the listing
            if number > 2 and number != own and stat.S_ISSOCK(os.fstat(number).st_mode):
                os.dup2(nowhere, number, inheritable=False)
    os.close(nowhere)


def _imported_since(known: str) -> list[str]:
    """Return the names of the modules imported after one; looking at all would copy memory that is shared."""
    return list(takewhile(lambda name: name != known, reversed(sys.modules)))


def _is_users_code(names: list[str]) -> bool:
    """Whether a module of which functions may be called is among those of these names."""
    try:
        modules = settings.modules()
    except EtlError:
        return True
    return any(name in modules for name in names)


def _sources(names: list[str]) -> dict[str, int]:
    """Return the files in etl.toml's folder that these modules are from, and when they were changed."""
    folder = settings.module_folder() + os.sep
    files = [_file(sys.modules.get(name)) for name in names]
    return {file: settings.changed(file) for file in files if file.startswith(folder) and "site-packages" not in file}


def _file(module: object) -> str:
    with contextlib.suppress(Exception):  # what is asked of a module that loads itself late may raise anything
        return str(getattr(module, "__file__", None) or "")
    return ""


def _memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

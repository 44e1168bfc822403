"""The process that runs a worker's jobs, one after another, for as long as it stays healthy."""

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD

from etl.errors import EtlError
from etl.safe_message import safe_message
from jobs import settings
from jobs.job import EtlJob, Snooze
from jobs.process.complete import Outcome
from jobs.store.redis_errors import AWAY

PRELOADED = ("jobs.stages", "pandera.pandas", "etl.sources.formats.csv", "fsspec.implementations.local")


def perform(job: EtlJob) -> Outcome:
    """Run the job's function in this process; whatever it raises becomes an outcome without its words."""
    try:
        value = job.perform()
    except KeyboardInterrupt:
        raise
    except Snooze as later:
        return Outcome("later", delay=later.seconds)
    except BaseException as exc:
        keep_traceback(job, exc)
        curable = exc.retryable if isinstance(exc, EtlError) else True
        return Outcome("failed", error=safe_message(exc, _modules()), curable=curable)
    try:
        return Outcome("done", value=json.dumps(value))
    except (TypeError, ValueError):
        return Outcome("done", value=json.dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD))


def keep_traceback(job: EtlJob, exc: BaseException) -> None:
    """Hand the whole text of what a stage raised to whoever keeps it privately."""
    with contextlib.suppress(Exception):
        if str(job.func_name).startswith("jobs.stages."):
            text = "".join(traceback.format_exception(exc))
            importlib.import_module("jobs.run.stage").keep_traceback(job, text)


def _modules() -> frozenset[str]:
    try:
        return settings.modules()
    except EtlError:
        return frozenset()


class Horse:
    """A child process that runs jobs, and a keeper that kills it and all it started when the worker is gone.

    The keeper is a process because nothing within the horse is sure to run: a long call into C keeps its
    threads waiting, and PR_SET_PDEATHSIG would leave what the horse has started behind.

    Args:
        connection: The worker's; the horse makes its own sockets of it.
        preload: Whether to import what stages need before the first job comes.
    """

    def __init__(self, connection: Redis, *, preload: bool = False) -> None:
        self.jobs = 0
        self.ready = False  # once it has imported what it needs: a job's time is counted from then on
        self._sources: dict[str, int] = {}
        self._pipe, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._pipe.close()
                _serve(theirs, connection, preload)
            finally:
                os._exit(1)
        _lead(self.pid, self.pid)
        theirs.close()
        self._appoint_keeper()

    def _appoint_keeper(self) -> None:
        leash, self._leash = os.pipe()
        self._keeper = os.fork()
        if self._keeper == 0:
            try:
                self._pipe.close()
                os.close(self._leash)
                _keep(leash, self.pid)
            finally:
                os._exit(1)
        _lead(self._keeper, self.pid)
        os.close(leash)

    def hand(self, id: str, raw: Mapping[bytes, bytes]) -> None:
        """Give the horse a job.

        Args:
            raw: The job's hash.

        Raises:
            OSError: The horse is dead.
        """
        self.jobs += 1
        fields = {key.decode(): value.decode("latin-1") for key, value in raw.items()}
        self._pipe.send_bytes(json.dumps([id, fields]).encode())

    def is_outdated(self) -> bool:
        """Whether a file of the user's code has changed since the horse imported it."""
        for file, changed in self._sources.items():
            try:
                if os.stat(file).st_mtime_ns != changed:
                    return True
            except OSError:
                return True
        return False

    def outcome(self, patience: float) -> Outcome | None:
        """Wait for the job's end.

        Args:
            patience: Seconds to wait at most.

        Returns:
            The outcome, `lost` where the horse has died, or None where it is still running, or has just become ready.
        """
        try:
            if self._pipe.poll(max(0.0, patience)):
                answer, sources = json.loads(self._pipe.recv_bytes())
                if answer is None:
                    self.ready = True
                    return None
                self._sources = {**sources, **self._sources} if sources else self._sources
                return Outcome(**answer)
        except (EOFError, OSError):
            return Outcome("lost")
        # A process that the job left behind holds the pipe open when the horse is dead.
        if _is_dead(self.pid):
            return Outcome("lost")
        if _is_dead(self._keeper):
            os.waitpid(self._keeper, 0)
            os.close(self._leash)
            self._appoint_keeper()
        return None

    def kill(self) -> None:
        """Kill the horse and all it started; safe from signal handlers and other threads, and when it is dead."""
        if self.pid:
            _kill(self.pid)

    def bury(self) -> None:
        """Kill the horse and wait until it is gone."""
        self.kill()
        pid, self.pid = self.pid, 0
        for child in (pid, self._keeper):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        self._pipe.close()
        with contextlib.suppress(OSError):
            os.close(self._leash)


def _is_dead(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _lead(pid: int, group: int) -> None:
    """Put a process into a process group; parent and child both do it, so that neither has to wait."""
    with contextlib.suppress(OSError):
        os.setpgid(pid, group)


def _keep(leash: int, group: int) -> None:
    """Wait for the worker's end, then kill the horse's process group, this process included."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.read(leash, 1)
    _kill(group)


def _kill(horse: int) -> None:
    """Kill a horse, its process group, and what has left that for a session of its own."""
    strays = _descendants(horse)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        for stray in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stray, signal.SIGKILL)
        os.killpg(horse, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have started."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int(Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = children.get(pid, [])
    for each in found:
        found += children.get(each, [])
    return found


def _serve(pipe: Connection, connection: Redis, preload: bool) -> None:
    """Run jobs as they come until the worker closes the pipe or kills this process."""
    _lead(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connection.connection_pool.reset()
    # A job waits for Redis as its worker does; where that takes too long, its timeout or its lease ends it.
    connection.set_retry(Retry(ConstantBackoff(0.5), 240, AWAY))
    try:
        if preload:
            with contextlib.suppress(Exception):
                for module in PRELOADED:
                    importlib.import_module(module)
        pipe.send_bytes(json.dumps([None, None]).encode())
        imported = 0
        while True:
            id, fields = json.loads(pipe.recv_bytes())
            random.seed()
            job = EtlJob(id, connection=connection)
            job.read({key.encode(): value.encode("latin-1") for key, value in fields.items()})
            answer = {**asdict(perform(job)), "memory": _memory()}
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            news = _sources() if len(sys.modules) != imported else None
            imported = len(sys.modules)
            pipe.send_bytes(json.dumps([answer, news]).encode())
    except EOFError:
        os._exit(0)
    except BaseException:
        os._exit(1)


def _sources() -> dict[str, int]:
    """Return the files in etl.toml's folder that this process has imported, and when they were changed."""
    folder = settings.module_folder() + os.sep
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(folder) and "site-packages" not in file:
            with contextlib.suppress(OSError):
                found[file] = os.stat(file).st_mtime_ns
    return found


def _memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

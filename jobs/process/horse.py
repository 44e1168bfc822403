"""The process that runs a worker's jobs, one after another, for as long as it stays healthy."""

import contextlib
import importlib
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from etl import output
from jobs import settings
from jobs.job import EtlJob
from jobs.process.complete import Outcome, perform
from jobs.store.redis_errors import AWAY

PRELOADED = ("jobs.stages", "etl.sources.formats.blocks", "fsspec.implementations.local")


class Horse:
    """A child process that runs jobs, and a keeper that kills it and all it started when the worker is gone.

    The keeper is a process because nothing within the horse is sure to run: a long call into C keeps its
    threads waiting, and PR_SET_PDEATHSIG would leave what the horse has started behind.

    Args:
        connection: The worker's; the horse makes its own sockets of it.
    """

    def __init__(self, connection: Redis) -> None:
        self.pid = 0  # 0 where there is no process
        self.ready = False  # once it has imported what it needs: a job's time is counted from then on
        self._connection = connection
        self._jobs = 0
        self._sources: dict[str, int] = {}
        self._keeper = 0

    def start(self) -> None:
        """Start the process, if there is none."""
        if self.pid:
            return
        self.ready, self._jobs, self._sources = False, 0, {}
        self._pipe, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._pipe.close()
                _set_group(0, 0)
                serve(theirs, self._connection)
            finally:
                os._exit(1)
        _set_group(self.pid, self.pid)
        theirs.close()
        self._start_keeper()

    def _start_keeper(self) -> None:
        ends_with_worker, self._held_open = os.pipe()
        self._keeper = os.fork()
        if self._keeper == 0:
            try:
                self._pipe.close()
                os.close(self._held_open)
                _kill_at_end_of(ends_with_worker, self.pid)
            finally:
                os._exit(1)
        _set_group(self._keeper, self.pid)
        os.close(ends_with_worker)

    def send(self, id: str, raw: Mapping[bytes, bytes]) -> None:
        """Give the horse a job; one that has died since its last job, or runs old code, is replaced first.

        Args:
            raw: The job's hash.
        """
        fields = {key.decode(): value.decode("latin-1") for key, value in raw.items()}
        message = json.dumps([id, fields]).encode()
        if self._is_outdated():
            self.stop()
        try:
            self.start()
            self._pipe.send_bytes(message)
        except OSError:
            self.stop()
            self.start()
            self._pipe.send_bytes(message)
        self._jobs += 1

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
        except (EOFError, OSError):
            outcome = Outcome("lost")
        if outcome is None:
            return None
        if outcome.kind == "lost" or self._jobs >= settings.JOBS_PER_HORSE or outcome.memory > settings.HORSE_MEMORY:
            self.stop()
        return outcome

    def _answer(self, patience: float) -> Outcome | None:
        if self._pipe.poll(max(0.0, patience)):
            answer, sources = json.loads(self._pipe.recv_bytes())
            if answer is None:
                self.ready = True
                return None
            self._sources = {**sources, **self._sources} if sources else self._sources
            return Outcome(**answer)
        # A process that the job left behind holds the pipe open when the horse is dead.
        if _is_dead(self.pid):
            return Outcome("lost")
        if _is_dead(self._keeper):
            os.waitpid(self._keeper, 0)
            os.close(self._held_open)
            self._start_keeper()
        return None

    def kill(self) -> None:
        """Kill the horse and all it started; safe from signal handlers and other threads, and when it is dead."""
        if self.pid:
            _kill(self.pid)

    def stop(self) -> None:
        """Kill the horse and wait until it is gone."""
        if not self.pid:
            return
        self.kill()
        pid, self.pid = self.pid, 0
        for child in (pid, self._keeper):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        self._pipe.close()
        with contextlib.suppress(OSError):
            os.close(self._held_open)


def _is_dead(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _set_group(pid: int, group: int) -> None:
    """Put a process into a process group; parent and child both do it, so that neither has to wait."""
    with contextlib.suppress(OSError):
        os.setpgid(pid, group)


def _kill_at_end_of(pipe: int, group: int) -> None:
    """Wait for the worker's end, then kill the horse's process group, this process included."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.read(pipe, 1)
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


def serve(pipe: Connection, connection: Redis) -> None:
    """Run jobs as they come until the worker closes the pipe or kills this process; the horse's whole life.

    Each message is a job's id and hash, each answer an outcome and, where modules were imported, the user's files among
    them; the first answer, before any job, says that the horse is ready.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core has rows in it, and anyone might read it
    connection.connection_pool.reset()
    # A job waits for Redis as its worker does; where that takes too long, its timeout or its lease ends it.
    connection.set_retry(Retry(ConstantBackoff(0.5), 240, AWAY))
    try:
        if settings.path().is_file():
            with contextlib.suppress(Exception):
                for module in PRELOADED:
                    importlib.import_module(module)
        output.capture_from_now_on()
        pipe.send_bytes(json.dumps([None, None]).encode())
        imported = 0
        while True:
            id, fields = json.loads(pipe.recv_bytes())
            random.seed()
            job = EtlJob(id, connection=connection)
            job.read({key.encode(): value.encode("latin-1") for key, value in fields.items()})
            output.give_back()
            answer = {**asdict(perform(job)), "memory": _memory()}
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sources = _sources() if len(sys.modules) != imported else None
            imported = len(sys.modules)
            pipe.send_bytes(json.dumps([answer, sources]).encode())
    except EOFError:
        os._exit(0)
    except BaseException:
        os._exit(1)


def _sources() -> dict[str, int]:
    """Return the files in etl.toml's folder that this process has imported, and when they were changed."""
    folder = settings.module_folder() + os.sep
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return {file: settings.changed(file) for file in files if file.startswith(folder) and "site-packages" not in file}


def _memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

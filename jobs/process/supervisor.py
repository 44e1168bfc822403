"""The processes of a command: workers are started again when they die, and none outlives the command."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from etl.errors import EtlError
from jobs import settings
from jobs.process.spawn import Process, end, spawn

GRACE = 3.0  # seconds; a worker that ends sooner than that can't work here
AGAIN = 2.0  # seconds between two starts of another process that is to be there always


class WorkersFailed(EtlError):
    """The worker processes can't work."""


class Supervisor:
    """Worker processes, and others beside them, that end with this one, however it ends.

    Args:
        url: The Redis to work for.
        log: The file that takes what workers print; None for this process's own output.
        burst: Whether workers end when there is nothing to do, and are not started again.
    """

    def __init__(self, url: str, log: Path | None = None, *, burst: bool = False) -> None:
        self.url, self.log, self.burst = url, log, burst
        self._environment = settings.worker_environment(url)  # of its project, whichever is in use when one is replaced
        self._workers: list[Process] = []
        self._others: list[Process] = []
        self._kept: dict[int, tuple[Process, list[str], dict[str, Any]]] = {}
        self._started: dict[int, float] = {}

    def start(self, count: int) -> None:
        """Start so many workers more."""
        self._workers += [self._start() for _ in range(count)]

    def start_other(self, command: list[str], **options: Any) -> Process:
        """Start a process that ends with the workers, and is not started again.

        Args:
            options: Of `subprocess.Popen`.
        """
        process = spawn(command, signal.SIGTERM, env=self._environment, **options)
        self._others.append(process)
        return process

    def keep_other(self, command: list[str], **options: Any) -> None:
        """Start a process that ends with the workers, and is started again when it has died.

        Args:
            options: Of `subprocess.Popen`.
        """
        process = self.start_other(command, **options)
        self._kept[process.pid] = process, command, options
        self._started[process.pid] = time.monotonic()

    def _replace_others(self) -> None:
        for process, command, options in list(self._kept.values()):
            if process.poll() is not None and time.monotonic() > self._started[process.pid] + AGAIN:
                del self._started[process.pid], self._kept[process.pid]
                self._others.remove(process)
                self.keep_other(command, **options)

    def _start(self) -> Process:
        with contextlib.ExitStack() as stack:
            log = None
            if self.log is not None:
                log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                stack.callback(os.close, log)
            # SIGHUP: it puts its job back first.
            command = worker_command("--burst") if self.burst else worker_command()
            process = spawn(command, signal.SIGHUP, env=self._environment, stdout=log, stderr=log)
        self._started[process.pid] = time.monotonic()
        return process

    def replace_dead(self) -> None:
        """Start a worker for each that has died, so that a job that kills its worker doesn't end the command's work.

        Other processes that are kept too.

        Raises:
            WorkersFailed: They end as soon as they are started.
        """
        self._replace_others()
        if self.burst:
            return
        for index, process in enumerate(self._workers):
            if process.poll() is None:
                continue
            soon = time.monotonic() - self._started.pop(process.pid) < GRACE
            if soon and process.returncode not in (0, -signal.SIGKILL):  # someone else has asked it to stop, or sent it
                raise WorkersFailed(
                    f"the workers ended at once, with exit code {process.returncode}",
                    f"see {self.log}" if self.log else "see what they say above",
                )
            self._workers[index] = self._start()

    def exit_code(self) -> int | None:
        """Return the worst exit code of workers that have all ended; None while one works."""
        codes = [code for process in self._workers if (code := process.poll()) is not None]
        return max(codes) if len(codes) == len(self._workers) else None

    def end(self) -> None:
        """Let each worker finish its job; after ten seconds, or a second Ctrl-C, it puts the job back."""
        processes = [*self._workers, *self._others]
        self._workers, self._others, self._kept = [], [], {}
        end(processes, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


def worker_command(*options: str) -> list[str]:
    """Return the command line of a stock `rq worker`."""
    # -P: a folder of the user's own in the working directory hides none of ours.
    return [sys.executable, "-P", "-m", "rq.cli", "worker", *options]


def pool_command(count: int, *options: str) -> list[str]:
    """Return the command line of `rq worker-pool`, which starts a worker again that has died."""
    # It reads no classes from the environment but the worker's.
    kinds = ("worker", "job", "queue")
    classes = [f"--{kind}-class={settings.WORKER_CLASSES[f'RQ_{kind.upper()}_CLASS']}" for kind in kinds]
    return [*worker_command()[:-1], "worker-pool", *options, "-n", str(count), *classes]

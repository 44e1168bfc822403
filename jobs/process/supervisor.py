"""The worker processes of a command: started again when they die, and never there longer than the command."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from etl.errors import EtlError
from jobs import settings
from jobs.process.spawn import Process, spawn

GOODBYE = 10.0  # seconds that a worker has to finish its job, when the command that started it ends
GRACE = 3.0  # seconds; a worker that ends sooner than that can't work here


class WorkersFailed(EtlError):
    """The worker processes can't work."""


class Supervisor:
    """Worker processes that end with this one, however it ends.

    Args:
        url: The Redis to work for.
        log: The file that takes what they say; None for this process's own output.
        options: Of `rq worker`.
    """

    def __init__(self, url: str, log: Path | None = None, *options: str) -> None:
        self.url, self.log, self.options = url, log, options
        self._processes: list[Process] = []
        self._started: dict[int, float] = {}

    def start(self, count: int) -> None:
        """Start so many more."""
        self._processes += [self._start() for _ in range(count)]

    def _start(self) -> Process:
        environment = settings.worker_environment(self.url, settings.path())
        with contextlib.ExitStack() as stack:
            log = None
            if self.log is not None:
                log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                stack.callback(os.close, log)
            # SIGHUP: it puts its job back first.
            process = spawn(worker_command(*self.options), signal.SIGHUP, env=environment, stdout=log, stderr=log)
        self._started[process.pid] = time.monotonic()
        return process

    def replace_dead(self) -> None:
        """Start a worker for each that has died, so that a job that kills its worker doesn't end the command's work.

        Raises:
            WorkersFailed: They end as soon as they are started.
        """
        for index, process in enumerate(self._processes):
            if process.poll() is None:
                continue
            soon = time.monotonic() - self._started.pop(process.pid) < GRACE
            if soon and process.returncode != -signal.SIGKILL:  # which someone else has sent
                raise WorkersFailed(
                    f"the workers ended at once, with exit code {process.returncode}",
                    f"see {self.log}" if self.log else "see what they say above",
                )
            self._processes[index] = self._start()

    def wait(self) -> int:
        """Wait until all have ended by themselves; returns the worst exit code."""
        return max(process.wait() for process in self._processes)

    def end(self, *others: Process) -> None:
        """Let each finish its job; after ten seconds, or a second Ctrl-C, it puts the job back.

        Args:
            others: Processes that end with the workers.
        """
        processes, self._processes = [*self._processes, *others], []
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            for process in processes:
                if process.poll() is None:
                    (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
            give_up = time.monotonic() + GOODBYE
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # asked again: no more patience
                for process in processes:
                    process.wait(max(0.0, give_up - time.monotonic()))


def worker_command(*options: str) -> list[str]:
    """Return the command line of a stock `rq worker`."""
    # -P: a folder of the user's own in the working directory hides none of ours.
    return [sys.executable, "-P", "-m", "rq.cli", "worker", *options]

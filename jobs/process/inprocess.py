"""A worker within this process, for fakeredis and `--inline`: the same steps, without a horse."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from redis import Redis

from jobs.job import EtlJob
from jobs.process.complete import Outcome, complete, perform
from jobs.process.maintenance import maintain
from jobs.process.surroundings import restored
from jobs.queue import FairQueue, ServedQueues
from jobs.store.malformed import passing


class InProcessWorker:
    """Runs jobs in this process.

    Args:
        names: Queues to serve beside all clients'.
        inline: Whether someone may be stepping through the jobs: then none times out.
    """

    def __init__(self, connection: Redis, names: Iterable[str] = ("default",), *, inline: bool = False) -> None:
        self.connection = connection
        self.inline = inline
        self._served = ServedQueues(connection, names)

    def step(self) -> bool:
        """Run one job if there is one; returns whether there was."""
        found = passing(self.connection, self._next)
        if found is None:
            return False
        job, queue = found
        try:
            with restored():
                outcome = self._perform(job)
        except KeyboardInterrupt:
            complete(self.connection, job, queue, Outcome("returned"))
            raise
        passing(self.connection, lambda: complete(self.connection, job, queue, outcome))
        return True

    def _next(self) -> tuple[EtlJob, FairQueue] | None:
        """Dequeue a job; where there is none, do maintenance and look once more."""
        found = self._served.dequeue()
        if found is None:
            self._served.refresh()
            maintain(self.connection, self._served.names)
            found = self._served.dequeue()
        return found

    def work(self, *, until: Callable[[], bool] | None = None) -> bool:
        """Run jobs until `until` is true or no job is left, retries included.

        Returns:
            Whether any job was run.
        """
        worked = False
        while until is None or not until():
            if self.step():
                worked = True
                continue
            due = self._served.due()
            if due is None:
                break
            time.sleep(due)
        return worked

    def work_for(self, seconds: float) -> bool:
        """Run jobs for about so long; returns sooner when it has run some and none is left.

        Returns:
            Whether any job was run.
        """
        deadline = time.monotonic() + seconds
        worked = False
        while (left := deadline - time.monotonic()) > 0:
            if self.step():
                worked = True
                continue
            if worked:
                break
            due = self._served.due()
            time.sleep(min(left, left if due is None else due))
        return worked

    def _perform(self, job: EtlJob) -> Outcome:
        limit = float(job.timeout or FairQueue.DEFAULT_TIMEOUT)
        if self.inline or limit <= 0 or threading.current_thread() is not threading.main_thread():
            return perform(job)
        outcome = Outcome("failed")
        with _alarm(limit) as rang:
            outcome = perform(job)
        return (
            Outcome("failed", error=f"timed out after {limit:g} s") if rang() and outcome.kind == "failed" else outcome
        )


class _TimedOut(BaseException):
    """Raised within a job that takes too long."""


@contextmanager
def _alarm(seconds: float) -> Iterator[Callable[[], bool]]:
    rang = False

    def ring(signum: int, frame: FrameType | None) -> None:
        nonlocal rang
        rang = True
        raise _TimedOut

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield lambda: rang
    except _TimedOut:  # between the job's end and here
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

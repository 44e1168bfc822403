"""The worker: stock `rq worker` with our classes. It takes jobs in turn and keeps one long-lived horse.

The horse only runs functions. What is written to Redis about a job is written by the worker, in one step,
if its lease still stands; so a horse that outlives its worker can change nothing.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Worker as RQWorker
from rq import worker_registration
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import WorkerStatus

from jobs import settings
from jobs.job import EtlJob
from jobs.process.complete import Outcome, complete
from jobs.process.horse import Horse
from jobs.process.maintenance import is_time, maintain, request_cleanup, rescue
from jobs.process.spawn import end_with_owner
from jobs.queue import FairQueue, Line
from jobs.store import scripts
from jobs.store.redis_errors import AWAY

Answer = TypeVar("Answer")


class Worker(RQWorker):
    """An RQ worker that serves all clients' queues in turn, whatever it is told beyond that.

    Takes RQ's arguments; serializer, classes, intervals and scheduler are ours.
    """

    queue_class: type[Queue] = FairQueue
    job_class = EtlJob
    max_connection_wait_time = 5.0

    def __init__(self, queues: Any, name: str | None = None, **options: Any) -> None:
        given: list[Any] = [queues] if isinstance(queues, str | Queue) else list(queues)
        connection = options.get("connection") or given[0].connection
        self._renewal = settings.lease() / 4
        options |= {
            "connection": connection,
            "serializer": JSONSerializer,
            "job_class": EtlJob,
            "queue_class": FairQueue,
            "job_monitoring_interval": max(1, round(self._renewal)),
        }
        names = [queue.name if isinstance(queue, Queue) else str(queue) for queue in given]
        super().__init__([FairQueue(each, connection=connection) for each in names], name, **options)
        self._line = Line(connection, names)
        self._horse: Horse | None = None
        self._cold = False
        self._next_tick = 0.0
        self._told_idle = False
        self._registered: list[str] = []

    # --- RQ's loop, with our parts ---

    dequeue_timeout = property(lambda self: 5)
    should_run_maintenance_tasks = property(lambda self: False)  # the pass, in _tick

    def work(self, burst: bool = False, *arguments: Any, **options: Any) -> bool:
        """Work until told to stop, or until there is nothing to do where `burst` is true."""
        options["with_scheduler"] = False
        pool = multiprocessing.parent_process()
        if pool is not None:  # no one would stop this worker without it
            end_with_owner(signal.SIGTERM, pool.pid)()
        self._install_signal_handlers()  # now, not after registering: a pool sends its signal once
        self.connection.set_retry(Retry(NoBackoff(), 1))  # our loops wait for Redis
        self._saddle()
        try:
            return bool(super().work(burst, *arguments, **options))
        finally:
            self._unsaddle()

    def check_for_suspension(self, burst: bool) -> None:
        """Nothing: *take* gives no job while workers are suspended."""

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Nothing where RQ asks for one after each job: _tick sends them."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[EtlJob, FairQueue] | None:
        """Wait for a job; returns None when told to stop, idle for too long, or in burst mode without one."""
        idle_since = time.monotonic()
        self._told_idle = False
        stirs = True
        while not self._stop_requested:
            try:
                self._tick()
                found = self._line.take(self.name) if stirs else None
                if found is not None:
                    self._state = WorkerStatus.BUSY
                    return found
                if timeout is None:
                    return None
                stirs = self._idle()
            except AWAY as error:
                self._wait_for_redis(error)
            if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                return None
        return None

    def execute_job(self, job: EtlJob, queue: FairQueue) -> None:  # type: ignore[override]
        """Have the horse run the job, and write down how it ended."""
        self.execution = job.execution
        self.log.info("%s: %s (%s)", queue.name, job.description, job.id)
        began = time.monotonic()
        outcome = self._ride(job)
        became = self._stubborn(lambda: complete(self.connection, job, queue, outcome)) if outcome else None
        self.execution = None
        self._stopped_job_id = None
        if became is None:
            self.log.warning("%s: lost the lease of job %s; its result is dropped", queue.name, job.id)
        elif outcome and outcome.kind == "done":
            self.log.info("%s: %s: done in %.1f s", queue.name, job.description, time.monotonic() - began)
        elif outcome and outcome.kind == "later":
            self.log.info("%s: %s: its time comes in %.1f s", queue.name, job.description, outcome.delay)
        elif outcome:
            self.log.warning("%s: job %s %s: %s", queue.name, job.id, outcome.kind, outcome.error or became.value)
        if self._cold:
            raise SystemExit

    # --- while a job runs ---

    def _ride(self, job: EtlJob) -> Outcome | None:
        """Return how the job ended, or None where it is not ours any more."""
        horse = self._hand(job)
        began = time.monotonic()
        limit = float(job.timeout or FairQueue.DEFAULT_TIMEOUT)
        deadline = float("inf")
        outcome = None
        while outcome is None:
            if horse.ready and limit > 0 and deadline == float("inf"):
                deadline = time.monotonic() + limit
            outcome = horse.outcome(min(self._next_tick, deadline, time.monotonic() + 1) - time.monotonic())
            if outcome is None and time.monotonic() >= deadline:
                self._unsaddle()
                return Outcome("failed", error=f"timed out after {limit:g} s")
            if outcome is None and time.monotonic() >= self._next_tick and not self._keep_lease(job, began):
                self._unsaddle()
                return None
        if outcome.kind == "lost":
            self._unsaddle()
            if self._stopped_job_id == job.id:
                return Outcome("stopped", error="stopped by a command")
            return Outcome("returned") if self._cold else outcome
        if horse.jobs >= settings.JOBS_PER_HORSE or outcome.memory > settings.HORSE_MEMORY:
            self._unsaddle()
        return outcome

    def _hand(self, job: EtlJob) -> Horse:
        """Give the job to the horse; one that has died since its last job, or runs old code, is replaced."""
        if self._horse is not None and self._horse.is_outdated():
            self._unsaddle()
        try:
            self._saddle().hand(job.id, job.raw)
        except OSError:
            self._unsaddle()
            self._saddle().hand(job.id, job.raw)
        if self._cold or self._stopped_job_id == job.id:  # since it was taken
            self.kill_horse()
        return self._saddle()

    def _keep_lease(self, job: EtlJob, began: float) -> bool:
        """Send signs of life; False where the job has been given to another."""
        try:
            return self.maintain_heartbeats(job, time.monotonic() - began)
        except AWAY:
            return True  # whether it is still ours is asked when Redis is back
        finally:
            self._next_tick = time.monotonic() + self._renewal

    def maintain_heartbeats(self, job: EtlJob, seconds: float = 0.0) -> bool:  # type: ignore[override]
        """Renew the lease; False where it is gone."""
        assert job.execution is not None
        at, entry = now(), job.execution.composite_key
        args = (job.origin, entry, settings.lease(), self.name, utcformat(at), at.timestamp(), f"{seconds:.1f}")
        stands = bool(scripts.renew(self.connection, *args))
        self._tick(force=True)
        return stands

    def _saddle(self) -> Horse:
        if self._horse is None:
            self._horse = Horse(self.connection, preload=settings.path().is_file())
            self._horse_pid = self._horse.pid
        return self._horse

    def _unsaddle(self) -> None:
        if self._horse is not None:
            self._horse.bury()
            self._horse = None
            self._horse_pid = 0

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill the horse and all it has started; its job is settled by the loop."""
        if self._horse is not None:
            self._horse.kill()

    # --- between jobs ---

    def _tick(self, *, force: bool = False) -> None:
        """Every few seconds: a sign of life, new clients' queues, and the pass if it is this worker's turn."""
        if not force and time.monotonic() < self._next_tick:
            return
        self._next_tick = time.monotonic() + self._renewal
        self._line.refresh()
        if self._registered != self._line.names or not self.connection.hexists(self.key, "birth"):
            self._register()
        with self.connection.pipeline(transaction=False) as pipe:
            self.heartbeat(max(60, round(20 * self._renewal)), pipe)  # so long is a dead worker listed
            pipe.execute()
        lost, _ = rescue(self.connection, self._line.names, apart=settings.lease() / 10)
        if lost:
            self.log.warning("took back from lost workers: %s", ", ".join(lost))
        if is_time(self.connection):
            maintain(self.connection, self._line.names)
            if settings.path().is_file():
                request_cleanup(self.connection)

    def _register(self) -> None:
        """Tell Redis of this worker and its queues, again where it has forgotten or there are new ones."""
        self._registered = self._line.names
        self.queues = [FairQueue(name, connection=self.connection) for name in self._registered]
        self._ordered_queues = self.queues[:]
        with self.connection.pipeline() as pipe:
            pipe.hset(self.key, mapping=self.serialize())
            pipe.hset(self.key, "state", self.get_state())
            worker_registration.register(self, pipe)
            pipe.execute()

    def _idle(self) -> bool:
        """Sleep until a queue stirs, it is time for a sign of life, or a stop is requested; whether one stirs."""
        if not self._told_idle:
            self.set_state(WorkerStatus.IDLE)
            self._told_idle = True
        self._saddle()
        while not self._stop_requested and time.monotonic() < self._next_tick:
            time.sleep(settings.POLL)
            if self._line.stirs():
                return True
        return False

    def _wait_for_redis(self, error: Exception) -> None:
        self.log.error("Redis is away (%s); trying again", type(error).__name__)
        until = time.monotonic() + 1
        while time.monotonic() < until and not self._stop_requested:
            time.sleep(settings.POLL)

    def _stubborn(self, act: Callable[[], Answer]) -> Answer | None:
        """Do something in Redis, however long it is away; gives up where a stop is requested."""
        while True:
            try:
                return act()
            except AWAY as error:
                if self._stop_requested:
                    return None
                self._wait_for_redis(error)

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Commands are heard again when Redis is back, however it was away."""
        self.log.error("Redis is away for commands (%s); trying again", type(exc).__name__)
        time.sleep(1)

    # --- stopping ---

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, self.request_return)

    def request_return(self, signum: int, frame: FrameType | None) -> None:
        """The terminal was closed, or whose worker this is has died: put the job back and stop, at once."""
        self._stop_requested = True
        self._cold = True
        self.kill_horse()

    def _shutdown(self) -> None:
        """First signal: finish the job in hand. Nothing is raised, so no job is lost between Redis and here."""
        self._stop_requested = True
        if self._is_orphan():
            self.request_return(signal.SIGTERM, None)

    def _is_orphan(self) -> bool:
        """Whether the pool that started this worker is gone."""
        pool = multiprocessing.parent_process()
        # Its `is_alive` asks a pipe that the other workers hold open.
        return pool is not None and os.getppid() != pool.pid

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Second signal: kill the horse; its job goes back to its queue."""
        asked = self._shutdown_requested_date
        # One Ctrl-C may arrive twice.
        if asked is None or now() - asked >= timedelta(seconds=1) or self._is_orphan():
            self._cold = True
            self.kill_horse()

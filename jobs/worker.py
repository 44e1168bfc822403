"""The worker: stock `rq worker` with our classes. It serves all clients in turn and keeps one long-lived horse.

The horse only runs functions. What is written to Redis about a job is written by the worker, in one step,
if its lease still stands; so a horse that outlives its worker can change nothing.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry
from rq import Worker as RQWorker
from rq import worker_registration
from rq.command import handle_command, parse_payload
from rq.job import JobStatus
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from rq.worker import WorkerStatus
from typing_extensions import override

from etl.errors import ConfigError
from etl.safe_message import printable, safe_message
from jobs import settings
from jobs.job import EtlJob
from jobs.process.complete import Outcome, complete
from jobs.process.horse import Horse, preload
from jobs.process.maintenance import is_time, maintain, request_cleanup, rescue
from jobs.process.spawn import end_with_owner
from jobs.queue import FairQueue, ServedQueues
from jobs.store import scripts
from jobs.store.malformed import FIXED, may_be_why, passing, set_aside
from jobs.store.redis_errors import AWAY, translate


def _may_be_cured(error: Exception) -> bool:
    """Whether a worker may go on when someone has corrected what is in Redis, or its users' permissions."""
    return may_be_why(error) or isinstance(error, NoPermissionError)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Keep what a record quotes of Redis, such as a job's description, from forging lines of the log."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


class Worker(RQWorker):
    """An RQ worker that serves all clients' queues in turn, whatever its command line names beyond that.

    Takes RQ's arguments; connection, serializer, classes and scheduler are ours.
    """

    queue_class: type[Queue] = FairQueue
    job_class = EtlJob

    # --- start ---

    def __init__(self, queues: Any, name: str | None = None, **options: Any) -> None:
        given: list[Any] = [queues] if isinstance(queues, str | Queue) else list(queues)
        connection = options.get("connection") or given[0].connection
        ours = {"connection": connection, "serializer": JSONSerializer, "job_class": EtlJob, "queue_class": FairQueue}
        names = [queue.name if isinstance(queue, Queue) else str(queue) for queue in given]
        super().__init__(names, name, **{**options, **ours})
        self._served = ServedQueues(connection, names)
        self._registered: list[str] = []
        try:
            self._renewal = settings.lease() / 4
        except ConfigError as mistake:  # such as one in .env; RQ would print a traceback
            raise SystemExit(f"rq-etl: {mistake}") from None
        self._next_tick = self._next_rescue = 0.0
        self._is_idle = False
        self._horse = Horse(connection)
        self._reported: set[str] = set()
        self._cold = False  # whether the job in hand goes back unfinished
        self.log.addFilter(_in_one_line)

    @override
    def work(self, burst: bool = False, *arguments: Any, **options: Any) -> bool:
        """Work until a signal stops this worker, or until there is nothing to do where `burst` is true."""
        options["with_scheduler"] = False
        pool = multiprocessing.parent_process()
        if pool is not None:  # no one would stop this worker without it
            end_with_owner(signal.SIGTERM, pool.pid)()
        self._install_signal_handlers()  # now, not after registering: a pool sends its signal once
        self.connection.set_retry(Retry(NoBackoff(), 1))  # our loops wait for Redis
        preload()
        with contextlib.suppress(NoPermissionError):  # said below
            set_aside(self.connection, FIXED)
        self._horse.start()
        try:
            return bool(super().work(burst, *arguments, **options))
        except NoPermissionError as error:
            refused = translate(error)
            self.log.error("%s: %s", refused.what, refused.cure)
            raise SystemExit(refused.exit_code) from None
        finally:
            self._horse.stop()

    # --- what RQ's loop asks for ---

    @property
    @override
    def dequeue_timeout(self) -> int:
        """Seconds, for RQ's socket timeout; a dequeue never blocks."""
        return 5

    @property
    @override
    def should_run_maintenance_tasks(self) -> bool:
        """False: maintenance is in _tick."""
        return False

    @override
    def check_for_suspension(self, burst: bool) -> None:
        """Nothing: a dequeue gives no job while workers are suspended."""

    @override
    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Nothing where RQ asks for one after each job: _tick sends them."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)

    # --- dequeue ---

    @override
    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[EtlJob, FairQueue] | None:
        """Wait for a job; returns None when asked to stop, idle for too long, or in burst mode without one."""
        idle_since = time.monotonic()
        self._is_idle = False
        has_jobs = True
        while not self._stop_requested:
            try:
                self._tick()
                found = passing(self.connection, lambda: self._served.dequeue(self.name)) if has_jobs else None
                if found is not None:
                    self._state = WorkerStatus.BUSY
                    return found
                if timeout is None:
                    return None
                has_jobs = self._idle()
            except AWAY as error:
                self._wait_for_redis(error)
            except Exception as error:  # none that malformed data or a lost permission may be why ends a worker
                if not _may_be_cured(error):
                    raise
                self._wait_for_cure(error)
            if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                return None
        return None

    def _idle(self) -> bool:
        """Sleep until a queue has a job, it is time for a sign of life, or a stop is requested; whether one has."""
        if not self._is_idle:
            self.set_state(WorkerStatus.IDLE)
            self._is_idle = True
        self._horse.start()
        while not self._stop_requested and time.monotonic() < min(self._next_tick, self._next_rescue):
            time.sleep(settings.POLL)
            if self._served.has_jobs():
                return True
        return False

    # --- run ---

    @override
    def execute_job(self, job: EtlJob, queue: FairQueue) -> None:  # type: ignore[override]
        """Have the horse run the job, and write down how it ended."""
        self.log.info("%s: %s (%s)", queue.name, job.description, job.id)
        began = time.monotonic()
        outcome = self._run_in_horse(job)
        became = self._complete(job, queue, outcome) if outcome else None
        self._stopped_job_id = None
        if outcome is None or became is None:
            self.log.warning("%s: lost the lease of job %s; its result is dropped", queue.name, job.id)
        elif outcome.kind == "done":
            self.log.info("%s: %s: done in %.1f s", queue.name, job.description, time.monotonic() - began)
        elif outcome.kind == "snoozed":
            self.log.info("%s: %s: its time comes in %.1f s", queue.name, job.description, outcome.delay)
        else:
            self.log.warning("%s: job %s %s: %s", queue.name, job.id, outcome.kind, outcome.error or became.value)
        if self._cold:
            raise SystemExit

    def _run_in_horse(self, job: EtlJob) -> Outcome | None:
        """Return how the job ended, or None where it is not ours any more."""
        self._horse.send(job)
        if self._cold or self._stopped_job_id == job.id:  # since it was dequeued
            self.kill_horse()
        began = time.monotonic()
        limit = float(job.timeout or FairQueue.DEFAULT_TIMEOUT)
        deadline, was_ready = began + settings.HORSE_START, False
        outcome = None
        while outcome is None:
            if self._horse.ready and not was_ready:
                deadline, was_ready = time.monotonic() + limit if limit > 0 else float("inf"), True
            wake = min(self._next_tick, self._next_rescue, deadline, time.monotonic() + 1)
            outcome = self._horse.outcome(wake - time.monotonic())
            if outcome is None:
                with contextlib.suppress(*AWAY):  # whether the lease is still ours is asked when Redis is back
                    self._rescue()
            if outcome is None and time.monotonic() >= deadline and was_ready == self._horse.ready:
                self._horse.stop()
                return Outcome("failed", error=f"timed out after {limit:g} s") if was_ready else Outcome("lost")
            if outcome is None and time.monotonic() >= self._next_tick and not self._renew_lease(job, began):
                self._horse.stop()
                return None
        if outcome.kind == "lost" and self._stopped_job_id == job.id:
            return Outcome("stopped", error="stopped by a command")
        return Outcome("returned") if outcome.kind == "lost" and self._cold else outcome

    def _renew_lease(self, job: EtlJob, began: float) -> bool:
        """Send signs of life; False where the job has been given to another."""
        assert job.execution is not None
        at, entry, seconds = now(), job.execution.composite_key, f"{time.monotonic() - began:.1f}"
        args = (job.origin, entry, settings.lease(), self.name, utcformat(at), at.timestamp(), seconds)
        try:
            is_ours = bool(scripts.renew(self.connection, *args))
            self._tick(force=True)
            return is_ours
        except AWAY:
            return True  # whether it is still ours is asked when Redis is back
        except Exception as error:
            if not _may_be_cured(error):
                raise
            self._wait_for_cure(error, 0)
            return True
        finally:
            self._next_tick = time.monotonic() + self._renewal

    @property
    @override
    def horse_pid(self) -> int:
        """The horse's process id, 0 where there is none."""
        return self._horse.pid

    @override
    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Kill the horse and all it has started; the loop completes its job."""
        self._horse.kill()

    # --- complete ---

    def _complete(self, job: EtlJob, queue: FairQueue, outcome: Outcome) -> JobStatus | None:
        """Write down how the job ended, however long Redis is away; see `complete`.

        Returns:
            What the job is now, or None where nothing was written: its lease is gone, or Redis is and a stop requested.
        """
        while True:
            try:
                return passing(self.connection, lambda: complete(self.connection, job, queue, outcome))
            except AWAY as error:
                if self._stop_requested:
                    return None
                self._wait_for_redis(error)
            except NoPermissionError as error:
                if self._stop_requested:
                    return None
                self._wait_for_cure(error)

    # --- between jobs ---

    def _tick(self, *, force: bool = False) -> None:
        """Every few seconds: a sign of life, new clients' queues, and maintenance if it is this worker's turn."""
        self._rescue()
        if not force and time.monotonic() < self._next_tick:
            return
        self._next_tick = time.monotonic() + self._renewal
        passing(self.connection, self._maintain)

    def _maintain(self) -> None:
        self._served.refresh()
        if self._registered != self._served.names or not self.connection.hexists(self.key, "birth"):
            self._register()
        with self.connection.pipeline(transaction=False) as pipe:
            self.heartbeat(max(60, round(20 * self._renewal)), pipe)  # so long is a dead worker listed
            pipe.execute()
        if is_time(self.connection):
            maintain(self.connection, self._served.names)
            if settings.path().is_file():
                request_cleanup(self.connection)

    def _rescue(self) -> None:
        """Look for ended leases: what a dead worker had in hand begins again within a second of its lease's end."""
        if time.monotonic() < self._next_rescue:
            return
        self._next_rescue = time.monotonic() + settings.lease() / 16
        look = partial(rescue, self.connection, self._served.names, apart=settings.lease() / 24)
        lost, _ = passing(self.connection, look)
        if lost:
            self.log.warning("took back from lost workers: %s", ", ".join(lost))

    def _register(self) -> None:
        """Write this worker and its queues to Redis, again where it has forgotten or there are new ones."""
        self._registered = self._served.names
        self.queues = [FairQueue(name, connection=self.connection) for name in self._registered]
        with self.connection.pipeline() as pipe:
            pipe.hset(self.key, mapping={**self.serialize(), "state": self.get_state()})
            worker_registration.register(self, pipe)
            pipe.execute()

    def _wait_for_redis(self, error: Exception) -> None:
        self.log.error("Redis is away (%s); trying again", type(error).__name__)
        self._pause(1)

    def _wait_for_cure(self, error: Exception, seconds: float = 1) -> None:
        """Go on after an error that nothing set aside has cured."""
        if isinstance(error, NoPermissionError):
            self._report(f"{translate(error).what}; trying again")
        else:
            self._report(f"what is in Redis can't be worked with: {safe_message(error)}; see rq-etl doctor")
        self._pause(seconds)

    def _report(self, what: str) -> None:
        """Log an error, once for each."""
        if what not in self._reported:
            self._reported.add(what)
            self.log.error("%s", what)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stop_requested:
            time.sleep(settings.POLL)

    @override
    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Commands are heard again when Redis is back, however it was away, or permits it."""
        if isinstance(exc, AWAY):
            self.log.error("Redis is away for commands (%s); trying again", type(exc).__name__)
        else:
            why = translate(exc).what if isinstance(exc, RedisError) else safe_message(exc)
            self._report(f"commands can't be heard: {why}; trying again")
        time.sleep(1)

    @override
    def handle_payload(self, message: Any) -> None:
        """Do what a command says; whatever else is published to this worker is left alone, and said once."""
        try:
            command = parse_payload(message)
        except (ValueError, RecursionError):
            command = {}
        if isinstance(command, dict) and isinstance(command.get("command"), str):
            handle_command(self, command)
        else:
            self._report("what is no command was published to this worker, and is passed over")

    # --- stop ---

    @override
    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, self.request_return)

    @override
    def _shutdown(self) -> None:
        """First signal: finish the job in hand. Nothing is raised, so no job is lost between Redis and here."""
        self._stop_requested = True
        if self._is_orphan():
            self.request_return(signal.SIGTERM, None)

    @override
    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Second signal: kill the horse; its job goes back to its queue."""
        asked = self._shutdown_requested_date
        # One Ctrl-C may arrive twice.
        if asked is None or now() - asked >= timedelta(seconds=1) or self._is_orphan():
            self._cold = True
            self.kill_horse()

    def request_return(self, signum: int, frame: FrameType | None) -> None:
        """The terminal was closed, or whose worker this is has died: put the job back and stop, at once."""
        self._stop_requested = True
        self._cold = True
        self.kill_horse()

    def _is_orphan(self) -> bool:
        """Whether the pool that started this worker is gone."""
        pool = multiprocessing.parent_process()  # its `is_alive` asks a pipe that the other workers hold open
        return pool is not None and os.getppid() != pool.pid

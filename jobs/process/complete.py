"""An execution of a job: performed in this process, and completed, at once and only under a lease that still stands."""

import contextlib
import importlib
import json
import re
import sys
import traceback
import zlib
from base64 import b64encode
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

from redis import Redis
from rq.defaults import DEFAULT_RESULT_TTL, UNSERIALIZABLE_RETURN_VALUE_PAYLOAD
from rq.job import JobStatus
from rq.utils import now, utcformat

from etl.errors import EtlError
from etl.functions import one_process
from etl.safe_message import printable, safe_message
from jobs import settings
from jobs.job import EtlJob, Snooze
from jobs.queue import FairQueue
from jobs.store import keys, limits, scripts

LARGEST = 1 << 20  # bytes of a result as JSON; it is kept in Redis for a day
DEEPEST = 500  # levels of a result; Python reads and writes about a thousand, less where the stack is deep already
LOST = "lost its worker three times"  # settings.MAX_LOSSES
PACKED = b64encode(zlib.compress(LOST.encode()))  # as RQ packs a failure into a result

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NESTING = re.compile(r"[][{}]")


@dataclass(frozen=True)
class Outcome:
    """How an execution ended.

    Args:
        kind: `done`; `failed`; `stopped` by a command; `lost` with its horse; `returned` unfinished on shutdown;
            `snoozed`: not begun, as its time has not come.
        value: What the function returned, as JSON.
        error: Why it failed, fit to be shown.
        curable: Whether another try may help.
        delay: Seconds until its time comes.
        memory: Bytes the horse had in memory afterwards, 0 where unknown.
    """

    kind: Literal["done", "failed", "stopped", "lost", "returned", "snoozed"]
    value: str = "null"
    error: str = ""
    curable: bool = True
    delay: float = 0.0
    memory: int = 0


def perform(job: EtlJob) -> Outcome:
    """Run the job's function in this process; whatever it raises, or what it returned does, becomes an outcome."""
    try:
        with one_process():
            value = job.perform()
            try:
                answer = _as_json(value)
            except RecursionError:
                return _unfit(f"{job.func_name} returned a value that is nested too deep for JSON")
            except (TypeError, ValueError):
                answer = json.dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD)
    except KeyboardInterrupt:
        raise
    except Snooze as snooze:
        return Outcome("snoozed", delay=snooze.seconds)
    except BaseException as exc:
        return failure(job, exc)
    if len(answer) > LARGEST:
        return _unfit(f"{job.func_name} returned {len(answer):,} bytes as JSON, at most {LARGEST:,} are kept")
    if _depth(answer) > DEEPEST:
        return _unfit(f"{job.func_name} returned a value that is nested deeper than {DEEPEST} levels")
    return Outcome("done", value=answer)


def failure(job: EtlJob, exc: BaseException) -> Outcome:
    """Return the outcome of a job that raised, without the exception's words; its class may be anyone's."""
    try:
        _keep_traceback(job, exc)
        curable = exc.retryable if isinstance(exc, EtlError) else True
        modules = frozenset[str]()
        with contextlib.suppress(EtlError):
            modules = settings.modules()
        error = printable(safe_message(exc, modules), keep="\n")[:LARGEST]
        return Outcome("failed", error=error, curable=bool(curable))
    except BaseException:
        return Outcome("failed", error="it raised what can't be described")


def _as_json(value: object) -> str:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)  # where a function has set it higher, too deep a value would end this process
    try:
        return json.dumps(value)
    finally:
        sys.setrecursionlimit(limit)


def _unfit(what: str) -> Outcome:
    return Outcome("failed", error=f"{what}: write a file and return its name", curable=False)


def _depth(text: str) -> int:
    """Return how deep the lists and objects of a JSON text are nested, or 0 where they can't be too deep."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return 0
    steps = (1 if sign in "[{" else -1 for sign in _NESTING.findall(_STRING.sub("", text)))
    return max(accumulate(steps), default=0)


def _keep_traceback(job: EtlJob, exc: BaseException) -> None:
    """Hand the whole text of what a stage raised to whoever keeps it privately."""
    with contextlib.suppress(Exception):
        if job.is_ours:
            text = "".join(traceback.format_exception(exc))
            importlib.import_module("jobs.run.stage").keep_traceback(job, text)


def complete(connection: Redis, job: EtlJob, queue: FairQueue, outcome: Outcome) -> JobStatus | None:
    """Write down how the job's execution ended, and queue the jobs that have waited for it.

    Returns:
        What the job is now, or None where its lease is gone and nothing was written.
    """
    assert job.execution is not None
    job.ended_at = now()
    at, entry = utcformat(job.ended_at), job.execution.composite_key
    if outcome.kind in ("lost", "returned"):
        most = settings.MAX_LOSSES if outcome.kind == "lost" else 0
        answer = scripts.rescue_job(connection, queue.name, entry, at, most, PACKED).decode()
        return None if answer == "gone" else JobStatus(answer)
    pipe = connection.pipeline()  # only to collect what RQ would send
    if outcome.kind == "done":
        became = _finish(job, outcome, pipe)
    elif outcome.kind == "snoozed":
        became = _schedule(job, queue, outcome.delay, pipe)
    elif outcome.kind == "failed" and outcome.curable and job.should_retry:
        became = _try_again(job, queue, outcome, pipe)
    else:
        became = _fail(job, outcome, pipe)
    _count(job, outcome, pipe)
    _measure(job, pipe)
    job.execution.delete(job=job, pipeline=pipe)
    ended = became in (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED)
    commands = [word for words, _ in pipe.command_stack for word in (len(words), *words)]
    stage = "" if outcome.kind in ("done", "snoozed") else "failed" if ended else "waiting"
    said = job.id, int(ended), at, stage, json.dumps(outcome.error)
    return became if scripts.complete(connection, queue.name, entry, *said, *commands) else None


def _finish(job: EtlJob, outcome: Outcome, pipe: Any) -> JobStatus:
    ttl = job.get_result_ttl(DEFAULT_RESULT_TTL)
    job._result = job.serializer.loads(outcome.value.encode())
    job._exc_info = None
    pipe.hdel(job.key, "exc_info")  # a try before may have left it
    job._status = JobStatus.FINISHED
    if job.is_ours:  # its counts are in its hash: a stream of its own takes 4.8 KB
        job.save(pipeline=pipe, include_meta=False)
        job.finished_job_registry.add(job, ttl, pipe)
    elif ttl != 0:
        job._handle_success(ttl, pipe, **_execution(job))
    job.cleanup(ttl, pipeline=pipe, remove_from_queue=False)
    return JobStatus.FINISHED


def _fail(job: EtlJob, outcome: Outcome, pipe: Any) -> JobStatus:
    job.retries_left = 0
    pipe.hdel(job.key, "exc_info")  # the result has it
    became = JobStatus.STOPPED if outcome.kind == "stopped" else JobStatus.FAILED
    job.set_status(became, pipeline=pipe)
    job._handle_failure(outcome.error, pipe, **_execution(job))
    return became


def _try_again(job: EtlJob, queue: FairQueue, outcome: Outcome, pipe: Any) -> JobStatus:
    """Queue the job again, now or when its interval is over; RQ's own `retry` writes at once, outside `pipe`."""
    interval = job.get_retry_interval()
    job.retries_left = (job.retries_left or 1) - 1
    job._exc_info = outcome.error
    if not interval:
        queue._enqueue_job(job, pipeline=pipe, at_front=job.enqueue_at_front_on_retry)
        return JobStatus.QUEUED
    return _schedule(job, queue, interval, pipe)


def _schedule(job: EtlJob, queue: FairQueue, seconds: float, pipe: Any) -> JobStatus:
    """Have maintenance queue the job when some time has passed."""
    pipe.sadd(queue.redis_queues_keys, queue.key)
    queue._persist_job(job, pipe, status=JobStatus.SCHEDULED)
    pipe.zadd(queue.scheduled_job_registry.key, {job.id: scripts.clock(queue.connection) + seconds})
    return JobStatus.SCHEDULED


def _count(job: EtlJob, outcome: Outcome, pipe: Any) -> None:
    assert job.execution is not None
    if not job.execution.worker_name:
        return
    worker = f"rq:worker:{job.execution.worker_name}"
    pipe.hdel(worker, "current_job")
    if outcome.kind != "snoozed":
        pipe.hincrby(worker, "successful_job_count" if outcome.kind == "done" else "failed_job_count", 1)
    if job.started_at and job.ended_at:
        pipe.hincrbyfloat(worker, "total_working_time", (job.ended_at - job.started_at).total_seconds())


def _measure(job: EtlJob, pipe: Any) -> None:
    """Add to what the client's queue has had of the workers, for `clients`."""
    if not (job.started_at and job.ended_at):
        return
    key = keys.use_key(job.ended_at.timestamp())
    waited = (job.started_at - job.enqueued_at).total_seconds() if job.enqueued_at else 0.0
    pipe.hincrbyfloat(key, f"{job.origin} jobs", 1)
    pipe.hincrbyfloat(key, f"{job.origin} waited", max(0.0, waited))
    pipe.hincrbyfloat(key, f"{job.origin} worked", (job.ended_at - job.started_at).total_seconds())
    pipe.expire(key, limits.USE_KEPT)


def _execution(job: EtlJob) -> dict[str, Any]:
    assert job.execution is not None
    return {
        "worker_name": job.execution.worker_name,
        "execution_id": job.execution.id,
        "execution_started_at": job.started_at,
        "execution_ended_at": job.ended_at,
    }

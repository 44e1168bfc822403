"""Held runs: until the run before has ended (`--queue`), or those of pipelines they need; who waits for whom.

The end of a run lists those that wait for it in `etl:held:ready` (close.lua); maintenance looks at these alone.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from redis import Redis
from redis.client import Pipeline as RedisPipeline
from rq import Retry
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import JobStatus

from etl.errors import EtlError
from jobs import settings
from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.store import malformed, runs
from jobs.store.keys import HELD, HELD_READY, PREFIX, held_key, run_key, waiters_key
from jobs.store.run_json import text_of
from jobs.store.transitions import NOTHING, sources

if TYPE_CHECKING:
    from etl.config.pipeline import Pipeline


MANY = 10_000  # held runs that are looked at together
START_TIMEOUT = 600  # seconds; planning reads no more than the list of files and the ends of lines
FAILURE_TTL = 7 * 86400
FORGOTTEN = "succeeded"  # what a run that Redis has forgotten counts as
DELAYS = (5, 30, 120)  # seconds before a start is tried again that another try may cure


def hold(
    connection: Redis, run: str, fields: Mapping[Any, Any], *, was: Mapping[str, str] | None, failed: str = ""
) -> None:
    """Write a run that waits until others have ended; it keeps the moment of its first submission.

    Args:
        fields: Of its hash: whose run it is, where it is new, and `after`, the runs that it waits for.
        was: Its hash as it was read, or None where it is new.
        failed: Why it can't run any more, or nothing; whoever promotes next closes such a run.

    Raises:
        EtlError: It is in another state: someone else has started it.
    """
    now = time.time()
    whose: dict[str, str] = {**(was or {}), **fields}

    def write(pipe: RedisPipeline) -> None:
        state, ended = (text_of(raw) for raw in cast(list[Any], pipe.hmget(run_key(run), "state", "ended")))
        is_as_read = (state, ended) == ((was["state"], was.get("ended")) if was else (None, None))
        if not is_as_read or (state or NOTHING) not in sources("hold"):
            raise EtlError(runs.not_retried(run, state) if was else f"run {run} is {state} already")
        pipe.multi()
        fresh: dict[Any, Any] = dict.fromkeys(("rows", "ended", "failures", "done", "exit"), "")
        pipe.hset(run_key(run), mapping={**fresh, **fields, "error": failed, "state": "held"})
        pipe.hsetnx(run_key(run), "created", repr(now))
        pipe.persist(run_key(run))
        runs.index(pipe, run, now)
        pipe.zadd(HELD, {run: now})
        if failed:
            pipe.sadd(HELD_READY, run)
        pipe.zadd(held_key(whose["client"], whose["pipeline"], whose["start"]), {run: now})
        for other in json.loads(fields["after"]):
            pipe.sadd(waiters_key(other), run)
            pipe.expire(waiters_key(other), int(settings.history()))  # where that run has ended meanwhile

    connection.transaction(write, run_key(run))


def needed_runs(connection: Redis, pipeline: "Pipeline") -> tuple[list[str], str]:
    """Return the runs that must succeed before this pipeline's, and what is wrong where they can't any more."""
    needs, failed = [], ""
    for name in pipeline.needs:
        pending = runs.pending(connection, pipeline.client, name)
        ended = None if pending else runs.last(connection, pipeline.client, name)
        if pending:
            needs.append(pending)
        elif ended is None or ended[1] != "succeeded":
            failed = f"needs {name}, " + (
                f"whose latest run {ended[0]} {how_it_ended(ended[1])}" if ended else "which has never run"
            )
    return needs, failed


def wait_fields(after: Sequence[str], needs: Sequence[str]) -> dict[str, str]:
    """Return as fields of a run's hash the runs that it waits for, and those of them that must succeed."""
    return {"after": json.dumps(list(dict.fromkeys(after))), "needs": json.dumps(list(dict.fromkeys(needs)))}


def promote(connection: Redis, only: Sequence[str] | None = None) -> int:
    """Start the held runs whose wait is over; returns how many.

    Args:
        only: These, of which there may be thousands; None means those of which a run they wait for has ended lately.
    """
    candidates, started, has_failed = only, 0, True
    while has_failed:  # those that waited for a run that has failed here are ready now
        ready = malformed.ids(connection.spop(HELD_READY, MANY)) if candidates is None else candidates
        count, has_failed = _look_at(connection, ready)
        started, candidates = started + count, None
    return started


def _look_at(connection: Redis, candidates: Sequence[str]) -> tuple[int, bool]:
    """Start or end held runs whose wait is over; returns how many were started, and whether any has failed."""
    records = runs.read_many(connection, candidates)
    waits = {run: json.loads(record.get("after") or "[]") for run, record in records.items()}
    others = runs.read_many(connection, {other for after in waits.values() for other in after})
    states = {other: record["state"] for other, record in others.items()}
    started, ready, has_failed = 0, [], False
    for run, record in records.items():
        if record["state"] != "held":
            continue
        if failed := record.get("error"):
            has_failed |= runs.close(connection, run, "failed", error=failed, exit=1, client=record["client"])
            continue
        if any(states.get(other, FORGOTTEN) not in runs.ENDED for other in waits[run]):
            continue
        needs = json.loads(record.get("needs") or "[]")
        bad = next((other for other in needs if states.get(other, FORGOTTEN) != "succeeded"), None)
        if bad or not run.isalnum():  # which someone has forged: RQ refuses a job with such an id
            error = f"needs run {bad}, which {how_it_ended(states[bad])}" if bad else f"{run!r} is not a run's id"
            has_failed |= runs.close(connection, run, "failed", error=error, exit=1, client=record["client"])
            continue
        ready.append(run)  # until it has started: its start may fail, or another run may be its holder
        if not runs.holder(connection, record["client"], record["pipeline"], record["start"]):
            started += _enqueue_start(connection, run, record["client"], record["pipeline"])
    if ready:
        connection.sadd(HELD_READY, *ready)
    return started, has_failed


def promote_all(connection: Redis) -> int:
    """Look at every held run, where Redis may have lost who waits for whom; returns how many were started."""
    held = runs.held(connection)
    known = runs.read_many(connection, held)
    if lost := set(held) - set(known):
        connection.zrem(HELD, *lost)
    return promote(connection, list(known))


def _enqueue_start(connection: Redis, run: str, client: str, pipeline: str) -> int:
    queue = FairQueue(PREFIX + client, connection=connection)
    job = queue.create_job(
        "jobs.stages.start",
        args=(run,),
        job_id=f"{run}-0-start-1",
        timeout=START_TIMEOUT,
        result_ttl=0,  # so that it can be enqueued again where another run has become the holder
        failure_ttl=FAILURE_TTL,
        description=f"{client}/{pipeline} start",
        retry=Retry(max=len(DELAYS), interval=list(DELAYS)),
    )
    try:
        queue.enqueue_job(job, at_front=True, unique=True)
    except DuplicateJobError:
        _end_where_start_failed(connection, run, client, job.id)
        return 0
    return 1


def _end_where_start_failed(connection: Redis, run: str, client: str, id: str) -> None:
    """End a held run whose start has failed for good, so that it doesn't wait for ever."""
    try:
        job = EtlJob.fetch(id, connection=connection)
        if job.get_status() != JobStatus.FAILED:
            return
    except (NoSuchJobError, InvalidJobOperation):
        return  # it is over
    error = f"start: {job.failure or 'did not run'}"
    job.delete()  # so that a retry of the run can enqueue it
    runs.close(connection, run, "failed", error=error, exit=1, client=client)


def how_it_ended(state: str) -> str:
    return "was canceled" if state == "canceled" else state

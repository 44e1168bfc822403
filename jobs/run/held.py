"""Submitting a run, at once or held: until the run before it has ended (`--queue`), or those of pipelines it needs."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from redis import Redis
from rq import Retry
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import JobStatus

from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.store import runs, waiting
from jobs.store.keys import HELD, PREFIX

if TYPE_CHECKING:
    from etl.config.pipeline import Pipeline


START_TIMEOUT = 600  # seconds; planning reads no more than the list of files and the ends of lines
FAILURE_TTL = 7 * 86400
FORGOTTEN = "succeeded"  # what a run that Redis has forgotten counts as
DELAYS = (5, 30, 120)  # seconds before a start is tried again that another try may cure


def needed_runs(connection: Redis, pipeline: "Pipeline") -> tuple[list[str], str]:
    """Return the runs that must succeed before this pipeline's, and what is wrong where they can't any more."""
    needs, failed = [], ""
    for name in pipeline.needs:
        pending = pending_run(connection, pipeline.client, name)
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


def is_of(connection: Redis, run: str, pipeline: "Pipeline") -> bool:
    record = runs.read(connection, run)
    return record is not None and (record["client"], record["pipeline"]) == (pipeline.client, pipeline.name)


def promote(connection: Redis, only: Sequence[str] | None = None) -> int:
    """Start the held runs whose wait is over; returns how many.

    Args:
        only: These, of which there may be thousands; None means those of which a run they wait for has ended lately.
    """
    candidates, started, has_failed = waiting.pop_ready(connection) if only is None else only, 0, True
    while has_failed:  # those that waited for a run that has failed here are ready now
        count, has_failed = _look_at(connection, candidates)
        started, candidates = started + count, waiting.pop_ready(connection) if has_failed else []
    return started


def _look_at(connection: Redis, candidates: Sequence[str]) -> tuple[int, bool]:
    """Start or end held runs whose wait is over; returns how many were started, and whether any has failed."""
    records = runs.read_many(connection, candidates)
    waits = {run: json.loads(record.get("after") or "[]") for run, record in records.items()}
    others = runs.read_many(connection, {other for after in waits.values() for other in after})
    states = {other: record["state"] for other, record in others.items()}
    started, ready, has_failed = 0, [], False
    for run, record in records.items():
        is_waiting = any(states.get(other, FORGOTTEN) not in runs.ENDED for other in waits[run])
        if is_waiting or record["state"] != "held":
            continue
        needs = json.loads(record.get("needs") or "[]")
        bad = next((other for other in needs if states.get(other, FORGOTTEN) != "succeeded"), None)
        if bad:
            error = f"needs run {bad}, which {how_it_ended(states[bad])}"
            has_failed |= runs.close(connection, run, "failed", error=error, exit=1)
            continue
        ready.append(run)  # until it has started: its start may fail, or another run may be its holder
        if not runs.holder(connection, record["client"], record["pipeline"], record["start"]):
            started += _enqueue_start(connection, run, record["client"], record["pipeline"])
    waiting.add_ready(connection, ready)
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
        _end_where_start_failed(connection, run, job.id)
        return 0
    return 1


def _end_where_start_failed(connection: Redis, run: str, id: str) -> None:
    """End a held run whose start has failed for good, so that it doesn't wait for ever."""
    try:
        job = EtlJob.fetch(id, connection=connection)
        if job.get_status() != JobStatus.FAILED:
            return
    except (NoSuchJobError, InvalidJobOperation):
        return  # it is over
    result = job.latest_result()
    job.delete()  # so that a retry of the run can enqueue it
    error = f"start: {(result and result.exc_string) or 'did not run'}"
    runs.close(connection, run, "failed", error=error, exit=1)


def pending_run(connection: Redis, client: str, pipeline: str, start: datetime | None = None) -> str | None:
    """Return the run of a client and pipeline that will end last: the newest that is held, else the active one."""
    window = start.isoformat() if start else ""
    return waiting.newest(connection, client, pipeline, window) or runs.holder(connection, client, pipeline, window)


def how_it_ended(state: str) -> str:
    return "was canceled" if state == "canceled" else state

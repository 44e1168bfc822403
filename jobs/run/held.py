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
from jobs.store import keys, runs
from jobs.store.keys import PREFIX

if TYPE_CHECKING:
    from etl.config.pipeline import Pipeline


START_TIMEOUT = 600  # seconds; planning reads no more than the list of files and the ends of lines
FAILURE_TTL = 7 * 86400
FORGOTTEN = "succeeded"  # the state of a run that Redis has forgotten
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
    """Start the held runs whose wait is over; returns how many. Done when a run ends, and by maintenance.

    Args:
        only: These, of which there may be thousands; None means all that are held.
    """
    started, held = 0, runs.held(connection) if only is None else only
    records = runs.read_many(connection, held)
    waits = {
        run: [json.loads(record.get(key) or "[]") for key in ("after", "needs")] for run, record in records.items()
    }
    others = runs.read_many(connection, {other for lists in waits.values() for each in lists for other in each})
    states = {other: record["state"] for other, record in others.items()}
    for run in held:
        if run not in records:
            connection.zrem(keys.HELD, run)
            continue
        record, (after, needs) = records[run], waits[run]
        if any(states.get(other, FORGOTTEN) not in runs.ENDED for other in after):
            continue
        bad = [other for other in needs if states.get(other, FORGOTTEN) != "succeeded"]
        if bad:
            error = f"needs run {bad[0]}, which {how_it_ended(states[bad[0]])}"
            runs.close(connection, run, "failed", error=error, exit=1)
            states[run] = "failed"  # so do those that wait for it
        elif not runs.holder(connection, record["client"], record["pipeline"], record["start"]):
            started += _enqueue_start(connection, run, record["client"], record["pipeline"])
    return started


def _enqueue_start(connection: Redis, run: str, client: str, pipeline: str) -> int:
    queue = FairQueue(PREFIX + client, connection=connection)
    job = queue.create_job(
        "jobs.stages.start",
        args=(run,),
        job_id=f"{run}-0-start-1",
        timeout=START_TIMEOUT,
        result_ttl=0,  # so that it can be enqueued again where another run has begun meanwhile
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
    records = runs.read_many(connection, runs.held(connection))
    for run, record in reversed(records.items()):
        if (record["client"], record["pipeline"], record["start"]) == (client, pipeline, window):
            return run
    return runs.holder(connection, client, pipeline, window)


def how_it_ended(state: str) -> str:
    return "was canceled" if state == "canceled" else state

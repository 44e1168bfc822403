"""Submitting a run, at once or held: until the run before it has ended (`--queue`), or those of pipelines it needs."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from redis import Redis
from rq import Retry, get_current_job
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.job import JobStatus

from etl.errors import AlreadyRunning, EtlError
from jobs import runs
from jobs.job import EtlJob
from jobs.queue import PREFIX, FairQueue

if TYPE_CHECKING:
    from etl.pipeline import Pipeline

START_TIMEOUT = 600  # seconds; planning reads no more than the list of files and the ends of lines
FAILURE_TTL = 7 * 86400
FORGOTTEN = "succeeded"  # what a run that Redis has forgotten is taken for
DELAYS = (5, 30, 120)  # seconds before a start is tried again that another try may cure


def submit(
    connection: Redis,
    pipeline: "Pipeline",
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    due: datetime | None = None,
    queue: bool = False,
    behind: str | None = None,
    in_order: bool = True,
    run: str | None = None,
) -> str:
    """Submit a run, which is held while a pipeline it needs is running.

    Args:
        pipeline: Resolved for the client.
        start, end: The run's window.
        full_refresh: Load again what is loaded already.
        due: The moment of its schedule, if it has one.
        queue: Wait for the active run of this client and pipeline instead of refusing.
        behind: A run that must end first, and succeed where `in_order` is true.
        run: Its id, where that is settled already.

    Returns:
        The run's id. It has failed already where a needed pipeline's latest run did not succeed.

    Raises:
        AlreadyRunning: A run of this client and pipeline has not ended, and `queue` is false.
    """
    from jobs import graph

    needs, failed = _needed(connection, pipeline)
    after = [behind] if behind else []
    if in_order:
        needs += after
    before = _pending(connection, pipeline.client, pipeline.name, start)
    if before and before == run:
        return run  # someone else was quicker
    if before and not queue:
        raise AlreadyRunning(
            f"{pipeline.client}/{pipeline.name} is running already as run {before}",
            f"wait for it (rq-etl wait {before}), queue behind it (--queue) or cancel it (rq-etl cancel {before})",
            run=before,
        )
    after += [*needs, *([before] if before else [])]
    if not after and not failed:
        return graph.submit(connection, pipeline, start=start, end=end, full_refresh=full_refresh, due=due, run=run)
    run = run or runs.new_id()
    options: dict[str, Any] = {
        "start": start.isoformat() if start else None,
        "end": end.isoformat() if end else None,
        "due": due.isoformat() if due else None,
        "full_refresh": full_refresh,
        "max_rejects": pipeline.max_rejects,
    }
    about = runs.about(pipeline.client, pipeline.name, pipeline.params, options["start"], options["end"])
    runs.hold(connection, run, {**about, "options": json.dumps(options), **_waits(after, needs)}, was=None)
    if failed:
        runs.close(connection, run, "failed", error=failed, exit=1)
    else:
        release(connection, [run])
    return run


def again(connection: Redis, pipeline: "Pipeline", run: str, record: Mapping[str, str]) -> None:
    """Hold a run once more that ended before it was planned, as what it waited for did not succeed.

    Args:
        pipeline: Resolved for the client, as of today.
        record: The run's hash.

    Raises:
        EtlError: What it needs has still not succeeded.
    """
    needs, failed = _needed(connection, pipeline)
    if failed:
        raise EtlError(f"run {run} {failed}", "retry that first")
    own = [other for other in json.loads(record["after"]) if _is_of(connection, other, pipeline)]
    needs += [other for other in json.loads(record["needs"]) if other in own]
    for other in needs:
        found = runs.read(connection, other)
        if found and found["state"] in ("failed", "canceled"):
            raise EtlError(f"run {run} needs run {other}, which {_ended(found['state'])}", "retry that first")
    runs.hold(connection, run, _waits([*own, *needs], needs), was=record)
    release(connection, [run])


def _needed(connection: Redis, pipeline: "Pipeline") -> tuple[list[str], str]:
    """Return the runs that must succeed before this pipeline's, and what is wrong where they can't any more."""
    needs, failed = [], ""
    for name in pipeline.needs:
        pending = _pending(connection, pipeline.client, name)
        ended = None if pending else runs.last(connection, pipeline.client, name)
        if pending:
            needs.append(pending)
        elif ended is None or ended[1] != "succeeded":
            failed = f"needs {name}, " + (
                f"whose latest run {ended[0]} {_ended(ended[1])}" if ended else "which has never run"
            )
    return needs, failed


def _waits(after: Sequence[str], needs: Sequence[str]) -> dict[str, str]:
    """Return as fields of a run's hash the runs that it waits for, and those of them that must succeed."""
    return {"after": json.dumps(list(dict.fromkeys(after))), "needs": json.dumps(list(dict.fromkeys(needs)))}


def _is_of(connection: Redis, run: str, pipeline: "Pipeline") -> bool:
    record = runs.read(connection, run)
    return record is not None and (record["client"], record["pipeline"]) == (pipeline.client, pipeline.name)


def release(connection: Redis, only: Sequence[str] | None = None) -> int:
    """Start the held runs whose wait is over; returns how many. Part of the pass, and done when a run ends.

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
            connection.zrem(runs.HELD, run)
            continue
        record, (after, needs) = records[run], waits[run]
        if any(states.get(other, FORGOTTEN) not in runs.ENDED for other in after):
            continue
        bad = [other for other in needs if states.get(other, FORGOTTEN) != "succeeded"]
        if bad:
            error = f"needs run {bad[0]}, which {_ended(states[bad[0]])}"
            runs.close(connection, run, "failed", error=error, exit=1)
            states[run] = "failed"  # so do those that wait for it
        elif not runs.holder(connection, record["client"], record["pipeline"], record["start"]):
            started += _enqueue_start(connection, run, record["client"], record["pipeline"])
    return started


def _enqueue_start(connection: Redis, run: str, client: str, pipeline: str) -> int:
    queue = FairQueue(PREFIX + client, connection=connection)
    job = queue.create_job(
        "jobs.holding.start",
        args=(run,),
        job_id=f"{run}-0-start-1",
        timeout=START_TIMEOUT,
        result_ttl=0,  # so that it can be enqueued again where the place was taken meanwhile
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


def start(run: str) -> None:
    """Plan a held run and enqueue its graph: a job, so that it sees the source as it is when the wait is over."""
    from etl.pipeline import resolve
    from jobs import graph, project

    job = get_current_job()
    assert job is not None
    record = runs.read(job.connection, run)
    if record is None or record["state"] != "held":
        return
    options = json.loads(record["options"])
    moments = [datetime.fromisoformat(options[key]) if options[key] else None for key in ("start", "end", "due")]
    try:
        params, most = json.loads(record["params"]), options["max_rejects"]
        pipeline = resolve(project.config(), record["pipeline"], record["client"], params=params, max_rejects=most)
        graph.submit(
            job.connection,
            pipeline,
            start=moments[0],
            end=moments[1],
            full_refresh=options["full_refresh"],
            due=moments[2],
            run=run,
        )
    except AlreadyRunning:
        return
    except EtlError as exc:
        if exc.retryable:
            raise
        runs.close(job.connection, run, "failed", error=str(exc), exit=exc.exit_code)


def _pending(connection: Redis, client: str, pipeline: str, start: datetime | None = None) -> str | None:
    """Return the run of a client and pipeline that will end last: the newest that is held, else the active one."""
    window = start.isoformat() if start else ""
    records = runs.read_many(connection, runs.held(connection))
    for run, record in reversed(records.items()):
        if (record["client"], record["pipeline"], record["start"]) == (client, pipeline, window):
            return run
    return runs.holder(connection, client, pipeline, window)


def _ended(state: str) -> str:
    return "was canceled" if state == "canceled" else state

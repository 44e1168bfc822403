"""Submitting a run: at once, or held until the runs it waits for have ended."""

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from redis import Redis
from redis.client import Pipeline as RedisPipeline
from rq import get_current_job

from etl.config.pipeline import Pipeline, resolve
from etl.errors import AlreadyRunning, BadSource, EtlError, SourceMissing
from etl.partition import Plan
from etl.sources import plan
from etl.staging import Staging
from jobs.run import claims
from jobs.run.graph import enqueue_graph, write_spec
from jobs.run.held import needed_runs, pending_run, promote, wait_fields
from jobs.store import runs, waiting
from jobs.store.transitions import sources

if TYPE_CHECKING:
    from etl.config.pipeline import Pipeline


def submit_now(
    connection: Redis,
    pipeline: Pipeline,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    due: datetime | None = None,
    run: str | None = None,
) -> str:
    """Plan a run and enqueue its whole graph in one transaction.

    Args:
        pipeline: Resolved for the client.
        start, end: The run's window.
        full_refresh: Load again what is loaded already.
        due: The moment of its schedule, which `{date}` means; otherwise now.
        run: Its id: that of a held run, which starts now, or of a due moment. A run that has begun is not begun again.

    Returns:
        The run's id. Where the source can't be planned, for example because no file matches, the run
        has failed already and says why, so that a nightly submission leaves a trace.

    Raises:
        AlreadyRunning: A run of this client and pipeline has not ended.
        StagingFailed: Staging can't be written.
    """
    window = start.isoformat() if start else None
    holder = runs.holder(connection, pipeline.client, pipeline.name, window)
    if holder and holder == run:
        return run
    claims.refuse_second(holder, pipeline.client, pipeline.name)
    known = runs.read(connection, run) if run else None
    if run and known and known["state"] not in sources("create"):
        return run
    if not run:
        return _plan_and_enqueue(connection, pipeline, runs.new_id(), (start, end, due), full_refresh, None, None)
    try:
        with claims.claimed(connection, run, known or {}, pipeline.client, pipeline.name) as claim:
            was = known["state"] if known else None
            return _plan_and_enqueue(connection, pipeline, run, (start, end, due), full_refresh, was, claim)
    except claims.Changed:
        if (runs.read(connection, run) or {}).get("state", "held") == "held":
            raise
        return run  # another has begun it meanwhile


def _plan_and_enqueue(
    connection: Redis,
    pipeline: Pipeline,
    run: str,
    moments: tuple[datetime | None, datetime | None, datetime | None],
    full_refresh: bool,
    was: str | None,
    claim: claims.Claim | None,
) -> str:
    """Plan a run, write its spec into staging, enqueue its graph; returns its id.

    Args:
        moments: The window's start and end, and the moment of its schedule.
        was: The state it is in until now.
        claim: On the run, where another process may submit it too.
    """
    start, end, due = moments
    window = start.isoformat() if start else None
    staging = Staging(pipeline.staging, pipeline.client, run)
    failure: EtlError | None = None
    today = due or datetime.now(ZoneInfo(pipeline.timezone))
    try:
        planned = plan(pipeline, start=start, end=end, today=today)
    except (SourceMissing, BadSource) as exc:
        planned, failure = Plan(), exc
    if claim is not None:
        claim.check()
    write_spec(staging, pipeline, planned, (start, end, today), attempt=1, full_refresh=full_refresh)

    def write(pipe: RedisPipeline) -> None:
        runs.create(
            pipe,
            run,
            client=pipeline.client,
            pipeline=pipeline.name,
            params=pipeline.params,
            start=window,
            end=end.isoformat() if end else None,
            partitions=len(planned.partitions),
            warnings=planned.warnings,
            max_active=pipeline.max_active,
            weight=pipeline.weight,
        )

    try:
        dead = failure is not None
        enqueue_graph(
            connection, pipeline, run, 1, planned.partitions, write, was=was, window=window, dead=dead, claim=claim
        )
    except EtlError:
        if claim is None or claim.is_ours():  # else what stands there is another's by now
            staging.remove()
        raise
    if failure is not None:
        runs.close(connection, run, "failed", error=str(failure), exit=failure.exit_code)
    return run


def submit_run(
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

    needs, failed = needed_runs(connection, pipeline)
    after = [behind] if behind else []
    if in_order:
        needs += after
    before = pending_run(connection, pipeline.client, pipeline.name, start)
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
        return submit_now(connection, pipeline, start=start, end=end, full_refresh=full_refresh, due=due, run=run)
    run = run or runs.new_id()
    options: dict[str, Any] = {
        "start": start.isoformat() if start else None,
        "end": end.isoformat() if end else None,
        "due": due.isoformat() if due else None,
        "full_refresh": full_refresh,
        "max_rejects": pipeline.max_rejects,
    }
    about = runs.about(pipeline.client, pipeline.name, pipeline.params, options["start"], options["end"])
    waiting.hold(connection, run, {**about, "options": json.dumps(options), **wait_fields(after, needs)}, was=None)
    if failed:
        runs.close(connection, run, "failed", error=failed, exit=1)
    else:
        promote(connection, [run])
    return run


def start(run: str) -> None:
    """Plan a held run and enqueue its graph: a job, so that it sees the source as it is when the wait is over."""
    from jobs import settings

    job = get_current_job()
    assert job is not None
    record = runs.read(job.connection, run)
    if record is None or record["state"] != "held":
        return
    options = json.loads(record["options"])
    moments = [datetime.fromisoformat(options[key]) if options[key] else None for key in ("start", "end", "due")]
    try:
        params, most = json.loads(record["params"]), options["max_rejects"]
        pipeline = resolve(settings.config(), record["pipeline"], record["client"], params=params, max_rejects=most)
        submit_now(
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

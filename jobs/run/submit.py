"""Submitting a run: at once, or held until the runs it waits for have ended."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.config.pipeline import Config, Pipeline
from etl.errors import AlreadyRunning, BadSource, EtlError, SourceMissing
from etl.partition import Plan
from etl.safe_message import kind_of
from etl.staging import Staging
from jobs.queue import FairQueue
from jobs.run import claims
from jobs.run.graph import (
    Spec,
    enqueue_graph,
    plan_of,
    read_request,
    write_request,
    write_spec,
)
from jobs.run.held import hold, needed_runs, promote, wait_fields
from jobs.store import keys, malformed, over, runs
from jobs.store.transitions import sources


def submit_run(
    connection: Redis,
    pipeline: Pipeline,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    full_refresh: bool = False,
    due: datetime | None = None,
    queue: bool = False,
    behind: str | None = None,
    in_order: bool = True,
    run: str | None = None,
    has_waited: bool = False,
    plan: Plan | None = None,
) -> str:
    """Submit a run, which is held while a pipeline it needs is running; everything that starts a run calls this.

    Args:
        pipeline: Resolved for the client.
        start, end: The run's window.
        full_refresh: Load again what is loaded already.
        due: The moment of its schedule, which `{date}` means; otherwise now.
        queue: Wait for the active run of this client and pipeline instead of refusing.
        behind: A run that must end first, and succeed where `in_order` is true.
        run: Its id: that of a due moment or of a held run. A run that has begun is not begun again.
        has_waited: Whether it was held, and what it waited for has ended.
        plan: What it reads, where the source is not to be looked at.

    Returns:
        The run's id. Where the source can't be planned, for example because no file matches, or a needed
        pipeline's latest run did not succeed, the run has failed already and says why, so that a nightly
        submission leaves a trace.

    Raises:
        AlreadyRunning: A run of this client and pipeline has not ended, and `queue` is false.
        StagingFailed: Staging can't be written.
    """
    spec = Spec(pipeline, plan or Plan(), (start, end, due), full_refresh)
    if has_waited:
        after, needs, failed = list[str](), list[str](), ""
        before = runs.holder(connection, pipeline.client, pipeline.name, spec.window)
    else:
        needs, failed = needed_runs(connection, pipeline)
        after = [behind] if behind else []
        needs += after if in_order else []
        before = runs.pending(connection, pipeline.client, pipeline.name, spec.window)
    if before and before == run:
        return run  # someone else was quicker
    if before and not queue:
        claims.refuse_second(before, pipeline.client, pipeline.name)
    after += [*needs, *([before] if before else [])]
    if after or failed:
        return _hold(connection, run or runs.new_id(), spec, after, needs, failed)
    return _start(connection, run, spec)


def _hold(connection: Redis, run: str, spec: Spec, after: list[str], needs: list[str], failed: str) -> str:
    """Write down a run that waits; returns its id.

    Args:
        after, needs: The runs that must end, and those of them that must succeed.
        failed: Why it can't run any more, or nothing.
    """
    pipeline = spec.pipeline
    start, end, _ = (moment.isoformat() if moment else None for moment in spec.moments)
    about = runs.about(pipeline.client, pipeline.name, pipeline.params, start, end)
    write_request(Staging(pipeline.staging, pipeline.client, run), spec)
    hold(connection, run, {**about, **wait_fields(after, needs)}, was=None, failed=failed)
    promote(connection, [run])
    return run


def start_held(config: Config, connection: Redis, run: str) -> None:
    """Submit a held run whose wait is over; a job does it, so that it sees the source as it is by then."""
    record = runs.read(connection, run)
    if record is None or record["state"] != "held":
        return
    try:
        staging = Staging(config.staging, record["client"], run)
        request = read_request(staging, record)
        if request is None:
            raise EtlError(f"held run {run} is not in staging {config.staging}", "run its pipeline again")
        over.refuse(staging)
        start, end, due = request.moments
        again, pipeline = request.full_refresh, request.resolved(config)
        submit_run(connection, pipeline, start=start, end=end, due=due, full_refresh=again, run=run, has_waited=True)
        staging.remove_files([over.REQUEST])  # so that it is started once, whoever asks for it again
    except AlreadyRunning:
        return
    except EtlError as exc:
        if exc.retryable:
            raise
        error, exit, kind = str(exc), exc.exit_code, kind_of(exc)
        runs.close(connection, run, "failed", error=error, exit=exit, kind=kind, client=record["client"])


def _start(connection: Redis, run: str | None, spec: Spec) -> str:
    """Plan a run and enqueue its whole graph; where others may submit its id too, under a claim on it."""
    if not run:
        return _plan_and_enqueue(connection, runs.new_id(), spec)
    known = runs.read(connection, run) or {}
    if known and known["state"] not in sources("create"):
        return run
    if over.is_over(Staging(spec.pipeline.staging, spec.pipeline.client, run)):
        return run  # of an old moment, which Redis has forgotten or someone has set back
    try:
        with claims.claimed(connection, run, known, spec.pipeline.client, spec.pipeline.name) as claim:
            return _plan_and_enqueue(connection, run, spec, known.get("state"), claim)
    except claims.Changed:
        if (runs.read(connection, run) or {}).get("state", "held") == "held":
            raise
        return run  # another has begun it meanwhile


def _plan_and_enqueue(
    connection: Redis, run: str, spec: Spec, was: str | None = None, claim: claims.Claim | None = None
) -> str:
    """Plan a run, write its spec into staging, enqueue its graph; returns its id.

    Args:
        spec: Not planned yet; its third moment is that of its schedule, if it has one.
        was: The state the run is in until now, None where it is new.
        claim: On the run, where another process may submit it too.
    """
    pipeline, (start, end, due) = spec.pipeline, spec.moments
    staging = Staging(pipeline.staging, pipeline.client, run)
    failure: EtlError | None = None
    spec = replace(spec, moments=(start, end, due or datetime.now(ZoneInfo(pipeline.timezone))))
    try:
        if not spec.plan.partitions:
            spec = replace(spec, plan=plan_of(spec))
    except (SourceMissing, BadSource) as exc:
        failure = exc
    if claim is not None:
        claim.check()
    write_spec(staging, spec, attempt=1)

    def write(pipe: RedisPipeline) -> None:
        runs.create(
            pipe,
            run,
            client=pipeline.client,
            pipeline=pipeline.name,
            params=pipeline.params,
            start=spec.window,
            end=end.isoformat() if end else None,
            partitions=len(spec.plan.partitions),
            warnings=spec.plan.warnings,
            max_active=pipeline.max_active,
            weight=pipeline.weight,
        )
        if failure is not None:  # so that maintenance closes it with these words if this process dies before it can
            fields: dict[Any, Any] = {"error": str(failure), "exit": failure.exit_code, "kind": kind_of(failure)}
            pipe.hset(keys.run_key(run), mapping=fields)

    dead = failure is not None
    # What a transaction writes before it meets a key of another type stays.
    malformed.set_aside(connection, _written(pipeline, spec.window), only_types=True)
    try:
        enqueue_graph(connection, run, spec, 1, spec.plan.partitions, write, was=was, dead=dead, claim=claim)
    except EtlError:
        if claim is None or claim.is_ours():  # else what is there is another's by now
            staging.remove(keep={over.REQUEST} & {*staging.names()})  # the start of a held run is tried again
        raise
    if failure is not None:
        error, exit, kind = str(failure), failure.exit_code, kind_of(failure)
        runs.close(connection, run, "failed", error=error, exit=exit, kind=kind, client=pipeline.client)
    return run


def _written(pipeline: Pipeline, window: str | None) -> list[str]:
    """Return the keys that a submission writes, beside those of the run and its jobs."""
    client, name = pipeline.client, pipeline.name
    whose = [keys.client_key(client), keys.holder_key(client, name, window), keys.held_key(client, name, window)]
    queue = FairQueue.redis_queue_namespace_prefix, "rq:deferred:"
    return [*malformed.FIXED, *whose, *(f"{prefix}{keys.PREFIX}{client}" for prefix in queue)]

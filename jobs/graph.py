"""A run as a graph of RQ jobs: submitted whole or not at all, retried where it is missing, canceled.

lane 1:  extract 1 → transform 1 → load 1 → extract 5 → … ─┐
lane 2:  extract 2 → transform 2 → load 2 → …              ├→ finish
…                                                          ┘
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

from redis import Redis, WatchError
from redis.client import Pipeline as RedisPipeline
from rq import Retry
from rq.command import send_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Dependency, JobStatus

from etl.context import MOMENTS
from etl.errors import BadSource, EtlError, SourceMissing
from etl.pipeline import Config, Pipeline, resolve
from etl.plan import Partition, Plan, plan
from etl.staging import STAGES, Staging
from jobs import broker, claims, holding, resume, runs
from jobs.job import EtlJob
from jobs.queue import PREFIX, FairQueue
from jobs.shapes import text_of

RESULT_TTL = 86400
FAILURE_TTL = 7 * 86400


@dataclass(frozen=True)
class Node:
    """One job of the graph: a stage of a partition, and the ids of the jobs it waits for."""

    id: str
    stage: str
    partition: int
    parents: tuple[str, ...]


def lanes(partitions: Sequence[Partition], most: int) -> list[list[Partition]]:
    """Deal partitions to at most `most` lanes, largest first, each to the lane with the least bytes."""
    dealt: list[list[Partition]] = [[] for _ in range(min(most, len(partitions)))]
    sizes = [0] * len(dealt)
    for partition in sorted(partitions, key=lambda p: (-p.size, p.number)):
        lane = min(range(len(dealt)), key=lambda i: (sizes[i], i))
        dealt[lane].append(partition)
        sizes[lane] += partition.size + 1
    return dealt


def nodes(run: str, attempt: int, partitions: Sequence[Partition], most: int, *, gather: bool) -> list[Node]:
    """Return the jobs of a run, parents first.

    Args:
        most: How many lanes there may be.
        gather: Whether every extract must end before the first transform begins, as types that are
            inferred need every partition's rows.
    """
    graph: list[Node] = []
    tails: list[str] = []
    phases = (STAGES[:1], STAGES[1:]) if gather else (STAGES,)
    for stages in phases:
        heads, tails = tuple(tails), []
        for lane in lanes(partitions, most):
            parents: tuple[str, ...] = tuple(heads)
            for partition in lane:
                for stage in stages:
                    node = Node(f"{run}-{partition.number}-{stage}-{attempt}", stage, partition.number, parents)
                    graph.append(node)
                    parents = (node.id,)
            tails.append(parents[0])
    graph.append(Node(f"{run}-0-finish-{attempt}", "finish", 0, tuple(tails)))
    return graph


def submit(
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
    if run and known and known["state"] != "held":
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
        _enqueue(
            connection, pipeline, run, 1, planned.partitions, write, was=was, window=window, dead=dead, claim=claim
        )
    except EtlError:
        if claim is None or claim.is_ours():  # else what stands there is another's by now
            staging.remove()
        raise
    if failure is not None:
        runs.close(connection, run, "failed", error=str(failure), exit=failure.exit_code)
    return run


def retry(config: Config, connection: Redis, run: str) -> tuple[str, list[str]]:
    """Enqueue what is missing of a run that failed or was canceled, with today's config and code.

    Returns:
        The run's id, and what has changed since it was submitted, in sentences.

    Raises:
        EtlError: The run has not ended, has succeeded, or its staging is gone.
    """
    record = runs.read(connection, run)
    if record is None:
        raise EtlError(f"run {run} is not known to Redis any more", "run its pipeline again")
    if record["state"] not in ("failed", "canceled"):
        raise EtlError(runs.not_retried(run, record["state"]))
    if "partitions" not in record:  # it was held, and has never been planned
        params, most = json.loads(record["params"]), json.loads(record["options"])["max_rejects"]
        resolved = resolve(config, record["pipeline"], record["client"], params=params, max_rejects=most)
        holding.again(connection, resolved, run, record)
        return run, []
    place = runs.holder_key(record["client"], record["pipeline"], record.get("start"))
    try:
        with claims.claimed(connection, run, record, record["client"], record["pipeline"], place) as claim:
            return run, _resume(config, connection, run, record, claim)
    except claims.Changed:
        now = runs.read(connection, run) or {}
        if now.get("ended") == record.get("ended"):
            raise
        raise EtlError(runs.not_retried(run, now.get("state", "forgotten"))) from None


def _resume(config: Config, connection: Redis, run: str, record: Mapping[str, str], claim: claims.Claim) -> list[str]:
    """Plan and enqueue what is missing of a run; returns what has changed since it was submitted."""
    staging = Staging(config.staging, record["client"], run)
    spec = staging.read_json("run.json")
    if spec is None:
        raise EtlError(f"run {run} has no staging left", "run its pipeline again")
    old = Pipeline.model_validate(spec["pipeline"])
    planned, stale = Plan.model_validate(spec["plan"]), set[int]()
    resolved = resolve(config, old.name, old.client, params=old.params)
    resolved = resolved.model_copy(update={key: getattr(old, key) for key in (*old.given, "given")})
    start, end, today = (datetime.fromisoformat(spec[key]) if spec.get(key) else None for key in MOMENTS)
    if not planned.partitions:  # no file was there, or none that could be read
        planned = plan(resolved, start=start, end=end, today=today)
    else:
        # Where the rows are not to blame, they stand: the file may be the next night's by now.
        resumes = record["state"] == "canceled" or record.get("exit") == "3"
        planned, stale = resume.reread(staging, resolved, planned, (start, end, today), resumes=resumes)
    anew = old.fingerprint != resolved.fingerprint
    redone = resume.missing(staging, planned.partitions, stale, anew=anew)
    # Until here nothing has changed. A retry that dies from here on leaves less published, and the next one
    # makes that again: the spec, by which it knows, is written after all that it has made stale is withdrawn.
    resume.withdraw(staging, [p.number for p in redone if anew or p.number in stale], claim.check)
    claim.check()
    attempt = int(record["attempt"]) + 1
    full_refresh = spec.get("full_refresh", False)
    write_spec(staging, resolved, planned, (start, end, today), attempt, full_refresh=full_refresh)
    fields = [f"{p.number}:{stage}" for p in redone for stage in STAGES] + ["0:finish"]

    def write(pipe: RedisPipeline) -> None:
        runs.reopen(pipe, run, record, attempt, len(planned.partitions), fields)

    window = record.get("start")
    _enqueue(connection, resolved, run, attempt, redone, write, was=record["state"], window=window, claim=claim)
    return resume.changes(old, resolved)


def cancel(connection: Redis, run: str) -> bool:
    """Close a run, take its waiting jobs away and stop its running ones.

    Returns:
        False where it had ended already.
    """
    ids = [raw.decode() for raw in connection.smembers(runs.jobs_key(run))]  # type: ignore[union-attr]
    if not runs.close(connection, run, "canceled", error="canceled"):
        return False
    for id in ids:
        try:
            job = EtlJob.fetch(id, connection=connection)
            if job.get_status() == JobStatus.STARTED:
                if job.worker_name:  # RQ's own way to learn it unpickles the job
                    send_command(connection, job.worker_name, "stop-job", job_id=id)
            else:
                job.delete()
        except (NoSuchJobError, InvalidJobOperation):
            continue
    return True


def write_spec(
    staging: Staging,
    pipeline: Pipeline,
    planned: Plan,
    moments: Sequence[datetime | None],
    attempt: int,
    *,
    full_refresh: bool = False,
) -> None:
    """Write what every stage of the run needs to know into its staging folder.

    Args:
        moments: The window's start and end, and the moment that `{date}` means where there is none.
    """
    staging.write_json(
        "run.json",
        {
            "pipeline": pipeline.model_dump(mode="json", by_alias=True),
            "plan": planned.model_dump(mode="json"),
            **{key: moment and moment.isoformat() for key, moment in zip(MOMENTS, moments, strict=True)},
            "attempt": attempt,
            "full_refresh": full_refresh,
        },
    )


def _enqueue(
    connection: Redis,
    pipeline: Pipeline,
    run: str,
    attempt: int,
    partitions: Sequence[Partition],
    write: Any,
    *,
    was: str | None,
    window: str | None,
    dead: bool = False,
    claim: claims.Claim | None = None,
) -> None:
    """Write a run and its jobs in one transaction.

    Args:
        was: The state that the run is in until now.
        window: Start of its window.
        dead: Whether it has failed already, and has no jobs.
        claim: On the run; it ends with this.
    """
    queue = FairQueue(PREFIX + pipeline.client, connection=connection)
    # A run for a window of the past leaves a slot free, so that the client's nightly run need not wait for it.
    most = max(1, pipeline.max_active - 1) if window else pipeline.max_active
    graph = [] if dead else list(_jobs(queue, pipeline, run, attempt, partitions, most))
    place = runs.holder_key(pipeline.client, pipeline.name, window)
    queue.get_redis_server_version()  # asked for while enqueueing, and a question has no place inside MULTI
    sent = False
    with connection.pipeline() as pipe:
        while True:
            try:
                pipe.watch(place, runs.run_key(run), runs.claim_key(run))  # type: ignore[no-untyped-call]
                state, written = map(text_of, cast(list[Any], pipe.hmget(runs.run_key(run), "state", "attempt")))
                if sent and state != was and written == str(attempt):
                    return  # it was done, and the connection was cut before Redis could say so
                if state != was:
                    raise EtlError(f"run {run} is not {was} any more")
                if claim and text_of(pipe.get(runs.claim_key(run))) != claim.token:
                    raise claims.Changed(f"run {run} is being submitted by another by now")
                held = text_of(pipe.get(place))
                if not (claim and claim.place and held == run):
                    claims.refuse_second(held, pipeline.client, pipeline.name)
                pipe.multi()
                write(pipe)
                if claim:
                    pipe.delete(runs.claim_key(run))
                for job in graph:
                    if job.get_status(refresh=False) == JobStatus.DEFERRED:
                        job.register_dependency(pipeline=pipe)
                        job.save(pipeline=pipe)
                    else:
                        queue.enqueue_job(job, pipeline=pipe)
                if graph:
                    pipe.sadd(runs.jobs_key(run), *[job.id for job in graph])
                sent = True
                pipe.execute()
                return
            except WatchError:
                continue
            except broker.FULL as exc:  # Redis refuses the whole transaction
                raise claims.no_room(exc, pipeline.client, pipeline.name) from exc


def _jobs(
    queue: FairQueue, pipeline: Pipeline, run: str, attempt: int, partitions: Sequence[Partition], most: int
) -> Iterator[EtlJob]:
    gather = not pipeline.columns and pipeline.extract.type != "function"
    total = len(partitions)
    retries = (
        Retry(max=pipeline.retries, interval=[int(delay) for delay in pipeline.retry_delays])
        if pipeline.retries
        else None
    )
    for node in nodes(run, attempt, partitions, most, gather=gather):
        what = node.stage if node.stage == "finish" else f"{node.stage} {node.partition}/{total}"
        depends_on = None
        if node.parents:
            depends_on = Dependency(jobs=list(node.parents), allow_failure=True, enqueue_at_front=True)
        yield queue.create_job(  # type: ignore[misc]
            f"jobs.stages.{node.stage}",
            args=(run,) if node.stage == "finish" else (run, str(node.partition)),
            job_id=node.id,
            timeout=max(1, math.ceil(pipeline.timeout)),
            result_ttl=RESULT_TTL,
            failure_ttl=FAILURE_TTL,
            description=f"{pipeline.client}/{pipeline.name} {what}",
            depends_on=depends_on,
            status=JobStatus.DEFERRED if depends_on else JobStatus.QUEUED,
            retry=retries,
        )

"""A run as a graph of RQ jobs: submitted whole or not at all, retried where it is missing, canceled.

lane 1:  extract 1 → transform 1 → load 1 → extract 5 → … ─┐
lane 2:  extract 2 → transform 2 → load 2 → …              ├→ finish
…                                                          ┘
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from redis import Redis, WatchError
from redis.client import Pipeline as RedisPipeline
from rq import Retry
from rq.job import Dependency, JobStatus

from etl.config.pipeline import Config, Pipeline, resolve
from etl.context import MOMENTS
from etl.errors import EtlError
from etl.partition import Partition, Plan
from etl.sources import plan
from etl.staging import STAGES, Staging
from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.run import claims
from jobs.store import keys, redis_errors, runs
from jobs.store.keys import PREFIX
from jobs.store.over import REQUEST
from jobs.store.run_json import text_of

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


@dataclass(frozen=True)
class Spec:
    """What a run is to do, kept as run.json in its staging folder for every stage of it.

    Args:
        moments: The window's start and end, and the moment that `{date}` means where there is none.
    """

    pipeline: Pipeline
    plan: Plan
    moments: tuple[datetime | None, datetime | None, datetime | None]
    full_refresh: bool = False

    @property
    def window(self) -> str | None:
        """The start of the run's window, or None."""
        return self.moments[0].isoformat() if self.moments[0] else None


def plan_of(spec: Spec) -> Plan:
    """Look at the source of a run as it is now."""
    start, end, today = spec.moments
    return plan(spec.pipeline, start=start, end=end, today=today)


def write_spec(staging: Staging, spec: Spec, attempt: int) -> None:
    """Write a run's spec into its staging folder."""
    staging.write_json(
        "run.json",
        {
            "pipeline": spec.pipeline.model_dump(mode="json", by_alias=True),
            "plan": spec.plan.model_dump(mode="json"),
            **{key: moment and moment.isoformat() for key, moment in zip(MOMENTS, spec.moments, strict=True)},
            "attempt": attempt,
            "full_refresh": spec.full_refresh,
        },
    )


def read_spec(staging: Staging) -> Spec | None:
    """Return a run's spec, or None where it has no staging."""
    found = staging.read_json("run.json")
    if found is None:
        return None
    start, end, today = (datetime.fromisoformat(found[key]) if found.get(key) else None for key in MOMENTS)
    pipeline, planned = Pipeline.model_validate(found["pipeline"]), Plan.model_validate(found["plan"])
    return Spec(pipeline, planned, (start, end, today), bool(found.get("full_refresh")))


@dataclass(frozen=True)
class Request:
    """What a held run is to do once its wait is over, kept in its staging: whoever writes to Redis can't change it."""

    client: str
    pipeline: str
    params: Mapping[str, Any]
    max_rejects: str | int | None
    moments: tuple[datetime | None, datetime | None, datetime | None]
    full_refresh: bool

    def resolved(self, config: Config) -> Pipeline:
        """Return the pipeline as it is configured now."""
        return resolve(config, self.pipeline, self.client, params=self.params, max_rejects=self.max_rejects)


def write_request(staging: Staging, spec: Spec) -> None:
    """Keep what a held run is to do."""
    moments = [moment and moment.isoformat() for moment in spec.moments]
    pipeline = spec.pipeline
    whose = {"client": pipeline.client, "pipeline": pipeline.name, "params": pipeline.params}
    about = {"max_rejects": pipeline.max_rejects, "moments": moments, "full_refresh": spec.full_refresh}
    staging.write_json(REQUEST, {**whose, **about})


def read_request(staging: Staging, record: Mapping[str, str]) -> Request | None:
    """Return what a held run is to do, or None where its staging doesn't know, or knows another's.

    Args:
        record: The run's hash in Redis.
    """
    found = staging.read_json(REQUEST)
    if found is None or (found["client"], found["pipeline"]) != (record["client"], record["pipeline"]):
        return None
    start, end, due = (datetime.fromisoformat(moment) if moment else None for moment in found.pop("moments"))
    return Request(**found, moments=(start, end, due))


def enqueue_graph(
    connection: Redis,
    run: str,
    spec: Spec,
    attempt: int,
    partitions: Sequence[Partition],
    write: Callable[[RedisPipeline], None],
    *,
    was: str | None,
    dead: bool = False,
    claim: claims.Claim | None = None,
) -> None:
    """Write a run and its jobs in one transaction.

    Args:
        partitions: Those that are to be loaded.
        write: Writes the run's record into the transaction.
        was: The state that the run is in until now.
        dead: Whether it has failed already, and has no jobs.
        claim: On the run; it ends with this.
    """
    pipeline, window = spec.pipeline, spec.window
    queue = FairQueue(PREFIX + pipeline.client, connection=connection)
    # A run for a window of the past leaves a slot free, so that the client's nightly run need not wait for it.
    most = max(1, pipeline.max_active - 1) if window else pipeline.max_active
    graph = [] if dead else list(_jobs(queue, pipeline, run, attempt, partitions, most))
    holder = keys.holder_key(pipeline.client, pipeline.name, window)
    queue.get_redis_server_version()  # RQ asks for it while it enqueues, and inside MULTI nothing can be asked
    sent = False
    with connection.pipeline() as pipe:
        while True:
            try:
                pipe.watch(holder, keys.run_key(run), keys.claim_key(run))  # type: ignore[no-untyped-call]
                state, written = map(text_of, cast(list[Any], pipe.hmget(keys.run_key(run), "state", "attempt")))
                if sent and state != was and written == str(attempt):
                    return  # it was done, and the connection was cut before Redis could say so
                if state != was:
                    raise EtlError(f"run {run} is not {was} any more")
                if claim and text_of(pipe.get(keys.claim_key(run))) != claim.token:
                    raise claims.Changed(f"run {run} is being submitted by another by now")
                held = runs.holder(pipe, pipeline.client, pipeline.name, window)
                if held and not (claim and claim.holder and held == run):
                    claims.refuse_second(held, pipeline.client, pipeline.name)
                pipe.multi()
                write(pipe)
                if claim:
                    pipe.delete(keys.claim_key(run))
                for job in graph:
                    if job.get_status(refresh=False) == JobStatus.DEFERRED:
                        job.register_dependency(pipeline=pipe)
                        job.save(pipeline=pipe)
                    else:
                        queue.enqueue_job(job, pipeline=pipe)
                if graph:
                    pipe.sadd(keys.jobs_key(run), *[job.id for job in graph])
                sent = True
                pipe.execute()
                return
            except WatchError:
                continue
            except redis_errors.FULL as exc:  # Redis refuses the whole transaction
                raise claims.no_room(exc, pipeline.client, pipeline.name) from exc


def _jobs(
    queue: FairQueue, pipeline: Pipeline, run: str, attempt: int, partitions: Sequence[Partition], most: int
) -> Iterator[EtlJob]:
    gather = not pipeline.columns and not pipeline.extract.FACTS.own_code
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

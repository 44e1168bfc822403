"""A stage's life: begin → context → find what is published, or run the body → publish → record → report.

Only the artifact that a stage publishes, last, says that it is done: one that finds its own does nothing.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache

from redis import Redis
from rq import get_current_job
from rq.job import Job

from etl import output, sources
from etl.config import trust
from etl.config.pipeline import Pipeline, resolve
from etl.context import Context
from etl.errors import ConfigError, EtlError
from etl.load import Move, cursors
from etl.partition import Partition, Plan
from etl.safe_message import kind_of, safe_message
from etl.staging import STAGES, Marker, Staging
from etl.staging.places import locate
from etl.transform.lookups import lookups_of
from etl.types.cursor import Cursor, Span, back, is_readable, is_strict, read
from etl.types.newer import incomparable
from jobs import settings
from jobs.job import EtlJob, Snooze
from jobs.run.graph import Spec, read_spec
from jobs.store import live, over, runs

CHANGED = "configuration changed since submit; retry"
Count = Callable[[Mapping[str, int]], None]


@dataclass(frozen=True)
class StageContext:
    """What a stage needs to know: its run, its partition, where rows are.

    Args:
        number: Of the partition; 0 is the whole run's.
        submitted, started: Moments of the run, in seconds since the epoch.
        count: Shows the rows so far to whoever looks.
    """

    run: str
    stage: str
    number: int
    attempt: int
    pipeline: Pipeline
    plan: Plan
    context: Context
    staging: Staging
    span: Span
    full_refresh: bool = False
    submitted: float | None = None
    started: float | None = None
    count: Count = lambda counts: None

    @property
    def partition(self) -> Partition:
        """The partition this stage works on."""
        return self.plan.partitions[self.number - 1]

    @property
    def follows(self) -> bool:
        """Whether the run reads from its cursor on and moves it; one with a window does neither."""
        return self.pipeline.extract.cursor is not None and self.context.start is None

    def read_to(self, latest: Cursor | None) -> tuple[list[str] | None, list[str] | None] | None:
        """Return how far a partition was read, as its marker keeps it."""
        until = self.span.until
        return (latest and list(latest), until and list(until)) if self.follows else None

    def move(self, latest: Cursor | None, future: int) -> Move | None:
        """Return how the run moves its cursor, or None where it has none.

        Args:
            future: Rows that were in the future by the cursor's column.
        """
        return Move(self.span.since, latest, future) if self.follows else None

    @property
    def zones(self) -> dict[str, str]:
        """The time zones of this worker's clients."""
        return {name: client.timezone for name, client in settings.base().clients.items()}

    def locate(self, column: str, word: str) -> str | None:
        """Return in which file and line of the source a value is that is not of a type, of this partition first."""
        others = sorted(self.plan.partitions, key=lambda partition: partition.number != self.number)
        return locate(self.staging, self.pipeline, others, column, word)

    def input(self, stage: str) -> Marker:
        """Return what the stage before published.

        Raises:
            Blocked: It published nothing.
        """
        marker = self.staging.marker(stage, self.number)
        if marker is None:
            raise Blocked(stage)
        return marker


class Blocked(Exception):
    """The stage before has published nothing."""


@dataclass
class Stage:
    """One execution of a stage, from its beginning to its report.

    Args:
        number: Of the partition; 0 is the whole run's.
        record: The run's hash in Redis.
        live: Its own record.
        state: done, failed, blocked, or waiting for another try.
        error: Why it failed, without a row's value.
        exit: The exit code that the error asks for.
        kind: The name of the error's class.
    """

    job: Job
    run: str
    name: str
    number: int
    record: Mapping[str, str]
    live: live.Running
    context: StageContext | None = None
    state: str = "done"
    counts: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    exit: int = 0
    kind: str | None = None


Body = Callable[[StageContext, Redis], Marker]
GiveUp = Callable[[Redis, "Stage"], None]


def execute(name: str, run: str, number: int, body: Body, give_up: GiveUp | None = None) -> dict[str, int]:
    """Execute a stage as the current job.

    Args:
        number: Of the partition; 0 is the whole run's.
        body: Does the work and returns what is to be published.
        give_up: Called with connection and stage where no other try follows a failure.

    Returns:
        What the stage counted.
    """
    stage = _begin(name, run, number)
    if stage is None:
        return {"skipped": 1}
    file = f"{number:05d}.{name}{output.ENDING}"
    with output.kept(lambda: Staging(settings.staging(), stage.record["client"], run), file):
        return _run(stage, body, give_up)


def _run(stage: Stage, body: Body, give_up: GiveUp | None) -> dict[str, int]:
    name, run, number = stage.name, stage.run, stage.number
    try:
        over.refuse(Staging(settings.staging(), stage.record["client"], run))
        stage.context = replace(stage_context(name, run, number, stage.record), count=stage.live.count)
        marker = stage.context.staging.marker(name, number) if number else None
        if marker is None:
            marker = body(stage.context, stage.job.connection)
            if number:
                marker = stage.context.staging.publish(name, number, marker)
        stage.counts = marker.counts
    except Blocked:
        stage.state = "blocked"
    except Snooze:
        stage.state = "waiting"
        raise
    except BaseException as exc:
        _fail(stage, exc, give_up)
        raise
    finally:
        stage.live.end(stage.state, stage.counts, stage.error, stage.exit, stage.kind)
    return {"blocked": 1} if stage.state == "blocked" else dict(stage.counts)


def _begin(name: str, run: str, number: int) -> Stage | None:
    """Begin a stage; None where its run is canceled or forgotten, or it belongs to an attempt before a retry."""
    job = get_current_job()
    assert job is not None
    attempt, execution = job.id.rpartition("-")[2], job.execution if isinstance(job, EtlJob) else None
    lease = (job.origin, execution.composite_key) if execution else None
    record, running = live.begin(job.connection, run, attempt, number, name, worker=job.worker_name, lease=lease)
    if record.get("state") != "running" or record.get("attempt") != attempt:
        return None
    return Stage(job, run, name, number, record, running)


def _fail(stage: Stage, exc: BaseException, give_up: GiveUp | None) -> None:
    is_final = not stage.job.retries_left or (isinstance(exc, EtlError) and not exc.retryable)
    stage.state, stage.error, stage.kind = ("failed" if is_final else "waiting"), safe_message(exc), kind_of(exc)
    stage.exit = exc.exit_code if isinstance(exc, EtlError) else 1
    if is_final and give_up is not None:
        give_up(stage.job.connection, stage)


def keep_traceback(job: Job, text: str) -> None:
    """Keep what a stage raised, whole, in a file of staging that only its owner can read.

    Args:
        job: The stage's job; other jobs are ignored.
        text: The traceback, which may hold row values.
    """
    stage = str(job.func_name).removeprefix("jobs.stages.")
    if stage not in (*STAGES, "finish"):
        return
    run = str(job.args[0])
    record = runs.read(job.connection, run)
    if record is None:
        return
    number = int(job.args[1]) if len(job.args) > 1 else 0
    try:
        Staging(settings.staging(), record["client"], run).keep_private(f"{number:05d}.{stage}.error.txt", text)
    except EtlError as failed:  # not its traceback: what it came from may quote a row
        print(f"what {stage} of run {run} raised is not kept: {safe_message(failed)}", file=sys.stderr)


def stage_context(stage: str, run: str, number: int, record: Mapping[str, str]) -> StageContext:
    """Return what a stage works on.

    Args:
        number: Of the partition; 0 is the whole run's.
        record: The run's hash in Redis.

    Raises:
        EtlError: The run is not in this worker's staging, or its spec names code or databases that are not this
            worker's.
    """
    config = settings.base()
    staging = Staging(config.staging, record["client"], run)
    spec = _spec(staging.url, record["client"], run, record["attempt"])
    pipeline = own(spec, record["client"], record.get("pipeline") or spec.pipeline.name, number)
    if stage != "finish" and not 1 <= number <= len(spec.plan.partitions):
        raise EtlError(f"run {run} has no partition {number}", f"it has {len(spec.plan.partitions)}")
    context = Context(pipeline.client, run, pipeline.params, *spec.moments)
    submitted, started = (float(record[key]) if record.get(key) else None for key in ("created", "started"))
    span = _span(staging, replace(spec, pipeline=pipeline), started or time.time(), decide=stage == "extract")
    if span.since is not None:
        context = replace(context, since=read(back(span.since, pipeline.extract.overlap)))
    asks = pipeline.transform if stage == "transform" else pipeline.extract.FACTS.own_code
    if pipeline.lookups and asks and stage in ("extract", "transform"):
        context = replace(context, lookups=lookups_of(pipeline, context, sources.read_all, int(record["attempt"])))
    which = run, stage, number, int(record["attempt"])
    return StageContext(*which, pipeline, spec.plan, context, staging, span, spec.full_refresh, submitted, started)


def own(spec: Spec, client: str, name: str, number: int) -> Pipeline:
    """Return a spec's pipeline with this worker's own folder, which code is imported from and files are relative to.

    Whoever can write to Redis can have a worker read a spec, so it decides neither which code runs nor what is read
    and written.

    Args:
        client, name: Whose run it is, and of which pipeline.
        number: Of the partition whose files are looked at; 0 for none.

    Raises:
        EtlError: The spec is another's, or reaches what this worker's configuration does not.
    """
    given, known = spec.pipeline, None
    pieces = [piece for part in spec.plan.partitions[max(0, number - 1) : number] for piece in part.pieces]
    with suppress(ConfigError):  # this may be older than the client's file
        known = resolve(settings.base(), name, client, params=given.params)
    if known is None or not trust.is_own(given, known):
        known = resolve(settings.config(), name, client, params=given.params)
    rooted = given if given.root == known.root else given.model_copy(update={"root": known.root})
    if not trust.is_own(given, known) or trust.strays(rooted, [(piece.file, piece.path) for piece in pieces]):
        raise EtlError(CHANGED)
    return rooted


def _span(staging: Staging, spec: Spec, started: float, *, decide: bool) -> Span:
    """Return which rows the run reads: decided by its first extract, for all of its partitions and attempts.

    Args:
        started: When the run began, in seconds since the epoch.
    """
    pipeline, extract = spec.pipeline, spec.pipeline.extract
    if extract.cursor is None:
        return Span()
    if spec.moments[0] is not None:
        if is_strict(pipeline):
            what = f"{pipeline.name} appends what its cursor says is new, and a window may be loaded already"
            raise ConfigError(what, 'use mode = "merge" with a key to load windows of the past')
        return Span()
    found = staging.read_json("since.json")
    if found is None and not decide:
        return Span()
    if found is None or found["column"] != extract.cursor:
        cursor = None if spec.full_refresh else cursors.read(pipeline)
        until = sources.latest(pipeline, len(spec.plan.partitions))
        decided = {"column": extract.cursor, "since": cursor and cursor.cursor, "until": until, "now": started}
        staging.write_bytes("since.json", json.dumps(decided).encode(), exclusive=found is None)
        found = staging.read_json("since.json") or decided
    since, until = (Cursor(*found[key]) if found[key] else None for key in ("since", "until"))
    if since is not None and not is_readable(since):  # an earlier release's may be NaN
        raise incomparable(pipeline, since.kind)
    return Span(since, until, found.get("now", started))


@lru_cache(maxsize=512)  # many runs' stages come between two of one run
def _spec(url: str, client: str, run: str, attempt: str) -> Spec:
    spec = read_spec(Staging(url, client, run))
    if spec is None:
        raise EtlError(
            f"run {run} is not in staging {url}",
            "the worker must use the staging of the etl.toml that the run was submitted with (ETL_CONFIG)",
        )
    return spec

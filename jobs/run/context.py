"""A stage's work: its run, its partition, and where the rows are."""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from etl import sources
from etl.config.pipeline import Config, Pipeline
from etl.context import MOMENTS, Context
from etl.errors import ConfigError, EtlError
from etl.load import Move, cursors
from etl.partition import Partition, Plan
from etl.staging import Marker, Staging
from etl.transform.lookups import lookups_of
from etl.types.cursor import Cursor, Span, back, is_strict, read
from jobs import settings

CHANGED = "configuration changed since submit; retry"


@dataclass(frozen=True)
class StageContext:
    """What a stage needs to know: its run, its partition, where rows are.

    Args:
        number: Of the partition; 0 is the whole run's.
        submitted, started: Moments of the run, in seconds since the epoch.
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

    @property
    def partition(self) -> Partition:
        """The partition this stage works on."""
        return self.plan.partitions[self.number - 1]

    @property
    def follows(self) -> bool:
        """Whether the run reads from where the cursor stands; one with a window reads that, and leaves it there."""
        return self.pipeline.extract.cursor is not None and self.context.start is None

    def read_to(self, latest: Cursor | None) -> tuple[list[str] | None, list[str] | None] | None:
        """Return how far a partition was read, as its marker keeps it."""
        until = self.span.until
        return (latest and list(latest), until and list(until)) if self.follows else None

    def move(self, latest: Cursor | None) -> Move | None:
        """Return how the run moves its cursor, or None where it has none."""
        return Move(self.span.since, latest) if self.follows else None

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


def stage_context(stage: str, run: str, number: int, record: dict[str, str]) -> StageContext:
    """Return the work of a stage.

    Args:
        number: Of the partition; 0 is the whole run's.
        record: The run's hash in Redis.

    Raises:
        EtlError: The run is not in this worker's staging, or its spec names code or databases that are not this
            worker's.
    """
    config = settings.base()
    staging = Staging(config.staging, record["client"], run)
    pipeline, plan, context, full_refresh = _spec(staging.url, record["client"], run, record["attempt"])
    pipeline = _own(pipeline, record["client"], config)
    if stage != "finish" and not 1 <= number <= len(plan.partitions):
        raise EtlError(f"run {run} has no partition {number}", f"it has {len(plan.partitions)}")
    span = _span(staging, pipeline, plan, context, full_refresh, settle=stage == "extract")
    if span.since is not None:
        context = replace(context, since=read(back(span.since, pipeline.extract.overlap)))
    asks = pipeline.transform if stage == "transform" else pipeline.extract.FACTS.own_code
    if pipeline.lookups and asks and stage in ("extract", "transform"):
        context = replace(context, lookups=lookups_of(pipeline, context, sources.read_all))
    submitted, started = (float(record[key]) if record.get(key) else None for key in ("created", "started"))
    return StageContext(
        run,
        stage,
        number,
        int(record["attempt"]),
        pipeline,
        plan,
        context,
        staging,
        span,
        full_refresh,
        submitted,
        started,
    )


def _own(pipeline: Pipeline, client: str, config: Config) -> Pipeline:
    """Return a spec's pipeline with this worker's own folder, which code is imported from and files are relative to.

    Whoever can write to Redis can have a worker read a spec, so it decides neither which code runs nor what is written.

    Args:
        client: Whose run it is.
        config: This worker's own.

    Raises:
        EtlError: The spec's client, modules, staging or target (name and URL) are others.
    """
    given = pipeline.client, set(pipeline.modules), pipeline.staging, pipeline.target
    own = client, set(config.settings.modules), config.staging, config.targets.get(pipeline.target.name)
    if given != own:
        raise EtlError(CHANGED)
    root = str(config.root)
    return pipeline if pipeline.root == root else pipeline.model_copy(update={"root": root})


def _span(
    staging: Staging, pipeline: Pipeline, plan: Plan, context: Context, full_refresh: bool, *, settle: bool
) -> Span:
    """Return which rows the run reads: settled by its first extract, for all of its partitions and attempts."""
    extract = pipeline.extract
    if extract.cursor is None:
        return Span()
    if context.start is not None:
        if is_strict(pipeline):
            what = f"{pipeline.name} appends what its cursor says is new, and a window may be loaded already"
            raise ConfigError(what, 'use mode = "merge" with a key to load windows of the past')
        return Span()
    found = staging.read_json("since.json")
    if found is None and not settle:
        return Span()
    if found is None or found["column"] != extract.cursor:
        stands = None if full_refresh else cursors.read(pipeline)
        until = sources.latest(pipeline, len(plan.partitions))
        settled = {"column": extract.cursor, "since": stands and stands.cursor, "until": until}
        staging.write_bytes("since.json", json.dumps(settled).encode(), exclusive=found is None)
        found = staging.read_json("since.json") or settled
    return Span(*(Cursor(*found[key]) if found[key] else None for key in ("since", "until")))


@lru_cache(maxsize=512)  # clients take turns: many runs pass between two stages of one
def _spec(url: str, client: str, run: str, attempt: str) -> tuple[Pipeline, Plan, Context, bool]:
    spec = Staging(url, client, run).read_json("run.json")
    if spec is None:
        raise EtlError(
            f"run {run} is not in staging {url}",
            "the worker must use the staging of the etl.toml that the run was submitted with (ETL_CONFIG)",
        )
    pipeline = Pipeline.model_validate(spec["pipeline"])
    start, end, today = (datetime.fromisoformat(spec[key]) if spec.get(key) else None for key in MOMENTS)
    context = Context(pipeline.client, run, pipeline.params, start, end, today)
    return pipeline, Plan.model_validate(spec["plan"]), context, bool(spec.get("full_refresh"))

"""A stage's work: its run, its partition, and where the rows are."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from etl.context import Context
from etl.errors import EtlError
from etl.pipeline import Pipeline
from etl.plan import Partition, Plan
from etl.staging import Marker, Staging
from jobs import settings


@dataclass(frozen=True)
class Work:
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
    submitted: float | None = None
    started: float | None = None

    @property
    def partition(self) -> Partition:
        """The partition this stage works on."""
        return self.plan.partitions[self.number - 1]

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


def work_of(stage: str, run: str, number: int, record: dict[str, str]) -> Work:
    """Return the work of a stage.

    Args:
        number: Of the partition; 0 is the whole run's.
        record: The run's hash in Redis.

    Raises:
        EtlError: The run is not in the staging that this worker knows.
    """
    staging = Staging(settings.staging(), record["client"], run)
    pipeline, plan, context = _spec(staging.url, record["client"], run, record["attempt"])
    submitted, started = (float(record[key]) if record.get(key) else None for key in ("created", "started"))
    return Work(run, stage, number, int(record["attempt"]), pipeline, plan, context, staging, submitted, started)


@lru_cache(maxsize=512)  # clients take turns: many runs pass between two stages of one
def _spec(url: str, client: str, run: str, attempt: str) -> tuple[Pipeline, Plan, Context]:
    spec = Staging(url, client, run).read_json("run.json")
    if spec is None:
        raise EtlError(
            f"run {run} is not in staging {url}",
            "the worker must use the staging of the etl.toml that the run was submitted with (ETL_CONFIG)",
        )
    pipeline = Pipeline.model_validate(spec["pipeline"])
    start, end = (datetime.fromisoformat(spec[key]) if spec[key] else None for key in ("start", "end"))
    context = Context(client=pipeline.client, run=run, params=pipeline.params, start=start, end=end)
    return pipeline, Plan.model_validate(spec["plan"]), context

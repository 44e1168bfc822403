"""The bodies of rq-etl's stages without its queue: what Celery and the pool are given to do."""

from functools import lru_cache
from pathlib import Path

from etl.config.pipeline import Config, resolve
from etl.config.read import load_config
from etl.context import Context
from etl.sources import plan
from etl.staging import Staging
from etl.types.cursor import Span
from jobs.run import partitions
from jobs.run.stage import StageContext


@lru_cache
def _config(path: str) -> Config:
    return load_config(Path(path))


@lru_cache(maxsize=8)
def _work(path: str, client: str) -> StageContext:
    pipeline = resolve(_config(path), "claims", client)
    context = Context(client=client, run=client, params={})
    staging = Staging(pipeline.staging, client, client)
    return StageContext(client, "", 1, 1, pipeline, plan(pipeline), context, staging, Span())


def perform(config: str, client: str, stage: str) -> None:
    """Do one stage of a client's only partition."""
    body = {"extract": partitions.extract, "transform": partitions.transform, "load": partitions.load}[stage]
    work = _work(config, client)
    work.staging.publish(stage, work.number, body(work, None))  # type: ignore[arg-type]  # no Redis

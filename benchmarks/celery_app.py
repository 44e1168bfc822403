"""The stages as Celery tasks, set up for work that must not be lost."""

import os

from celery import Celery

from benchmarks import stages

url = os.environ["BENCH_REDIS"]
app = Celery("benchmarks", broker=url, backend=url)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_serializer="json",
    broker_connection_retry_on_startup=True,
)


@app.task  # type: ignore[untyped-decorator]
def extract(config: str, client: str) -> None:
    """Read a client's file."""
    stages.perform(config, client, "extract")


@app.task  # type: ignore[untyped-decorator]
def transform(config: str, client: str) -> None:
    """Cast and check its rows."""
    stages.perform(config, client, "transform")


@app.task  # type: ignore[untyped-decorator]
def load(config: str, client: str) -> None:
    """Load them."""
    stages.perform(config, client, "load")

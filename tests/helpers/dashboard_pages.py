"""For tests: The dashboard: what its pages show, and who may ask it what."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from rq.job import JobStatus
from rq.registry import FailedJobRegistry
from rq.results import Result

from jobs.dashboard import create_app
from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.store import runs

pytestmark = pytest.mark.filterwarnings("ignore:CLIENT LIST command not supported")  # by fakeredis

PASSWORD = "correct horse"
LOGIN = {"Authorization": "Basic " + base64.b64encode(f"etl:{PASSWORD}".encode()).decode()}
HERE = {**LOGIN, "Origin": "http://localhost"}
EVIL = "<img src=x onerror=alert(1)>"


class Pages:
    """A browser of the dashboard that has logged in."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, status: int = 200) -> str:
        """Return a page's text; its status must be the one given."""
        answer = self.client.get(path, headers=LOGIN)
        assert answer.status_code == status, answer.text
        return answer.text

    def data(self, path: str) -> Any:
        """Return the JSON that rq-dashboard's script asks for."""
        answer = self.client.get(f"/rq/0/data/{path}", headers=LOGIN)
        assert answer.status_code == 200, answer.text
        return answer.get_json()

    def post(self, path: str, status: int = 200) -> Any:
        """Return the answer to a write from one of our own pages."""
        answer = self.client.post(path, headers=HERE)
        assert answer.status_code == status, answer.text
        return answer.get_json()


@pytest.fixture
def pages(connection: Redis) -> Iterator[Pages]:
    app = create_app(connection, password=PASSWORD)
    app.testing = True
    with app.test_client() as client:
        yield Pages(client)


@pytest.fixture
def queue(connection: Redis) -> FairQueue:
    return FairQueue("etl-acme", connection=connection)


def start_run(connection: Redis, run: str = "abcdefghjk", client: str = "acme", partitions: int = 2) -> str:
    """Write a run as `graph.submit` does, without jobs."""
    with connection.pipeline() as pipe:
        runs.create(
            pipe, run, client=client, pipeline="claims", params={"region": "north"}, start=None, end=None,
            partitions=partitions, warnings=["a warning"], max_active=4,
        )  # fmt: skip
        pipe.execute()
    return run


def fail(job: EtlJob, words: str = "ValueError at steps:clean:3") -> EtlJob:
    """Leave a job as a worker leaves one that has failed."""
    job.connection.lrem(f"rq:queue:{job.origin}", 0, job.id)
    job.set_status(JobStatus.FAILED)
    FailedJobRegistry(job.origin, connection=job.connection).add(job, ttl=1000)
    Result.create_failure(job, 1000, words)
    return job


def stage(queue: FairQueue, run: str, name: str = "load", **options: Any) -> EtlJob:
    """Enqueue a run's stage."""
    return queue.enqueue(  # type: ignore[return-value]
        f"jobs.stages.{name}",
        args=(run, "1"),
        job_id=f"{run}-1-{name}-1",
        description=f"acme/claims {name} 1/1",
        **options,
    )

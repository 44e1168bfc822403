"""Who can write to Redis can't run code: a pickle in any field of a job is never loaded, whoever looks at the job."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from rq.job import Job
from rq.registry import clean_registries
from rq_scheduler import Scheduler

from jobs import settings
from jobs.job import EtlJob
from jobs.process import cleanup
from jobs.process.inprocess import InProcessWorker
from jobs.process.maintenance import maintain
from jobs.queue import FairQueue
from jobs.run.cancel import cancel_run
from jobs.store import keys, runs, scripts
from tests.helpers.dashboard_pages import Pages, pages
from tests.helpers.queued_project import GOOD, QueuedProject

__all__ = ["pages"]
pytestmark = pytest.mark.filterwarnings("ignore:CLIENT LIST command not supported")  # by fakeredis
REGISTRIES = ("wip", "failed", "deferred", "finished", "scheduled", "canceled")


@pytest.fixture
def house(house: QueuedProject) -> QueuedProject:
    house.files("acme", GOOD)
    return house


@pytest.fixture
def boom(tmp_path: Path, connection: Redis) -> Iterator[Path]:
    """The file that a bomb writes; the bomb is known to be live."""
    path = tmp_path / "boom"
    plant(connection, "control", path)
    Job.fetch("control", connection=connection)
    assert path.exists(), "the bomb is a dud"
    path.unlink()
    connection.delete("rq:job:control", "rq:results:control")
    yield path
    assert not path.exists(), "a pickle was loaded"


def bomb(boom: Path) -> bytes:
    return b"cposix\nsystem\n(S'touch %s'\ntR." % str(boom).encode()


def plant(connection: Redis, id: str, boom: Path, *, data: bool = True, status: str = "") -> None:
    """Put bombs into a job's hash and its results."""
    what = bomb(boom)
    fields: dict[Any, Any] = {"serializer": "pickle", "worker_name": "w1", "origin": "etl-acme"}
    fields |= dict.fromkeys(("meta", "result", *(["data"] if data else [])), what)
    if status:
        fields["status"] = status
    connection.hset(f"rq:job:{id}", mapping=fields)
    connection.xadd(f"rq:results:{id}", {"type": "1", "return_value": base64.b64encode(what)})


def ids(connection: Redis, run: str) -> list[str]:
    return sorted(raw.decode() for raw in cast(set[bytes], connection.smembers(keys.jobs_key(run))))


def test_finish_loads_no_pickle_of_a_stage_that_could_not_speak(house: QueuedProject, boom: Path) -> None:
    run = house.submit()
    worker = InProcessWorker(house.connection, inline=True)
    plant(house.connection, f"{run}-1-transform-1", boom)
    while worker.step():
        for id in ids(house.connection, run):
            plant(house.connection, id, boom, data=False)
    worker.work()
    [found] = runs.snapshot(house.connection, [run])
    assert (found["state"], [failure["stage"] for failure in found["failures"]]) == ("failed", ["transform"])


def test_cancel_stops_what_runs_without_loading_a_pickle(house: QueuedProject, boom: Path) -> None:
    run = house.submit()
    heard = house.connection.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    heard.subscribe("rq:pubsub:w1")
    heard.get_message(timeout=1)
    for id, status in zip(ids(house.connection, run), ("started", "deferred", "queued", "failed"), strict=True):
        plant(house.connection, id, boom, status=status)
    first = ids(house.connection, run)[0]
    assert cancel_run(house.connection, run)
    message = heard.get_message(timeout=5) or heard.get_message(timeout=5)
    assert message is not None
    assert f'"{first}"'.encode() in message["data"]
    assert house.state(run) == "canceled"
    heard.close()


def test_no_clean_up_loads_a_pickle(house: QueuedProject, boom: Path) -> None:
    """Neither RQ's over our queues, nor the pass, nor the sweep, nor rq-scheduler as the Procfile starts it."""
    connection, queue = house.connection, FairQueue("etl-acme", connection=house.connection)
    connection.sadd("rq:queues", "rq:queue:etl-acme")
    for registry in REGISTRIES:
        plant(connection, registry, boom, status={"wip": "started"}.get(registry, registry))
        connection.zadd(f"rq:{registry}:etl-acme", {f"{registry}:x" if registry == "wip" else registry: 1})
    plant(connection, "lost", boom, status="started")
    connection.zadd("rq:wip:etl-acme", {"lost:x": scripts.SHIFT + 1})
    plant(connection, "entry", boom)
    connection.zadd("rq:scheduler:scheduled_jobs", {"entry": 1})
    maintain(connection, ["etl-acme"])
    clean_registries(queue)
    cleanup.clean(connection, settings.config())
    scheduler = Scheduler(connection=connection, job_class=EtlJob, queue_class=FairQueue)
    list(scheduler.get_jobs())
    scheduler.enqueue_jobs()
    InProcessWorker(connection, inline=True).work()


def test_the_dashboard_loads_no_pickle_by_looking_or_by_writing(house: QueuedProject, pages: Pages, boom: Path) -> None:
    connection = house.connection
    connection.sadd("rq:queues", "rq:queue:etl-acme")
    for registry in REGISTRIES:
        plant(connection, registry, boom, status={"wip": "started"}.get(registry, registry))
        connection.zadd(f"rq:{registry}:etl-acme", {f"{registry}:x" if registry == "wip" else registry: 1})
    for name in ("started", *REGISTRIES[1:]):
        pages.data(f"jobs/etl-acme/{name}/8/asc/1.json")
        id = "wip" if name == "started" else name
        pages.get(f"/rq/0/view/job/{id}")
        pages.data(f"job/{id}.json")
    pages.data("queues.json")
    pages.data("workers.json")
    pages.post("/rq/requeue/etl-acme")
    pages.post("/rq/job/deferred/delete")
    for name in ("finished", "canceled", "failed"):
        pages.post(f"/rq/queue/etl-acme/{name}/empty")


def test_a_result_that_is_no_json_is_no_result(connection: Redis, boom: Path) -> None:
    plant(connection, "odd", boom)
    assert EtlJob.fetch("odd", connection=connection).latest_result() is None


def test_a_worker_refuses_a_job_that_is_a_pickle(house: QueuedProject, boom: Path) -> None:
    queue = FairQueue("etl-acme", connection=house.connection)
    id = queue.enqueue("steps.same").id
    plant(house.connection, id, boom)
    InProcessWorker(house.connection, inline=True).work()
    assert house.connection.hget(f"rq:job:{id}", "status") == b"failed"

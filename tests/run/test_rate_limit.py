"""`rate`: a client's source is asked so often and no oftener, whoever asks, and nobody stands still for it."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from redis import Redis

from etl.config.values import rate
from etl.errors import ConfigError
from jobs.job import EtlJob, Snooze
from jobs.process.inprocess import InProcessWorker
from jobs.queue import dequeue
from jobs.run.rate_limit import FOREVER, RateLimit
from jobs.store import runs, scripts
from tests.helpers.project import Folder
from tests.helpers.queued_project import QueuedProject
from tests.helpers.worker_project import WorkerProject, shop, start

__all__ = ["shop", "start"]
FILES = 8


def limited(project: Folder, rate: str) -> None:
    project.change(("settle = 0", f'settle = 0, rate = "{rate}"'))


def extracts(connection: Redis, run: str, count: int) -> list[EtlJob]:
    return [EtlJob.fetch(f"{run}-{number}-extract-1", connection=connection) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("10/s", 10), ("600/m", 10), ("1800 / h", 0.5), ("0.5/s", 0.5), ("86400/d", 1), (3, 3), (None, None)],
)
def test_a_rate_is_so_many_times_a_second(text: object, per_second: float | None) -> None:
    assert rate(text) == per_second


@pytest.mark.parametrize("text", ["10", "0/s", "-1/s", "fast", "10/w", 0, True, "1e3/s"])
def test_a_rate_without_sense_is_a_mistake(text: object) -> None:
    with pytest.raises(ValueError, match="10/s"):
        rate(text)


def test_a_wrong_rate_is_reported_with_its_key(house: QueuedProject) -> None:
    limited(house, "often")
    with pytest.raises(ConfigError, match=r"pipelines\.claims\.extract\.rate: must be a number of times"):
        house.loaded()


def test_requests_get_moments_of_their_own_evenly_spaced(connection: Redis) -> None:
    waits, moments = [], []
    for _ in range(5):
        granted, wait = scripts.rate_limit(connection, "etl:rate:acme:claims", 3600, FOREVER)
        waits.append(float(wait))
        moments.append(float(connection.get("etl:rate:acme:claims") or 0))
        assert granted
    assert waits[0] == 0
    assert [round(after - before, 3) for before, after in pairwise(moments)] == [3600] * 4
    assert sorted(waits) == waits
    assert connection.pttl("etl:rate:acme:claims") <= 5 * 3600_000 + 1


def test_who_has_begun_waits_and_who_has_not_is_asked_to_come_later(connection: Redis) -> None:
    pace = RateLimit(connection, "acme", "claims", 1 / 3600)
    pace()
    with pytest.raises(Snooze) as caught:
        RateLimit(connection, "acme", "claims", 1 / 3600)()
    assert 3590 < caught.value.seconds <= 3600
    RateLimit(connection, "north", "claims", 1 / 3600)()  # another client's source is another


def test_a_partition_whose_time_has_not_come_waits_without_a_worker_or_a_retry(house: QueuedProject) -> None:
    limited(house, "1/h")
    house.files("acme", GOOD_1, GOOD_2)
    run = house.submit()
    worker = InProcessWorker(house.connection)
    while worker.step():
        pass
    assert house.state(run) == "running"
    states = {str(job.get_status().value): job for job in extracts(house.connection, run, 2)}
    assert set(states) == {"finished", "scheduled"}
    assert states["scheduled"].retries_left == 1
    assert 3500 < (worker._served.due() or 0) <= 3600
    assert dequeue(house.connection) is None
    for key in ("etl:rate:acme:claims", "rq:scheduled:etl-acme"):  # an hour later
        if key == "etl:rate:acme:claims":
            house.connection.delete(key)
        else:
            house.connection.zadd(key, {states["scheduled"].id: 0})
    worker.work()
    assert house.state(run) == "succeeded"


def test_a_function_paces_the_requests_it_makes_itself(house: QueuedProject) -> None:
    (house.root / "steps.py").write_text(
        "def pages(pace, client):\n"
        "    for page in range(3):\n"
        "        if page:\n"
        "            pace()\n"
        "        yield [{'claim_id': f'{client}{page}', 'amount': '1'}]\n\n"
        "def same(df):\n    return df\n"
    )
    source = 'type = "function", function = "steps:pages", rate = "40/s"'
    house.change(('type = "csv", path = "inbox/{client}/claims-*.csv", settle = 0', source))
    run = house.run()
    [found] = runs.snapshot(house.connection, [run])
    assert (found["state"], found["rows"]["loaded"]) == ("succeeded", 3)
    [job] = extracts(house.connection, run, 1)
    assert job.started_at is not None
    assert job.ended_at is not None
    assert (job.ended_at - job.started_at).total_seconds() >= 2 / 40  # the third page is two gaps after the first


def test_a_rate_shapes_no_row(house: QueuedProject) -> None:
    before = house.pipeline().fingerprint
    limited(house, "10/s")
    assert house.pipeline().fingerprint == before


def test_a_lookup_has_no_rate(house: QueuedProject) -> None:
    lookup = '\n[pipelines.claims.lookups]\ncodes = { type = "csv", path = "codes.csv", rate = "1/s" }\n[defaults]'
    house.change(("\n[defaults]", lookup))
    with pytest.raises(ConfigError, match=r"lookups\.codes\.rate: a lookup is read once for all; drop rate"):
        house.loaded()


def test_three_workers_keep_a_clients_rate_and_other_clients_go_on(
    shop: WorkerProject, start: Callable[[int], list[object]]
) -> None:
    limited(shop, "4/s")
    for number in range(FILES):
        shop.file(f"v{number}")
    shop.file("n1", client="north")
    slow = shop.submit()
    north = shop.submit("north")
    submitted = EtlJob.fetch(f"{slow}-1-extract-1", connection=shop.connection).created_at
    start(3)
    ended = shop.ended(slow)
    assert (ended["state"], ended["rows"]["loaded"]) == ("succeeded", 3 * FILES)
    assert shop.run(north)["finished"] < ended["finished"]
    ends = sorted(job.ended_at for job in extracts(shop.connection, slow, FILES) if job.ended_at)
    assert [(end - submitted).total_seconds() >= place / 4 for place, end in enumerate(ends)] == [True] * FILES


GOOD_1, GOOD_2 = "claim_id,amount\nA1,1\n", "claim_id,amount\nB1,2\n"

"""Retention: nothing stays in Redis, in staging or in the target longer than it is wanted."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq.job import JobStatus

from jobs import settings
from jobs.enqueue import enqueue_on
from jobs.process.inprocess import InProcessWorker
from jobs.process.maintenance import maintain
from jobs.queue import FairQueue
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.store import keys as runs
from jobs.store import runs as store_runs
from tests.helpers.processes import ROOT
from tests.helpers.queued_project import BAD, DAY, GOOD, QueuedProject, let_pass, queues

pytestmark = pytest.mark.slow

# --- Redis: every key has an owner and a life ---


def documented(heading: str) -> list[str]:
    """Return the patterns of keys in a table of docs/redis.md."""
    text = (ROOT / "docs" / "redis.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [re.sub(r"<\w+>", ".+", key) for cell in cells for key in re.findall(r"`([^`]+)`", cell)]


ENDING, STAYING = documented("Keys that end"), documented("Keys that stay")


def keys(connection: Redis) -> set[str]:
    return {key.decode() for key in connection.scan_iter()}


def unknown(connection: Redis, patterns: list[str]) -> set[str]:
    return {key for key in keys(connection) if not any(re.fullmatch(pattern, key) for pattern in patterns)}


def busy_day(house: QueuedProject) -> Callable[[], None]:
    """Have runs succeed, fail, be canceled at every moment and be retried, and functions be called; answers a check."""
    seen: set[str] = set()

    def look() -> None:
        assert unknown(house.connection, [*ENDING, *STAYING]) == set()
        seen.update(keys(house.connection))

    house.files("acme", GOOD, GOOD.replace("A", "B"))
    house.files("globex", GOOD, BAD)
    house.files("initech", GOOD, GOOD.replace("A", "B"), GOOD.replace("A", "C"))
    house.submit("acme")
    failed = house.submit("globex")
    worker = InProcessWorker(house.connection)
    look()
    while worker.step():
        look()
    assert house.state(failed) == "failed"
    retry_run(settings.config(), house.connection, failed)
    look()
    house.work()
    for steps in range(11):
        run = house.submit("initech")
        for _ in range(steps):
            worker.step()
        cancel_run(house.connection, run)
        look()
    enqueue_on(house.connection, "acme", "steps.add", [2, 3])
    enqueue_on(house.connection, "acme", "steps.fail", retries=2)
    canceled = enqueue_on(house.connection, "acme", "steps.add", [2, 3])
    canceled.cancel()
    while worker.step() or house.connection.zcard("rq:scheduled:etl-acme"):
        look()
        let_pass_retries(house.connection)
    assert canceled.get_status() == JobStatus.CANCELED
    look()
    kinds = {re.sub(r"[0-9a-z]{10}-.*|[0-9a-f-]{32,}.*", "…", key) for key in seen}
    assert {"etl:runs", "rq:failed:etl-acme", "rq:canceled:etl-acme", "rq:job:…", "rq:results:…"} <= kinds
    return look


def let_pass_retries(connection: Any) -> None:
    for id in connection.zrange("rq:scheduled:etl-acme", 0, -1):
        connection.zadd("rq:scheduled:etl-acme", {id: 1})


def test_after_the_retention_nothing_is_left_in_redis(house: QueuedProject) -> None:
    look = busy_day(house)
    assert store_runs.active(house.connection) == []
    house.sweep()
    let_pass(house.connection, 8 * DAY)
    maintain(house.connection, queues(house.connection))
    house.sweep()
    look()
    left = {key for key in keys(house.connection) if key.startswith("rq:") and key not in STAYING}
    assert left == set()  # jobs are forgotten after a week
    assert house.connection.zcard(runs.INDEX) == 13  # runs are not
    let_pass(house.connection, 90 * DAY)
    maintain(house.connection, queues(house.connection))
    let_pass(house.connection, 90 * DAY)
    assert unknown(house.connection, STAYING) == set()


def test_runs_are_remembered_as_long_as_history_says(house: QueuedProject) -> None:
    house.configure('history = "2d"')
    house.files("acme", GOOD)
    run = house.run()
    failed = house.submit("globex")  # no file matches: it has failed already
    canceled = house.submit("acme")
    cancel_run(house.connection, canceled)
    for each in (run, failed, canceled):
        assert 2 * DAY - 60 < int(house.connection.ttl(runs.run_key(each))) <= 2 * DAY
    let_pass(house.connection, 2 * DAY + 1)
    maintain(house.connection, queues(house.connection))
    assert store_runs.recent(house.connection) == []
    assert house.connection.zcard(runs.INDEX) == 0


def test_the_index_is_trimmed_though_no_run_comes_any_more(house: QueuedProject) -> None:
    house.connection.zadd(runs.INDEX, {"old": time.time() - 91 * DAY, "new": time.time()})
    maintain(house.connection, [])
    assert house.connection.zrange(runs.INDEX, 0, -1) == [b"new"]


def test_a_stage_that_comes_after_its_run_has_ended_leaves_nothing_for_ever(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    cancel_run(house.connection, run)
    store_runs.record_stage(house.connection, run, 1, "extract", "failed", error="stopped")
    assert house.connection.ttl(runs.stages_key(run)) > 0
    house.connection.delete(runs.run_key(run), runs.stages_key(run))
    store_runs.record_stage(house.connection, run, 1, "extract", "failed", error="stopped")
    assert not house.connection.exists(runs.stages_key(run))


def test_a_stages_counts_stand_in_its_job_and_need_no_stream(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    run = house.run()
    queue = FairQueue("etl-acme", connection=house.connection)
    job = queue.fetch_job(f"{run}-1-extract-1")
    assert job is not None
    assert job.return_value() == {"read": 2, "out": 2, "rejected": 0}
    assert house.connection.keys("rq:results:*") == []


def test_a_job_takes_at_most_6_kb(real_redis: Redis, house: QueuedProject) -> None:
    house.connection = real_redis
    house.files("acme", *[GOOD.replace("A", f"{number}-") for number in range(20)])
    house.run()
    sizes = [int(real_redis.memory_usage(key, samples=0) or 0) for key in real_redis.scan_iter()]
    assert sum(sizes) / 61 < 6 << 10

"""enqueue: a company's own function as a job, refused early and clearly where it can't work."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.errors import BrokerUnreachable, ConfigError
from jobs import settings
from jobs.enqueue import enqueue, enqueue_on
from jobs.job import JobRefused
from jobs.process.inprocess import InProcessWorker
from tests.helpers.redis_server import RedisServer


def add(a: int, b: int = 0, **more: int) -> int:
    return a + b + sum(more.values())


class Shop:
    @staticmethod
    def sell() -> None:
        """Not at the top of its module."""


@pytest.fixture(autouse=True)
def _only_this_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ETL_CONFIG", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ETL_MODULES", "test_enqueue")
    settings.use(None)


def test_three_lines_add_two_numbers(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer, real_redis: Redis
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    job = enqueue("acme", add, 2, 3)
    InProcessWorker(real_redis).work()
    assert job.wait(10) == 5
    assert job.return_value() == 5


@pytest.mark.parametrize("function", [add, "test_enqueue:add", "test_enqueue.add"])
def test_a_function_may_be_named(connection: Redis, function: Any) -> None:
    job = enqueue_on(connection, "acme", function, (1,), {"b": 2, "c": 3})
    assert (job.origin, job.func_name, job.description) == ("etl-acme", "test_enqueue.add", "acme test_enqueue.add")
    InProcessWorker(connection).work()
    assert job.wait(10) == 6


def test_everything_expires(connection: Redis) -> None:
    job = enqueue_on(connection, "acme", add, (1,))
    assert job.result_ttl
    assert job.failure_ttl


def test_retries_and_timeout_are_rqs(connection: Redis) -> None:
    job = enqueue_on(connection, "acme", add, (1,), timeout=0.5, retries=4)
    assert (job.timeout, job.retries_left, job.retry_intervals) == (1, 4, [5, 30, 120, 120])
    assert enqueue_on(connection, "acme", add, (1,)).timeout == 180


@pytest.mark.parametrize(
    ("args", "kwargs", "what"),
    [
        ((date(2026, 1, 1),), {}, "argument 1 is a date"),
        ((1, object()), {}, "argument 2 is a object"),
        ((), {"rows": {1: "one"}}, "rows is a dict"),
        ((float("nan"),), {}, "argument 1 is a float"),
    ],
)
def test_what_json_cannot_carry_is_refused(fake_redis: Redis, args: Any, kwargs: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=f"test_enqueue.add: {what} that JSON can't carry"):
        enqueue_on(fake_redis, "acme", add, args, kwargs)


def test_tuples_become_lists(fake_redis: Redis) -> None:
    assert enqueue_on(fake_redis, "acme", add, ((1, 2), {"a": (3,)})).func_name


def test_mistakes_are_errors_at_once(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobRefused, match='add "os" to modules'):
        enqueue_on(fake_redis, "acme", "os:getcwd")
    with pytest.raises(ConfigError, match="not a client's name"):
        enqueue_on(fake_redis, "Acme Ltd", add)
    with pytest.raises(ConfigError, match="top level of a module"):
        enqueue_on(fake_redis, "acme", Shop.sell)
    with pytest.raises(ConfigError, match="top level of a module"):
        enqueue_on(fake_redis, "acme", lambda: None)
    with pytest.raises(ConfigError, match="again -1 times"):
        enqueue_on(fake_redis, "acme", add, retries=-1)
    monkeypatch.setattr(Shop.sell, "__module__", "__main__")
    monkeypatch.setattr(Shop.sell, "__qualname__", "sell")
    with pytest.raises(ConfigError, match="in the script that runs"):
        enqueue_on(fake_redis, "acme", Shop.sell)
    assert fake_redis.keys() == []


def test_without_a_redis_it_says_how_to_get_one() -> None:
    with pytest.raises(BrokerUnreachable, match="no Redis runs") as caught:
        enqueue("acme", add, 2, 3)
    assert "REDIS_URL" in caught.value.cure

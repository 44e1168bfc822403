"""A run that has ended does nothing again, whatever is written to Redis: its staging says that it has ended."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs import settings
from jobs.run import held as held_runs
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import keys
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

STEPS = "def same(df):\n    return df\n"
CLAIMS: dict[str, Any] = {
    "extract": {"path": "inbox/{client}/old*.csv"},
    "transform": ["steps:same"],
    "load": {"mode": "replace"},
    "retries": 0,
    "columns": {"claim_id": "string", "amount": "integer"},
}
CONFIG = etl_toml({"claims": CLAIMS}, ["globex"])


def copied(connection: Redis) -> dict[bytes, tuple[bytes, Any]]:
    """Copy what Redis holds of runs, jobs and queues, as whoever reads and writes it can."""
    kinds: dict[bytes, Callable[[bytes], Any]] = {
        b"string": connection.get,
        b"hash": connection.hgetall,
        b"list": lambda key: connection.lrange(key, 0, -1),
        b"set": connection.smembers,
        b"zset": lambda key: connection.zrange(key, 0, -1, withscores=True),
    }
    found = {key: connection.type(key) for key in connection.scan_iter()}
    return {key: (kind, kinds[kind](key)) for key, kind in found.items() if kind in kinds}


def replayed(connection: Redis, before: dict[bytes, tuple[bytes, Any]]) -> None:
    """Write all of it back."""
    connection.flushdb()
    for key, (kind, value) in before.items():
        if kind == b"string":
            connection.set(key, value)
        elif kind == b"hash":
            connection.hset(key, mapping=value)
        elif kind == b"zset":
            connection.zadd(key, dict(value))
        else:
            (connection.rpush if kind == b"list" else connection.sadd)(key, *value)


def cancel(shop: QueuedProject, run: str) -> None:
    cancel_run(shop.connection, run)


def fail(shop: QueuedProject, run: str) -> None:
    shop.write("steps.py", "import nothing_like_it")
    shop.work()


def succeed(shop: QueuedProject, run: str) -> None:
    shop.work()


ENDINGS: dict[str, Callable[[QueuedProject, str], None]] = {"canceled": cancel, "failed": fail, "succeeded": succeed}


@pytest.mark.parametrize("state", ENDINGS)
@pytest.mark.parametrize("is_held", [False, True])
def test_a_run_that_has_ended_takes_no_newer_rows_away_when_all_of_it_is_written_again(
    tmp_path: Path, fake_redis: Redis, state: str, is_held: bool
) -> None:
    shop = QueuedProject(tmp_path / "shop", fake_redis, CONFIG, {"steps.py": STEPS})
    shop.write("inbox/globex/old.csv", "claim_id,amount\nG1,1\n")
    if is_held:
        other = submit_run(fake_redis, shop.pipeline("claims", "globex"))
    run = submit_run(fake_redis, shop.pipeline("claims", "globex"), queue=True)
    before = copied(fake_redis)
    if is_held:
        others = (keys.holder_key("globex", "claims", None), keys.run_key(other))
        before = {key: value for key, value in before.items() if key.decode() not in others}
        cancel_run(fake_redis, other)
    ENDINGS[state](shop, run)
    assert shop.state(run) == state
    shop.write("steps.py", STEPS)
    shop.write("inbox/globex/old-2.csv", "claim_id,amount\nG1,2\n")
    os.rename(shop.root / "inbox/globex/old.csv", shop.root / "inbox/globex/moved.csv")
    assert shop.state(shop.run("globex")) == "succeeded"
    os.rename(shop.root / "inbox/globex/moved.csv", shop.root / "inbox/globex/old.csv")
    replayed(fake_redis, before)
    held_runs.promote_all(fake_redis)
    shop.work()
    assert shop.rows("select claim_id, amount from claims") == [("G1", 2)]
    again = shop.record(run)
    assert again["state"] == "succeeded" or "has ended" in again["error"] or "is not in staging" in again["error"]


@pytest.mark.parametrize("is_held", [False, True])
def test_a_retry_goes_on_after_its_run_has_ended(tmp_path: Path, fake_redis: Redis, is_held: bool) -> None:
    shop = QueuedProject(tmp_path / "shop", fake_redis, CONFIG, {"steps.py": STEPS})
    shop.write("inbox/globex/old.csv", "claim_id,amount\nG1,1\n")
    other = shop.submit("globex") if is_held else ""
    run = submit_run(shop.connection, shop.pipeline("claims", "globex"), queue=True)
    for _ in range(2):
        cancel_run(shop.connection, run)
        assert retry_run(settings.config(), shop.connection, run)
    if other:
        cancel_run(shop.connection, other)
        held_runs.promote_all(shop.connection)
    shop.work()
    assert shop.state(run) == "succeeded"

"""What a key of Redis holds up it holds up for its time, whoever has written it without an end."""

from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.suspension import suspend

from etl.errors import AlreadyRunning
from jobs import settings
from jobs.process import maintenance
from jobs.run.retry import retry_run
from jobs.store import keys, malformed
from tests.helpers.project import Project
from tests.helpers.queued_project import BAD, GOOD, QueuedProject
from tests.helpers.redis_server import RedisServer

TASKS = {task.__name__: seconds for task, seconds in maintenance.TASKS if seconds}
LONG = 10**9  # seconds
ENDLESS = pytest.mark.parametrize("life", [None, LONG], ids=["no end", "decades"])


@ENDLESS
@pytest.mark.parametrize("kind", ["string", "hash"])
def test_a_task_of_maintenance_is_off_for_its_interval_at_most(connection: Redis, kind: str, life: int | None) -> None:
    intervals = {**TASKS, "maintenance": settings.lease(), "cleanup": maintenance.CLEANUP_EVERY}
    for name in (*intervals, "grace"):
        connection.hset(keys.once_key(name), "a", "b") if kind == "hash" else connection.set(
            keys.once_key(name), "junk"
        )
        if life:
            connection.expire(keys.once_key(name), life)
    assert not maintenance.is_time(connection)
    maintenance.request_cleanup(connection)
    maintenance.maintain(connection, ["etl-acme"])
    for name, seconds in {**intervals, "grace": 3 * settings.lease()}.items():
        assert 0 <= int(connection.pttl(keys.once_key(name))) <= seconds * 1000, name


@ENDLESS
def test_a_claim_of_nobody_lasts_as_long_as_any(connection: Redis, tmp_path: Path, life: int | None) -> None:
    project = QueuedProject(tmp_path, connection)
    project.files("acme", BAD)
    run = project.run("acme")
    connection.set(keys.claim_key(run), "junk", ex=life)
    with pytest.raises(AlreadyRunning):
        retry_run(project.loaded(), connection, run)
    assert 0 <= int(connection.pttl(keys.claim_key(run))) <= keys.CLAIMED * 1000


@ENDLESS
def test_a_pipeline_that_no_active_run_holds_is_free(connection: Redis, tmp_path: Path, life: int | None) -> None:
    project = QueuedProject(tmp_path, connection)
    project.files("acme", GOOD)
    before = project.run("acme")
    key = keys.holder_key("acme", "claims")
    for holder in ("junk", before):
        connection.set(key, holder, ex=life)
        assert project.state(project.run("acme")) == "succeeded"
    held = project.submit("acme"), project.submit("acme", queue=True)
    connection.srem(keys.ACTIVE, held[0])  # as where its record was set aside
    connection.delete(keys.run_key(held[0]))
    maintenance.maintain(connection, ["etl-acme"], all_tasks=True)
    project.work()
    assert project.state(held[1]) == "succeeded"


def test_a_holder_of_nobody_lets_a_run_be_retried(connection: Redis, tmp_path: Path) -> None:
    project = QueuedProject(tmp_path, connection)
    project.files("acme", BAD)
    run = project.run("acme")
    project.files("acme", GOOD)
    connection.set(keys.holder_key("acme", "claims"), "junk")
    retry_run(project.loaded(), connection, run)
    project.work()
    assert project.state(run) == "succeeded"


def test_the_doctor_names_keys_without_an_end_and_that_workers_are_suspended(
    tmp_path: Path, real_redis: Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    QueuedProject(tmp_path, real_redis)
    real_redis.set(keys.once_key("trim"), "junk")
    real_redis.set(keys.claim_key("abc"), "junk", ex=LONG)
    real_redis.set(keys.once_key("cleanup"), "1", px=1000)
    suspend(real_redis)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    found: list[dict[str, Any]] = Project(tmp_path)("doctor --json").json
    assert any("suspended" in each["what"] and each["cure"].startswith("rq resume") for each in found)
    assert any(each["what"].startswith("2 malformed values in Redis") for each in found)
    aside = sorted(each.text() for each in malformed.set_aside(real_redis))
    assert aside == ["etl:claim:abc (ends too late)", "etl:once:trim (ends too late)"]

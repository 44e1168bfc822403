"""The users of docs/security.md, on a server of their own: each can do its work, and a viewer nothing else."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError

from jobs.dashboard import create_app
from tests.helpers.processes import ROOT, kill_session, until
from tests.helpers.project import CLAIMS, Project, etl_toml
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

DOCUMENT = ROOT / "docs" / "security.md"
USERS = ("worker", "submitter", "dashboard", "viewer")


@pytest.fixture
def users(redis_server: RedisServer, real_redis: Redis) -> Iterator[dict[str, str]]:
    """The URLs of the document's users."""
    [block] = re.findall(r"```\n(user .*?)```", DOCUMENT.read_text(), re.DOTALL)
    lines = [line.split() for line in block.splitlines()]
    assert [line[1] for line in lines] == [*USERS, "default"]
    for _, name, *rules in lines[:-1]:  # the tests' own is the default one
        real_redis.execute_command("ACL", "SETUSER", name, "reset", *rules)  # type: ignore[no-untyped-call]
    yield {name: redis_server.url.replace("unix://", f"unix://{name}:{name}-password@") for name in USERS}
    for name in USERS:
        real_redis.acl_deluser(name)


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    columns = {"claim_id": "string", "amount": "decimal"}
    return Project(tmp_path, etl_toml({"claims": {"columns": columns}}), {"inbox/acme/claims.csv": CLAIMS})


def cli(shop: Project, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "REDIS_URL": url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cli", *words]
    return subprocess.run(command, cwd=shop.root, env=environment, capture_output=True, text=True, timeout=60)


def test_each_user_does_its_work(
    shop: Project, users: dict[str, str], workers: StartWorkers, real_redis: Redis
) -> None:
    workers.url = users["worker"]
    start = {"ETL_CONFIG": str(shop.path)}
    environment = {**os.environ, **start, "PYTHONPATH": str(ROOT), "REDIS_URL": users["worker"]}
    worker = subprocess.Popen(
        [sys.executable, "-m", "cli", "worker"],
        cwd=shop.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until(lambda: bool(real_redis.smembers("rq:workers")))
        said = cli(shop, users["submitter"], "run", "claims", "--client", "acme", "--wait")
        assert said.returncode == 0, said.stderr
        assert shop.rows("select count(*) from claims") == [(2,)]
        for name in ("viewer", "dashboard", "submitter"):
            for words in (["runs"], ["status"], ["show", "acme/claims"], ["metrics"]):
                seen = cli(shop, users[name], *words)
                assert (seen.returncode, seen.stderr) == (0, ""), (name, words)
        refused = cli(shop, users["viewer"], "run", "claims", "--client", "acme")
        assert refused.returncode != 0
        assert len(runs_of(real_redis)) == 1
        again = cli(shop, users["submitter"], "cancel", "acme/claims")
        assert again.returncode == 0, again.stderr
    finally:
        kill_session(worker)
    text = worker.stdout.read().decode() if worker.stdout else ""
    assert "NoPermission" not in text
    assert "NOPERM" not in text


def runs_of(connection: Redis) -> list[object]:
    return list(connection.zrange("etl:runs", 0, -1))


def test_the_dashboards_user_shows_its_pages(users: dict[str, str]) -> None:
    with Redis.from_url(users["dashboard"]) as connection:
        page = create_app(connection, password="pw").test_client()
        for path in ("/", "/rq/", "/rq/0/data/queues.json", "/rq/0/data/workers.json"):
            assert page.get(path, auth=("x", "pw")).status_code in (200, 302), path


FORBIDDEN = (
    *("CONFIG SET dir .", "SET other 1", "FLUSHALL", "ACL LIST", "SHUTDOWN", "KEYS *", "CLIENT KILL TYPE normal"),
    *("MODULE LOAD x.so", "DEBUG SLEEP 0", "EVAL return(redis.call('set','other','1')) 0"),
    *("FUNCTION FLUSH", "FUNCTION DELETE other", "FUNCTION LIST", "FCALL other 0", "FCALL_RO other 0"),
    *("SCRIPT FLUSH", "SCRIPT KILL", "SELECT 1", "MOVE etl:x 1", "COPY etl:x etl:y DB 1", "SWAPDB 0 1", "RANDOMKEY"),
)


@pytest.mark.parametrize("name", USERS)
def test_no_user_changes_the_server_or_other_keys(users: dict[str, str], name: str) -> None:
    with Redis.from_url(users[name]) as connection:
        for command in FORBIDDEN:
            with pytest.raises(RedisError, match=r"(?i)permission|not allowed|script"):
                connection.execute_command(*command.split())


def test_the_users_of_another_database_choose_that_one_alone(users: dict[str, str], real_redis: Redis) -> None:
    real_redis.execute_command("ACL", "SETUSER", "viewer", "+select|3")  # type: ignore[no-untyped-call]
    with Redis.from_url(users["viewer"]) as connection:
        connection.execute_command("SELECT", "3")
        with pytest.raises(NoPermissionError):
            connection.execute_command("SELECT", "1")


@pytest.mark.parametrize("command", ["SET etl:x 1", "DEL etl:runs", "LPUSH rq:queue:etl-acme x", "EVAL return(1) 0",
                                     "PUBLISH rq:pubsub:w x", "HSET etl:run:x state failed"])  # fmt: skip
def test_a_viewer_changes_nothing(users: dict[str, str], command: str) -> None:
    with Redis.from_url(users["viewer"]) as connection, pytest.raises(NoPermissionError):
        connection.execute_command(*command.split())

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
from jobs.queue import FairQueue
from jobs.settings import WORKER_CLASSES
from tests.helpers.dashboard_pages import HERE, LOGIN, PASSWORD, fail
from tests.helpers.processes import ROOT, kill_session, until
from tests.helpers.project import CLAIMS, Project, etl_toml
from tests.helpers.redis_server import RedisServer
from tests.helpers.worker_project import LEASE
from tests.helpers.workers import StartWorkers

pytestmark = pytest.mark.slow

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


COMMANDS = ("worker --burst", "worker -n 2 --burst", "doctor --fix", "clients pause acme", "run claims --client acme")


@pytest.mark.parametrize("words", COMMANDS)
def test_who_lacks_a_permission_is_told_so_in_a_sentence(shop: Project, users: dict[str, str], words: str) -> None:
    said = cli(shop, users["viewer"], *words.split())
    text = said.stdout + said.stderr
    assert said.returncode == 3, text
    assert "Traceback" not in text
    assert re.search("Redis does not permit its user [a-z]+", text)
    assert "docs/security.md has the ACL rules" in text


def test_a_worker_that_was_started_by_itself_is_told_so_too(
    shop: Project, users: dict[str, str], real_redis: Redis
) -> None:
    real_redis.execute_command("ACL", "SETUSER", "viewer", "+@transaction")  # type: ignore[no-untyped-call]
    environment = {**os.environ, **WORKER_CLASSES, "RQ_REDIS_URL": users["viewer"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rq.cli", "worker", "--burst"]  # RQ's own asks whether workers are suspended
    said = subprocess.run(command, cwd=shop.root, env=environment, capture_output=True, text=True, timeout=60)
    text = said.stdout + said.stderr
    assert "Traceback" not in text
    assert said.returncode == 3, text
    assert text.count("Redis does not permit its user") == 1


def test_a_worker_that_loses_a_permission_waits_and_goes_on_when_it_has_it_again(
    shop: Project, users: dict[str, str], workers: StartWorkers, real_redis: Redis
) -> None:
    workers.url = users["worker"]
    [process] = workers(1, cwd=shop.root, env={"ETL_LEASE": LEASE})
    log = shop.root / "worker-1.log"
    real_redis.execute_command("ACL", "SETUSER", "worker", "-evalsha", "-eval")  # type: ignore[no-untyped-call]
    until(lambda: "Redis does not permit its user" in log.read_text())
    real_redis.execute_command("ACL", "SETUSER", "worker", "+evalsha", "+eval")  # type: ignore[no-untyped-call]
    said = cli(shop, users["submitter"], "run", "claims", "--client", "acme", "--wait")
    assert said.returncode == 0, said.stderr
    assert process.poll() is None
    assert "Traceback" not in log.read_text()


def test_a_page_and_a_button_of_a_viewers_dashboard_say_what_is_not_permitted(
    users: dict[str, str], real_redis: Redis
) -> None:
    queue = FairQueue("etl-acme", connection=real_redis)
    fail(queue.enqueue("steps.a", job_id="failed"))  # type: ignore[arg-type]
    queue.enqueue("steps.a", job_id="waits")
    real_redis.rpush(queue.key, "gone")
    kinds = ("queued", "failed", "finished", "started", "deferred", "scheduled", "canceled")
    buttons = [f"job/{id}/{what}" for id in ("failed", "waits") for what in ("delete", "requeue")]
    buttons += ["requeue/etl-acme", "queue/etl-acme/compact", *(f"queue/etl-acme/{kind}/empty" for kind in kinds)]
    data = ["queues.json", "workers.json", "job/failed.json", *(f"jobs/etl-acme/{kind}/8/asc/1.json" for kind in kinds)]
    with Redis.from_url(users["viewer"]) as connection:
        page = create_app(connection, password=PASSWORD).test_client()
        for path in ("/", "/rq/", *(f"/rq/0/data/{each}" for each in data)):
            assert page.get(path, headers=LOGIN, follow_redirects=True).status_code in (200, 403), path
        for button in buttons:
            answer = page.post(f"/rq/{button}", headers=HERE)
            assert answer.status_code in (200, 403, 409), (button, answer.text)
            if answer.status_code == 403:
                assert "Redis does not permit its user" in answer.get_json()["error"], button
    assert real_redis.lrange(queue.key, 0, -1) == [b"waits", b"gone"]


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

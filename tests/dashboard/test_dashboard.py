# ruff: noqa: F401, F811 - fixtures are asked for by name
"""The dashboard: what its pages show, and who may ask it what."""

import base64
import json
import re
import socket
from pathlib import Path

import pytest
from redis import Redis
from rq import Worker
from rq.job import Dependency, JobStatus
from rq.results import Result
from werkzeug.serving import BaseWSGIServer

from etl.errors import ConfigError
from jobs.dashboard import create_app, serve
from jobs.queue import FairQueue
from jobs.store import keys, live, runs
from jobs.store.run_json import ROWS
from jobs.views import console
from tests.helpers.dashboard_pages import EVIL, LOGIN, PASSWORD, Pages, fail, pages, queue, stage, start_run

# --- the server ---


class Opened:
    """A session as `serve` needs one."""

    def __init__(self, connection: Redis, *, in_process: bool = False) -> None:
        self.connection = connection
        self.in_process = in_process
        self.closed = False

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[BaseWSGIServer]:
    """The servers that were started; none waits for requests."""
    found: list[BaseWSGIServer] = []
    monkeypatch.setattr(BaseWSGIServer, "serve_forever", lambda self, *_: found.append(self))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return found


def test_it_listens_on_the_loopback_address_with_a_password_made_for_this_start(
    fake_redis: Redis, served: list[BaseWSGIServer], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ETL_DASHBOARD_PASSWORD", raising=False)
    told = []
    for _ in range(2):
        session = Opened(fake_redis)
        serve(session, 0)  # type: ignore[arg-type]
        assert session.closed
        out, err = capfd.readouterr()
        assert out == ""
        told.append(re.fullmatch(r"dashboard: http://etl:([\w-]{20,})@127\.0\.0\.1:\d+/\n", err)[1])  # type: ignore[index]
    assert told[0] != told[1]
    assert {server.server_address[0] for server in served} == {"127.0.0.1"}


def test_a_password_of_the_environment_is_not_printed(
    fake_redis: Redis, served: list[BaseWSGIServer], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETL_DASHBOARD_PASSWORD", PASSWORD)
    serve(Opened(fake_redis), 0)  # type: ignore[arg-type]
    assert PASSWORD not in "".join(capfd.readouterr())
    assert served[0].app.test_client().get("/", headers=LOGIN).status_code == 200  # type: ignore[attr-defined]


def test_a_port_that_is_taken_and_a_missing_redis_server_are_reported(fake_redis: Redis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="--port"):
        serve(Opened(fake_redis), taken.getsockname()[1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="REDIS_URL"):
        serve(Opened(fake_redis, in_process=True), 0)  # type: ignore[arg-type]


# --- our pages ---


def test_the_front_page_lists_runs_with_their_counts(connection: Redis, pages: Pages) -> None:
    run = start_run(connection)
    runs.begin(connection, run)
    runs.record_stage(connection, run, 1, "extract", "done", {"read": 12345, "out": 12345})
    runs.record_stage(connection, run, 1, "transform", "done", {"rejected": 45})
    runs.record_stage(connection, run, 1, "load", "done", {"loaded": 12300})
    page = pages.get("/")
    for text in ("acme", "claims", "running", "1/2", "12,345", "45", "12,300", run, 'http-equiv="refresh"'):
        assert text in page


def test_the_front_page_shows_only_the_first_line_of_an_error(connection: Redis, pages: Pages) -> None:
    runs.close(connection, start_run(connection), "failed", error="no file matches inbox/*.csv\n  put one there")
    page = pages.get("/")
    assert "no file matches inbox/*.csv" in page
    assert "put one there" not in page


def test_runs_are_filtered_by_client_and_state(connection: Redis, pages: Pages) -> None:
    start_run(connection, "aaaaaaaaaa", "acme")
    start_run(connection, "bbbbbbbbbb", "globex")
    runs.close(connection, "bbbbbbbbbb", "failed", error="broken")
    assert "bbbbbbbbbb" not in pages.get("/?client=acme")
    assert "aaaaaaaaaa" not in pages.get("/?state=failed")
    assert "No runs of initech" in pages.get("/?client=initech")


def test_a_page_without_runs_says_how_to_start_one(pages: Pages) -> None:
    assert "rq-etl run" in pages.get("/")


def test_the_front_page_says_when_no_worker_is_alive(connection: Redis, pages: Pages) -> None:
    assert "no worker is alive" in pages.get("/")
    Worker([FairQueue("etl-acme", connection=connection)], connection=connection).register_birth()  # type: ignore[no-untyped-call]
    assert "1 worker<" in pages.get("/")


def test_pages_say_who_runs_what_now_and_which_worker_was_lost(connection: Redis, pages: Pages) -> None:
    run = start_run(connection)
    live.begin(connection, run, "1", 1, "extract", worker="0123456789abcdef")
    loss = {"worker": "w1", "host": "box", "pid": "123", "what": "worker", "partition": 1, "stage": "extract"}
    connection.hset(keys.lost_key(run), "x:y", json.dumps({**loss, "at": 1.7e9, "resumed": 1.7e9 + 11}))
    page = pages.get(f"/runs/{run}")
    assert "worker w1@box (pid 123) was lost in extract of partition 1; begun again after 11 s" in page
    assert re.search(
        r'<span class="state running">running</span></td>\s*<td>01234567</td>\s*<td class="n">1</td>', page
    )
    assert f"submitted, {console.zone()}" in page


def test_a_runs_page_shows_its_stages_failures_and_cures(connection: Redis, pages: Pages) -> None:
    run = start_run(connection)
    runs.begin(connection, run)
    runs.record_stage(connection, run, 1, "extract", "done", {"read": 10, "out": 10}, seconds=0.4)
    runs.record_stage(connection, run, 1, "transform", "failed", error="ValueError at steps:clean:3", exit=1)
    failure = {"partition": 1, "file": "inbox/a.csv", "stage": "transform", "error": "ValueError at steps:clean:3"}
    rows = dict.fromkeys(ROWS, 0) | {"read": 10, "rejected": 3}
    runs.close(connection, run, "failed", rows=rows, failures=[failure], error="1 of 2 partitions failed")
    page = pages.get(f"/runs/{run}")
    for text in ("acme/claims", "1 of 2 partitions failed", "inbox/a.csv", "steps:clean:3", "a warning", "north"):
        assert text in page
    assert f"rq-etl rejects {run}" in page
    assert f"rq-etl retry {run}" in page
    assert f"/rq/0/view/job/{run}-1-extract-1" in page
    assert "http-equiv" not in page, "a run that has ended changes no more"


def test_a_run_that_redis_does_not_know_is_not_found(pages: Pages) -> None:
    assert "No run nonesuch" in pages.get("/runs/nonesuch", 404)


def test_what_stands_in_a_run_is_escaped(connection: Redis, pages: Pages) -> None:
    run = start_run(connection)
    runs.record_stage(connection, run, 1, "load", "failed", error=EVIL)
    runs.close(connection, run, "failed", error=EVIL)
    for path in ("/", f"/runs/{run}", f"/?client={EVIL}&state={EVIL}"):
        assert EVIL not in pages.get(path)


# --- rq-dashboard's pages ---


def test_pages_of_finished_failed_deferred_and_started_jobs_answer(
    connection: Redis, queue: FairQueue, pages: Pages
) -> None:
    first = queue.enqueue("steps.a", job_id="first")
    later = queue.enqueue("steps.b", job_id="later", depends_on=Dependency(jobs=[first], allow_failure=True))
    failed = fail(queue.enqueue("steps.c", job_id="broken"))  # type: ignore[arg-type]
    done = queue.enqueue("steps.d", job_id="done", result_ttl=500)
    Result.create(done, Result.Type.SUCCESSFUL, ttl=500, return_value={"loaded": 3})
    done.set_status(JobStatus.FINISHED)
    for job in (first, later, failed, done):
        pages.get(f"/rq/0/view/job/{job.id}")
        assert pages.data(f"job/{job.id}.json")["id"] == job.id
    assert pages.data("job/later.json")["depends_on"] == ["first"]
    assert pages.data("job/later.json")["status"] == "deferred"
    assert pages.data("job/done.json")["result"] == {"loaded": 3}
    assert pages.data("job/broken.json")["exc_info"] == "ValueError at steps:clean:3"


def test_queues_workers_and_registries_are_listed(connection: Redis, queue: FairQueue, pages: Pages) -> None:
    job = queue.enqueue("steps.a", 2, 3, description="add them")
    fail(queue.enqueue("steps.b"))  # type: ignore[arg-type]
    worker = Worker([queue], name="mary", connection=connection)
    worker.register_birth()  # type: ignore[no-untyped-call]
    worker.set_current_job_id(job.id)
    for view in ("queues", "workers", "jobs", "jobs/etl-acme/failed/8/dsc/1"):
        assert "rq-dashboard" in pages.get(f"/rq/0/view/{view}").lower()
    found = pages.data("queues.json")["queues"][0]
    assert (found["name"], found["count"], found["failed_job_registry_count"]) == ("etl-acme", 1, 1)
    for registry in ("queued", "scheduled", "deferred", "started", "finished", "failed", "canceled"):
        pages.data(f"jobs/etl-acme/{registry}/8/asc/1.json")
    [mary] = pages.data("workers.json")["workers"]
    assert mary["current_job"]["call_string"] == "steps.a(2, 3)"


def test_a_worker_whose_job_is_gone_is_shown_as_idle(connection: Redis, queue: FairQueue, pages: Pages) -> None:
    worker = Worker([queue], connection=connection)
    worker.register_birth()  # type: ignore[no-untyped-call]
    worker.set_current_job_id("gone")
    assert pages.data("workers.json")["workers"][0]["current_job"] == "idle"


def test_a_job_that_is_gone_is_not_found(pages: Pages) -> None:
    assert "gone from Redis" in pages.get("/rq/0/view/job/nonesuch", 404)
    pages.get("/rq/0/data/job/nonesuch.json", 404)


def test_nothing_is_unpickled(connection: Redis, queue: FairQueue, pages: Pages, tmp_path: Path) -> None:
    bomb = b"cposix\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "boom").encode()
    job = queue.enqueue("steps.a")
    connection.hset(job.key, mapping={"data": bomb, "meta": bomb, "serializer": "pickle"})
    connection.xadd(f"rq:results:{job.id}", {"type": "1", "return_value": base64.b64encode(bomb)})
    worker = Worker([queue], connection=connection)
    worker.register_birth()  # type: ignore[no-untyped-call]
    worker.set_current_job_id(job.id)
    pages.get(f"/rq/0/view/job/{job.id}")
    assert pages.data(f"job/{job.id}.json")["result"] == "(not JSON)"
    assert pages.data("jobs/etl-acme/queued/8/asc/1.json")["jobs"][0]["id"] == job.id
    assert pages.data("workers.json")["workers"]
    assert not (tmp_path / "boom").exists()


def test_an_unreadable_job_does_not_hide_the_others(connection: Redis, queue: FairQueue, pages: Pages) -> None:
    queue.enqueue("steps.a", job_id="fine")
    queue.enqueue("steps.b", job_id="odd")
    connection.hset("rq:job:odd", "status", "no such status")
    assert [job["id"] for job in pages.data("jobs/etl-acme/queued/8/asc/1.json")["jobs"]] == ["fine"]


READS = {
    "hget", "hgetall", "hmget", "exists", "type", "llen", "lrange", "scard", "smembers", "sismember", "strlen", "zcard",
    "zcount", "zrange", "zrevrange", "zrangebyscore", "zrevrangebyscore", "zscore", "xrange", "xrevrange", "ttl", "get",
    "mget", "info", "config|resetstat", "client|setinfo", "client|setname", "hello", "select", "time", "multi", "exec",
}  # fmt: skip


def test_looking_changes_nothing_in_redis(real_redis: Redis) -> None:
    queue = FairQueue("etl-acme", connection=real_redis)
    run = start_run(real_redis)
    parent = stage(queue, run, "extract")
    stage(queue, run, "transform", depends_on=Dependency(jobs=[parent], allow_failure=True))
    fail(stage(queue, run, "load"))
    real_redis.zadd("rq:wip:etl-acme", {f"{parent.id}:x": 1})  # long expired: RQ's clean-up would fail it
    real_redis.zadd("rq:finished:etl-acme", {"gone": 1})
    real_redis.rpush("rq:queue:etl-acme", "gone")
    real_redis.sadd("rq:workers", "rq:worker:dead")
    client = create_app(real_redis, password=PASSWORD).test_client()
    real_redis.config_resetstat()
    paths = ["/", f"/runs/{run}", "/rq/", "/rq/0/data/queues.json", "/rq/0/data/workers.json"]
    paths += [f"/rq/0/view/{view}" for view in ("queues", "workers", "jobs", f"job/{parent.id}")]
    registries = ("queued", "scheduled", "deferred", "started", "finished", "failed", "canceled")
    paths += [f"/rq/0/data/jobs/etl-acme/{registry}/8/dsc/1.json" for registry in registries]
    paths += [f"/rq/0/data/job/{parent.id}.json"]
    for path in paths:
        assert client.get(path, headers=LOGIN).status_code == 200, path
    called = {name.removeprefix("cmdstat_") for name in real_redis.info("commandstats")}
    assert called <= READS, called - READS


def test_our_unix_socket_is_used_again(real_redis: Redis) -> None:
    client = create_app(real_redis, password=PASSWORD).test_client()
    before = real_redis.info("stats")["total_connections_received"]
    for _ in range(5):
        assert client.get("/rq/0/data/queues.json", headers=LOGIN).status_code == 200
    assert real_redis.info("stats")["total_connections_received"] == before
    assert "unix:" in client.get("/rq/", headers=LOGIN).text

"""The dashboard: what its pages show, and who may ask it what."""

import base64
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Worker
from rq.job import Dependency, JobStatus
from rq.registry import FailedJobRegistry
from rq.results import Result
from werkzeug.serving import BaseWSGIServer

from etl.errors import ConfigError
from jobs import project, runs
from jobs.dashboard import create_app, serve
from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.shapes import ROWS

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


def test_a_port_that_is_taken_and_a_missing_redis_server_are_told(fake_redis: Redis) -> None:
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


# --- who may ask what ---

EVERY_PATH = (
    "/",
    "/runs/x",
    "/static/style.css",
    "/rq/",
    "/rq/0/data/queues.json",
    "/rq/static/css/main.css",
    "/nothing",
)


@pytest.mark.parametrize("path", EVERY_PATH)
def test_nothing_is_served_without_the_password(fake_redis: Redis, path: str) -> None:
    client = create_app(fake_redis, password=PASSWORD).test_client()
    wrong = {"Authorization": "Basic " + base64.b64encode(b"etl:wrong").decode()}
    for headers in ({}, wrong, {"Authorization": "Bearer x"}, {"Authorization": "Basic !"}):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401
        assert "Basic" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9181", "0.0.0.0", "10.0.0.7"]
)
def test_a_foreign_host_name_is_refused(fake_redis: Redis, host: str) -> None:
    client = create_app(fake_redis, password=PASSWORD).test_client()
    for path in EVERY_PATH:
        assert client.get(path, headers={**LOGIN, "Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:9181", "localhost:4000"])
def test_this_machines_names_are_welcome_on_any_port(fake_redis: Redis, host: str) -> None:
    client = create_app(fake_redis, password=PASSWORD).test_client()
    assert client.get("/", headers={**LOGIN, "Host": host}).status_code == 200


WRITES = ("requeue/etl-acme", "job/j/requeue", "job/j/delete", "queue/etl-acme/queued/empty", "queue/etl-acme/compact")


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "https://localhost"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "http://localhost.evil.example"},
        {"Referer": "http://evil.example/http://localhost/"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_write_from_elsewhere_is_refused(fake_redis: Redis, path: str, headers: dict[str, str]) -> None:
    queue = FairQueue("etl-acme", connection=fake_redis)
    fail(queue.enqueue("steps.a", job_id="j"))  # type: ignore[arg-type]
    before = fake_redis.dbsize()
    answer = create_app(fake_redis, password=PASSWORD).test_client().post(f"/rq/{path}", headers={**LOGIN, **headers})
    assert answer.status_code == 403
    assert fake_redis.dbsize() == before
    assert EtlJob.fetch("j", connection=fake_redis).is_failed


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_link_changes_nothing(fake_redis: Redis, path: str, method: str) -> None:
    fail(FairQueue("etl-acme", connection=fake_redis).enqueue("steps.a", job_id="j"))  # type: ignore[arg-type]
    client = create_app(fake_redis, password=PASSWORD).test_client()
    assert client.open(f"/rq/{path}", method=method, headers=HERE).status_code == 405
    assert EtlJob.fetch("j", connection=fake_redis).is_failed


@pytest.mark.parametrize(
    "path",
    [
        "1/data/queues.json",
        "0/view/jobs/x');alert(1)//</queued/8/asc/1",
        "0/view/jobs/x%5C/queued/8/asc/1",
        "0/view/jobs/etl-acme/nonesuch/8/asc/1",
        "0/view/jobs/etl-acme/queued/8/sideways/1",
        "0/data/jobs/etl-acme/nonesuch/8/asc/1.json",
        "0/data/jobs/etl-acme/queued/x/asc/1.json",
        "0/data/jobs/etl-acme/queued/0/asc/1.json",
        "0/data/jobs/etl-acme/queued/100000/asc/1.json",
    ],
)
def test_addresses_that_break_rq_dashboard_are_not_found(pages: Pages, path: str) -> None:
    pages.get(f"/rq/{path}", 404)


@pytest.mark.parametrize("path", [*EVERY_PATH, "/rq/0/view/job/j", "/rq/requeue/x"])
def test_every_answer_has_the_strict_headers(pages: Pages, queue: FairQueue, path: str) -> None:
    queue.enqueue("steps.a", job_id="j")
    headers = pages.client.get(path, headers=LOGIN).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "script-src 'unsafe-inline'" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    if "/static/" not in path:
        assert headers["Cache-Control"] == "no-store"


def test_our_own_pages_allow_no_script_at_all(pages: Pages) -> None:
    assert "script-src" not in pages.client.get("/", headers=LOGIN).headers["Content-Security-Policy"]


@pytest.mark.parametrize("view", ["queues", "workers", "jobs", "job/j"])
def test_each_inline_script_of_rq_dashboard_has_this_answers_nonce(pages: Pages, queue: FairQueue, view: str) -> None:
    queue.enqueue("steps.a", job_id="j")
    answers = [pages.client.get(f"/rq/0/view/{view}", headers=LOGIN) for _ in range(2)]
    nonces = set()
    for answer in answers:
        nonce = answer.headers["Content-Security-Policy"].partition("'nonce-")[2].partition("'")[0]
        nonces.add(nonce)
        inline = [tag for tag in answer.text.split("<script")[1:] if " src=" not in tag.partition(">")[0]]
        running = [tag for tag in inline if "text/template" not in tag.partition(">")[0]]
        assert len(running) == 1
        assert f'nonce="{nonce}"' in running[0]
    assert len(nonces) == 2


def test_what_stands_in_a_job_is_escaped(connection: Redis, queue: FairQueue, pages: Pages) -> None:
    evil = queue.enqueue("steps.a", EVIL, job_id="j", description=EVIL, meta={EVIL: EVIL})
    fail(evil, EVIL)  # type: ignore[arg-type]
    done = queue.enqueue("steps.a", job_id="done", result_ttl=500)
    Result.create(done, Result.Type.SUCCESSFUL, ttl=500, return_value={EVIL: [EVIL]})
    worker = Worker([FairQueue(EVIL, connection=connection)], name="<b>mary</b>", connection=connection)
    worker.register_birth()  # type: ignore[no-untyped-call]
    worker.set_current_job_id("j")
    for path in ("job/j.json", "job/done.json"):
        assert EVIL not in pages.client.get(f"/rq/0/data/{path}", headers=LOGIN).text
    found = pages.data("job/j.json")
    assert found["description"] == found["exc_info"] == "&lt;img src=x onerror=alert(1)&gt;"
    queue.enqueue("steps.a")
    connection.sadd("rq:queues", f"rq:queue:{EVIL}")
    assert EVIL not in pages.client.get("/rq/0/data/queues.json", headers=LOGIN).text
    [mary] = pages.data("workers.json")["workers"]
    assert "<" not in mary["name"] + str(mary["queues"]) + mary["current_job"]["call_string"]
    for view in ("queues", "workers", "jobs", "jobs/etl-acme/failed/8/asc/1", "job/j"):
        assert EVIL not in pages.get(f"/rq/0/view/{view}")


def test_what_the_job_list_escapes_by_itself_is_not_escaped_twice(queue: FairQueue, pages: Pages) -> None:
    fail(queue.enqueue("steps.a", description="a < b"), "x < y")  # type: ignore[arg-type]
    [job] = pages.data("jobs/etl-acme/failed/8/asc/1.json")["jobs"]
    assert (job["description"], job["exc_info"]) == ("a < b", "x < y")


# --- writes from our own pages ---


def test_a_failed_job_is_requeued(connection: Redis, queue: FairQueue, pages: Pages) -> None:
    fail(queue.enqueue("steps.a", job_id="j"))  # type: ignore[arg-type]
    assert pages.post("/rq/job/j/requeue") == {"status": "OK"}
    assert queue.get_job_ids() == ["j"]
    pages.post("/rq/job/j/requeue", 409)


def test_all_that_failed_is_requeued_and_what_cannot_be_is_told(
    connection: Redis, queue: FairQueue, pages: Pages
) -> None:
    for id in ("a", "b"):
        fail(queue.enqueue("steps.a", job_id=id))  # type: ignore[arg-type]
    connection.zadd("rq:failed:etl-acme", {"gone": 2e10})
    answer = pages.post("/rq/requeue/etl-acme")
    assert answer["count"] == 2
    assert [each["job"] for each in answer["refused"]] == ["gone"]
    assert sorted(queue.get_job_ids()) == ["a", "b"]


def test_requeueing_a_stage_retries_its_run(
    connection: Redis, queue: FairQueue, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(connection)
    fail(stage(queue, run))
    runs.close(connection, run, "failed", error="broken")
    retried: list[str] = []
    monkeypatch.setattr("jobs.graph.retry", lambda config, connection, run: retried.append(run))
    monkeypatch.setattr(project, "config", lambda: None)
    pages.post(f"/rq/job/{run}-1-load-1/requeue")
    assert retried == [run]
    assert not queue.get_job_ids(), "the stage alone would do nothing, as its run had ended"
    assert not queue.failed_job_registry.get_job_ids(cleanup=False)


def test_jobs_of_an_active_run_are_not_deleted(connection: Redis, queue: FairQueue, pages: Pages) -> None:
    run = start_run(connection)
    job = stage(queue, run)
    assert f"rq-etl cancel {run}" in pages.post(f"/rq/job/{job.id}/delete", 409)["error"]
    assert f"rq-etl cancel {run}" in pages.post("/rq/queue/etl-acme/queued/empty", 409)["error"]
    assert queue.get_job_ids() == [job.id]
    runs.close(connection, run, "canceled")
    pages.post("/rq/queue/etl-acme/queued/empty")
    assert queue.get_job_ids() == []


def test_compacting_a_queue_removes_what_is_gone_and_nothing_else(
    connection: Redis, queue: FairQueue, pages: Pages
) -> None:
    queue.enqueue("steps.a", job_id="a")
    connection.rpush(queue.key, "gone")
    queue.enqueue("steps.a", job_id="b")
    pages.post("/rq/queue/etl-acme/compact")
    assert queue.get_job_ids() == ["a", "b"]
    pages.post("/rq/queue/empty/compact")


def test_a_redis_that_is_away_is_told_and_not_raised() -> None:
    away = Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    client = create_app(away, password=PASSWORD).test_client()
    for path in ("/", "/rq/0/data/queues.json", "/rq/0/view/workers"):
        answer = client.get(path, headers=LOGIN)
        assert answer.status_code == 503
        assert "Redis can" in answer.text

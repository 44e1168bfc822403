# ruff: noqa: F401, F811 - fixtures are asked for by name
"""Who may ask the dashboard what, and what it escapes, refuses and writes."""

import base64

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Worker
from rq.results import Result

from jobs import settings
from jobs.dashboard import create_app
from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.store import runs
from tests.helpers.dashboard_pages import EVIL, HERE, LOGIN, PASSWORD, Pages, fail, pages, queue, stage, start_run

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


def test_all_that_failed_is_requeued_and_what_cannot_be_is_reported(
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
    monkeypatch.setattr("jobs.dashboard.rqpages.retry_run", lambda config, connection, run: retried.append(run))
    monkeypatch.setattr(settings, "config", lambda: None)
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


def test_a_redis_that_is_away_is_reported_and_not_raised() -> None:
    away = Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    client = create_app(away, password=PASSWORD).test_client()
    for path in ("/", "/rq/0/data/queues.json", "/rq/0/view/workers"):
        answer = client.get(path, headers=LOGIN)
        assert answer.status_code == 503
        assert "Redis can" in answer.text

"""`cancel` takes the run that is active, and says what it did and what becomes of those behind it."""

from datetime import UTC, datetime

import pytest
from redis import Redis

from jobs.process.inprocess import InProcessWorker
from jobs.run.submit import submit_run
from jobs.store import runs
from tests.helpers.project import Project, etl_toml
from tests.helpers.redis_server import RedisServer

COLUMNS = {"id": {"type": "string", "required": True}}


@pytest.fixture
def project(etl: Project, redis_server: RedisServer, real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    pipeline = {"columns": COLUMNS, "retries": 0}
    swapped = {**pipeline, "load": {"mode": "replace"}}
    etl.config(etl_toml({"claims": pipeline, "late": {**pipeline, "needs": ["claims"]}, "swapped": swapped}))
    for name in ("1", "2", "claims-1"):
        etl.write(f"inbox/acme/{name}.csv", f"id\n{name}\n")
    return etl


def submitted(
    project: Project, connection: Redis, pipeline: str = "claims", day: int = 0, *, queue: bool = False
) -> str:
    moments = [datetime(2026, 1, day + i, tzinfo=UTC) for i in (0, 1)] if day else [None, None]
    return submit_run(connection, project.pipeline(pipeline), start=moments[0], end=moments[1], queue=queue)


def test_it_names_the_state_the_run_was_in_and_how_much_stays(project: Project, real_redis: Redis) -> None:
    run = submitted(project, real_redis)
    worker = InProcessWorker(real_redis)
    while runs.snapshot(real_redis, [run])[0]["partitions"]["done"] < 2:
        assert worker.step()
    said = project("cancel acme/claims")
    assert said.out == f"{run} canceled: acme/claims was running; 2 of its 3 partitions are loaded and stay\n"
    assert project.rows("select count(*) from claims") == [(2,)]


def test_what_waits_to_be_swapped_in_is_not_loaded(project: Project, real_redis: Redis) -> None:
    run = submitted(project, real_redis, "swapped")
    worker = InProcessWorker(real_redis)
    while runs.snapshot(real_redis, [run])[0]["partitions"]["done"] < 2:
        assert worker.step()
    assert project("cancel acme/swapped").out.endswith("was running; nothing of it was loaded\n")


def test_one_that_is_queued_and_what_is_behind_it(project: Project, real_redis: Redis) -> None:
    first, second = submitted(project, real_redis), submitted(project, real_redis, queue=True)
    third, needing = submitted(project, real_redis, queue=True), submitted(project, real_redis, "late")
    said = project("cancel acme/claims --json")
    [run] = said.json
    assert (run["run"], run["state"], run["was"], run["stays"]) == (first, "canceled", "queued", 0)
    becomes = {other["run"]: other["becomes"] for other in run["behind"]}
    assert becomes == {second: "was held and begins now", third: f"is held behind run {second}"}
    lines = project("cancel acme/claims").out.splitlines()
    assert lines[0] == f"{second} canceled: acme/claims was held; nothing of it was loaded"
    assert lines[1:] == [f"  run {third} of acme/claims was held and begins now"]
    lines = project("cancel acme/claims").out.splitlines()
    assert lines[1:] == [f"  run {needing} of acme/late needs it and fails now"]
    InProcessWorker(real_redis).work()
    assert runs.snapshot(real_redis, [needing])[0]["state"] == "failed"


def test_of_several_windows_the_one_that_is_running_is_taken(project: Project, real_redis: Redis) -> None:
    one, two = (submitted(project, real_redis, day=day) for day in (1, 2))
    said = project("cancel acme/claims")
    assert said.code == 2
    assert "2 runs of acme/claims are queued: " in said.err
    assert "give the id of one" in said.err
    runs.begin(real_redis, two)
    lines = project("cancel acme/claims").out.splitlines()
    assert lines[0].startswith(f"{two} canceled: acme/claims was running")
    assert lines[1:] == [f"  run {one} of acme/claims is queued, for the window from 2026-01-01T00:00:00+00:00"]
    assert project("cancel acme/claims").out.startswith(f"{one} canceled")


def test_all_of_a_client_leave_none_behind(project: Project, real_redis: Redis) -> None:
    made = [submitted(project, real_redis), submitted(project, real_redis, queue=True)]
    lines = project("cancel --client acme").out.splitlines()
    assert [line.split()[0] for line in lines] == made[::-1]
    assert project("cancel --client acme").out == "no run of acme is active\n"


def test_one_that_has_ended_is_left_as_it_is(project: Project, real_redis: Redis) -> None:
    run = submitted(project, real_redis)
    InProcessWorker(real_redis).work()
    assert project("cancel acme/claims").out == project(f"cancel {run}").out == f"{run} succeeded\n"
    assert project("cancel acme/nosuch").code == 2

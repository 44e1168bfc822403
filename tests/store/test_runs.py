"""What Redis knows of runs: states, counts, who is active, and how a run is named."""

from typing import Any

import pytest
from redis import Redis

from etl.errors import UnknownName
from jobs.store import keys, runs


def create(connection: Redis, run: str, client: str = "acme", pipeline: str = "claims", **fields: Any) -> str:
    """Write a run as submit does."""
    known: dict[str, Any] = {"params": {}, "start": None, "end": None, "partitions": 2, "warnings": [], "max_active": 3}
    with connection.pipeline() as pipe:
        runs.create(pipe, run, client=client, pipeline=pipeline, **{**known, **fields})
        pipe.execute()
    return run


def one(connection: Redis, run: str) -> dict[str, Any]:
    [found] = runs.snapshot(connection, [run])
    return found


def test_a_new_run_is_queued_active_and_holds_its_place(connection: Redis) -> None:
    create(connection, "r1", params={"region": "north"}, warnings=["odd"])
    found = one(connection, "r1")
    assert (found["state"], found["started"], found["finished"], found["seconds"]) == ("queued", None, None, None)
    assert (found["params"], found["warnings"]) == ({"region": "north"}, ["odd"])
    assert found["partitions"] == {"total": 2, "done": 0, "failed": 0, "blocked": 0}
    assert runs.active(connection) == ["r1"]
    assert runs.holder(connection, "acme", "claims") == "r1"
    assert runs.holder(connection, "acme", "other") is None
    assert connection.hget(keys.client_key("acme"), "max_active") == b"3"


def test_the_first_stage_sets_it_running_and_the_next_ones_don_t_change_when(connection: Redis) -> None:
    create(connection, "r1")
    began = runs.begin(connection, "r1")["started"]
    assert one(connection, "r1")["state"] == "running"
    assert runs.begin(connection, "r1")["started"] == began
    assert runs.begin(connection, "forgotten") == {}


def test_the_first_ending_stands(connection: Redis) -> None:
    create(connection, "r1")
    runs.begin(connection, "r1")
    connection.sadd(keys.jobs_key("r1"), "a")
    assert runs.close(connection, "r1", "failed", error="broken", exit=3)
    assert not runs.close(connection, "r1", "succeeded")
    found = one(connection, "r1")
    assert (found["state"], found["error"], found["exit"]) == ("failed", "broken", 3)
    assert runs.active(connection) == []
    assert runs.holder(connection, "acme", "claims") is None
    assert not connection.exists(keys.jobs_key("r1"))
    assert runs.begin(connection, "r1")["state"] == "failed"


def test_ending_a_run_frees_no_other_runs_place(connection: Redis) -> None:
    create(connection, "r1")
    create(connection, "r2")
    runs.close(connection, "r1", "canceled")
    assert runs.holder(connection, "acme", "claims") == "r2"
    assert runs.active(connection) == ["r2"]


def test_an_ended_run_is_forgotten_in_time(connection: Redis) -> None:
    create(connection, "r1")
    runs.record_stage(connection, "r1", 1, "extract", "done", {"read": 3})
    assert connection.ttl(keys.run_key("r1")) == -1
    runs.close(connection, "r1", "succeeded")
    assert connection.ttl(keys.run_key("r1")) > 0
    assert connection.ttl(keys.stages_key("r1")) > 0


def test_stages_are_counted_while_the_run_goes_on(connection: Redis) -> None:
    create(connection, "r1")
    runs.record_stage(connection, "r1", 1, "extract", "done", {"read": 10, "out": 9, "rejected": 1})
    runs.record_stage(connection, "r1", 1, "transform", "done", {"in": 9, "out": 8, "rejected": 1})
    runs.record_stage(connection, "r1", 1, "load", "done", {"in": 8, "loaded": 8})
    runs.record_stage(connection, "r1", 2, "extract", "failed", error="no such file", exit=1)
    found = one(connection, "r1")
    assert found["partitions"] == {"total": 2, "done": 1, "failed": 1, "blocked": 0}
    assert {kind: count for kind, count in found["rows"].items() if count} == {"read": 10, "rejected": 2, "loaded": 8}
    record = runs.stage_records(connection, "r1")[2, "extract"]
    assert (record.state, record.error, record.exit) == ("failed", "no such file", 1)


def test_a_stage_of_a_run_that_is_forgotten_leaves_nothing(connection: Redis) -> None:
    runs.record_stage(connection, "r1", 1, "extract", "done", {"read": 10})
    assert connection.keys("etl:*") == []


def test_a_run_is_found_by_its_beginning_and_by_its_client_and_pipeline(connection: Redis) -> None:
    for run, client in (("abcd", "acme"), ("abxy", "globex"), ("zzzz", "acme")):
        create(connection, run, client)
    assert runs.find(connection, "abcd") == "abcd"
    assert runs.find(connection, "abc") == "abcd"
    assert runs.find(connection, "acme/claims") == "zzzz"
    with pytest.raises(UnknownName, match="not unique"):
        runs.find(connection, "ab")
    for text in ("nothing", "acme/other", ""):
        with pytest.raises(UnknownName):
            runs.find(connection, text)


def test_recent_runs_are_newest_first_and_can_be_picked(connection: Redis) -> None:
    for run, client in (("a", "acme"), ("b", "globex"), ("c", "acme")):
        create(connection, run, client)
    runs.close(connection, "c", "failed")
    assert [run["run"] for run in runs.recent(connection)] == ["c", "b", "a"]
    assert [run["run"] for run in runs.recent(connection, client="acme")] == ["c", "a"]
    assert [run["run"] for run in runs.recent(connection, state="failed")] == ["c"]
    assert runs.recent(connection, since=4e9) == []


def test_ids_are_short_and_fit_job_ids() -> None:
    ids = {runs.new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(id) == 10 and id.isalnum() and id.islower() | any(map(str.isdigit, id)) for id in ids)

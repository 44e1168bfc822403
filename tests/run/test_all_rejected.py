"""A run of which every row was rejected: it has failed, nothing of it counts as loaded, and a retry finds its rows."""

import pytest

from jobs.run.retry import retry_run
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

BAD = "id,day\n1,never\n2,never\n"


def configure(house: QueuedProject, mode: str, day: str = "date", **pipeline: object) -> None:
    load = {"mode": mode, "key": ["id"]} if mode == "merge" else {"mode": mode}
    keys = {"load": load, "columns": {"id": "integer", "day": day}, "retries": 3, "retry_delays": [0], **pipeline}
    house.config(etl_toml({"claims": keys}))


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
@pytest.mark.parametrize("count", [1, 2])
def test_it_fails_once_and_a_retry_with_a_mended_configuration_loads_its_rows(
    house: QueuedProject, mode: str, count: int
) -> None:
    configure(house, mode)
    house.files("acme", *[BAD.replace("1,", f"1{n},").replace("2,", f"2{n},") for n in range(count)])
    run = house.run()
    found = house.record(run)
    assert (found["state"], found["exit"], found["rows"]["loaded"]) == ("failed", 1, 0)
    assert f"all {2 * count} rows were rejected: nothing was loaded" in found["error"]
    configure(house, mode, day="string")
    retry_run(house.loaded(), house.connection, run)
    house.work()
    found = house.record(run)
    assert (found["state"], found["rows"]["loaded"]) == ("succeeded", 2 * count), found["error"]
    assert house.rows("select count(*) from claims") == [(2 * count,)]


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_wholly_rejected_file_beside_a_broken_one_is_read_again_by_a_retry(house: QueuedProject, mode: str) -> None:
    configure(house, mode)
    house.files("acme", BAD, "id,id\n1,2\n", "id,day\n9,2024-01-01\n")
    run = house.run()
    assert (house.state(run), house.rows("select id from claims")) == ("failed", [(9,)])
    configure(house, mode, day="string")
    house.files("acme", BAD, "id,day\n3,soon\n")
    retry_run(house.loaded(), house.connection, run)
    house.work()
    assert house.state(run) == "succeeded", house.record(run)["error"]
    assert sorted(house.rows("select id from claims")) == [(1,), (2,), (3,), (9,)]


def test_where_the_pipeline_says_warn_it_succeeds_with_a_warning(house: QueuedProject) -> None:
    configure(house, "append", all_rejected="warn")
    house.files("acme", BAD, BAD)
    found = house.record(house.run())
    assert (found["state"], found["rows"]["rejected"]) == ("succeeded", 4)
    assert found["warnings"] == [f"inbox/acme/claims-{n}.csv: all 2 rows were rejected" for n in (1, 2)]


def test_a_file_mended_after_the_run_has_failed_is_loaded_by_a_retry(house: QueuedProject) -> None:
    configure(house, "append")
    house.files("acme", BAD, BAD)
    run = house.run()
    assert house.state(run) == "failed"
    house.files("acme", "id,day\n1,2024-01-01\n")
    retry_run(house.loaded(), house.connection, run)
    house.work()
    found = house.record(run)
    assert (found["state"], found["rows"]["loaded"], found["rows"]["rejected"]) == ("succeeded", 1, 2)

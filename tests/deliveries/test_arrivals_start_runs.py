"""What comes belongs to a delivery, and starts its run once, when it is complete."""

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tests.helpers.watched_project import WatchedProject, config

UNDATED = "inbox/{client}/claims*.csv"
Make = Callable[..., WatchedProject]


@pytest.fixture
def watched(tmp_path: Path, connection: Redis) -> Make:
    def make(*args: object, **options: object) -> WatchedProject:
        project = WatchedProject(tmp_path, connection, config(*args, **options))  # type: ignore[arg-type]
        project.look()
        return project

    return make


def test_a_file_that_comes_starts_a_run_of_its_delivery_once(watched: Make) -> None:
    house = watched()
    house.looks("26 06:10")
    house.drop("claims-20261126.csv")
    house.looks("26 06:20")
    house.work()
    house.looks("26 08:00")
    [run] = house.runs()
    line = house.line()
    assert (run["state"], run["rows"]["loaded"]) == ("succeeded", 1)
    assert (line["run"], line["state"], line["rows"], line["files"]) == (
        run["run"],
        "succeeded",
        1,
        ["inbox/acme/claims-20261126.csv"],
    )
    assert (line["came"], line["late"], line["missing"]) == ("2026-11-26T06:11:00-06:00", None, False)
    assert house.line("27")["came"] is None


def test_what_never_comes_is_missing_when_its_grace_has_ended(watched: Make) -> None:
    house = watched()
    house.looks("26 07:15")
    assert house.line()["missing"] is False
    house.looks("26 07:15:30")
    assert house.line()["missing"] is True
    assert house.known().deliveries["2026-11-26"].missing is not None
    assert house.runs() == []


def test_a_file_of_a_date_that_comes_after_the_grace_is_late(watched: Make) -> None:
    house = watched()
    house.looks("26 08:29")
    house.drop("claims-20261126.csv")
    house.looks("26 08:30")
    line = house.line()
    assert (line["missing"], line["late"]) == (False, 7200.0)
    assert line["run"]


def test_without_a_date_a_file_belongs_to_the_span_it_was_first_seen_in(watched: Make) -> None:
    house = watched(path=UNDATED)
    house.looks("26 07:14")
    house.drop("claims-a.csv", age=86400)
    house.looks("26 07:15")
    house.drop("claims-b.csv", age=7200)
    house.looks("26 07:16")
    assert house.line("26")["files"] == ["inbox/acme/claims-a.csv"]
    assert house.line("27")["files"] == ["inbox/acme/claims-b.csv"]


def test_tomorrows_file_that_comes_early_is_run_as_tomorrows(watched: Make) -> None:
    house = watched()
    house.looks("26 06:00")
    house.drop("claims-20261127.csv")
    house.looks("26 06:02")
    house.work()
    house.looks("26 07:20")
    assert (house.line("26")["missing"], house.line("27")["state"]) == (True, "succeeded")


def test_several_files_are_waited_for(watched: Make) -> None:
    house = watched({"files": 3}, mode="replace")
    house.looks("26 06:00")
    for number in (1, 2):
        house.drop(f"claims-20261126-{number}.csv")
        house.looks(f"26 06:0{number}")
    assert house.runs() == []
    house.drop("claims-20261126-3.csv")
    house.looks("26 06:05")
    house.work()
    assert [run["rows"]["loaded"] for run in house.runs()] == [3]


def test_a_growing_file_is_waited_for(watched: Make) -> None:
    house = watched(path=UNDATED)
    house.looks("26 06:00")
    for minute in range(1, 4):
        house.drop("claims.csv", "claim_id,amount\n" + "A,1\n" * minute, age=-59)
        house.looks(f"26 06:0{minute}")
    assert house.runs() == []
    assert len(house.known().items) == 1
    house.looks("26 06:05")
    assert len(house.runs()) == 1


def test_a_marker_completes_a_delivery(watched: Make) -> None:
    house = watched({"complete": "*.done"})
    house.looks("26 06:00")
    house.drop("claims-20261126-1.csv")
    house.drop("claims-20261126-2.csv")
    house.drop("claims-20261125.done", "")
    house.looks("26 06:03")
    assert house.runs() == []
    house.drop("claims-20261126.done", "")
    house.looks("26 06:05")
    house.work()
    house.looks("26 08:00")
    assert [run["rows"]["loaded"] for run in house.runs()] == [2]
    assert house.line()["files"] == ["inbox/acme/claims-20261126-1.csv", "inbox/acme/claims-20261126-2.csv"]


def test_a_resent_file_starts_another_run_of_the_delivery(watched: Make) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    house.looks("26 06:00")
    house.work()
    house.looks("26 06:05")
    house.drop("claims-20261126.csv", "claim_id,amount\nB,2\n", age=30)
    house.looks("26 06:07")
    house.work()
    house.looks("26 06:10")
    assert [run["state"] for run in house.runs()] == ["succeeded"] * 2
    assert len(house.known().deliveries["2026-11-26"].runs) == 2
    assert house.line("26")["run"] == house.runs()[-1]["run"]


def test_what_comes_while_a_run_is_active_is_looked_at_when_it_has_ended(watched: Make) -> None:
    house = watched()
    house.drop("claims-20261126-1.csv")
    house.looks("26 06:00")
    house.drop("claims-20261126-2.csv")
    house.looks("26 06:05")
    assert len(house.runs()) == 1
    house.work()
    house.looks("26 06:10")
    house.work()
    house.looks("26 06:20")
    assert [run["rows"]["read"] for run in house.runs()] == [1, 2]


def test_a_failed_run_is_not_started_again_until_something_else_comes(watched: Make) -> None:
    house = watched(retries=0)
    house.drop("claims-20261126.csv", 'claim_id,amount\n"A,1\n')
    house.looks("26 06:00")
    house.work()
    house.looks("26 07:00")
    assert [run["state"] for run in house.runs()] == ["failed"]
    house.drop("claims-20261126.csv")
    house.looks("26 07:10")
    house.work()
    house.looks("26 07:12")
    assert [run["state"] for run in house.runs()] == ["failed", "succeeded"]
    assert house.line()["state"] == "succeeded"

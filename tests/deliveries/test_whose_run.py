"""Which run is a delivery's, of files and of other sources; and the list of deliveries."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs import settings
from jobs.deliveries import record
from tests.helpers.project import etl_toml
from tests.helpers.watched_project import ZONE, WatchedProject, config

UNDATED = "inbox/{client}/claims*.csv"
Make = Callable[..., WatchedProject]


@pytest.fixture
def watched(tmp_path: Path, connection: Redis) -> Make:
    def make(*args: Any, **options: Any) -> WatchedProject:
        project = WatchedProject(tmp_path, connection, config(*args, **options))
        project.look()
        return project

    return make


# --- whose run it is ---


def test_a_run_by_hand_is_the_deliverys_and_no_other_is_started(watched: Make) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    run = house.submit(due=house.at("26 06:00"))
    house.work()
    house.looks("26 06:05")
    assert [each["run"] for each in house.runs()] == [run]
    assert (house.line()["run"], house.line()["state"], house.line()["rows"]) == (run, "succeeded", 1)


def test_a_failed_run_is_the_deliverys_until_one_by_hand_has_loaded_it(watched: Make) -> None:
    house = watched(retries=0)
    bad = house.drop("claims-20261126.csv", 'claim_id,amount\n"A,1\n')
    house.look("26 06:00")
    house.work()
    house.look("26 06:02")
    assert house.line()["state"] == "failed"
    from jobs.run.retry import retry_run

    bad.write_text("claim_id,amount\nA,1\n")
    [failed] = house.runs()
    retry_run(settings.config(), house.connection, failed["run"])
    house.work()
    house.looks("26 06:04")
    assert house.line()["state"] == "succeeded"


def test_of_a_run_that_reads_several_deliveries_each_has_its_own_rows(watched: Make) -> None:
    house = watched(path=UNDATED)
    house.drop("claims-1.csv", "claim_id,amount\nA,1\nB,2\n")
    house.look("26 06:00")
    house.work()
    house.look("26 06:05")
    house.look("26 07:16")
    house.drop("claims-2.csv", "claim_id,amount\nC,1\n")
    house.look("27 06:00")
    house.work()
    house.look("27 06:05")
    assert [(house.line(day)["rows"], house.line(day)["run"]) for day in ("26", "27")] == [
        (2, house.runs()[0]["run"]),
        (1, house.runs()[1]["run"]),
    ]


def test_run_no_starts_nothing_and_sees_all_the_same(watched: Make) -> None:
    house = watched({"run": "no"})
    house.drop("claims-20261126.csv")
    house.looks("26 06:05")
    assert house.runs() == []
    assert house.line()["came"]


def test_when_due_starts_at_the_due_moment_or_when_it_is_complete(watched: Make) -> None:
    house = watched({"run": "when due", "files": 2})
    house.drop("claims-20261126-1.csv")
    house.drop("claims-20261126-2.csv")
    house.looks("26 06:29")
    assert house.runs() == []
    house.look("26 06:30")
    assert len(house.runs()) == 1
    house.work()
    house.drop("claims-20261127-1.csv")
    house.look("27 06:31")
    assert len(house.runs()) == 1
    house.drop("claims-20261127-2.csv")
    house.looks("27 06:33")
    assert len(house.runs()) == 2


def test_a_late_file_of_another_day_is_run_with_its_own_date(watched: Make) -> None:
    house = watched({"days": "mon-fri"})
    house.drop("claims-20261128.csv")  # a Saturday: Monday's delivery
    house.drop("claims-20261130.csv")
    house.look("28 06:00")
    house.work()
    house.look("28 06:02")
    house.work()
    house.look("28 06:04")
    assert [run["rows"]["loaded"] for run in house.runs()] == [1, 1]
    assert house.line("30")["files"] == ["inbox/acme/claims-20261128.csv", "inbox/acme/claims-20261130.csv"]


def test_replace_waits_for_all_files_after_one_was_sent_again(watched: Make) -> None:
    house = watched({"files": 2}, mode="replace")
    first, second = house.drop("claims-20261126-1.csv"), house.drop("claims-20261126-2.csv")
    house.look("26 06:00")
    house.work()
    house.look("26 06:02")
    first.unlink()
    second.unlink()
    house.drop("claims-20261126-2.csv", "claim_id,amount\nC,1\n")
    house.looks("26 06:10")
    assert len(house.runs()) == 1
    house.drop("claims-20261126-1.csv", "claim_id,amount\nD,1\n")
    house.looks("26 06:12")
    house.work()
    assert [run["rows"]["loaded"] for run in house.runs()] == [2, 2]


# --- sources without files ---

SQL = {"type": "sql", "url": "sqlite:///source.db", "table": "claims", "cursor": "claim_id"}


def sql(run: str, grace: str = "45m") -> str:
    claims = {
        "extract": SQL,
        "load": {"mode": "merge", "key": ["claim_id"]},
        "columns": {"claim_id": "integer"},
        "delivery": {"due": "06:30", "grace": grace, "run": run},
    }
    return etl_toml({"claims": claims}, ["acme"], defaults={"pipelines": ["claims"], "timezone": ZONE.key})


@pytest.fixture
def source(tmp_path: Path, connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[..., WatchedProject]:
    def make(run: str) -> WatchedProject:
        house = WatchedProject(tmp_path, connection, sql(run))
        monkeypatch.chdir(tmp_path)
        rows(house, 1)
        house.look()
        return house

    return make


def rows(house: WatchedProject, number: int) -> None:
    with closing(sqlite3.connect(house.root / "source.db")) as database, database:
        database.execute("create table if not exists claims (claim_id integer primary key)")
        database.execute("insert into claims values (?)", (number,))


def moved(house: WatchedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs begin and end at the moment that it is."""
    from jobs.store import live, runs

    clock = type(
        "Clock", (), {"time": staticmethod(lambda: house.now.timestamp()), "monotonic": staticmethod(lambda: 0.0)}
    )
    monkeypatch.setattr(runs, "time", clock)
    monkeypatch.setattr(live, "time", clock)


def test_a_run_with_rows_is_the_delivery_of_a_database(source: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = source("when due")
    moved(house, monkeypatch)
    house.looks("26 06:29")
    assert house.runs() == []
    house.look("26 06:30")
    assert len(house.runs()) == 1
    house.at("26 06:31")
    house.work()
    house.look("26 06:32")
    line = house.line()
    assert (line["state"], line["rows"], line["came"], line["files"]) == (
        "succeeded",
        1,
        "2026-11-26T06:31:00-06:00",
        [],
    )
    house.looks("26 07:20")
    assert len(house.runs()) == 1
    house.look("27 06:30")
    house.at("27 06:31")
    house.work()
    house.look("27 06:32")
    assert (house.line("27")["came"], house.line("27")["state"]) == (None, "succeeded")  # nothing new was in it
    house.look("27 07:16")
    assert house.line("27")["missing"] is True


def test_a_run_that_redis_has_forgotten_is_known_to_the_target(source: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = source("no")
    moved(house, monkeypatch)
    house.at("26 06:10")
    house.run()
    house.connection.flushall()
    house.look("26 07:16")
    line = house.line()
    assert (line["missing"], bool(line["came"]), line["rows"]) == (False, True, 1)


def test_a_run_for_a_window_is_no_delivery(source: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = source("no")
    moved(house, monkeypatch)
    now = house.at("26 06:10")
    house.run(start=now.replace(hour=0), end=now.replace(hour=1))
    house.look("26 06:12")
    assert house.line()["came"] is None


# --- the list, without anyone who looks ---


def test_what_is_missing_is_known_without_a_look(watched: Make) -> None:
    house = watched()
    house.at("28 08:00")
    assert [(line["day"], line["missing"]) for line in house.lines() if line["watched"]] == [
        ("2026-11-26", True), ("2026-11-27", True), ("2026-11-28", True), ("2026-11-29", False)
    ]  # fmt: skip


def test_a_record_is_read_again_only_where_a_look_has_changed_it(
    watched: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, count = watched(), [0]
    seen = record.read

    def counted(*args: Any) -> Any:
        count[0] += 1
        return seen(*args)

    house.lines()
    monkeypatch.setattr("jobs.deliveries.listing.record.read", counted)
    for _ in range(5):
        house.lines()
    assert count[0] == 0
    house.drop("claims-20261126.csv")
    house.look("26 06:00")
    before = count[0]
    for _ in range(5):
        assert house.line()["files"] == ["inbox/acme/claims-20261126.csv"]
    assert count[0] == before + 1


def test_before_any_look_the_last_that_was_due_and_the_next_are_listed(tmp_path: Path, fake_redis: Redis) -> None:
    house = WatchedProject(tmp_path, fake_redis, config())
    house.at("26 10:00")
    assert [(line["day"], line["missing"], line["watched"]) for line in house.lines()] == [
        ("2026-11-26", True, False), ("2026-11-27", False, False)
    ]  # fmt: skip


def test_a_line_has_all_its_fields(watched: Make) -> None:
    house = watched({"files": 2})
    house.drop("claims-20261126-1.csv")
    house.look("26 06:00")
    line = house.line()
    assert json.loads(json.dumps(line)) == {
        "client": "acme",
        "pipeline": "claims",
        "day": "2026-11-26",
        "due": "2026-11-26T06:30:00-06:00",
        "until": "2026-11-26T07:15:00-06:00",
        "came": None,
        "late": None,
        "missing": False,
        "watched": True,
        "files": ["inbox/acme/claims-20261126-1.csv"],
        "expected": 2,
        "odd": [],
        "run": None,
        "state": None,
        "rows": None,
    }


def test_the_folder_may_be_emptied_after_each_run(watched: Make) -> None:
    house = watched(path=UNDATED)
    for day in ("26", "27"):
        house.drop("claims.csv", f"claim_id,amount\nA{day},1\n")
        house.look(f"{day} 06:00")
        house.work()
        house.look(f"{day} 06:05")
        shutil.rmtree(house.root / "inbox/acme")
        (house.root / "inbox/acme").mkdir()
        house.look(f"{day} 07:16")
        house.look(f"{day} 23:00")
        assert (house.line(day)["missing"], house.line(day)["state"]) == (False, "succeeded")
    assert len(house.runs()) == 2

"""Looks at deliveries: by several processes at once, without Redis's memory, over whatever is wrong with one client."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from etl.sources.arrivals import present
from etl.staging import Staging
from etl.staging.folders import folders
from etl.staging.place import DELIVERIES
from jobs import settings
from jobs.deliveries import claims, poll
from jobs.process import cleanup
from tests.helpers.project import etl_toml
from tests.helpers.watched_project import WatchedProject, config

UNDATED = "inbox/{client}/claims*.csv"
Make = Callable[..., WatchedProject]


@pytest.fixture
def watched(tmp_path: Path, connection: Redis) -> Make:
    def make(*args: Any, **options: Any) -> WatchedProject:
        project = WatchedProject(tmp_path, connection, config(*args, **options))
        project.look()
        return project

    return make


# --- who looks ---


def test_of_processes_that_look_at_once_one_starts_the_run(watched: Make) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    now = house.at("26 06:00")
    gate = threading.Barrier(4)

    def look() -> None:
        gate.wait()
        poll.look_at_all(settings.config(), house.connection, now)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(house.runs()) == 1
    [item] = house.known().items
    assert item.run == house.runs()[0]["run"]


def test_one_process_at_a_time_looks_at_a_pipeline(watched: Make) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    with claims.claimed(house.connection, ("acme", "claims")) as is_ours:
        house.look("26 06:00")
        assert house.known().items == []
        assert is_ours is not None
        assert is_ours()
    assert not house.connection.exists("etl:look:acme:claims")
    house.look("26 06:00")
    assert len(house.known().items) == 1


def test_a_look_that_has_lost_its_claim_writes_nothing(watched: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    seen = present

    def slow(*args: Any) -> Any:
        house.connection.set("etl:look:acme:claims", "another's", px=15000)
        return seen(*args)

    monkeypatch.setattr(poll, "present", slow)
    house.look("26 06:00")
    assert (house.known().items, house.runs()) == ([], [])


def test_a_flush_in_the_middle_of_a_look_loses_nothing_and_starts_nothing_twice(
    watched: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    seen = present

    def flushed(*args: Any) -> Any:
        house.connection.flushall()
        return seen(*args)

    monkeypatch.setattr(poll, "present", flushed)
    house.look("26 06:00")
    monkeypatch.setattr(poll, "present", seen)
    house.look("26 06:01")
    house.work()
    house.looks("26 06:05")
    assert [run["state"] for run in house.runs()] == ["succeeded"]
    assert house.line()["came"] == "2026-11-26T06:01:00-06:00"


@pytest.mark.parametrize("steps", [0, 1, 3, 4])
def test_a_run_that_a_flush_has_lost_is_started_again_as_the_same_run(watched: Make, steps: int) -> None:
    from jobs.process.inprocess import InProcessWorker

    house = watched()
    house.drop("claims-20261126.csv")
    house.look("26 06:00")
    [run] = house.runs()
    worker = InProcessWorker(house.connection)
    for _ in range(steps):
        worker.step()
    house.connection.flushall()
    house.look("26 06:05")
    house.work()
    house.look("26 06:10")
    line = house.line()
    assert (line["run"], line["state"], line["rows"]) == (run["run"], "succeeded", 1)
    with closing(sqlite3.connect(house.root / "warehouse.db")) as warehouse:
        assert warehouse.execute("select count(*) from claims").fetchone() == (1,)
    house.connection.flushall()
    house.looks("26 06:15")
    assert house.runs() == []
    assert house.line()["state"] == "succeeded"


# --- what is kept ---


EMPTY = '"items": [], "deliveries": {}}'


@pytest.mark.parametrize(
    "damage",
    ["{", "[]", "null", '{"form": 1}', f'{{"form": 2, {EMPTY}', f'{{"form": 1, "began": "x", "looked": 1, {EMPTY}'],
)
def test_a_record_that_is_damaged_or_gone_is_begun_anew_and_starts_nothing_again(watched: Make, damage: str) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    house.look("26 06:00")
    house.work()
    house.look("26 06:05")
    Staging(settings.staging(), "acme", DELIVERIES).write_bytes("claims.json", damage.encode())
    house.looks("26 06:10")
    assert len(house.runs()) == 1
    assert house.line()["missing"] is False
    assert house.known().items[0].is_covered


def test_a_record_is_private_and_no_run_of_staging(watched: Make) -> None:
    house = watched()
    house.drop("claims-20261126.csv")
    house.look("26 06:00")
    house.work()
    house.look("26 06:05")
    path = house.root / "staging/acme/.deliveries/claims.json"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert {folder.run for folder in folders(settings.staging())} == {house.runs()[0]["run"]}
    house.sweep(later=400 * 86400)
    assert path.exists()


def test_a_record_in_a_bucket_is_kept_as_one_in_a_folder(
    tmp_path: Path, fake_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = WatchedProject(tmp_path, fake_redis, config())
    url = f"memory://{uuid4().hex}"
    made = settings.config().model_copy(update={"settings": settings.config().settings.model_copy()})
    monkeypatch.setattr(type(made), "staging", property(lambda self: url))
    house.look()
    house.drop("claims-20261126.csv")
    house.look("26 06:00")
    house.work()
    house.look("26 06:05")
    assert house.line()["state"] == "succeeded"
    assert "claims.json" in Staging(url, "acme", DELIVERIES).names()
    house.config(config(path="x").replace("[pipelines.claims.delivery]", ""))
    cleaned = cleanup.clean(fake_redis, settings.config(), house.now.timestamp() + 400 * 86400)
    assert cleaned.troubles == []


def test_what_is_old_and_gone_is_forgotten(watched: Make) -> None:
    house = watched()
    house.config(config(), ("[settings]", '[settings]\nhistory = "10d"'))
    old = house.drop("claims-20261126.csv")
    kept = house.drop("claims-20261127.csv")
    house.look("26 06:00")
    old.unlink()
    for day in range(27, 31):
        house.look(f"{day} 06:00")
    house.look("2026-12-12 06:00")
    known = house.known()
    assert [item.name for item in known.items] == [f"inbox/acme/{kept.name}"]
    assert min(known.deliveries) > "2026-12-01"


def test_the_record_of_a_pipeline_without_deliveries_goes_after_a_while(watched: Make) -> None:
    house = watched(clients=("acme", "globex"))
    (house.root / "inbox/globex").mkdir()
    house.look("26 06:00")
    path = house.root / "staging/acme/.deliveries/claims.json"
    toml = config(clients={"acme": {"override": {"claims": {"delivery": {"due": "07:00"}}}}})
    house.config(toml)
    now = house.now.timestamp()
    cleanup.clean(house.connection, settings.config(), now + 89 * 86400)
    assert (house.root / "staging/globex/.deliveries/claims.json").exists()
    cleanup.clean(house.connection, settings.config(), now + 91 * 86400)
    assert not (house.root / "staging/globex/.deliveries/claims.json").exists()
    assert path.exists()


def test_nothing_is_written_where_nothing_has_changed(watched: Make) -> None:
    house = watched()
    path = house.root / "staging/acme/.deliveries/claims.json"
    before = path.stat().st_ino
    house.looks("26 05:44")
    assert path.stat().st_ino == before
    house.looks("26 05:46")
    assert path.stat().st_ino != before  # but for when the last look was


# --- what is wrong with one ---


def test_a_folder_that_is_away_stops_no_other_and_is_named(watched: Make) -> None:
    house = watched(clients=("acme", "globex"))
    house.drop("claims-20261126.csv", client="globex")
    house.look("26 06:00")
    house.work()
    away = house.root / "inbox/globex"
    away.rename(house.root / "inbox/gone")
    house.drop("claims-20261126.csv")
    house.looks("26 06:05")
    assert len(house.runs(client="acme")) == 1
    error = claims.looked(house.connection)["globex", "claims"].error
    assert error is not None
    assert error.startswith(f"{away} can't be looked at: No such file or directory")
    assert house.line("26", "globex")["missing"] is False
    (house.root / "inbox/gone").rename(away)
    house.looks("26 06:08")
    assert claims.looked(house.connection)["globex", "claims"].error is None
    assert len(house.runs(client="globex")) == 1


def test_a_folder_that_has_never_been_there_has_nothing_in_it(watched: Make) -> None:
    house = watched(clients=("acme", "globex"))
    house.looks("26 07:16")
    assert house.line("26", "globex")["missing"] is True
    house.drop("claims-20261127.csv", client="globex")
    house.looks("26 07:18")
    assert len(house.runs(client="globex")) == 1


def test_whatever_goes_wrong_with_one_pipeline_is_kept_without_values(
    watched: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = watched(clients=("acme", "globex"))
    house.drop("claims-20261126.csv", client="globex")
    seen = present

    def broken(pipeline: Any, *args: Any) -> Any:
        if pipeline.client == "acme":
            raise RuntimeError("Jane Roe")
        return seen(pipeline, *args)

    monkeypatch.setattr(poll, "present", broken)
    house.looks("26 06:03")
    error = claims.looked(house.connection)["acme", "claims"].error
    assert error is not None
    assert error.startswith("RuntimeError")
    assert "Jane" not in error
    assert len(house.runs(client="globex")) == 1


def test_a_client_whose_file_has_a_mistake_keeps_what_is_known_and_stops_no_other(watched: Make) -> None:
    house = watched(clients={"globex": {}})
    house.write("clients/acme.toml", "")
    settings.use(house.root / "etl.toml")
    house.drop("claims-20261126.csv")
    house.look("26 06:00")
    assert len(house.runs()) == 1
    house.write("clients/acme.toml", "max_active = 'x'")
    house.drop("claims-20261126.csv", client="globex")
    house.look("26 06:02")
    assert len(house.runs(client="globex")) == 1
    cleanup.clean(house.connection, settings.config(), house.now.timestamp() + 91 * 86400)
    assert (house.root / "staging/acme/.deliveries/claims.json").exists()
    assert ("acme", "claims") in claims.looked(house.connection)


def test_a_pipeline_that_has_no_deliveries_any_more_is_forgotten_in_redis(watched: Make) -> None:
    house = watched()
    assert ("acme", "claims") in claims.looked(house.connection)
    house.config(etl_toml({"claims": {}}, ["acme"], defaults={"pipelines": ["claims"]}))
    house.look("26 06:00")
    assert claims.looked(house.connection) == {}

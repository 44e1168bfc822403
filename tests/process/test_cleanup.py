"""Cleanup, damage and full disks: staging and targets hold what is wanted, and no longer than it is wanted."""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from redis import Redis

from etl.errors import DamagedArtifact
from etl.load import drop_leftovers
from etl.staging import Marker, Staging
from etl.staging.folders import folders
from jobs import settings
from jobs.process.inprocess import InProcessWorker
from jobs.process.maintenance import UPKEEP, request_cleanup
from jobs.queue import FairQueue
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.store import runs, scripts
from tests.helpers.deliveries import deliver, partition, pipeline, query
from tests.helpers.processes import ROOT
from tests.helpers.queued_project import BAD, DAY, GOOD, QueuedProject, let_pass

# --- the cleanup is asked for ---


def test_the_cleanup_is_asked_for_once_an_hour_whoever_asks(house: QueuedProject) -> None:
    queue = FairQueue(UPKEEP, connection=house.connection)
    request_cleanup(house.connection)
    request_cleanup(house.connection)
    assert len(queue.job_ids) == 1
    house.work()
    [id] = queue.finished_job_registry.get_job_ids()
    job = queue.fetch_job(id)
    assert job is not None
    assert job.return_value() == {"folders": 0, "shadows": 0, "remembered": 0}
    let_pass(house.connection, 3601)
    request_cleanup(house.connection)
    assert len(queue.job_ids) == 1


# --- staging ---


def test_of_a_run_that_succeeded_only_rejects_are_kept_and_for_as_long_as_history_says(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    run = house.run()
    [rejects] = [name for name in house.names(run) if name.endswith(".parquet")]
    assert house.names(run) == [rejects, "over.json", "rejects.json", "run.json"]
    assert house.sweep(89 * DAY).folders == 0
    assert house.sweep(91 * DAY).folders == 1
    assert house.names(run) == []


def test_a_failed_run_is_kept_for_retry_and_then_removed(house: QueuedProject) -> None:
    house.configure('keep_failed = "3d"')
    house.files("acme", GOOD, BAD)
    run = house.run()
    before = house.names(run)
    assert {"00001.load.json", "00002.extract.json"} <= set(before)
    assert house.sweep(2.9 * DAY).folders == 0
    assert house.names(run) == before
    assert house.sweep(3.1 * DAY).folders == 1
    assert house.names(run) == []


def test_so_is_a_canceled_run(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    InProcessWorker(house.connection).step()
    cancel_run(house.connection, run)
    assert (house.sweep(6 * DAY).folders, house.sweep(8 * DAY).folders) == (0, 1)


def test_an_active_run_is_never_touched(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    InProcessWorker(house.connection).step()
    Staging(str(house.root / "staging"), "acme", run).write_bytes(".half", b"")
    before = house.names(run)
    assert house.sweep(1000 * DAY).folders == 0
    assert house.names(run) == before
    house.work()
    assert house.state(run) == "succeeded"


def test_a_run_that_redis_has_forgotten_is_removed_like_a_failed_one(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    house.submit()
    house.connection.flushall()
    assert (house.sweep(6 * DAY).folders, house.sweep(8 * DAY).folders) == (0, 1)


def test_so_are_a_folder_with_nothing_in_it_and_one_whose_submit_died(house: QueuedProject) -> None:
    (house.root / "staging" / "acme" / "empty").mkdir(parents=True)
    Staging(str(house.root / "staging"), "acme", "died").write_json("run.json", {})
    assert {folder.run for folder in folders(settings.config().staging)} == {"empty", "died"}
    assert (house.sweep(6 * DAY).folders, house.sweep(8 * DAY).folders) == (0, 2)


def test_a_client_whose_last_run_goes_while_folders_are_listed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for client in ("acme", "north"):
        Staging(str(tmp_path), client, "r1").write_json("run.json", {})
    scandir = os.scandir

    def one_goes(folder: str) -> Any:
        if folder == str(tmp_path / "acme"):
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr("etl.staging.folders.os.scandir", one_goes)
    assert [folder.client for folder in folders(str(tmp_path))] == ["north"]


def test_folders_are_found_in_a_store_of_objects_too() -> None:
    place = Staging("memory://bucket/staging", "acme", "r1")
    place.write_json("run.json", {})
    place.write_json("rejects.json", [])
    Staging("memory://bucket/staging", ".check", "probe").write_json("run.json", {})
    [folder] = folders("memory://bucket/staging")
    assert (folder.client, folder.run, set(folder.names)) == ("acme", "r1", {"run.json", "rejects.json"})
    assert abs(folder.modified - time.time()) < 60
    assert not folder.is_unfinished
    place.publish("load", 1, Marker())
    [folder] = folders("memory://bucket/staging")
    assert folder.is_unfinished
    place.remove()
    assert list(folders("memory://bucket/staging")) == []


def test_a_finish_that_died_before_it_cleaned_up_is_cleaned_up_for(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    run = house.run()
    kept = house.names(run)
    place = Staging(str(house.root / "staging"), "acme", run)
    place.publish("load", 1, Marker())
    place.write_bytes("00001.extract.rows.ab.0.parquet", b"")
    house.sweep(0.5 * DAY)
    assert house.names(run) == kept


def test_what_killed_writers_leave_is_removed_at_the_end(house: QueuedProject) -> None:
    house.files("acme", GOOD, BAD)
    run = house.submit()
    place = Staging(str(house.root / "staging"), "acme", run)
    place.write_bytes(".run.json.1234", b"")
    place.write_bytes("00001.extract.rows.dead.0.parquet", b"half")
    house.work()
    assert house.state(run) == "failed"
    left = house.names(run)
    assert ".run.json.1234" not in left
    assert "00001.extract.rows.dead.0.parquet" not in left
    for name in left:
        if name.endswith(".parquet"):
            assert list(place.chunks([name]))


def test_of_a_canceled_run_they_are_removed_an_hour_later(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    InProcessWorker(house.connection).step()
    cancel_run(house.connection, run)
    before = house.names(run)
    Staging(str(house.root / "staging"), "acme", run).write_bytes("00001.load.rows.dead.0.parquet", b"half")
    house.sweep()
    assert "00001.load.rows.dead.0.parquet" in house.names(run)
    house.sweep(3700)
    assert house.names(run) == before


# --- shadow tables ---


CLAIM = pa.table({"claim_id": ["A1"], "amount": [1], "_row": pa.array([2], pa.int64())})


def shadows(url: str) -> list[str]:
    from tests.helpers.deliveries import connected

    with connected(url) as connection:
        import sqlalchemy as sa

        return [name for name in sa.inspect(connection).get_table_names() if name.startswith("_etl_shadow_")]


def test_a_shadow_table_that_no_run_will_apply_is_dropped(target_url: str) -> None:
    merge = pipeline("merge", key=["claim_id"])
    for run in ("old", "active"):
        deliver(target_url, merge, CLAIM, run=run, of=partition(1), partitions=2)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    assert drop_leftovers(target_url, "warehouse", [None], spare={"active"}, before=now - hour) == []
    assert drop_leftovers(target_url, "warehouse", [None], spare={"active"}, before=now + hour) == ["old"]
    assert shadows(target_url) == ["_etl_shadow_active"]
    assert query(target_url, "SELECT run FROM _etl_loads") == [("active",)]


def test_a_canceled_runs_shadow_goes_with_its_staging(house: QueuedProject) -> None:
    house.files("acme", GOOD, GOOD.replace("A", "B"))
    run = house.submit()
    url = f"sqlite:///{house.root}/warehouse.db"
    worker = InProcessWorker(house.connection)
    while not any(stage == "load" for _, stage in runs.stage_records(house.connection, run)):
        worker.step()
    cancel_run(house.connection, run)
    assert house.sweep(6 * DAY).shadows == 0
    assert shadows(url) == [f"_etl_shadow_{run}"]
    found = house.sweep(8 * DAY)
    assert (found.folders, found.shadows, found.troubles) == (1, 1, [])
    assert shadows(url) == []


def test_a_target_that_cant_be_asked_holds_up_nothing(house: QueuedProject) -> None:
    text = (house.root / "etl.toml").read_text()
    house.files("acme", GOOD)
    house.run()
    (house.root / "etl.toml").write_text(text.replace("sqlite:///warehouse.db", "sqlite:///${NOT_SET}.db"))
    found = house.sweep(91 * DAY)
    assert found.folders == 1
    assert found.troubles == ["targets.warehouse.url: NOT_SET is not in the environment"]


# --- a damaged artifact ---


@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_a_damaged_artifact_is_noticed_and_a_retry_makes_it_again(house: QueuedProject, harm: str) -> None:
    house.files("acme", "claim_id,amount\n" + "".join(f"A{number},{number}\n" for number in range(500)))
    run = house.submit()
    InProcessWorker(house.connection).step()
    [artifact] = (house.root / "staging" / "acme" / run).glob("*.rows.*.parquet")
    content = bytearray(artifact.read_bytes())
    content[20] ^= 255
    if harm == "gone":
        artifact.unlink()
    else:
        artifact.write_bytes(content if harm == "changed" else content[:-100])
    house.work()
    [failed] = runs.snapshot(house.connection, [run])
    assert failed["state"] == "failed"
    word = "gone" if harm == "gone" else "damaged"
    assert "00001.extract.rows" in failed["error"]
    assert f"is {word}\n  rq-etl retry makes it again" in failed["error"]
    retry_run(settings.config(), house.connection, run)
    house.work()
    [redone] = runs.snapshot(house.connection, [run])
    assert (redone["state"], redone["rows"]["loaded"], redone["error"]) == ("succeeded", 500, None)


def test_a_disk_that_cant_be_read_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Staging(str(tmp_path), "acme", "r1")
    with place.writer("extract", 1) as writer:
        writer.write(CLAIM)
    place.publish("extract", 1, Marker(data=tuple(writer.names)))

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("etl.staging.pq.ParquetFile", fail)
    with pytest.raises(Exception, match="Input/output error") as caught:
        list(place.chunks(writer.names))
    assert not isinstance(caught.value, DamagedArtifact)
    assert place.marker("extract", 1) is not None


# --- a full disk ---


FULL = """
import json, resource, sys
from etl.config.pipeline import resolve
from etl.staging import Staging
from jobs import settings
from jobs.process.inprocess import InProcessWorker
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import runs
import fakeredis
import jobs.stages
settings.use("etl.toml")
connection = fakeredis.FakeRedis()
run = submit_run(connection, resolve(settings.config(), "claims", "acme"))
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
InProcessWorker(connection).work()
full, names = runs.snapshot(connection, [run])[0], Staging("staging", "acme", run).names()
tries = runs.stage_records(connection, run)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
retry_run(settings.config(), connection, run)
InProcessWorker(connection).work()
print(json.dumps([full, names, runs.snapshot(connection, [run])[0]]))
"""


def test_a_full_disk_fails_the_run_with_its_cure_and_a_retry_succeeds_when_there_is_room(
    tmp_path: Path, fake_redis: Redis
) -> None:
    house = QueuedProject(tmp_path, fake_redis)
    house.files(
        "acme", "claim_id,amount\n" + "".join(f"{number * 7919 % 100_003},{number}\n" for number in range(9000))
    )
    ran = subprocess.run(
        [sys.executable, "-c", FULL], cwd=house.root, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    full, names, after = json.loads(ran.stdout)
    assert full["state"] == "failed"
    assert "File too large\n  make room or set settings.staging" in full["error"]
    assert not [name for name in names if name.endswith(".parquet") or name.startswith(".")]
    assert (after["state"], after["rows"]["loaded"], after["attempt"]) == ("succeeded", 9000, 2)


# --- doctor --fix ---


def test_doctor_fix_takes_back_lost_jobs_ends_lost_runs_and_cleans_up(
    house: QueuedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs import broker
    from jobs.views import doctor

    monkeypatch.setattr(broker, "connect", lambda *_, **__: broker.given(house.connection))
    house.files("acme", GOOD)
    house.files("globex", GOOD)
    lost, closed = house.submit("acme"), house.submit("globex")
    from jobs.queue import dequeue

    found = dequeue(house.connection)
    assert found is not None
    assert found[0].execution is not None
    house.connection.zadd("rq:wip:etl-acme", {found[0].execution.composite_key: time.time() + scripts.SHIFT - 1})
    for key in house.connection.keys(f"rq:job:{closed}*"):
        house.connection.delete(key)
    old = Staging(str(house.root / "staging"), "initech", "old")
    old.write_json("run.json", {})
    os.utime(old.path("run.json"), (1, 1))
    said = {finding["check"]: finding["what"] for finding in doctor.fix(str(house.root / "etl.toml"), None)}
    assert said["maintenance"] == "1 jobs rescued from lost workers, 1 runs closed that nothing would have ended"
    assert said["cleanup"] == "1 folders removed from staging"
    house.work()
    assert (house.state(lost), house.state(closed)) == ("succeeded", "failed")
    again = {finding["check"]: finding["what"] for finding in doctor.fix(str(house.root / "etl.toml"), None)}
    assert again == {"maintenance": "nothing to fix", "cleanup": "nothing to fix"}

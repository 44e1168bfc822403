"""Retention: nothing stays in Redis, in staging or in the target longer than it is wanted."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from redis import Redis
from rq.job import JobStatus

from etl.errors import DamagedArtifact
from etl.load import leftovers
from etl.pipeline import resolve
from etl.staging import Marker, Staging, folders
from jobs import graph, lua, project, runs, sweep
from jobs.enqueue import enqueue_on
from jobs.inprocess import InProcessWorker
from jobs.queue import FairQueue
from jobs.reconcile import UPKEEP, reconcile, request_sweep
from tests.conftest import ROOT
from tests.loading import deliver, partition, pipeline, query

DAY = 86400.0
CONFIG = """
[settings]
staging = "staging"
modules = ["steps"]
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/{client}/claims-*.csv", settle = 0 }
transform = ["steps:same"]
load = { target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"] }
retries = 1
retry_delays = [0]
[pipelines.claims.columns]
claim_id = { type = "string", required = true }
amount = { type = "decimal", min = 0 }
[defaults]
pipelines = ["claims"]
[clients.acme]
[clients.globex]
[clients.initech]
"""
STEPS = "def same(df):\n    return df\n\ndef add(a, b):\n    return a + b\n\ndef fail():\n    raise ValueError('no')\n"
GOOD, BAD = "claim_id,amount\nA1,1\nA2,x\n", "number,amount\nA9,1\n"


@dataclass
class House:
    """A project in a folder, on a Redis."""

    root: Path
    connection: Redis

    def files(self, client: str, *contents: str) -> None:
        inbox = self.root / "inbox" / client
        inbox.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(contents, 1):
            (inbox / f"claims-{number}.csv").write_text(content)

    def configure(self, *settings: str) -> None:
        (self.root / "etl.toml").write_text(CONFIG.replace("[settings]", "\n".join(["[settings]", *settings])))
        project.use(self.root / "etl.toml")

    def submit(self, client: str = "acme") -> str:
        return graph.submit(self.connection, resolve(project.config(), "claims", client))

    def work(self) -> None:
        InProcessWorker(self.connection).work()

    def run(self, client: str = "acme") -> str:
        run = self.submit(client)
        self.work()
        return run

    def state(self, run: str) -> str:
        return str(runs.snapshot(self.connection, [run])[0]["state"])

    def names(self, run: str, client: str = "acme") -> list[str]:
        return Staging(str(self.root / "staging"), client, run).names()

    def sweep(self, later: float = 0.0) -> sweep.Swept:
        return sweep.clean(self.connection, project.config(), time.time() + later)


@pytest.fixture
def house(tmp_path: Path, connection: Redis) -> Iterator[House]:
    (tmp_path / "steps.py").write_text(STEPS)
    made = House(tmp_path, connection)
    made.configure()
    yield made
    project.use(None)


# --- Redis: every key has an owner and a life ---


def documented(heading: str) -> list[str]:
    """Return the patterns of keys in a table of docs/redis.md."""
    text = (ROOT / "docs" / "redis.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [re.sub(r"<\w+>", ".+", key) for cell in cells for key in re.findall(r"`([^`]+)`", cell)]


ENDING, STAYING = documented("Keys that end"), documented("Keys that stay")


def keys(connection: Redis) -> set[str]:
    return {key.decode() for key in connection.scan_iter()}


def unknown(connection: Redis, patterns: list[str]) -> set[str]:
    return {key for key in keys(connection) if not any(re.fullmatch(pattern, key) for pattern in patterns)}


def let_pass(connection: Any, seconds: float) -> None:
    """Move time on: what would have expired by then is gone, and every moment in a sorted set is so much longer ago."""
    for key in list(connection.scan_iter()):
        left = connection.pttl(key)
        if 0 <= left <= seconds * 1000:
            connection.delete(key)
        elif left > 0:
            connection.pexpire(key, int(left - seconds * 1000))
        if connection.type(key) == b"zset":
            for member, score in connection.zrange(key, 0, -1, withscores=True):
                connection.zadd(key, {member: score - seconds if score > 0 else score})


def queues(connection: Any) -> list[str]:
    return [key.decode().removeprefix("rq:queue:") for key in connection.smembers("rq:queues")]


def busy_day(house: House) -> Callable[[], None]:
    """Have runs succeed, fail, be canceled at every moment and be retried, and functions be called; answers a check."""
    seen: set[str] = set()

    def look() -> None:
        assert unknown(house.connection, [*ENDING, *STAYING]) == set()
        seen.update(keys(house.connection))

    house.files("acme", GOOD, GOOD.replace("A", "B"))
    house.files("globex", GOOD, BAD)
    house.files("initech", GOOD, GOOD.replace("A", "B"), GOOD.replace("A", "C"))
    house.submit("acme")
    failed = house.submit("globex")
    worker = InProcessWorker(house.connection)
    look()
    while worker.step():
        look()
    assert house.state(failed) == "failed"
    graph.retry(project.config(), house.connection, failed)
    look()
    house.work()
    for steps in range(11):
        run = house.submit("initech")
        for _ in range(steps):
            worker.step()
        graph.cancel(house.connection, run)
        look()
    enqueue_on(house.connection, "acme", "steps.add", [2, 3])
    enqueue_on(house.connection, "acme", "steps.fail", retries=2)
    canceled = enqueue_on(house.connection, "acme", "steps.add", [2, 3])
    canceled.cancel()
    while worker.step() or house.connection.zcard("rq:scheduled:etl-acme"):
        look()
        let_pass_retries(house.connection)
    assert canceled.get_status() == JobStatus.CANCELED
    look()
    kinds = {re.sub(r"[0-9a-z]{10}-.*|[0-9a-f-]{32,}.*", "…", key) for key in seen}
    assert {"etl:runs", "rq:failed:etl-acme", "rq:canceled:etl-acme", "rq:job:…", "rq:results:…"} <= kinds
    return look


def let_pass_retries(connection: Any) -> None:
    for id in connection.zrange("rq:scheduled:etl-acme", 0, -1):
        connection.zadd("rq:scheduled:etl-acme", {id: 1})


def test_after_the_retention_nothing_is_left_in_redis(house: House) -> None:
    look = busy_day(house)
    assert runs.active(house.connection) == []
    house.sweep()
    let_pass(house.connection, 8 * DAY)
    reconcile(house.connection, queues(house.connection))
    house.sweep()
    look()
    left = {key for key in keys(house.connection) if key.startswith("rq:") and key not in STAYING}
    assert left == set()  # jobs are forgotten after a week
    assert house.connection.zcard(runs.INDEX) == 13  # runs are not
    let_pass(house.connection, 90 * DAY)
    reconcile(house.connection, queues(house.connection))
    let_pass(house.connection, 90 * DAY)
    assert unknown(house.connection, STAYING) == set()


def test_runs_are_remembered_as_long_as_history_says(house: House) -> None:
    house.configure('history = "2d"')
    house.files("acme", GOOD)
    run = house.run()
    failed = house.submit("globex")  # no file matches: it has failed already
    canceled = house.submit("acme")
    graph.cancel(house.connection, canceled)
    for each in (run, failed, canceled):
        assert 2 * DAY - 60 < int(house.connection.ttl(runs.run_key(each))) <= 2 * DAY
    let_pass(house.connection, 2 * DAY + 1)
    reconcile(house.connection, queues(house.connection))
    assert runs.recent(house.connection) == []
    assert house.connection.zcard(runs.INDEX) == 0


def test_the_index_is_trimmed_though_no_run_comes_any_more(house: House) -> None:
    house.connection.zadd(runs.INDEX, {"old": time.time() - 91 * DAY, "new": time.time()})
    reconcile(house.connection, [])
    assert house.connection.zrange(runs.INDEX, 0, -1) == [b"new"]


def test_a_stage_that_comes_after_its_run_has_ended_leaves_nothing_for_ever(house: House) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    graph.cancel(house.connection, run)
    runs.record_stage(house.connection, run, 1, "extract", "failed", error="stopped")
    assert house.connection.ttl(runs.stages_key(run)) > 0
    house.connection.delete(runs.run_key(run), runs.stages_key(run))
    runs.record_stage(house.connection, run, 1, "extract", "failed", error="stopped")
    assert not house.connection.exists(runs.stages_key(run))


def test_a_stages_counts_stand_in_its_job_and_need_no_stream(house: House) -> None:
    house.files("acme", GOOD)
    run = house.run()
    queue = FairQueue("etl-acme", connection=house.connection)
    job = queue.fetch_job(f"{run}-1-extract-1")
    assert job is not None
    assert job.return_value() == {"read": 2, "out": 2, "rejected": 0}
    assert house.connection.keys("rq:results:*") == []


def test_a_job_takes_at_most_6_kb(real_redis: Redis, house: House) -> None:
    house.connection = real_redis
    house.files("acme", *[GOOD.replace("A", f"{number}-") for number in range(20)])
    house.run()
    sizes = [int(real_redis.memory_usage(key, samples=0) or 0) for key in real_redis.scan_iter()]
    assert sum(sizes) / 61 < 6 << 10


# --- the sweep is asked for ---


def test_the_sweep_is_asked_for_once_an_hour_whoever_asks(house: House) -> None:
    queue = FairQueue(UPKEEP, connection=house.connection)
    request_sweep(house.connection)
    request_sweep(house.connection)
    assert len(queue.job_ids) == 1
    house.work()
    [id] = queue.finished_job_registry.get_job_ids()
    job = queue.fetch_job(id)
    assert job is not None
    assert job.return_value() == {"folders": 0, "shadows": 0, "remembered": 0}
    let_pass(house.connection, 3601)
    request_sweep(house.connection)
    assert len(queue.job_ids) == 1


# --- staging ---


def test_of_a_run_that_succeeded_only_rejects_are_kept_and_for_as_long_as_history_says(house: House) -> None:
    house.files("acme", GOOD)
    run = house.run()
    [rejects] = [name for name in house.names(run) if name.endswith(".parquet")]
    assert house.names(run) == [rejects, "rejects.json", "run.json"]
    assert house.sweep(89 * DAY).folders == 0
    assert house.sweep(91 * DAY).folders == 1
    assert house.names(run) == []


def test_a_failed_run_is_kept_for_retry_and_then_swept(house: House) -> None:
    house.configure('keep_failed = "3d"')
    house.files("acme", GOOD, BAD)
    run = house.run()
    before = house.names(run)
    assert {"00001.load.json", "00002.extract.json"} <= set(before)
    assert house.sweep(2.9 * DAY).folders == 0
    assert house.names(run) == before
    assert house.sweep(3.1 * DAY).folders == 1
    assert house.names(run) == []


def test_so_is_a_canceled_run(house: House) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    InProcessWorker(house.connection).step()
    graph.cancel(house.connection, run)
    assert (house.sweep(6 * DAY).folders, house.sweep(8 * DAY).folders) == (0, 1)


def test_an_active_run_is_never_touched(house: House) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    InProcessWorker(house.connection).step()
    Staging(str(house.root / "staging"), "acme", run).write_bytes(".half", b"")
    before = house.names(run)
    assert house.sweep(1000 * DAY).folders == 0
    assert house.names(run) == before
    house.work()
    assert house.state(run) == "succeeded"


def test_a_run_that_redis_has_forgotten_is_swept_like_a_failed_one(house: House) -> None:
    house.files("acme", GOOD)
    house.submit()
    house.connection.flushall()
    assert (house.sweep(6 * DAY).folders, house.sweep(8 * DAY).folders) == (0, 1)


def test_so_are_a_folder_with_nothing_in_it_and_one_whose_submit_died(house: House) -> None:
    (house.root / "staging" / "acme" / "empty").mkdir(parents=True)
    Staging(str(house.root / "staging"), "acme", "died").write_json("run.json", {})
    assert {folder.run for folder in folders(project.config().staging)} == {"empty", "died"}
    assert (house.sweep(6 * DAY).folders, house.sweep(8 * DAY).folders) == (0, 2)


def test_a_finish_that_died_before_it_cleaned_up_is_cleaned_up_for(house: House) -> None:
    house.files("acme", GOOD)
    run = house.run()
    kept = house.names(run)
    place = Staging(str(house.root / "staging"), "acme", run)
    place.publish("load", 1, Marker())
    place.write_bytes("00001.extract.rows.ab.0.parquet", b"")
    house.sweep(0.5 * DAY)
    assert house.names(run) == kept


def test_what_killed_writers_leave_is_removed_at_the_end(house: House) -> None:
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


def test_of_a_canceled_run_they_are_swept_an_hour_later(house: House) -> None:
    house.files("acme", GOOD)
    run = house.submit()
    InProcessWorker(house.connection).step()
    graph.cancel(house.connection, run)
    before = house.names(run)
    Staging(str(house.root / "staging"), "acme", run).write_bytes("00001.load.rows.dead.0.parquet", b"half")
    house.sweep()
    assert "00001.load.rows.dead.0.parquet" in house.names(run)
    house.sweep(3700)
    assert house.names(run) == before


# --- shadow tables ---


CLAIM = pa.table({"claim_id": ["A1"], "amount": [1], "_row": pa.array([2], pa.int64())})


def shadows(url: str) -> list[str]:
    from tests.loading import connected

    with connected(url) as connection:
        import sqlalchemy as sa

        return [name for name in sa.inspect(connection).get_table_names() if name.startswith("_etl_shadow_")]


def test_a_shadow_table_that_no_run_will_apply_is_dropped(target_url: str) -> None:
    merge = pipeline("merge", key=["claim_id"])
    for run in ("old", "active"):
        deliver(target_url, merge, CLAIM, run=run, of=partition(1), partitions=2)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    assert leftovers.drop(target_url, "warehouse", [None], spare={"active"}, before=now - hour) == []
    assert leftovers.drop(target_url, "warehouse", [None], spare={"active"}, before=now + hour) == ["old"]
    assert shadows(target_url) == ["_etl_shadow_active"]
    assert query(target_url, "SELECT run FROM _etl_loads") == [("active",)]


def test_a_canceled_runs_shadow_goes_with_its_staging(house: House) -> None:
    house.files("acme", GOOD, GOOD.replace("A", "B"))
    run = house.submit()
    url = f"sqlite:///{house.root}/warehouse.db"
    worker = InProcessWorker(house.connection)
    while not any(stage == "load" for _, stage in runs.stage_records(house.connection, run)):
        worker.step()
    graph.cancel(house.connection, run)
    assert house.sweep(6 * DAY).shadows == 0
    assert shadows(url) == [f"_etl_shadow_{run}"]
    swept = house.sweep(8 * DAY)
    assert (swept.folders, swept.shadows, swept.troubles) == (1, 1, [])
    assert shadows(url) == []


def test_a_target_that_cant_be_asked_holds_up_nothing(house: House) -> None:
    text = (house.root / "etl.toml").read_text()
    house.files("acme", GOOD)
    house.run()
    (house.root / "etl.toml").write_text(text.replace("sqlite:///warehouse.db", "sqlite:///${NOT_SET}.db"))
    swept = house.sweep(91 * DAY)
    assert swept.folders == 1
    assert swept.troubles == ["targets.warehouse.url: NOT_SET is not in the environment"]


# --- a damaged artifact ---


@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_a_damaged_artifact_is_noticed_and_a_retry_makes_it_again(house: House, harm: str) -> None:
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
    graph.retry(project.config(), house.connection, run)
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
from etl.pipeline import resolve
from jobs import graph, project, runs
from jobs.inprocess import InProcessWorker
import fakeredis
import jobs.stages
project.use("etl.toml")
connection = fakeredis.FakeRedis()
run = graph.submit(connection, resolve(project.config(), "claims", "acme"))
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
InProcessWorker(connection).work()
full, names = runs.snapshot(connection, [run])[0], jobs.stages.Staging("staging", "acme", run).names()
tries = runs.stage_records(connection, run)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
graph.retry(project.config(), connection, run)
InProcessWorker(connection).work()
print(json.dumps([full, names, runs.snapshot(connection, [run])[0]]))
"""


def test_a_full_disk_fails_the_run_with_its_cure_and_a_retry_succeeds_when_there_is_room(house: House) -> None:
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


def test_doctor_fix_takes_back_lost_jobs_closes_lost_runs_and_sweeps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs import broker, doctor

    monkeypatch.setattr(broker, "connect", lambda *_, **__: broker.given(house.connection))
    house.files("acme", GOOD)
    house.files("globex", GOOD)
    lost, closed = house.submit("acme"), house.submit("globex")
    from jobs.queue import take

    found = take(house.connection, ["etl-acme"])
    assert found is not None
    assert found[0].execution is not None
    house.connection.zadd("rq:wip:etl-acme", {found[0].execution.composite_key: time.time() + lua.SHIFT - 1})
    for key in house.connection.keys(f"rq:job:{closed}*"):
        house.connection.delete(key)
    old = Staging(str(house.root / "staging"), "initech", "old")
    old.write_json("run.json", {})
    os.utime(old.path("run.json"), (1, 1))
    said = {finding["check"]: finding["what"] for finding in doctor.mend(str(house.root / "etl.toml"), None)}
    assert said["pass"] == "1 jobs taken back from lost workers, 1 runs closed that nothing would have ended"
    assert said["sweep"] == "1 folders removed from staging"
    house.work()
    assert (house.state(lost), house.state(closed)) == ("succeeded", "failed")
    again = {finding["check"]: finding["what"] for finding in doctor.mend(str(house.root / "etl.toml"), None)}
    assert again == {"pass": "nothing to mend", "sweep": "nothing to mend"}

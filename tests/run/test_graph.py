"""A run's graph: lanes, nodes, one transaction, one run at a time, cancel, and a retry that does what is missing."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.config.pipeline import Pipeline, resolve
from etl.config.read import load_config
from etl.errors import AlreadyRunning, EtlError
from etl.partition import Partition, Piece
from etl.staging import STAGES
from jobs.api import Run
from jobs.job import EtlJob
from jobs.process.inprocess import InProcessWorker
from jobs.run import graph
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.store import keys as store_keys
from jobs.store import runs
from tests.helpers.processes import is_alive, until
from tests.helpers.project import Folder, etl_toml
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

PATIENCE = 60.0

ID = {"id": "string"}
CONFIG = etl_toml(
    {
        "claims": {
            "transform": ["steps:look"],
            "load": {"mode": "merge", "key": ["id"]},
            "retries": 0,
            "columns": ID,
        },
        "feed": {
            "extract": {"type": "function", "function": "steps:feed"},
            "transform": ["steps:fragile"],
            "load": {"mode": "append"},
            "retries": 0,
            "columns": ID,
        },
    },
    {"acme": {"pipelines": ["claims", "feed"], "max_active": 2}},
    url="sqlite:///target.db",
)
STEPS = """
import os, pathlib, subprocess, sys, time
HERE = pathlib.Path(__file__).parent

def look(df):
    if (HERE / "hold").exists():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (HERE / "held").write_text(str(child.pid))
        while True:
            time.sleep(0.01)
    return df

def feed():
    with open(HERE / "reads", "a") as file:
        file.write("x")
    yield [{"id": "1"}, {"id": "2"}]

def fragile(df):
    if (HERE / "broken").exists():
        raise ValueError
    return df
"""


def partitions(sizes: list[int]) -> list[Partition]:
    return [
        Partition(number=number, pieces=(Piece(file=f"{number}", path=f"/{number}", size=size),), order=number - 1)
        for number, size in enumerate(sizes, 1)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {f"inbox/acme/{number}.csv": f"id\n{number}\n" for number in range(5)}
    return Folder(tmp_path, CONFIG, {"steps.py": STEPS, **files}).root


@pytest.fixture
def session(folder: Path, connection: Redis) -> Session:
    return Session(folder / "etl.toml", connection, workers=0)


def claims(folder: Path, name: str = "claims") -> Pipeline:
    return resolve(load_config(folder / "etl.toml"), name, "acme")


def work(session: Session, run: str) -> dict[str, Any]:
    """Work in this process until a run has ended."""
    InProcessWorker(session.connection).work(until=lambda: run not in session.active())
    return Run(session, run).json()


# --- lanes and nodes ---


@given(st.lists(st.integers(0, 1 << 30), max_size=60), st.integers(1, 9))
def test_every_partition_is_in_one_lane_and_the_largest_come_first(sizes: list[int], most: int) -> None:
    found = partitions(sizes)
    lanes = graph.lanes(found, most)
    assert sorted(p.number for lane in lanes for p in lane) == [p.number for p in found]
    assert len(lanes) == min(most, len(found))
    assert all(lane for lane in lanes)
    for lane in lanes:
        assert [p.size for p in lane] == sorted((p.size for p in lane), reverse=True)
    # No lane is longer than the others by more than one partition.
    loads = [sum(p.size + 1 for p in lane) for lane in lanes]
    assert all(load - (lane[-1].size + 1) <= min(loads) for load, lane in zip(loads, lanes, strict=True))


@given(st.lists(st.integers(0, 99), max_size=30), st.integers(1, 6), st.booleans())
def test_parents_come_first_and_finish_waits_for_all_through_few(sizes: list[int], most: int, gather: bool) -> None:
    nodes = graph.nodes("r", 1, partitions(sizes), most, gather=gather)
    known: dict[str, graph.Node] = {}
    for node in nodes:
        assert set(node.parents) <= known.keys()
        assert len(node.parents) <= most
        known[node.id] = node
    assert len(known) == len(nodes) == 3 * len(sizes) + 1
    assert Counter(node.stage for node in nodes) == Counter(
        {stage: len(sizes) for stage in STAGES if sizes} | {"finish": 1}
    )

    def before(node: graph.Node) -> set[str]:
        found, left = set(), list(node.parents)
        while left:
            id = left.pop()
            if id not in found:
                found.add(id)
                left += known[id].parents
        return found

    assert before(nodes[-1]) == known.keys() - {nodes[-1].id}
    extracts = {node.id for node in nodes if node.stage == "extract"}
    for node in nodes:
        stages = {known[id].stage for id in before(node) if known[id].partition == node.partition}
        if node.stage in STAGES:
            assert stages == set(STAGES[: STAGES.index(node.stage)])
        if gather and node.stage == "transform":
            assert extracts <= before(node)


# --- submit ---


def test_a_submission_that_fails_leaves_nothing(
    folder: Path, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: RedisPipeline, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    before = set(connection.keys())
    with monkeypatch.context() as patch:
        patch.setattr(RedisPipeline, "sadd", die)  # the last of the commands, all others are queued
        with pytest.raises(KeyboardInterrupt):
            submit_run(connection, claims(folder))
    assert set(connection.keys()) == before
    assert runs.holder(connection, "acme", "claims") is None
    submit_run(connection, claims(folder))


def test_its_jobs_are_all_there_at_once_with_heads_queued_and_the_rest_deferred(
    folder: Path, connection: Redis
) -> None:
    run = submit_run(connection, claims(folder))
    ids = {raw.decode() for raw in cast(set[bytes], connection.smembers(store_keys.jobs_key(run)))}
    states = Counter(EtlJob.fetch(id, connection=connection).get_status().value for id in ids)
    assert states == {"queued": 2, "deferred": 14}
    descriptions = {EtlJob.fetch(id, connection=connection).description for id in ids}
    assert descriptions >= {"acme/claims extract 1/5", "acme/claims load 5/5", "acme/claims finish"}
    assert all(EtlJob.fetch(id, connection=connection).args[0] == run for id in ids)


def test_a_second_run_is_refused_while_the_first_is_active(folder: Path, connection: Redis) -> None:
    run = submit_run(connection, claims(folder))
    with pytest.raises(AlreadyRunning) as caught:
        submit_run(connection, claims(folder))
    assert caught.value.run == run
    assert len(list((folder / "staging" / "acme").iterdir())) == 1


def test_of_submissions_that_race_one_wins(folder: Path, real_redis: Redis) -> None:
    pipeline, won, lost = claims(folder), [], []
    start = threading.Barrier(6)

    def submit() -> None:
        start.wait()
        try:
            won.append(submit_run(real_redis, pipeline))
        except AlreadyRunning as exc:
            lost.append(exc.run)

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lost == won * 5
    assert runs.active(real_redis) == won
    assert len(real_redis.keys("rq:job:*-finish-1")) == 1
    assert [path.name for path in (folder / "staging" / "acme").iterdir()] == won


def test_a_run_that_cannot_be_planned_has_failed_and_says_why(folder: Path, connection: Redis) -> None:
    for file in (folder / "inbox" / "acme").iterdir():
        file.unlink()
    run = submit_run(connection, claims(folder))
    [found] = runs.snapshot(connection, [run])
    assert (found["state"], found["error"].splitlines()[0][:14]) == ("failed", "no file matche")
    assert runs.active(connection) == []
    assert connection.keys("rq:job:*") == []


# --- cancel ---


def test_a_canceled_run_leaves_no_job_and_frees_its_place(folder: Path, session: Session) -> None:
    connection = session.connection
    run = submit_run(connection, claims(folder))
    InProcessWorker(connection).step()
    assert cancel_run(connection, run)
    assert not cancel_run(connection, run)
    InProcessWorker(connection).work()
    keys = cast(list[bytes], connection.keys("rq:job:*"))
    left = [EtlJob.fetch(key.decode().split(":")[2], connection=connection) for key in keys]
    assert {job.get_status().value for job in left} <= {"finished"}
    assert Run(session, run).state == "canceled"
    assert connection.zcard("rq:deferred:etl-acme") == connection.llen("rq:queue:etl-acme") == 0
    second = submit_run(connection, claims(folder))
    assert work(session, second)["state"] == "succeeded"


def test_cancel_stops_a_stage_that_runs_and_what_it_has_started(
    folder: Path, redis_server: RedisServer, workers: StartWorkers
) -> None:
    (folder / "hold").touch()
    session = Session(folder / "etl.toml", redis_server.url, workers=0)
    workers(1, env={"ETL_CONFIG": str(folder / "etl.toml")})
    run = submit_run(session.connection, claims(folder))
    until((folder / "held").exists)
    child = int((folder / "held").read_text() or 0)
    assert cancel_run(session.connection, run)
    until(lambda: not is_alive(child))
    until(lambda: session.connection.zcard("rq:wip:etl-acme") == 0)
    assert Run(session, run).state == "canceled"
    (folder / "hold").unlink()
    assert Run(session, retry_run(session.config, session.connection, run)[0]).wait(PATIENCE).state == "succeeded"
    session.close()


# --- retry ---


def test_a_retry_resumes_where_the_run_broke_off(folder: Path, session: Session) -> None:
    (folder / "broken").touch()
    run = submit_run(session.connection, claims(folder, "feed"))
    assert work(session, run)["state"] == "failed"
    (folder / "broken").unlink()
    again, changes = retry_run(session.config, session.connection, run)
    assert (again, changes) == (run, [])
    found = work(session, run)
    assert (found["state"], found["attempt"], found["rows"]["loaded"], found["error"]) == ("succeeded", 2, 2, None)
    assert (folder / "reads").read_text() == "x"


def test_a_retry_with_another_configuration_says_what_changed_and_reads_anew(folder: Path, session: Session) -> None:
    (folder / "broken").touch()
    run = submit_run(session.connection, claims(folder, "feed"))
    work(session, run)
    config = folder / "etl.toml"
    config.write_text(config.read_text().replace('transform = ["steps:fragile"]', "transform = []"))
    _, changes = retry_run(load_config(config), session.connection, run)
    assert len(changes) == 1
    assert "transform" in changes[0]
    assert work(session, run)["state"] == "succeeded"
    assert (folder / "reads").read_text() == "xx"


def test_only_runs_that_have_failed_or_were_canceled_are_retried(folder: Path, session: Session) -> None:
    run = submit_run(session.connection, claims(folder))
    with pytest.raises(EtlError, match="is queued; only failed and canceled runs"):
        retry_run(session.config, session.connection, run)
    work(session, run)
    with pytest.raises(EtlError, match="is succeeded"):
        retry_run(session.config, session.connection, run)
    with pytest.raises(EtlError, match="not known"):
        retry_run(session.config, session.connection, "nothing")


def test_a_run_without_staging_is_not_retried(folder: Path, session: Session) -> None:
    (folder / "broken").touch()
    run = submit_run(session.connection, claims(folder, "feed"))
    work(session, run)
    (folder / "staging" / "acme" / run / "run.json").unlink()
    with pytest.raises(EtlError, match="no staging left"):
        retry_run(session.config, session.connection, run)

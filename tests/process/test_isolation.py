# ruff: noqa: F401, F811 - fixtures are asked for by name
"""What a client's function leaves behind in its process never reaches another's job: forked children, settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs import settings
from jobs.job import JobFailed
from jobs.process.horse import Horse
from jobs.queue import FairQueue, dequeue
from tests.helpers.processes import ROOT, until
from tests.helpers.project import Project, etl_toml
from tests.helpers.worker_tasks import PATIENCE, Start, notes, put, queue, start, tasks
from tests.helpers.workers import StartWorkers

pytestmark = pytest.mark.slow

FORKS = """
import multiprocessing, os, sys, time

def answer(name, how="return", seconds=0.0):
    child = os.fork()
    if child == 0:
        time.sleep(seconds)
        if how == "raise":
            raise ValueError("in the child")
        if how == "exit":
            sys.exit(3)
        return f"{name}'s child"
    if not seconds:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == {"return": 0, "raise": 1, "exit": 3}[how], status
    return name

def square(number):
    return number * number

def pool():
    with multiprocessing.get_context("fork").Pool(2) as made:
        return made.map(square, [1, 2, 3])

def double_life():
    if os.fork():
        os._exit(0)
    time.sleep(0.2)
    return "a child that has outlived its parent"
"""


@pytest.fixture
def forks(start: Start, tasks: Path, real_redis: Redis) -> FairQueue:
    (tasks / "tasks.py").write_text(FORKS)
    start(1)
    return FairQueue("etl-acme", connection=real_redis)


@pytest.mark.parametrize("how", ["return", "raise", "exit"])
def test_a_forked_child_that_comes_out_of_a_function_answers_for_no_job(forks: FairQueue, how: str) -> None:
    jobs = {name: put(forks, "answer", name, how) for name in ("one", "two", "three")}
    assert {name: job.wait(PATIENCE) for name, job in jobs.items()} == {name: name for name in jobs}


def test_a_child_that_comes_out_while_other_jobs_run_answers_for_none_of_them(forks: FairQueue) -> None:
    first = [put(forks, "answer", f"slow {number}", "return", 0.3) for number in range(3)]
    others = [put(forks, "answer", f"job {number}", "return", 0.05) for number in range(30)]
    assert [job.wait(PATIENCE) for job in first] == [f"slow {number}" for number in range(3)]
    assert [job.wait(PATIENCE) for job in others] == [f"job {number}" for number in range(30)]
    assert put(forks, "pool").wait(PATIENCE) == [1, 4, 9]


def test_a_job_whose_horse_leaves_it_to_a_child_is_lost(forks: FairQueue) -> None:
    with pytest.raises(JobFailed, match="lost its worker three times"):
        put(forks, "double_life").wait(PATIENCE)
    assert put(forks, "answer", "next").wait(PATIENCE) == "next"


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: [["other", answer[0][1]], *answer[1:]],
        lambda answer: [[answer[0][0], "another execution"], *answer[1:]],
        lambda answer: [answer[0], 1, *answer[2:]],
        lambda answer: [None, *answer[1:]],
        lambda answer: ["nonsense"],
        lambda answer: [*answer[:2], {"kind": "done", "no such field": 1}, *answer[3:]],
    ],
    ids=["another job", "another execution", "another process", "no job", "not an answer", "not an outcome"],
)
def test_an_answer_that_is_not_of_the_job_its_execution_and_the_horse_is_lost(
    real_redis: Redis, tasks: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    monkeypatch.chdir(tasks)
    monkeypatch.setenv("ETL_MODULES", "tasks")
    settings.use(None)
    put(FairQueue("etl-acme", connection=real_redis), "add", 1, 2)
    found = dequeue(real_redis)
    assert found is not None
    horse = Horse(real_redis)
    try:
        horse.send(found[0])
        until(lambda: horse.outcome(0.1) is None and horse.ready)
        answer = horse._lines.take  # the true one, which the test changes on its way
        monkeypatch.setattr(horse._lines, "take", lambda patience: change(answer(patience)))
        outcome = None
        while outcome is None:
            outcome = horse.outcome(5)
        assert outcome.kind == "lost"
        assert horse.pid == 0
    finally:
        horse.stop()


def test_a_horse_that_is_killed_as_soon_as_it_has_a_job_does_not_do_it(
    real_redis: Redis, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tasks)
    monkeypatch.setenv("ETL_MODULES", "tasks")
    settings.use(None)
    put(FairQueue("etl-acme", connection=real_redis), "hold", "a")
    found = dequeue(real_redis)
    assert found is not None
    horse = Horse(real_redis)
    for _ in range(20):  # it is there or not yet
        horse.send(found[0])
        horse.kill()
        outcome = None
        while outcome is None:
            outcome = horse.outcome(5)
        assert outcome.kind == "lost"
    assert notes(tasks, "a") == []


STEPS = """
import os

def split(df):
    child = os.fork()
    if child == 0:
        return df.assign(amount=df["amount"] * 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return df

def records(client):
    yield {"claim_id": "A1", "amount": 1}
    if os.fork() == 0:
        yield {"claim_id": "A2", "amount": 2}
        return
    os.wait()
    yield {"claim_id": "A3", "amount": 3}

def write(df, connection):
    if os.fork():
        os.wait()
    df.to_sql("written", connection, if_exists="append", index=False)
"""
COLUMNS = {"claim_id": "string", "amount": "integer"}


@pytest.mark.parametrize(
    ("pipeline", "rows"),
    [
        ({"transform": ["steps:split"]}, [("A1", 10), ("A2", 20)]),
        ({"extract": {"type": "function", "function": "steps:records"}}, [("A1", 1), ("A3", 3)]),
    ],
    ids=["transform", "source"],
)
def test_rows_pass_once_through_a_function_whose_child_comes_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipeline: dict[str, Any], rows: list[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = etl_toml({"claims": {**pipeline, "retries": 0, "columns": COLUMNS}})
    files = {"steps.py": STEPS, "inbox/acme/1.csv": "claim_id,amount\nA1,10\nA2,20\n"}
    project = Project(tmp_path, config, files)
    assert project.run()["state"] == "succeeded"
    assert project.rows("select claim_id, amount from claims order by 1") == rows


def test_rows_are_loaded_once_although_a_module_forks_when_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = etl_toml({"claims": {"transform": ["steps:same"], "retries": 0, "columns": COLUMNS}})
    steps = "import os\nif child := os.fork():\n    os.waitpid(child, 0)\n\ndef same(df):\n    return df\n"
    project = Project(tmp_path, config, {"steps.py": steps, "inbox/acme/1.csv": "claim_id,amount\nA1,10\n"})
    assert project.run()["state"] == "succeeded"
    assert project.rows("select claim_id, amount from claims") == [("A1", 10)]


def test_what_a_function_raises_in_a_folder_of_its_own_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = etl_toml({"claims": {"transform": ["steps:stray"], "retries": 0, "columns": COLUMNS}})
    steps = "import os\n\ndef stray(df):\n    os.chdir('/')\n    raise ValueError('astray')\n"
    project = Project(tmp_path, config, {"steps.py": steps, "inbox/acme/1.csv": "claim_id,amount\nA1,10\n"})
    assert project.run()["state"] == "failed"
    assert "astray" in project("logs acme/claims").out


def test_a_load_function_whose_child_comes_out_of_it_loads_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = (
        etl_toml({"claims": {"load": {"function": "steps:write"}, "retries": 0, "columns": COLUMNS}})
        .replace(', "table" = "claims"', "")
        .replace(', table = "claims"', "")
    )
    files = {
        "steps.py": STEPS.replace("df.to_sql", "os.environ.get('X') or df.to_sql"),
        "inbox/acme/1.csv": "claim_id,amount\nA1,10\n",
    }
    project = Project(tmp_path, config, files)
    run = project.run()
    assert run["state"] == "succeeded", run["error"]
    assert project.rows("select claim_id, amount from written") == [("A1", 10)]


STATE = """
import decimal, faulthandler, gc, locale, logging, os, pathlib, random, resource, signal, socket, string, sys
import threading, time, warnings

import numpy as np
import pandas as pd

from tests.helpers import careless

kept = []

def spoil():
    kept.append("acme")
    careless.spoil()
    sys.settrace(None)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_NOFILE, (99, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    gc.disable()
    string.digits = "acme"
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

def look():
    context = decimal.getcontext()
    return [
        list(kept), context.prec, context.traps[decimal.Inexact], decimal.DefaultContext.prec,
        "SPOILED" in os.environ, time.tzname[0], os.getcwd(), os.umask(0o22), locale.setlocale(locale.LC_ALL),
        str(signal.getsignal(signal.SIGTERM)), str(signal.getsignal(signal.SIGUSR1)), signal.getitimer(0)[0] > 0,
        len(warnings.filters), random.random() == random.Random(1).random(),
        np.random.rand() == np.random.RandomState(1).rand(), np.geterr(),
        pd.get_option("display.max_rows"), pd.get_option("display.precision"),
        sys.excepthook is print, threading.excepthook is print, sys.unraisablehook is print, "/acme" in sys.path,
        sys.getrecursionlimit(), socket.getdefaulttimeout(), faulthandler.is_enabled(), logging.getLogger().level,
        logging.root.manager.disable, resource.getrlimit(resource.RLIMIT_NOFILE)[0], gc.isenabled(),
        string.digits, threading.active_count(),
    ]
"""


def test_a_clients_function_leaves_nothing_in_the_process_of_the_next_clients(
    start: Start, tasks: Path, real_redis: Redis
) -> None:
    (tasks / "tasks.py").write_text(STATE)
    start(1)
    acme, north, upkeep = (FairQueue(name, connection=real_redis) for name in ("etl-acme", "etl-north", "default"))
    clean = put(north, "look").wait(PATIENCE)
    put(acme, "spoil").wait(PATIENCE)
    mine = put(acme, "look").wait(PATIENCE)
    assert mine[0] == ["acme"]  # its next job may be in the same process
    assert sum(old == new for old, new in zip(clean, mine, strict=True)) < 5
    assert put(north, "look").wait(PATIENCE) == clean
    put(acme, "spoil").wait(PATIENCE)
    assert put(upkeep, "look").wait(PATIENCE) == clean


HANGS = """
import os, pathlib, signal
from jobs import settings

def hang_once():
    forks = pathlib.Path({folder!r})
    number = len(list(forks.iterdir())) + 1
    (forks / str(number)).touch()
    if number == {hangs}:
        signal.pause()

settings.HORSE_START = 0.5
os.register_at_fork(after_in_child=hang_once)
"""


@pytest.mark.parametrize("hangs", [1, 2], ids=["its keeper", "the horse itself"])
def test_a_horse_that_never_gets_ready_is_replaced_and_its_job_is_done(
    real_redis: Redis, workers: StartWorkers, tasks: Path, tmp_path: Path, hangs: int
) -> None:
    """As where it was forked while a thread of the worker held a lock."""
    forks = tmp_path / "forks"
    forks.mkdir()
    (tmp_path / "sitecustomize.py").write_text(HANGS.format(folder=str(forks), hangs=hangs))
    workers(1, cwd=tasks, env={"ETL_MODULES": "tasks", "PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert put(FairQueue("etl-acme", connection=real_redis), "add", 1, 2).wait(PATIENCE) == 3
    assert len(list(forks.iterdir())) > 2

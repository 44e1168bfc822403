"""Runs of real workers: timeouts, cancels, closed terminals and poison end as they should, and leave no process."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import settings
from jobs.process.complete import Outcome, complete, perform
from jobs.process.inprocess import InProcessWorker
from jobs.queue import dequeue
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.settings import WORKER_CLASSES
from jobs.store import runs
from tests.helpers.processes import ROOT, children, is_alive, until
from tests.helpers.worker_project import LEASE, WorkerProject, processes_of, shop, start

pytestmark = pytest.mark.slow

Start = Callable[[int], list[subprocess.Popen[bytes]]]
__all__ = ["shop", "start"]


# --- poison ---


@pytest.mark.parametrize("poison", ["die", "kill"])
def test_a_poison_partition_fails_alone_and_no_worker_dies_of_it(
    shop: WorkerProject, start: Start, poison: str
) -> None:
    for name in ("a", "b", "c"):
        shop.file(name, *([poison] if name == "b" else []))
    processes = start(3)
    run = shop.ended(shop.submit())
    assert run["state"] == "failed"
    [failure] = [each for each in run["failures"] if each["state"] == "failed"]
    assert (failure["file"], failure["stage"]) == ("inbox/acme/b.csv", "transform")
    assert failure["error"] == "lost its worker three times"
    assert len(shop.notes(poison)) == 3
    assert shop.ids() == ["a0", "a1", "a2", "c0", "c1", "c2"]
    assert [process.poll() for process in processes] == [None] * 3


@pytest.mark.parametrize("stage", ["extract", "transform", "load", "finish"])
def test_a_stage_that_is_given_back_after_it_published_redoes_nothing(shop: WorkerProject, stage: str) -> None:
    shop.file("a")
    run = shop.submit()
    while True:
        found = dequeue(shop.connection)
        assert found is not None
        job, queue = found
        outcome = perform(job)
        if f"-{stage}-" in job.id:
            break
        complete(shop.connection, job, queue, outcome)
    folder = shop.root / "staging" / "acme" / run
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    complete(shop.connection, job, queue, Outcome("lost"))
    again = dequeue(shop.connection)
    assert again is not None
    assert again[0].id == job.id
    assert perform(again[0]).kind == "done"
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    complete(shop.connection, *again, outcome)
    InProcessWorker(shop.connection, inline=True).work()
    assert (shop.run(run)["state"], shop.ids()) == ("succeeded", ["a0", "a1", "a2"])


# --- timeouts ---


@pytest.mark.parametrize("how", ["deaf", "regex", "numpy"])
def test_a_timeout_is_enforced_from_outside(shop: WorkerProject, start: Start, how: str) -> None:
    shop.change(("retries = 0", 'retries = 0\ntimeout = "1s"'))
    shop.file("a", how)
    start(1)
    run = shop.ended(shop.submit())
    assert (run["state"], run["error"]) == ("failed", "timed out after 1 s")
    until(lambda: not is_alive(shop.notes(how)[0]))


# --- cancel and retry ---


def test_cancel_kills_horse_and_subprocesses_and_retry_redoes_nothing_that_is_there(
    shop: WorkerProject, start: Start
) -> None:
    shop.file("a", "child")
    shop.file("b")
    start(2)
    run = shop.submit()
    [horse] = until(lambda: shop.notes("hold"))
    until(lambda: len(shop.run(run)["partitions"]) and shop.run(run)["partitions"]["done"] == 1)
    child = int((shop.root / "child").read_text())
    staging = shop.root / "staging" / "acme" / run
    before = {name: (staging / name).stat().st_mtime_ns for name in ("00001.extract.json", "00002.load.json")}
    assert cancel_run(shop.connection, run)
    until(lambda: not is_alive(horse) and not is_alive(child))
    assert shop.run(run)["state"] == "canceled"
    (shop.root / "go").touch()
    retry_run(settings.config(), shop.connection, run)
    assert shop.ended(run)["state"] == "succeeded"
    assert shop.ids() == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert all(line["attempt"] == 2 for line in [shop.run(run)])
    assert before


@pytest.mark.parametrize("how", ["cancel", "kill worker", "kill horse", "kill horse worker", "kill keeper"])
def test_no_process_that_a_job_has_started_outlives_it_though_it_leads_a_session_or_is_a_daemon(
    shop: WorkerProject, start: Start, how: str
) -> None:
    shop.file("a", "stray")
    [worker] = start(1)
    run = shop.submit()
    [horse] = until(lambda: shop.notes("hold"))
    [keeper] = children(worker.pid)
    child, stray, daemon = (int((shop.root / name).read_text()) for name in ("child", "stray", "daemon"))
    assert is_alive(daemon)
    if how == "cancel":
        cancel_run(shop.connection, run)
    for whom, pid in (("horse", horse), ("worker", worker.pid), ("keeper", keeper)):
        if whom in how:
            os.kill(pid, signal.SIGKILL)
    # The kernel gives a daemon that has lost its keeper to someone else.
    pids = [horse, child, stray, *([] if "keeper" in how else [daemon])]
    until(lambda: not any(map(is_alive, pids)))
    if "keeper" in how:
        os.kill(daemon, signal.SIGKILL)
        [_, new] = until(lambda: len(shop.notes("hold")) == 2 and shop.notes("hold"))
        pids = [new, *(int((shop.root / name).read_text()) for name in ("child", "stray", "daemon"))]
        worker.kill()
        until(lambda: not any(map(is_alive, pids)))


def test_a_canceled_runs_place_is_free_at_once(shop: WorkerProject, start: Start) -> None:
    shop.file("a", "hold")
    start(1)
    run = shop.submit()
    until(lambda: shop.notes("hold"))
    cancel_run(shop.connection, run)
    again = shop.submit()
    until(lambda: len(shop.notes("hold")) == 2)
    (shop.root / "go").touch()
    assert shop.ended(again)["state"] == "succeeded"
    assert shop.ids() == ["a0", "a1", "a2"]


# --- signals ---


def test_a_hangup_puts_the_job_back_at_once_and_leaves_no_process(shop: WorkerProject, start: Start) -> None:
    shop.file("a", "child")
    [worker] = start(1)
    run = shop.submit()
    [horse] = until(lambda: shop.notes("hold"))
    worker.send_signal(signal.SIGHUP)
    worker.wait(20)
    assert not is_alive(horse)
    until(lambda: not is_alive(int((shop.root / "child").read_text())))
    job = f"rq:job:{run}-1-transform-1"
    assert shop.connection.hmget(job, "status", "etl_losses") == [b"queued", None]
    assert shop.connection.zcard("rq:wip:etl-acme") == 0
    (shop.root / "go").touch()
    start(1)
    assert shop.ended(run)["state"] == "succeeded"


def test_a_closed_terminal_loses_no_job_and_leaves_no_process(shop: WorkerProject) -> None:
    shop.file("a", "child")
    ours, theirs = pty.openpty()
    environment = {**os.environ, **WORKER_CLASSES, "RQ_REDIS_URL": shop.url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "rq.cli", "worker"]
    worker = subprocess.Popen(
        command, cwd=shop.root, env=environment | {"ETL_LEASE": LEASE}, preexec_fn=lambda: os.login_tty(theirs)
    )
    os.close(theirs)
    try:
        run = shop.submit()
        until(lambda: shop.notes("hold"))
        os.close(ours)
        worker.wait(20)
        until(lambda: not processes_of(shop.root))
        assert shop.connection.hget(f"rq:job:{run}-1-transform-1", "status") == b"queued"
    finally:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        worker.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_no_worker_outlives_the_command_that_started_it(
    shop: WorkerProject, start: Start, number: signal.Signals
) -> None:
    shop.file("a", "child")
    command = shop.cli("run", "visits", "--client", "acme", "--workers", "1")
    try:
        until(lambda: shop.notes("hold"))
        command.send_signal(number)
        command.communicate(timeout=30)
        until(lambda: not processes_of(shop.root))
    finally:
        command.kill()
    (shop.root / "go").touch()
    start(1)
    assert shop.ended(runs.active(shop.connection)[0])["state"] == "succeeded"


def test_a_pool_of_workers_ends_with_its_parent(shop: WorkerProject) -> None:
    pool = shop.cli("worker", "-n", "2")
    try:
        until(lambda: shop.connection.scard("rq:workers") == 2)
        pool.kill()
        until(lambda: not processes_of(shop.root))
    finally:
        pool.kill()
        pool.communicate()


@pytest.mark.parametrize("command", [["worker", "-n", "2"], ["up", "-n", "2", "--port", "0"]], ids=["worker", "up"])
def test_a_worker_that_is_killed_is_started_again(shop: WorkerProject, command: list[str]) -> None:
    running = shop.cli(*command, start_new_session=True)
    try:
        until(lambda: shop.connection.scard("rq:workers") == 2)
        names = set(shop.connection.smembers("rq:workers"))
        os.kill(int(shop.connection.hget(next(iter(names)), "pid") or 0), signal.SIGKILL)
        [new] = until(lambda: set(shop.connection.smembers("rq:workers")) - names)
        until(lambda: shop.connection.hget(new, "state") == b"idle")
        assert running.poll() is None
        running.terminate()
        running.communicate(timeout=30)
        until(lambda: not processes_of(shop.root))
    finally:
        running.kill()


def test_up_ends_with_its_terminal(shop: WorkerProject, tmp_path: Path) -> None:
    up = shop.cli("up", "-n", "1", "--port", "0", start_new_session=True)
    try:
        until(lambda: shop.connection.scard("rq:workers") == 1)
        up.send_signal(signal.SIGHUP)
        up.communicate(timeout=30)
        until(lambda: not processes_of(tmp_path))
    finally:
        up.kill()

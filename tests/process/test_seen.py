# ruff: noqa: F401, F811 - fixtures are asked for by name
"""What real workers do is seen while they do it; one that is killed is named within seconds, and leaves a line."""

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from jobs.session import Session
from jobs.store import limits, live, runs
from jobs.views import details, waiting
from tests.helpers.processes import until
from tests.helpers.worker_project import WorkerProject, shop, start
from tests.helpers.workers import StartWorkers

pytestmark = pytest.mark.slow
SOON = 5.0  # seconds within which a reason is right


def why(shop: WorkerProject, run: str) -> str:
    """Return why a run waits, or ''."""
    found = runs.snapshot(shop.connection, [run])
    waiting.explain(shop.connection, found)
    return found[0]["waiting"] or ""


def named(shop: WorkerProject, run: str, reason: str) -> float:
    """Wait until a reason is given, and return how many seconds it took."""
    began = time.monotonic()
    until(lambda: why(shop, run).startswith(reason))
    return time.monotonic() - began


def test_each_reason_is_given_within_five_seconds_of_its_cause(shop: WorkerProject, workers: StartWorkers) -> None:
    """With leases of ten seconds, as they are where nobody says otherwise."""
    shop.file("a", "hold")
    shop.file("b", "hold", client="north")
    run = shop.submit()
    assert why(shop, run) == "no worker is alive (start some: rq-etl worker -n 2)"
    processes = workers(3)
    assert why(shop, run) == "" or why(shop, run).startswith("its turn is next")
    until(lambda: shop.notes("hold"))
    stage = until(lambda: [each for each in details.stages(shop.connection, run) if each["state"] == "running"])[-1]
    assert (stage["stage"], stage["attempt"]) == ("transform", 1)
    [victim] = [process for process in processes if pid_of(shop, stage["worker"]) == process.pid]
    os.killpg(victim.pid, signal.SIGKILL)
    assert named(shop, run, f"lost its worker {stage['worker']} (") < SOON
    limits.pause(shop.connection, ["north"])
    other = shop.submit("north")
    assert named(shop, other, "paused by ") < SOON
    limits.resume(shop.connection, ["north"])
    until(lambda: len(shop.notes("hold")) == 3)
    [loss] = live.losses(shop.connection, run)
    assert (loss["worker"], loss["pid"], loss["stage"], loss["what"]) == (
        stage["worker"], victim.pid, "transform", "worker",
    )  # fmt: skip
    assert 7 < loss["seconds"] < 14
    running = [each for each in details.stages(shop.connection, run) if each["state"] == "running"]
    assert [(each["stage"], each["attempt"], each["worker"] != stage["worker"]) for each in running] == [
        ("transform", 2, True)
    ]
    for process in processes:
        if process is not victim:
            os.killpg(process.pid, signal.SIGKILL)
    assert named(shop, run, "no worker is alive") < SOON
    workers(1)
    (shop.root / "go").touch()
    assert shop.ended(run)["state"] == "succeeded"
    assert len(live.losses(shop.connection, run)) == 2


def pid_of(shop: WorkerProject, worker: str) -> int:
    return int(shop.connection.hget(f"rq:worker:{worker}", "pid") or 0)


def test_a_process_that_is_killed_alone_leaves_a_line_and_its_worker_goes_on(
    shop: WorkerProject, start: Callable[[int], list[subprocess.Popen[bytes]]]
) -> None:
    start(3)
    shop.file("a", "hold")
    run = shop.submit()
    [horse] = until(lambda: shop.notes("hold"))
    os.kill(horse, signal.SIGKILL)
    until(lambda: len(shop.notes("hold")) == 2)
    (shop.root / "go").touch()
    assert shop.ended(run)["state"] == "succeeded"
    [loss] = live.losses(shop.connection, run)
    assert (loss["what"], loss["stage"], loss["partition"]) == ("process", "transform", 1)
    assert loss["seconds"] < 3
    text = "\n".join(line["text"] for line in details.logs(Session(shop.path, shop.url), run))
    assert f"the process of worker {loss['worker']}@{loss['host']} (pid {loss['pid']}) was lost in transform" in text


def test_run_wait_without_a_terminal_says_on_stderr_why_it_waits(shop: WorkerProject, workers: StartWorkers) -> None:
    shop.file("a")
    process = shop.cli("run", "visits", "--client", "acme", "--wait")
    assert process.stderr is not None
    assert (
        process.stderr.readline() == "rq-etl: acme/visits waits: no worker is alive (start some: rq-etl worker -n 2)\n"
    )
    workers(1)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "acme/visits succeeded" in out
    assert "no worker" not in err  # it was said once

"""Ctrl-C, or SIGTERM, while a command waits for runs: a line or two say what becomes of them, and how to go on."""

import json
import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rq.utils import now, utcformat

from jobs.run.cancel import cancel_run
from jobs.store import runs
from tests.helpers.processes import children, until
from tests.helpers.worker_project import WorkerProject, shop

__all__ = ["shop"]

BOTH = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def interrupted(
    command: "subprocess.Popen[str]", number: signal.Signals = signal.SIGINT, go: Path | None = None
) -> tuple[int, str, str]:
    """Send a signal to a command, and return its exit code and words; when it has said some, the job in hand ends."""
    command.send_signal(number)
    assert command.stderr is not None
    first = os.read(command.stderr.fileno(), 4096).decode()
    if go:
        go.touch()
    out, err = command.communicate(timeout=60)
    return command.returncode, out, first + err


def said(err: str) -> list[str]:
    """Return the two lines on what becomes of runs."""
    lines = err.splitlines()
    at = next(i for i, line in enumerate(lines) if " on w" in line or "with this command" in line)
    return lines[at : at + 2]


def is_waiting(shop: WorkerProject, count: int) -> bool:
    """Whether a command has submitted its runs, and looks at what is active again and again."""
    active = [*runs.active(shop.connection), *runs.held(shop.connection)]
    return len(active) == count and any(line["cmd"] == "smembers" for line in shop.connection.client_list())


@pytest.mark.parametrize("words", ["run --all-clients --wait", "backfill visits --wait", "retry --wait", "wait"])
@pytest.mark.parametrize(("number", "code"), BOTH)
def test_on_a_shared_redis_runs_go_on(shop: WorkerProject, words: str, number: signal.Signals, code: int) -> None:
    shop.file("a")
    shop.file("a", client="north")
    if words.startswith("backfill"):
        shop.change(("inbox/{client}/*.csv", "inbox/{client}/{start:%Y}/*.csv"))
        for year in (2025, 2026):
            shop.write(f"inbox/acme/{year}/a.csv", "id,does\n1,\n")
        words += " --client acme --start 2025-12-31 --end 2026-01-02"
    elif not words.startswith("run"):
        run = shop.submit()
        words += f" {run}"
        if words.startswith("retry"):
            cancel_run(shop.connection, run)
    shop.connection.sadd("rq:workers", "rq:worker:one")
    shop.connection.hset(
        "rq:worker:one", mapping={"state": "busy", "last_heartbeat": utcformat(now() + timedelta(minutes=1))}
    )
    count = 1 if words.startswith(("retry", "wait")) else 2
    command = shop.cli(*words.split())
    until(lambda: is_waiting(shop, count))
    ended, _, err = interrupted(command, number)
    [first] = runs.active(shop.connection)[:1]
    what, cure = said(err)
    assert ended == code
    assert what == (
        f"rq-etl: run {first} goes on without this command"
        if count == 1
        else "rq-etl: 2 runs go on without this command"
    )
    assert f"rq-etl wait {first if count == 1 else 'RUN'}" in cure
    assert "rq-etl status" in cure
    assert len([*runs.active(shop.connection), *runs.held(shop.connection)]) == count


def test_with_json_it_is_the_document(shop: WorkerProject) -> None:
    shop.file("a")
    command = shop.cli("run", "--client", "acme", "--wait", "--json")
    until(lambda: is_waiting(shop, 1))
    _, out, _ = interrupted(command)
    said: dict[str, Any] = json.loads(out)
    assert said["exit"] == 130
    assert said["error"].endswith("goes on when a worker is there: rq-etl worker starts one")


def test_workers_of_the_commands_own_end_and_that_is_said(shop: WorkerProject) -> None:
    shop.file("a", "hold")
    command = shop.cli("run", "--client", "acme", "--workers", "1")
    until(lambda: shop.notes("hold"))
    code, _, err = interrupted(command, go=shop.root / "go")
    assert code == 130
    assert "goes on with other workers only" in err
    assert shop.connection.scard("rq:workers") == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), BOTH)
def test_a_private_redis_ends_and_wait_goes_on(shop: WorkerProject, number: signal.Signals, code: int) -> None:
    shop.url = ""
    shop.file("a", "hold")
    command = shop.cli("run", "visits", "--client", "acme")
    until(lambda: shop.notes("hold"))
    started = children(command.pid)
    ended, _, err = interrupted(command, number, go=shop.root / "go")
    assert ended == code
    what, cure = said(err)
    assert "stops with this command: its Redis and workers end" in what
    words = cure.split("rq-etl ")[1].partition(",")[0].split()
    again = shop.cli(*words)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, out + err
    assert shop.ids() == ["a0", "a1", "a2"]
    assert len(started) == 3


@pytest.mark.parametrize(("number", "code"), BOTH)
def test_what_runs_inline_stops_and_retry_goes_on(shop: WorkerProject, number: signal.Signals, code: int) -> None:
    shop.file("a", "hold")
    command = shop.cli("run", "visits", "--client", "acme", "--inline")
    until(lambda: shop.notes("hold"))
    ended, _, err = interrupted(command, number)
    assert ended == code
    what, cure = said(err)
    assert what.endswith("stops with this command")
    (shop.root / "go").touch()
    words = cure.split("rq-etl ")[1].partition(";")[0].split()
    again = shop.cli(*words)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, out + err
    assert shop.ids() == ["a0", "a1", "a2"]


def test_runs_that_have_ended_are_not_counted(shop: WorkerProject) -> None:
    shop.file("a")
    shop.file("a", client="north")
    command = shop.cli("run", "--all-clients", "--wait")
    until(lambda: is_waiting(shop, 2))
    cancel_run(shop.connection, runs.active(shop.connection)[0])
    [left] = runs.active(shop.connection)
    assert f"run {left} goes on" in interrupted(command)[2]


def test_a_redis_that_is_away_keeps_nothing_from_being_said(shop: WorkerProject) -> None:
    shop.file("a")
    run = shop.submit()
    command = shop.cli("wait", run)
    until(lambda: is_waiting(shop, 1))
    shop.connection.config_set("maxclients", 1)
    shop.connection.client_kill_filter(_type="normal", skipme=True)
    try:
        code, _, err = interrupted(command)
    finally:
        shop.connection.config_set("maxclients", 10_000)
    assert (code, f"run {run} goes on" in err) == (130, True)

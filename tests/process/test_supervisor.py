"""A command's workers, dashboard and private Redis: started again when they die, gone when the command is."""

import base64
import contextlib
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.process import supervisor
from tests.helpers.processes import ROOT, is_alive, until
from tests.helpers.worker_project import WorkerProject, processes_of, shop

pytestmark = pytest.mark.slow

__all__ = ["shop"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


def children(pid: int, word: str) -> list[int]:
    """Return a process's children whose command line has a word."""
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in found if word.encode() in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.fixture
def alone(shop: WorkerProject) -> Iterator[WorkerProject]:
    """A project without a Redis of its own: its commands start a private one. No process is left in its folder."""
    shop.url = ""
    yield shop
    for pid in processes_of(shop.root):
        os.kill(pid, signal.SIGKILL)


def is_empty(folder: Path) -> bool:
    """Whether no process works in a folder, or serves its Redis."""
    there = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _cwd(pid).startswith(str(folder))]
    return not any(is_alive(int(pid)) for pid in there)


def _cwd(pid: str) -> str:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return os.readlink(f"/proc/{pid}/cwd")
    return ""


@pytest.mark.parametrize("number", SIGNALS)
def test_up_leaves_no_process_however_it_ends_and_no_job_counts_as_lost(
    shop: WorkerProject, number: signal.Signals
) -> None:
    shop.file("a", "child")
    up = shop.cli("up", "-n", "2", "--port", "0", start_new_session=True)
    try:
        until(lambda: children(up.pid, "dashboard"))
        run = shop.submit()
        until(lambda: shop.notes("hold"))
        up.send_signal(number)
        up.wait(60)
        until(lambda: is_empty(shop.root))
    finally:
        up.kill()
        up.communicate()
    job = f"rq:job:{run}-1-transform-1"
    assert shop.connection.hmget(job, "status", "etl_losses") == [b"queued", None]


def test_up_says_once_all_is_ready_what_to_look_at_in_a_small_terminal(
    shop: WorkerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ETL_RUN", raising=False)  # how ./run was called says how the commands are spelled
    shop.change(('url = "sqlite:///warehouse.db"', 'url = "postgresql://etl:secret@nowhere/db"'))
    up = shop.cli("up", "-n", "2", "--port", "0")
    assert up.stderr is not None
    lines: list[str] = []
    while not (lines and "retry --failed" in lines[-1]):
        lines.append(up.stderr.readline().rstrip("\n"))
        assert up.poll() is None, lines
    assert shop.connection.scard("rq:workers") == 2
    ending = lines[next(at for at, line in enumerate(lines) if "2 workers and the dashboard are ready" in line) :]
    assert len(ending) <= 22
    assert max(map(len, [line for line in ending if "http" not in line and str(shop.root) not in line])) <= 80
    found = re.search(r"http://etl:(\S+)@(127\.0\.0\.1:\d+)/", "\n".join(ending))
    assert found is not None
    login = base64.b64encode(f"etl:{found[1]}".encode()).decode()
    asked = urllib.request.Request(f"http://{found[2]}/", headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(asked, timeout=30) as page:
        assert page.status == 200
    said = "\n".join(ending)
    assert "target warehouse: visits" in said
    assert "secret" not in said
    assert "run --all-clients" in said
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=60)
    assert is_empty(shop.root)


def test_up_ends_its_private_redis(alone: WorkerProject) -> None:
    up = alone.cli("up", "-n", "1", "--port", "0")
    until(lambda: children(up.pid, "redis-server") and children(up.pid, "dashboard"))
    up.kill()
    up.communicate()
    until(lambda: is_empty(alone.root))


def test_up_ends_when_its_dashboard_does(shop: WorkerProject) -> None:
    up = shop.cli("up", "-n", "1", "--port", "0")
    [dashboard] = until(lambda: children(up.pid, "dashboard"))
    os.kill(dashboard, signal.SIGKILL)
    up.communicate(timeout=60)
    assert up.returncode != 0
    until(lambda: is_empty(shop.root))


def test_a_pool_that_is_killed_leaves_no_process_and_its_jobs_are_queued(shop: WorkerProject) -> None:
    shop.file("a", "child")
    pool = shop.cli("worker", "-n", "2")
    until(lambda: shop.connection.scard("rq:workers") == 2)
    run = shop.submit()
    until(lambda: shop.notes("hold"))
    pool.kill()
    until(lambda: is_empty(shop.root))
    pool.communicate()
    job = f"rq:job:{run}-1-transform-1"
    assert shop.connection.hmget(job, "status", "etl_losses") == [b"queued", None]


def test_a_run_goes_on_when_its_private_redis_and_all_its_workers_are_killed(alone: WorkerProject) -> None:
    alone.file("a", "hold")
    alone.file("b")
    command = alone.cli("run", "visits", "--client", "acme", "--workers", "2")
    until(lambda: alone.notes("hold"))
    victims = [*children(command.pid, "redis-server"), *children(command.pid, "worker")]
    assert len(victims) == 3
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    (alone.root / "go").touch()
    out, err = command.communicate(timeout=60)
    assert command.returncode == 0, out + err
    assert alone.ids() == ["a0", "a1", "a2", "b0", "b1", "b2"]
    until(lambda: is_empty(alone.root))


def test_wait_finishes_what_a_killed_command_has_left_in_the_private_redis(alone: WorkerProject) -> None:
    alone.file("a", "hold")
    command = alone.cli("run", "visits", "--client", "acme")
    until(lambda: alone.notes("hold"))
    command.kill()
    command.communicate()
    until(lambda: is_empty(alone.root))
    (alone.root / "go").touch()
    waiting = alone.cli("wait", "acme/visits")
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, out + err
    assert alone.ids() == ["a0", "a1", "a2"]


THREAD = """
import threading
from rq_etl import submit
runs = []
thread = threading.Thread(target=lambda: runs.append(submit("visits", "acme")))
thread.start()
thread.join()
print(runs[0].wait(60).state)
"""


def test_a_run_that_a_thread_has_submitted_outlives_the_thread(alone: WorkerProject) -> None:
    alone.file("a")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", THREAD]
    done = subprocess.run(command, cwd=alone.root, env=environment, capture_output=True, text=True, timeout=90)
    assert (done.stdout, done.returncode) == ("succeeded\n", 0), done.stderr
    until(lambda: is_empty(alone.root))


@pytest.mark.parametrize(("code", "is_trouble"), [(0, False), (1, True)])
def test_a_worker_that_someone_asked_to_stop_is_started_again_however_soon(
    monkeypatch: pytest.MonkeyPatch, code: int, is_trouble: bool
) -> None:
    monkeypatch.setattr(supervisor, "worker_command", lambda: [sys.executable, "-c", f"raise SystemExit({code})"])
    ours = supervisor.Supervisor("redis://localhost")
    ours.start(1)
    try:
        until(lambda: ours.exit_code() is not None)
        with pytest.raises(supervisor.WorkersFailed) if is_trouble else contextlib.nullcontext():
            ours.replace_dead()
    finally:
        ours.end()

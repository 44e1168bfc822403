"""A project whose runs real workers do, for tests of what dies: its functions wait, spawn and kill when told to."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs.run.submit import submit_run
from jobs.store import runs
from tests.helpers.processes import ROOT, is_alive, until
from tests.helpers.project import Folder, etl_toml
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

LEASE = "1.2"  # seconds, so that lost leases are found soon

TOML = etl_toml(
    {
        "visits": {
            "transform": ["steps:work"],
            "load": {"mode": "append"},
            "retries": 0,
            "columns": {"id": {"type": "string", "required": True}, "does": "string"},
        }
    },
    ["acme", "north"],
)

STEPS = """
import os, pathlib, re, signal, subprocess, sys, time

import numpy as np

HERE = pathlib.Path(__file__).parent

def note(what):
    with open(HERE / f"{what}.notes", "a") as file:
        file.write(f"{os.getpid()}\\n")

def hold(df):
    note("hold")
    while not (HERE / "go").exists():
        time.sleep(0.01)

def child(df):
    made = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=False)
    (HERE / "child").write_text(str(made.pid))
    hold(df)

def stray(df):
    made = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (HERE / "stray").write_text(str(made.pid))
    daemon = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=2).pid)"
    (HERE / "daemon").write_bytes(subprocess.run([sys.executable, "-c", daemon], stdout=subprocess.PIPE).stdout)
    child(df)

def deaf(df):
    note("deaf")
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass

def regex(df):
    note("regex")
    re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter for years

def numpy(df):
    note("numpy")
    while True:
        np.linalg.svd(np.random.rand(1500, 1500))

def die(df):
    note("die")
    os._exit(0)

def kill(df):
    note("kill")
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short

def work(df):
    for name in df["does"].dropna().unique():
        globals()[name](df)
    return df
"""


class WorkerProject(Folder):
    """A project, and runs of it that workers do."""

    def __init__(self, root: Path, connection: Redis, url: str) -> None:
        super().__init__(root, TOML, {"steps.py": STEPS})
        self.connection, self.url = connection, url

    def file(self, name: str, *does: str, client: str = "acme") -> None:
        """Write a file of three rows; its transform does what is named."""
        rows = [f"{name}{i},{does[0] if does and i == 0 else ''}" for i in range(3)]
        self.write(f"inbox/{client}/{name}.csv", "\n".join(["id,does", *rows]) + "\n")

    def submit(self, client: str = "acme") -> str:
        """Enqueue a run."""
        return submit_run(self.connection, self.pipeline("visits", client))

    def run(self, id: str) -> dict[str, Any]:
        """Return a run as it is."""
        return runs.snapshot(self.connection, [id])[0]

    def ended(self, id: str) -> dict[str, Any]:
        """Wait for a run's end."""
        until(lambda: self.run(id)["state"] in runs.ENDED)
        return self.run(id)

    def ids(self) -> list[str]:
        """Return the ids in the table."""
        return [id for (id,) in self.rows("select id from visits order by id")]

    def notes(self, what: str) -> list[int]:
        """Return the process ids that a function was run by."""
        with contextlib.suppress(OSError):
            return [int(line) for line in (self.root / f"{what}.notes").read_text().split()]
        return []

    def cli(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start the command line on the private Redis."""
        environment = {**os.environ, "REDIS_URL": self.url, "PYTHONPATH": str(ROOT), "ETL_LEASE": LEASE}
        return subprocess.Popen(
            [sys.executable, "-m", "cli", *words], cwd=self.root, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip


def processes_of(folder: Path) -> list[int]:
    """Return the processes whose working directory a folder is."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if Path(f"/proc/{pid}/cwd").readlink() == folder and is_alive(pid):
                found.append(pid)
    return found


@pytest.fixture
def shop(
    tmp_path: Path, real_redis: Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> WorkerProject:
    """A project on the private Redis."""
    monkeypatch.setenv("ETL_CONFIG", str(tmp_path / "etl.toml"))
    return WorkerProject(tmp_path, real_redis, redis_server.url)


@pytest.fixture
def start(workers: StartWorkers) -> Callable[[int], list[subprocess.Popen[bytes]]]:
    """`start(n)` starts workers with short leases in the project's folder."""

    def started(n: int) -> list[subprocess.Popen[bytes]]:
        return workers(n, env={"ETL_LEASE": LEASE})

    return started

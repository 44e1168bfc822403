"""Real worker processes on the private Redis, killed after the test."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from redis import Redis

from jobs.settings import WORKER_CLASSES
from tests.helpers.processes import ROOT, die_with_parent, kill_session, wait_until
from tests.helpers.redis_server import RedisServer


class StartWorkers:
    """Starts real `rq worker` processes; each leads a session, and its log is `<cwd>/worker-<i>.log`."""

    def __init__(self, url: str, cwd: Path) -> None:
        self.url = url
        self.cwd = cwd
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(
        self, n: int = 1, *, cwd: Path | None = None, env: Mapping[str, str] | None = None, args: tuple[str, ...] = ()
    ) -> list[subprocess.Popen[bytes]]:
        """Start `n` workers in `cwd` and return them once all are registered in Redis.

        Args:
            n: How many.
            cwd: Working directory, the test's `tmp_path` by default; users' modules are imported from it.
            env: More environment variables.
            args: More arguments of `rq worker`.
        """
        cwd = cwd or self.cwd
        environment = {**os.environ, **WORKER_CLASSES, "RQ_REDIS_URL": self.url, "REDIS_URL": self.url}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        started = []
        with Redis.from_url(self.url) as client:
            for _ in range(n):
                name = f"worker-{len(self.processes) + 1}"
                log = cwd / f"{name}.log"
                with log.open("wb") as out:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "rq.cli", "worker", *args],
                        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                        start_new_session=True, preexec_fn=die_with_parent,
                    )  # fmt: skip
                self.processes.append(process)
                started.append((process, log))
            for process, log in started:
                pid = str(process.pid).encode()
                wait_until(lambda pid=pid: pid in registered(client), process, log)  # type: ignore[misc]
        return [process for process, _ in started]


def registered(client: Redis) -> set[bytes | str | None]:
    """Return the process ids of the workers that Redis knows."""
    return {client.hget(key, "pid") for key in client.smembers("rq:workers")}


@pytest.fixture
def workers(redis_server: RedisServer, real_redis: Redis, tmp_path: Path) -> Iterator[StartWorkers]:
    """`workers(2)` starts two real worker processes on the private Redis; they are killed after the test."""
    start = StartWorkers(redis_server.url, tmp_path)
    yield start
    for process in start.processes:
        kill_session(process)

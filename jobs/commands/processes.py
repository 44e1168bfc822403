"""Workers as processes: becoming one, listing them, and all of a project's processes under one supervisor."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType

from etl.errors import ConfigError
from jobs import broker, settings
from jobs.process.spawn import spawn
from jobs.process.supervisor import Supervisor, worker_command

LOOK = 0.2  # seconds between looks for processes that have died


def worker(config: str | None, redis: str | None, count: int, *, burst: bool) -> None:
    """Become `rq worker`, or `rq worker-pool` for several, with our classes."""
    found = _server(config, redis)
    options = ["--burst"] if burst else []
    if found.owned:
        sys.exit(_work_beside(found, count, *options))
    command = _pool(count, *options) if count > 1 else worker_command(*options)
    os.execve(command[0], command, settings.worker_environment(found.url, settings.path()))


def _work_beside(server: broker.Broker, count: int, *options: str) -> int:
    """Run workers for the Redis that ends with this process; returns the exit code."""
    crew = Supervisor(server.url, None, *options)
    crew.start(count)
    with _until_signalled(server, crew):
        while not options:  # all but `--burst`
            server.keep()
            crew.replace_dead()
            time.sleep(LOOK)
        return crew.wait()


# `rq worker-pool` reads no classes from the environment but the worker's.
POOL_CLASSES = (
    "--worker-class",
    "jobs.worker.Worker",
    "--job-class",
    "jobs.job.EtlJob",
    "--queue-class",
    "jobs.queue.FairQueue",
)


def _pool(count: int, *options: str) -> list[str]:
    """Return the command line of `rq worker-pool`, which starts a worker again that has died."""
    return [*worker_command()[:-1], "worker-pool", *options, "-n", str(count), *POOL_CLASSES]


def up(config: str | None, redis: str | None, count: int, port: int) -> int:
    """Run workers and the dashboard until interrupted, or until the dashboard ends.

    Returns:
        The exit code.
    """
    found = _server(config, redis)
    crew = Supervisor(found.url)
    command = [sys.executable, "-P", "-m", "cli", "dashboard", "--port", str(port)]
    environment = settings.worker_environment(found.url, settings.path())
    dashboard = spawn(command, signal.SIGTERM, env=environment)
    crew.start(count)
    with _until_signalled(found, crew, dashboard):
        while dashboard.poll() is None:
            found.keep()
            crew.replace_dead()
            time.sleep(LOOK)
        return dashboard.returncode


@contextlib.contextmanager
def _until_signalled(server: broker.Broker, crew: Supervisor, *others: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have signals end the block, and then all processes, workers before their Redis."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, leave)
    try:
        yield
    finally:
        crew.end(*others)
        server.close()


def _server(config: str | None, redis: str | None) -> broker.Broker:
    settings.use(config)
    settings.modules()  # mistakes in etl.toml are told now, not by each job
    found = broker.connect(redis or settings.redis_url(), settings.path().parent)
    if found.kind == "in-process":
        raise ConfigError("workers need a Redis server", "set REDIS_URL or install redis-server")
    return found

"""Workers as processes: becoming one, listing them, and all of a project's processes under one supervisor."""

import os
import shlex
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

from etl.errors import ConfigError
from jobs import broker, project, settings
from jobs.session import Session, worker_command


def workers(session: Session) -> list[dict[str, Any]]:
    """Return the workers that are alive, as RQ knows them."""
    from jobs.worker import Worker

    lines = []
    for worker in Worker.all(connection=session.connection):
        beat = worker.last_heartbeat
        lines.append(
            {
                "name": worker.name,
                "host": worker.hostname,
                "pid": worker.pid,
                "state": worker.get_state(),
                "job": worker.get_current_job_id(),
                "jobs_done": worker.successful_job_count,
                "jobs_failed": worker.failed_job_count,
                "heartbeat_age": round((datetime.now(UTC) - beat.astimezone(UTC)).total_seconds(), 1) if beat else None,
            }
        )
    return lines


def worker(config: str | None, redis: str | None, count: int, *, burst: bool) -> None:
    """Become `rq worker`, or `rq worker-pool` for several, with our classes."""
    found = _server(config, redis)
    environment = settings.worker_environment(found.url, project.path())
    options = ["--burst"] if burst else []
    if found.owned:
        ask = broker.end_with_owner(signal.SIGHUP)
        command = worker_command(*options)
        processes = [subprocess.Popen(command, env=environment, preexec_fn=ask) for _ in range(count)]
        try:
            sys.exit(max(process.wait() for process in processes))
        finally:
            found.close()
    command = worker_command(*options)
    if count > 1:
        command = _pool(count, *options)
    os.execve(command[0], command, environment)


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
    """Run workers and the dashboard until interrupted, each line under its name.

    Returns:
        The exit code.
    """
    from honcho.manager import Manager

    found = _server(config, redis)
    environment = settings.worker_environment(found.url, project.path())
    manager = Manager()
    manager.add_process("workers", shlex.join(_pool(count)), env=environment)
    ours = [sys.executable, "-P", "-m", "cli", "dashboard", "--port", str(port)]
    manager.add_process("dashboard", shlex.join(ours), env=environment)
    signal.signal(signal.SIGHUP, lambda *_: manager.terminate())  # the terminal was closed
    try:
        manager.loop()
    finally:
        found.close()
    return int(manager.returncode or 0)


def _server(config: str | None, redis: str | None) -> broker.Broker:
    project.use(config)
    settings.modules()  # mistakes in etl.toml are told now, not by each job
    found = broker.connect(redis or settings.redis_url(), project.path().parent)
    if found.kind == "in-process":
        raise ConfigError("workers need a Redis server", "set REDIS_URL or install redis-server")
    return found

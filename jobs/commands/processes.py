"""Workers as processes: becoming one, and all of a project's processes under one supervisor."""

import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from rq.worker_registration import REDIS_WORKER_KEYS

from etl.errors import ConfigError
from jobs import broker, settings
from jobs.process.supervisor import Supervisor, pool_command, worker_command

LOOK = 0.2  # seconds between looks for processes that have died


def worker(config: str | None, redis: str | None, count: int, *, burst: bool) -> int:
    """Become `rq worker`, or `rq worker-pool` for several; where their Redis ends with this process, supervise them."""
    server = _server(config, redis, count)
    with server.connection.pipeline() as pipe:  # a pool would start one after another that may not do what they do
        pipe.srem(REDIS_WORKER_KEYS, "")
        pipe.execute()
    if not server.owned:
        options = ["--burst"] if burst else []
        command = pool_command(count, *options) if count > 1 else worker_command(*options)
        os.execve(command[0], command, settings.worker_environment(server.url))
    supervisor = Supervisor(server.url, burst=burst)
    supervisor.start(count)
    return _supervise(server, supervisor, until=supervisor.exit_code if burst else lambda: None)


def up(config: str | None, redis: str | None, count: int, port: int) -> int:
    """Run workers and the dashboard until interrupted, or until the dashboard ends; return the exit code."""
    server = _server(config, redis, count)
    supervisor = Supervisor(server.url)
    dashboard = supervisor.start_other([sys.executable, "-P", "-m", "cli", "dashboard", "--port", str(port)])
    supervisor.start(count)
    return _supervise(server, supervisor, until=dashboard.poll)


def _supervise(server: broker.Broker, supervisor: Supervisor, until: Callable[[], int | None]) -> int:
    """Keep processes running until a signal or an exit code, which is returned; end workers before their Redis."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, leave)
    try:
        while (code := until()) is None:
            server.keep()
            supervisor.replace_dead()
            time.sleep(LOOK)
        return code
    finally:
        supervisor.end()
        server.close()


def _server(config: str | None, redis: str | None, workers: int) -> broker.Broker:
    settings.use(config)
    settings.modules()  # a mistake in etl.toml is an error now, not one of each job
    found = broker.connect(redis or settings.redis_url(), settings.path().parent)
    if found.kind == "in-process":
        raise ConfigError("workers need a Redis server", "set REDIS_URL or install redis-server")
    broker.announce(found, workers)
    return found

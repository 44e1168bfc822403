"""Workers as processes: becoming one, and all of a project's processes under one supervisor."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError
from rq.worker_registration import REDIS_WORKER_KEYS

from etl.config.kinds import DATABASES, spelled
from etl.config.pipeline import Config
from etl.errors import ConfigError
from jobs import broker, settings
from jobs.commands.options import echo
from jobs.process.spawn import Process
from jobs.process.supervisor import Supervisor, pool_command, worker_command
from jobs.store import live
from jobs.store.dial import shown

SILENCE = 20.0  # seconds for which the cron process waits for an answer of Redis
LOOK = 0.2  # seconds between looks for processes that have died
ADDRESS = "dashboard: "  # what the dashboard's own line begins with
SHOWN = 3  # targets, and tables of each, that are named
NEXT = (
    ("run --all-clients --wait", "load what is there"),
    ("status", "each client's pipelines: what is late"),
    ("runs --state failed", "what went wrong; then: logs RUN"),
    ("retry --failed", "once it is put right"),
)


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


def cron(config: str | None, redis: str | None) -> int:
    """Run rq-scheduler, and look at deliveries, until interrupted; return the exit code."""
    from jobs.cron import process

    server = _server(config, redis, 0)
    supervisor = Supervisor(server.url)
    process.log()
    # Its own: what it asks of a Redis that has gone silent comes back some time.
    connection = Redis.from_url(server.url, socket_connect_timeout=SILENCE, socket_timeout=SILENCE)
    looks = process.Cron(connection)
    try:
        # A traceback of its own says no more than that Redis is away, and it is started again.
        supervisor.keep_other(process.scheduler_command(), stderr=subprocess.DEVNULL)
        return _supervise(server, supervisor, until=looks.step)
    finally:
        looks.end()


def up(config: str | None, redis: str | None, count: int, port: int) -> int:
    """Run workers, the dashboard and, where there is something for it to do, cron until interrupted.

    It ends with the dashboard as well; returns the exit code. What to look at, and what to type next, is said once all
    of them are ready.
    """
    server = _server(config, redis, count)
    before = _workers(server)
    supervisor = Supervisor(server.url)
    if _needs_cron():
        supervisor.keep_other([sys.executable, "-P", "-m", "cli", "cron"])
    command = [sys.executable, "-P", "-m", "cli", "dashboard", "--port", str(port)]
    dashboard = supervisor.start_other(command, stderr=subprocess.PIPE)
    address: list[str] = []
    threading.Thread(target=_pass_on, args=(dashboard, address), daemon=True).start()
    supervisor.start(count)

    def is_ready() -> bool:
        return bool(address) and len(_workers(server) - before) >= count

    def say() -> None:
        echo("\n".join(_ending(server, count, address[0])), err=True)

    return _supervise(server, supervisor, until=dashboard.poll, ready=(is_ready, say))


def _needs_cron() -> bool:
    from jobs.cron import is_needed

    return settings.path().is_file() and is_needed(settings.config())


def _pass_on(dashboard: Process, address: list[str]) -> None:
    """Pass on what the dashboard says, but for its address, which is said when the workers are ready, too."""
    for raw in dashboard.stderr or ():
        line = raw.decode(errors="replace").rstrip("\n")
        if line.startswith(ADDRESS) and not address:
            address.append(line.removeprefix(ADDRESS))
        else:
            echo(line, err=True)


def _workers(server: broker.Broker) -> set[str]:
    """Return the names of the workers that have begun to look for jobs."""
    with suppress(RedisError):
        return {each.name for each in live.workers(server.connection) if each.state}
    return set()


def _ending(server: broker.Broker, count: int, address: str) -> list[str]:
    """Return what to look at, and what to type next, in lines of which a small terminal shows all."""
    config, command = settings.config(), settings.command(Path())
    where = f"private to this folder ({settings.path().parent}/.rq-etl/redis)" if server.kind == "private" else ""
    lines = ["", f"rq-etl: {count} worker{'s' if count > 1 else ''} and the dashboard are ready; Ctrl-C ends them", ""]
    lines += [f"  dashboard: {address}", f"  Redis:     {where or shown(server.url)}"]
    lines += [f"  rows:      {place}" for place in _places(config)[:SHOWN]]
    lines += ["", f"In another terminal, in {settings.path().parent}:"]
    for words, what in NEXT:
        lines.append(f"  {command} {words:<28} # {what}")
    return lines


def _places(config: Config) -> list[str]:
    """Return where rows are, by target: a file, or the target's name, as its URL may hold a password; and tables."""
    found = []
    for name, target in config.targets.items():
        kind = DATABASES.get(spelled(target.url).partition(":")[0])
        loads = [each.load.table for each in config.pipelines.values() if each.load.target == name]
        tables = list(dict.fromkeys(filter(None, loads)))
        place = target.url.partition("///")[2] if kind and kind.file else f"target {name}"
        found.append(f"{place}: {', '.join(tables[:SHOWN])}{', …' if len(tables) > SHOWN else ''}")
    return found


def _supervise(
    server: broker.Broker,
    supervisor: Supervisor,
    until: Callable[[], int | None],
    ready: tuple[Callable[[], bool], Callable[[], None]] | None = None,
) -> int:
    """Keep processes running until a signal or an exit code, which is returned; end workers before their Redis.

    Args:
        ready: Whether they are ready, and what is called once when they are.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, leave)
    try:
        while (code := until()) is None:
            server.keep()
            supervisor.replace_dead()
            if ready and ready[0]():
                ready[1]()
                ready = None
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

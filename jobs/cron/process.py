"""The cron process itself: its tasks in threads, so that none waits for another; its sign of life; its clock."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from etl.config.pipeline import Config, Pair
from etl.errors import EtlError
from etl.safe_message import safe_message
from jobs import settings
from jobs.cron import TASKS, Look, Task
from jobs.deliveries import poll
from jobs.deliveries.expected import delivering
from jobs.run import schedules
from jobs.store import live, redis_errors

LOG = logging.getLogger("rq-etl.cron")
SIGN_EVERY = 1.0  # seconds
READ_EVERY = 2.0  # seconds between looks whether etl.toml has changed
TOGETHER = 16  # pipelines that are looked at at once
SLOW = 10.0  # seconds after which a look that has not ended is not counted any more: its share may hang for ever


class Cron:
    """A cron process: `step` is called several times a second.

    Args:
        connection: To the Redis that it works for, which may be away for a while.
    """

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._config: Config | None = None
        self._read = -READ_EVERY
        self._name = f"{socket.gethostname().replace(':', '-')}-{os.getpid()}"
        self._next: dict[Look, float] = {}
        self._running: set[Look] = set()
        self._polled = Polled()
        self._signed = -SIGN_EVERY
        self._said: dict[str, str] = {}

    def step(self) -> None:
        """Give a sign of life, and begin the tasks whose time has come."""
        config = self._configuration()
        if config is None or not self._sign():
            return
        for task in TASKS:
            if task.look not in self._running and time.monotonic() >= self._next.get(task.look, 0.0):
                self._next[task.look] = time.monotonic() + task.every
                self._running.add(task.look)
                _in_thread(partial(self._do, task, config))

    def end(self) -> None:
        """Say that this process is going."""
        with suppress(RedisError):
            live.leave(self._connection, self._name)

    def _do(self, task: Task, config: Config) -> None:
        look: Look = self._polled.look if task.look is poll.look_at_all else task.look
        try:
            look(config, self._connection, schedules.clock(self._connection))
            self._say(task.look.__name__, "")
        except redis_errors.AWAY:
            pass  # its sign of life says so
        except Exception as exc:  # whatever is wrong with one task, the others go on
            self._say(task.look.__name__, f"{task.look.__name__}: {safe_message(exc)}")
        finally:
            self._running.discard(task.look)

    def _configuration(self) -> Config | None:
        """Return the configuration; where it is broken now, as it was."""
        if time.monotonic() < self._read + READ_EVERY:
            return self._config
        self._read = time.monotonic()
        try:
            config = settings.config()
            if config is not self._config:
                schedules_ = sum(len(client.schedule) for client in config.clients.values())
                LOG.info("looks at pipelines with deliveries: %d, schedules: %d", len(delivering(config)), schedules_)
            self._config = config
            self._say("etl.toml", "")
        except (EtlError, OSError) as exc:
            self._say("etl.toml", f"etl.toml can't be used, so it goes on as it was: {safe_message(exc)}")
        return self._config

    def _sign(self) -> bool:
        """Give a sign of life where the last one is old; returns whether Redis is there."""
        if time.monotonic() < self._signed + SIGN_EVERY:
            return True
        try:
            live.sign(self._connection, self._name)
        except RedisError as exc:
            self._say("redis", f"Redis is away: {redis_errors.translate(exc).what}")
            return False
        self._signed = time.monotonic()
        self._say("redis", "")
        return True

    def _say(self, about: str, text: str) -> None:
        """Log what is wrong with something, once; and that it is well again."""
        before, self._said[about] = self._said.get(about, ""), text
        if text and text != before:
            LOG.warning("%s", poll.one_line(text))
        elif before and not text:
            LOG.info("%s: well again", about)


class Polled:
    """Looks at several pipelines at once, each in a thread: one whose share hangs holds up no other."""

    def __init__(self) -> None:
        self._begun: dict[Pair, float] = {}

    def look(self, config: Config, connection: Redis, now: datetime) -> None:
        """Begin to look at the pipelines that it is time for; returns at once."""
        for pair in poll.due(config, connection, now):
            young = sum(begun > time.monotonic() - SLOW for begun in list(self._begun.values()))
            if pair not in self._begun and young < TOGETHER:
                self._begun[pair] = time.monotonic()
                _in_thread(partial(self._look_at, config, connection, pair, now))

    def _look_at(self, config: Config, connection: Redis, pair: Pair, now: datetime) -> None:
        try:
            poll.look_at(config, connection, pair, now)
        except RedisError as exc:
            if not isinstance(exc, redis_errors.AWAY):
                LOG.warning("%s/%s: %s", *pair, redis_errors.translate(exc).what)
        finally:
            self._begun.pop(pair, None)


def scheduler_command() -> list[str]:
    """Return the command line of rq-scheduler with our classes; which Redis it is for says the environment."""
    classes = settings.WORKER_CLASSES
    return [
        *(sys.executable, "-P", "-m", "rq_scheduler.scripts.rqscheduler", "--quiet", "--interval", "5"),
        *("--job-class", classes["RQ_JOB_CLASS"], "--queue-class", classes["RQ_QUEUE_CLASS"]),
        *("--path", str(Path(settings.__file__).parents[1])),  # else the working directory, before all others
    ]


def log() -> None:
    """Have what the process says on stderr, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s cron: %(message)s", "%H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()

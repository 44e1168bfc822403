"""The cron process: what is done by the clock and not by a worker. `rq-etl cron` runs it, beside rq-scheduler.

`TASKS` lists what is done, and how often; each is given the moment it is, so that a simulation can have its own clock.
Any number of cron processes may run: each task sees to it that what another has just done is not done again.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from redis import Redis

from etl.config.pipeline import Config
from etl.config.urls import all_alerts
from jobs.alerts import send, state
from jobs.deliveries import poll
from jobs.deliveries.expected import delivering
from jobs.run import schedules

Look = Callable[[Config, Redis, datetime], None]


class Task(NamedTuple):
    """Something that the cron process does.

    Args:
        look: Is given the configuration, Redis and the moment, in UTC.
        every: Seconds between two looks of one process.
    """

    look: Look
    every: float


def sync_schedules(config: Config, connection: Redis, now: datetime) -> None:
    """Have rq-scheduler's entries for all schedules, where one is new, or Redis has lost them."""
    schedules.sync(config, connection, removes=False)


TASKS: tuple[Task, ...] = (
    Task(poll.look_at_all, 1.0),
    Task(sync_schedules, 60.0),
    Task(state.look, 4.0),
    Task(send.deliver, 1.0),
    Task(send.heartbeat, 5.0),
)


def tick(config: Config, connection: Redis, now: datetime) -> None:
    """Do all tasks once, one after another, as if it were a moment."""
    for task in TASKS:
        task.look(config, connection, now)


def is_needed(config: Config) -> bool:
    """Whether a configuration has anything for a cron process to do."""
    has_schedules = any(client.schedule for client in config.clients.values())
    has_alerts = any(each.to or each.heartbeat for each in all_alerts(config).values())
    return has_schedules or bool(delivering(config)) or has_alerts

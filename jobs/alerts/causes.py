"""All that is wrong now: each client's pipelines, what goes on, workers, the scheduler."""

from datetime import datetime

from redis import Redis

from etl.config.pipeline import Config
from jobs.alerts import active, ended
from jobs.alerts.cause import Conditions


def current(config: Config, connection: Redis, now: datetime) -> Conditions:
    """Return all that is wrong now, and what is known to be right.

    Args:
        now: In UTC.
    """
    found = Conditions()
    ended.judge(config, connection, now, found)
    active.judge(config, connection, now, found)
    return found

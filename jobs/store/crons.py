"""The cron processes that are alive."""

import time
from typing import cast

from redis import Redis

from jobs.store import malformed
from jobs.store.keys import CRON_SIGN, cron_key


def sign(connection: Redis, host: str, pid: int) -> None:
    """Say that a cron process is alive; it counts as dead when it hasn't said so for five seconds."""
    connection.set(cron_key(host, pid), repr(time.time()), px=int(CRON_SIGN * 1000))


def leave(connection: Redis, host: str, pid: int) -> None:
    """Say that a cron process has ended."""
    connection.delete(cron_key(host, pid))


def alive(connection: Redis) -> list[str]:
    """Return the cron processes that are alive, as `host-pid`."""
    found = cast(list[bytes], list(connection.scan_iter(f"{cron_key('*', 0)[:-2]}", count=1000)))
    return sorted(key.removeprefix("etl:cron:") for key in malformed.ids(found))

"""Connecting to a Redis by its URL: one that does not answer, or is too old, is an error that says what to do."""

import contextlib
import re
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, RedisError
from redis.retry import Retry

from etl.errors import BrokerUnreachable, ConfigError
from jobs.store.redis_errors import CannotWriteError

OLDEST = (6, 2)
SCHEMES = ("redis", "rediss", "unix")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d+)?(/\d*)?")


def dial(url: str) -> Redis:
    """Return a connection to a Redis that has answered and is new enough.

    Raises:
        BrokerUnreachable: It can't be reached or is too old.
        ConfigError: It is not a Redis URL.
    """
    try:
        connection = Redis.from_url(url, socket_connect_timeout=5)
        once = Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    except ValueError as error:
        raise ConfigError(
            "what --redis or REDIS_URL says is not a Redis URL", "write redis://host:6379/0 or unix:///path/of/socket"
        ) from error
    try:
        with once:
            version = version_of(once.info("server"))
            with contextlib.suppress(CannotWriteError):  # what it knows can be read all the same
                once.ping()  # refused, other than info, until a server that has just started has read its data
    except (AuthenticationError, NoPermissionError) as error:
        raise BrokerUnreachable(
            f"Redis at {shown(url)} refuses the user or password", "correct the part before the @ in REDIS_URL"
        ) from error
    except (RedisError, OSError) as error:
        if "unknown command" in str(error):  # HELLO, which a server before 6.0 does not know
            raise BrokerUnreachable(f"Redis at {shown(url)} is too old", "6.2 or newer is needed") from error
        raise BrokerUnreachable(
            f"Redis at {shown(url)} can't be reached: {_reason(error)}",
            "start it, correct REDIS_URL or --redis, or leave both out for a private Redis",
        ) from error
    if version < OLDEST:
        raise BrokerUnreachable(
            f"Redis at {shown(url)} is version {'.'.join(map(str, version))}, too old", "6.2 or newer is needed"
        )
    return connection


def shown(url: str) -> str:
    """Return a Redis URL without user, password and options, fit to be printed; of one that is unclear, its scheme."""
    scheme, _, rest = url.partition("://")
    head = re.split(r"[?#]", rest, maxsplit=1)[0]
    host = head.rpartition("@")[2]
    is_clear = (
        host.startswith("/") if scheme == "unix" else bool(_HOST.fullmatch(host)) and "@" not in rest[len(head) :]
    )
    return f"{scheme if scheme in SCHEMES else 'redis'}://{host if is_clear else '…'}"


def version_of(info: dict[str, Any]) -> tuple[int, ...]:
    """Return a Redis's version from what INFO says, such as (7, 0, 15)."""
    return tuple(int(part) for part in str(info["redis_version"]).split(".")[:3] if part.isdigit())


def _reason(error: Exception) -> str:
    if isinstance(error, BusyLoadingError):
        return "it is still reading its data"
    for cause in (error.__cause__, error.__context__, error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if "NOAUTH" in str(error):
        return "it wants a password"
    return type(error).__name__

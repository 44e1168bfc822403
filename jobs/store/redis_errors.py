"""Errors of a Redis: that it is away or full, which waiting may cure, and what each of them is for callers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis._parsers.base import BaseParser
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from etl.errors import BrokerUnreachable


class CannotWriteError(ResponseError):
    """Redis takes no data, since it can't write to its own disk."""


# redis-py has no class for it, and makes what it raises from this table.
BaseParser.EXCEPTION_CLASSES["MISCONF"] = CannotWriteError

FULL = (OutOfMemoryError, CannotWriteError)
AWAY = (ConnectionError, TimeoutError, ReadOnlyError, *FULL)  # what waiting may cure


def full(error: Exception) -> BrokerUnreachable:
    """Return the error of a Redis that has no room."""
    if isinstance(error, CannotWriteError):
        return BrokerUnreachable(
            "Redis takes no data: it can't write to its disk",
            "make room there (redis-cli config get dir); what waits goes on by itself",
        )
    return BrokerUnreachable("Redis is out of memory", "raise its maxmemory, or shorten settings.history")


@contextmanager
def translated() -> Iterator[None]:
    """Have callers outside get errors of `etl.errors` only.

    Raises:
        BrokerUnreachable: Whatever Redis, or the way to it, says.
    """
    try:
        yield
    except RedisError as error:
        raise translate(error) from error


def translate(error: RedisError) -> BrokerUnreachable:
    """Return the error of `etl.errors` that one of redis' own means."""
    if isinstance(error, FULL):
        return full(error)
    if isinstance(error, NoPermissionError):
        named = re.search(r"run the '([a-z|-]+)' command|access (?:one of )?the (keys|channels)", str(error))
        what = (named[1] or f"some {named[2]}") if named else "what is needed"
        cure = "docs/security.md has the ACL rules of each kind of user"
        return BrokerUnreachable(f"Redis does not permit its user {what}", cure)
    if isinstance(error, AuthenticationError):
        return BrokerUnreachable("Redis refuses the user or password", "correct the part before the @ in REDIS_URL")
    if isinstance(error, ReadOnlyError):
        return BrokerUnreachable("Redis is a read-only replica", "name its primary in REDIS_URL")
    if isinstance(error, AWAY):
        return BrokerUnreachable("Redis went away", "start it, or see rq-etl doctor")
    kind = str(error).split(" ", 1)[0]  # an error's code in capitals; what follows may quote a key
    code = kind if re.fullmatch(r"[A-Z]{3,20}", kind) else type(error).__name__
    return BrokerUnreachable(f"Redis can't do what is asked of it: {code}", "see rq-etl doctor")

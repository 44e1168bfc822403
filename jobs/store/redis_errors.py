"""Errors of a Redis that is away or full: what waiting may cure."""

from redis._parsers.base import BaseParser
from redis.exceptions import (
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
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

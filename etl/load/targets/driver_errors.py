"""Drivers' exceptions as the nouns of `etl.errors`. Drivers quote values of rows, so their text is seldom kept."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from etl.errors import TargetRefused
from etl.load.targets import Target

# Why a target refuses, and the cure: what more than one kind of database says.
READ_ONLY = "is read-only", "give the pipeline a target that can be written"
FULL = "has a full disk", "make room, then retry the run"
NO_MEMORY = "is out of memory", "give the server more memory, then retry the run"
NO_SCHEMA = "has no such schema", "create the schema first: rq-etl makes tables only"
NO_VALUE = "needs a value where a row has none", "make the column required, or drop its NOT NULL"
NO_PARENT = "refuses a row that refers to one that is missing", "load the table it refers to first"
DOUBLED = "has a row with the same unique values", 'use mode = "merge" with that key, or drop the constraint'
CHECKED = "refuses a row by a check of its own", "check the column in [columns], or drop the constraint"
MISMATCH = "a value that does not fit the column's type"
MISMATCH_CURE = "give the column another type in [columns], or alter the table"
NOT_OPENED_CURE = "check the path of the url under [targets], and its rights"
BUSY_CURE = "it is tried again by itself"


@contextmanager
def translated(kind: Target, where: str, *, connecting: bool = False) -> Iterator[None]:
    """Turn what a driver raises inside the block into an EtlError.

    Args:
        where: The target as users know it, without a password.
    """
    known: tuple[type[Exception], ...] = (sa.exc.SQLAlchemyError, *kind.ERRORS)
    try:
        yield
    except known as error:
        original = getattr(error, "orig", None) or error
        if isinstance(original, kind.ERRORS):
            raise kind.translate(original, where, connecting=connecting) from error
        raise TargetRefused(f"{where}: {type(error).__name__}", "see the run's log for the full text") from error

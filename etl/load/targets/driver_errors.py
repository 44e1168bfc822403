"""Drivers' exceptions as the nouns of `etl.errors`.

Of what a database answers only what can hold no value of a row is repeated: the condition, and the names of a table,
column, constraint and type.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from etl.errors import TRIED_AGAIN, TargetRefused
from etl.load.targets import Target

# Why a target refuses, and the cure: what more than one kind of database says.
READ_ONLY = "is read-only", "give the pipeline a target that can be written"
FULL = "has a full disk", "make room, then retry the run"
NO_MEMORY = "is out of memory", "give the server more memory, then retry the run"
NO_SCHEMA = "has no such schema", "create the schema first: rq-etl makes tables only"
NO_VALUE = (
    "needs a value where a row has none",
    "load that column and say required = true, give it a DEFAULT, or drop its NOT NULL",
)
NO_PARENT = "refuses a row that refers to one that is missing", "load the table it refers to first"
CHILDREN = "rows which replace takes away", 'use mode = "merge", which leaves them, or drop the foreign key'
DOUBLED = "has a row with the same unique values", 'use mode = "merge" with that key, or drop the constraint'
CHECKED = "refuses a row by a check of its own", "check the column in [columns], or drop the constraint"
TRIGGER = "refuses a row by a trigger of its own", "see what the trigger asks of rows, or take it off the table"
GENERATED = "has a column whose values the database itself makes", "leave the column out of what is loaded"
MISMATCH = "a value that does not fit the column's type"
MISMATCH_CURE = "give the column another type in [columns], or alter the table"
TOO_LONG = "takes no value as long as that", "shorten it in a function, or split it over columns"
TOO_MANY = "takes no more columns", 'declare those that you need in [columns], and say new_columns = "ignore"'
NO_VIEW = "has a view, a partition or the like where a table of its own is needed", "name the table in load.table"
CHANGED = "has another table or column than a moment ago", "retry the run; if that fails too, look at its triggers"
DISK = "has a disk that can't be read or written", "look at the disk, then retry the run"
BROKEN = "failed within itself", "look at the database's own log, and check it"
NOT_SUPPORTED = (
    "does not support what is asked of it",
    "look at the table for what is unusual: its types, keys, triggers",
)
NOT_OPENED_CURE = "check the path of the url under [targets], and its rights"
BUSY_CURE = TRIED_AGAIN


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
        what = f"{where} could not be asked: SQLAlchemy raised {type(error).__name__}"
        raise TargetRefused(what, "look at the table for what is unusual: its types, keys, names") from error

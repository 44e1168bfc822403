"""DuckDB's exceptions as sentences."""

import re

import duckdb

from etl.errors import EtlError, TableMismatch, TargetBusy, TargetRefused, TargetUnreachable
from etl.load.targets import driver_errors as why


class Busy(duckdb.OperationalError):
    """The file was not to be had in time."""


_DAMAGED = "is no sound DuckDB database", "restore it, or name another file"
# The first that fits by class and by a word of the text.
_REFUSED: tuple[tuple[type[duckdb.Error], str, tuple[str, str]], ...] = (
    (duckdb.IOException, "not a valid DuckDB", _DAMAGED),
    (duckdb.IOException, "Permission denied", why.READ_ONLY),
    (duckdb.IOException, "read-only", why.READ_ONLY),
    (duckdb.IOException, "Read-only", why.READ_ONLY),
    (duckdb.InvalidInputException, "read-only", why.READ_ONLY),
    (duckdb.IOException, "No space left", why.FULL),
    (duckdb.OutOfMemoryException, "", why.NO_MEMORY),
    (duckdb.CatalogException, "Schema with name", why.NO_SCHEMA),
    (duckdb.CatalogException, "does not exist", why.CHANGED),
    (duckdb.CatalogException, "", why.NOT_SUPPORTED),
    (duckdb.ConstraintException, "NOT NULL", why.NO_VALUE),
    (duckdb.ConstraintException, "CHECK", why.CHECKED),
    (duckdb.ConstraintException, "still referenced", (f"has rows that refer to {why.CHILDREN[0]}", why.CHILDREN[1])),
    (duckdb.ConstraintException, "foreign key", why.NO_PARENT),
    (duckdb.ConstraintException, "", why.DOUBLED),
    (duckdb.BinderException, "generated column", why.GENERATED),
    (duckdb.BinderException, "", why.CHANGED),
    (duckdb.TransactionException, "Permission denied", why.READ_ONLY),  # the log beside the file can't be written
    (duckdb.TransactionException, "Read-only", why.READ_ONLY),
    (duckdb.TransactionException, "No space left", why.FULL),
    (duckdb.TransactionException, "", ("does not go on with a transaction that has failed", "retry the run")),
    (duckdb.DependencyException, "", ("keeps what something else depends on", "drop the index or view first")),
    (duckdb.InterruptException, "", ("was interrupted while it worked", "retry the run")),
    (duckdb.FatalException, "", why.BROKEN),
    (duckdb.InternalException, "", why.BROKEN),
    (duckdb.SerializationException, "", _DAMAGED),
    (duckdb.PermissionException, "", ("does not permit it", "see which settings the file is opened with")),
    (duckdb.HTTPException, "", ("reaches for something that is not on this machine", "look at the table's views")),
    (duckdb.NotImplementedException, "", why.NOT_SUPPORTED),
    (duckdb.NotSupportedError, "", why.NOT_SUPPORTED),
    (duckdb.SequenceException, "", ("has a sequence that has come to its end", "alter the sequence")),
    (duckdb.Error, "", why.NOT_SUPPORTED),
)
_MISMATCH = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.TypeMismatchException)


def translate(error: BaseException, where: str, *, connecting: bool = False) -> EtlError:
    """Return the error of `etl.errors` that DuckDB's own means, by its class and by words that hold no values."""
    text = str(error)
    if isinstance(error, Busy) or (isinstance(error, duckdb.IOException) and "Could not set lock" in text):
        return TargetBusy(f"{where}: the file is open in another program", why.BUSY_CURE)
    if isinstance(error, duckdb.TransactionException) and "Conflict" in text:
        return TargetBusy(f"{where}: another transaction changed the same rows", why.BUSY_CURE)
    if isinstance(error, _MISMATCH):
        return TableMismatch(f"{where}: {why.MISMATCH}", why.MISMATCH_CURE)
    if isinstance(error, duckdb.ConstraintException) and (found := re.match(r".*NOT NULL constraint failed: ", text)):
        # What follows is the table's and the column's name, and nothing else.
        place = text[found.end() :].splitlines()[0]
        return TargetRefused(f"{where}, {place}, {why.NO_VALUE[0]}", why.NO_VALUE[1])
    found = re.match(r".*CHECK constraint failed on table (.+?) with expression", text)
    if isinstance(error, duckdb.ConstraintException) and found:
        return TargetRefused(f"{where}, table {found[1]}, {why.CHECKED[0]}", why.CHECKED[1])
    plain = isinstance(error, duckdb.IOException)
    for kind, word, (what, cure) in _REFUSED[:-1] if plain else _REFUSED:
        if isinstance(error, kind) and word in text:
            shown = f" ({type(error).__name__})" if what == why.NOT_SUPPORTED[0] else ""
            return TargetRefused(f"{where} {what}{shown}", cure)
    return TargetUnreachable(f"{where} can't be opened", why.NOT_OPENED_CURE)


def doubled(error: BaseException) -> list[str]:
    """Return the first column of the unique key that a row breaks: behind it is its value."""
    return re.findall(r'^[\w ]+: Duplicate key "(\w+): ', str(error))

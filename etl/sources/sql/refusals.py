"""What a database that is read answers, as errors that quote nothing of its rows."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from etl.errors import TRIED_AGAIN, BadSource, EtlError, SourceUnreachable

_CURE = "fix table or query in the pipeline's extract"
# What a message names: it may be of a row, where a function of the query is given a name or a path by one.
_NAMED = re.compile(r""""((?:[^"]|"")*)"|'((?:[^']|'')*)'|(?<!operator does not exist): (.+)$""", re.DOTALL)

_CODES = {  # of SQLite, by their beginnings
    "SQLITE_NOTADB": ("is no SQLite database", "check the url of the extract"),
    "SQLITE_CORRUPT": ("is damaged", "restore the database"),
    "SQLITE_READONLY": ("would be written by the query", "write a SELECT"),
    "SQLITE_TOOBIG": ("makes a value larger than SQLite takes", _CURE),
    "SQLITE_MISMATCH": ("has a value of a type that the query can't use there", _CURE),
    "SQLITE_ERROR_MISSING_COLLSEQ": ("lacks a collation that the query names", _CURE),
    "SQLITE_CANTOPEN": ("can't be opened", "check the url of the extract, and who may read the file"),
    "SQLITE_NOMEM": ("needs more memory than there is", _CURE),
}
_UNREAD = ("can't be read", "check the database's file and disk")


@contextmanager
def translated(where: str, words: str) -> Iterator[None]:
    """Turn what a driver raises into an EtlError that quotes no value.

    Args:
        words: What the pipeline says of the table or query: names that are in it may be repeated.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _refused(error, error.sqlstate or "", where, words) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise SourceUnreachable(f"{where}: the database is locked by a writer", TRIED_AGAIN) from error
        if name == "SQLITE_ERROR" or isinstance(error, sqlite3.ProgrammingError):
            said = str(error) if _says_nothing_else(str(error), words) else "SQLite refuses the query as it reads rows"
            raise BadSource(f"{where}: {said}", f"{_CURE}; see rq-etl logs") from error
        what, cure = next((_CODES[code] for code in _CODES if name.startswith(code)), _UNREAD)
        raise BadSource(f"{where} {what} ({name or type(error).__name__})", cure) from error


def _refused(error: psycopg.Error, state: str, where: str, words: str) -> EtlError:
    if not state and isinstance(error, psycopg.DataError):
        return BadSource(f"{where}: a value that Python has not", "leave it out, or turn it into text, in a query")
    if not state or state[:2] in ("08", "53", "57", "40", "55"):
        return SourceUnreachable(f"{where}: {type(error).__name__}", TRIED_AGAIN)
    first = (error.diag.message_primary or "").partition("\n")[0]
    # With a context it comes from within a function.
    if state[:2] == "42" and not error.diag.context and _says_nothing_else(first, words):
        return BadSource(f"{where}: {first}", f"{_CURE}, or grant SELECT")
    name = type(error).__name__
    return BadSource(f"{where} refused the statement: {name} ({state})", "try it with psql; see rq-etl logs")


def _says_nothing_else(message: str, words: str) -> bool:
    """Whether what a message names stands in the pipeline's own words."""
    parts = (part for found in _NAMED.finditer(message.removesuffix(": syntax error")) for part in found.groups())
    return all(part.casefold() in words.casefold() for part in parts if part)

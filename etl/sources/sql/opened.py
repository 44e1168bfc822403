"""An open PostgreSQL or SQLite database that rows come from, and what its driver's errors become."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import psycopg
import sqlalchemy as sa

from etl.config.kinds import DATABASES, SOURCES
from etl.config.pipeline import Pipeline
from etl.config.urls import database_url
from etl.errors import BadSource, ConfigError, EtlError, SourceUnreachable

if TYPE_CHECKING:
    from etl.sources.sql.config import Config

WAIT = 60  # seconds for an SQLite writer to end


class Database(NamedTuple):
    """An open database: its driver's connection, and what it is called in errors."""

    driver: Any
    postgres: bool
    where: str


@contextmanager
def opened(pipeline: Pipeline, config: "Config", where: str) -> Iterator[Database]:
    """Open the source's database, for reading only.

    Args:
        where: What it is called in errors.

    Raises:
        ConfigError: `${NAME}` is not in the environment, or the database is of a kind that is no source.
        SourceUnreachable: It can't be reached; trying again may help.
    """
    key = f"pipelines.{pipeline.name}.extract.url"
    url = database_url(config.url, key, pipeline.client, pipeline.root)
    kind = url.partition(":")[0].partition("+")[0]
    if kind not in SOURCES:
        raise ConfigError(f"{key}: {DATABASES[kind].title} can't be a source", f"use one of {', '.join(SOURCES)}")
    is_postgres = kind == "postgresql"
    try:
        driver = _postgres(url) if is_postgres else _sqlite(sa.make_url(url).database or "")
    except (psycopg.Error, sqlite3.Error, OSError) as error:
        raise _unreachable(error, where) from error
    try:
        yield Database(driver, is_postgres, where)
    finally:
        driver.close()


def _postgres(url: str) -> "psycopg.Connection[Any]":
    given: dict[str, Any] = {"application_name": "rq-etl", "client_encoding": "utf8"}
    given |= {} if "connect_timeout" in url else {"connect_timeout": 10}
    connection = psycopg.connect(url, **given)
    connection.read_only = True
    connection.execute("SET TIME ZONE 'UTC'")
    return connection


def _sqlite(path: str) -> sqlite3.Connection:
    if not Path(path).exists():
        raise FileNotFoundError(2, "there is no such file")
    return sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=WAIT, check_same_thread=False)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what a driver raises into an EtlError that quotes no value."""
    try:
        yield
    except psycopg.Error as error:
        raise _refused(error, error.sqlstate or "", where) from error
    except (sqlite3.Error, UnicodeDecodeError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise SourceUnreachable(
                f"{where}: the database is locked by a writer", "it is tried again by itself"
            ) from error
        if name == "SQLITE_ERROR" or isinstance(error, sqlite3.ProgrammingError):
            raise BadSource(f"{where}: {error}", "fix table or query in the pipeline's extract") from error
        raise BadSource(f"{where} can't be read: {name or type(error).__name__}", "check the database") from error


def _refused(error: psycopg.Error, state: str, where: str) -> EtlError:
    if not state and isinstance(error, psycopg.DataError):
        return BadSource(f"{where}: a value that Python has not", "leave it out, or turn it into text, in a query")
    if not state or state[:2] in ("08", "53", "57", "40", "55"):
        return SourceUnreachable(f"{where}: {type(error).__name__}", "it is tried again by itself")
    if state[:2] == "42":  # what these say is the statement's own: names of tables, columns, operators
        lines = str(error.diag.message_primary).splitlines()
        return BadSource(f"{where}: {lines[0]}", "fix table or query in the pipeline's extract, or grant SELECT")
    name = type(error).__name__
    return BadSource(f"{where} refused the statement: {name} ({state})", "try it with psql; see rq-etl logs")


def _unreachable(error: Exception, where: str) -> SourceUnreachable:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OSError):
        lines = [error.strerror or type(error).__name__]
    why = lines[0] if lines else type(error).__name__
    return SourceUnreachable(f"{where} can't be reached: {why}", "check the url of its extract, and that it runs")

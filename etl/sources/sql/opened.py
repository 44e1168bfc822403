"""An open PostgreSQL or SQLite database that rows come from."""

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
from etl.errors import ConfigError, EtlError, SourceUnreachable

if TYPE_CHECKING:
    from etl.sources.sql.config import Config

WAIT = 60  # seconds for an SQLite writer to end


class Database(NamedTuple):
    """An open database: its driver's connection, what it is called in errors, and what the pipeline says of it."""

    driver: Any
    postgres: bool
    where: str
    words: str


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
        said = (config.query, config.table, config.partition, config.cursor)
        yield Database(driver, is_postgres, where, " ".join(each for each in said if each))
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


def _unreachable(error: Exception, where: str) -> EtlError:
    if isinstance(error, psycopg.ProgrammingError):  # of the url, which it quotes with its password
        cure = "percent-encode its user and password: a blank is %20, @ is %40, # is %23, [ is %5B"
        return ConfigError(f"{where}: its url is none that PostgreSQL reads", cure)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OSError):
        lines = [error.strerror or type(error).__name__]
    why = lines[0] if lines else type(error).__name__
    return SourceUnreachable(f"{where} can't be reached: {why}", "check the url of its extract, and that it runs")

"""Reaching the target: its URL with the environment's values in it, one connection, one transaction."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from etl.config.urls import parse_url
from etl.errors import TargetRefused
from etl.load.targets import postgres
from etl.load.targets import sqlite as sqlite_target
from etl.load.targets.driver_errors import translated, unreachable

PATIENCE = 5  # seconds to wait for a target that is only asked what it remembers


@contextmanager
def transaction(url: str, name: str = "") -> Iterator[sa.Connection]:
    """Open a connection and one transaction, committed at the end of the block unless it raises.

    Args:
        url: Of an SQLite or a PostgreSQL database.
        name: The target's, for errors.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused, TableMismatch: By what the driver said.
    """
    parsed = parse_url(url, name)
    where = f"target {name}" if name else "the target"
    try:
        engine = (sqlite_target if parsed.get_backend_name() == "sqlite" else postgres).engine(parsed)
        connection = engine.connect()
    except OSError as error:
        raise TargetRefused(f"{where}: its folder can't be made: {error.strerror}", "check the url's path") from error
    except (sa.exc.SQLAlchemyError, psycopg.Error, sqlite3.Error) as error:
        raise unreachable(error, where) from error
    with translated(where), connection, connection.begin():
        yield connection


@contextmanager
def reading(url: str, name: str) -> Iterator[sa.Connection | None]:
    """Open a connection that writes nothing and waits for no writer; None where there is no SQLite file yet."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not Path(parsed.database or "").exists():
            yield None
            return
        arguments: dict[str, Any] = {"timeout": PATIENCE}
    else:
        parsed = parsed.set(drivername="postgresql+psycopg")
        arguments = {"application_name": "rq-etl", "connect_timeout": str(PATIENCE)}
    engine = sa.create_engine(parsed, poolclass=sa.NullPool, hide_parameters=True, connect_args=arguments)
    try:
        connection = engine.connect()
    except sa.exc.SQLAlchemyError as error:
        raise unreachable(error, f"target {name}") from error
    with translated(f"target {name}"), connection:
        yield connection


def check_target(url: str, name: str = "") -> str:
    """Return what a target is, in a few words, after having written to it and taken that back.

    Raises:
        EtlError: It can't be reached, or can't be written to.
    """
    parsed = parse_url(url, name)
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if not path.exists():
            folder = next(folder for folder in path.parents if folder.exists())
            if not os.access(folder, os.W_OK):
                raise TargetRefused(
                    f"target {name or path.name}: folder {folder} can't be written", "give another path"
                )
            return f"SQLite, {path.name} will be made by the first load"
    with transaction(url, name) as connection:
        version = ".".join(str(number) for number in connection.dialect.server_version_info or ())
        connection.exec_driver_sql("CREATE TABLE _etl_check (one int)")
        connection.exec_driver_sql("DROP TABLE _etl_check")
        kind = "SQLite" if connection.dialect.name == "sqlite" else "PostgreSQL"
        return f"{kind} {version}, {parsed.database}"

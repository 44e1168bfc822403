"""Reaching the target: one connection, one transaction."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from etl.config.kinds import DATABASES
from etl.config.urls import parse_url
from etl.errors import TargetRefused
from etl.load.targets import kind_named
from etl.load.targets.driver_errors import translated

PATIENCE = 5  # seconds to wait for a target that is only asked what it remembers


@contextmanager
def transaction(url: str, name: str = "") -> Iterator[sa.Connection]:
    """Open a connection and one transaction, committed at the end of the block unless it raises.

    Args:
        url: Of the target, as `resolve_url` gives it.
        name: The target's, for errors.

    Raises:
        ConfigError: The driver is not installed.
        TargetUnreachable, TargetBusy, TargetRefused, TableMismatch: By what the driver said.
    """
    parsed = parse_url(url, name)
    kind = kind_named(parsed.get_backend_name())
    where = f"target {name}" if name else "the target"
    try:
        if DATABASES[parsed.get_backend_name()].file:
            Path(parsed.database or "").parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetRefused(f"{where}: its folder can't be made: {error.strerror}", "check the url's path") from error
    with translated(kind, where, connecting=True):
        connection = kind.engine(parsed).connect()
    with translated(kind, where), connection, connection.begin():
        yield connection


@contextmanager
def reading(url: str, name: str, patience: float = PATIENCE) -> Iterator[sa.Connection | None]:
    """Open a connection that writes nothing; None where the target is a file that is not there yet.

    Args:
        patience: Seconds to wait for it.
    """
    parsed = parse_url(url, name)
    if DATABASES[parsed.get_backend_name()].file and not Path(parsed.database or "").exists():
        yield None
        return
    kind, where = kind_named(parsed.get_backend_name()), f"target {name}"
    with translated(kind, where, connecting=True):
        connection = kind.reader(parsed, patience).connect()
    with translated(kind, where), connection:
        yield connection


def check_target(url: str, name: str = "") -> str:
    """Return what a target is, in a few words, after having written to it and taken that back.

    Raises:
        EtlError: It can't be reached, or can't be written to.
    """
    parsed = parse_url(url, name)
    database, path = DATABASES[parsed.get_backend_name()], Path(parsed.database or "")
    kind_named(parsed.get_backend_name())  # says now that the driver is missing
    if database.file and not path.exists():
        folder = next(folder for folder in path.parents if folder.exists())
        if not os.access(folder, os.W_OK):
            raise TargetRefused(f"target {name or path.name}: folder {folder} can't be written", "give another path")
        return f"{database.title}, {path.name} will be made by the first load"
    with transaction(url, name) as connection:
        version = ".".join(str(number) for number in connection.dialect.server_version_info or ())
        connection.exec_driver_sql("CREATE TABLE _etl_check (one int)")
        connection.exec_driver_sql("DROP TABLE _etl_check")
        return f"{database.title} {version}, {parsed.database}"

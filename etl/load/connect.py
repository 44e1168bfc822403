"""Reaching the target: its URL with the environment's values in it, one connection, one transaction."""

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import sqlalchemy as sa

from etl.errors import ConfigError, TargetRefused
from etl.load import postgres
from etl.load import sqlite as sqlite_target
from etl.load.driver_errors import translated, unreachable
from etl.pipeline import Pipeline, Target
from etl.values import fill

PATIENCE = 5  # seconds to wait for a target that is only asked what it remembers
_NAME = re.compile(r"\$\{(\w+)\}")


def resolve_url(target: Target, client: str, root: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """Return a target's URL; see `database_url`."""
    return database_url(target.url, f"targets.{target.name}.url", client, root, environ)


def database_url(url: str, key: str, client: str, root: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """Return a URL with `${NAME}` and `{client}` filled, and an SQLite file's path made absolute.

    A value that stands for user or password is quoted, so that it may hold any character.

    Args:
        key: Where in etl.toml the URL stands, for errors.
        root: Folder of etl.toml, which relative paths are relative to.
        environ: Where values are taken from, by default this process's environment.

    Raises:
        ConfigError: A name is not in the environment, or the URL is none.
    """
    values = os.environ if environ is None else environ
    missing = sorted({name for name in _NAME.findall(url) if name not in values})
    if missing:
        raise ConfigError(
            f"{key}: {', '.join(missing)} is not in the environment",
            "set it where the workers are started",
        )
    template = fill(url, {"client": client})
    authority = re.match(r"[^/]*://[^/?]*@", template)
    login = authority.end() if authority else 0
    url = _NAME.sub(lambda found: quote(values[found[1]], safe=""), template[:login])
    url += _NAME.sub(lambda found: values[found[1]], template[login:])
    parsed = _parsed(url, key=key)
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.set(database=str(Path(root, Path(parsed.database or "").expanduser())))
    return parsed.render_as_string(hide_password=False)


def url_of(pipeline: Pipeline) -> str:
    """Return the URL of a pipeline's target.

    Raises:
        ConfigError: See `resolve_url`.
    """
    return resolve_url(pipeline.target, pipeline.client, pipeline.root)


def _parsed(url: str, name: str = "", *, key: str = "") -> sa.URL:
    where = key or (f"targets.{name}.url" if name else "the target's url")
    cure = "use postgresql://user:password@host/database or sqlite:///file.db"
    try:
        parsed = sa.make_url(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url))
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(f"{where} is no URL", cure) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(f"{where}: no database of kind {parsed.get_backend_name()}", cure)
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError(f"{where}: an SQLite database is a file", cure)
    return parsed


@contextmanager
def transaction(url: str, name: str = "") -> Iterator[sa.Connection]:
    """Open a connection and one transaction, committed at the end of the block unless it raises.

    Args:
        url: Of an SQLite or a PostgreSQL database.
        name: The target's, for errors.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused, TableMismatch: By what the driver said.
    """
    parsed = _parsed(url, name)
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
    parsed = _parsed(url, name)
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

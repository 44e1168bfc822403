"""The kinds of databases that rows go to: one module each, registered in `etl.config.databases`."""

from functools import lru_cache
from importlib import import_module
from typing import cast

import sqlalchemy as sa

from etl.config.databases import DATABASES
from etl.errors import ConfigError
from etl.load.targets.kind import Guard, Target, TargetFacts

__all__ = ["Guard", "Target", "TargetFacts", "kind", "kind_named"]


@lru_cache
def kind_named(scheme: str) -> Target:
    """Return the module of a kind of target by the scheme of its URLs.

    Raises:
        ConfigError: Its driver is not installed.
    """
    database = DATABASES[scheme]
    try:
        return cast(Target, import_module(database.module))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{database.title} can't be opened: the driver {error.name} is not installed",
            f"pip install 'rq-etl[{database.extra}]' where workers run",
        ) from error


def kind(connection: sa.Connection) -> Target:
    """Return the module of the connection's kind of target."""
    return kind_named(connection.dialect.name)

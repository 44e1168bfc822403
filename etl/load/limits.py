"""What the columns of the pipeline's table keep, so that rows which would change in it are rejected before."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from etl.config.pipeline import Pipeline
from etl.config.urls import parse_url, url_of
from etl.load import columns, tables
from etl.load.targets import Target, kind_named
from etl.load.targets.connect import reading
from etl.types.limits import Limit, Limits
from etl.types.sql import CastText, word_of_column

PATIENCE = 60  # seconds that the target may be busy
_BITS = ((sa.SmallInteger, 16), (sa.BigInteger, 64), (sa.Integer, 32))  # in this order: they are all Integer


def limits(pipeline: Pipeline, url: str | None = None) -> Limits:
    """Return what the table's columns keep, but for those that may be widened, and those that it is yet to get.

    Args:
        url: Of the target; by default the pipeline's.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked.
    """
    if pipeline.load.function is not None:
        return Limits()
    url = url or url_of(pipeline)
    database = kind_named(parse_url(url).get_backend_name())
    made = {word: _limit(type, word, str(type), database) for word, type in database.TYPES.items()}
    new = {word: limit for word, limit in made.items() if limit is not None}
    with reading(url, pipeline.target.name, PATIENCE) as connection:
        there = None if connection is None else tables.existing(connection, pipeline.table)
        if connection is None or there is None:
            return Limits({}, new)
        # Those get a wider type where they don't keep what comes.
        free = columns.ours(connection, pipeline.table) if pipeline.type_changes == "widen" else set()
        free = {name for name in free if name.casefold() not in {each.casefold() for each in pipeline.columns}}
        kept = {
            name: _limit(type, word_of_column(type), type.compile(connection.dialect), database)
            for name, type in there.items()
            if not isinstance(type, sa.types.NullType) and name not in free
        }
    return Limits(kept, {} if pipeline.new_columns == "ignore" else new)


def _limit(type: TypeEngine[Any], word: str, name: str, database: Target) -> Limit | None:
    """Return what a column of a type keeps, None where that is any value of its word.

    Args:
        name: What the database calls the type.
    """
    name, typed = name.lower(), database.FACTS.typed
    if isinstance(type, sa.Numeric) and not isinstance(type, sa.Float):
        scale, precision = type.scale, type.precision if typed else None
        if scale is None and precision is None and typed:
            return None
        return Limit(name, "decimal", None if precision is None else precision - (scale or 0), scale, not typed)
    if word == "number":
        return Limit(name, "number", 32 if typed and isinstance(type, sa.REAL) else 64)
    if not typed:
        return None
    if isinstance(type, CastText):
        return Limit(name, "string", reads=type.base, labels=type.labels)
    if word == "integer":
        bits = getattr(type, "bits", None) or next(bits for kind, bits in _BITS if isinstance(type, kind))
        return Limit(getattr(type, "shown", name).lower(), "integer", bits, other=getattr(type, "unsigned", False))
    if isinstance(type, sa.String) and type.length is not None:
        return Limit(name, "string", type.length, other=isinstance(type, sa.CHAR))
    places = getattr(type, "precision", None)
    return Limit(name, "timestamp", places=places) if word == "timestamp" and places is not None else None

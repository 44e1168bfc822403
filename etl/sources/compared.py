"""A cursor's column that is text in the source: how a database compares it as what the pipeline declares it to be."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from etl.config.columns import named
from etl.config.pipeline import Pipeline
from etl.config.spellings import NUMERIC, spelled
from etl.errors import BadSource
from etl.types.cursor import Cursor

if TYPE_CHECKING:
    from etl.sources.sql_config import Config

DATED = ("date", "timestamp")


def held(pipeline: Pipeline, config: "Config", where: str, is_text: Callable[[], bool], *, postgres: bool) -> str:
    """Return what the pipeline declares of a cursor's column that holds text; "" where it holds no text.

    Args:
        where: The source, for errors.
        is_text: Asks the database.

    Raises:
        BadSource: The database would compare it as text, and can't do otherwise.
    """
    if config.cursor is None:
        return ""
    column = pipeline.columns.get(named([config.cursor], pipeline)[config.cursor])
    if column is None or column.type not in (*DATED, *NUMERIC) or not is_text():
        return ""
    column = spelled(column, column.type, config)
    if column.type in DATED:
        usual = all(form.startswith("%Y-%m-%d") for form in column.format)
    else:
        usual = not column.numeric() and column.decimal == "."
    # A query compares by itself. SQLite has dates as text only, and ISO text is in order.
    if usual and (config.table or (column.type in DATED and not postgres)):
        return column.type
    how = "which is not in the order of text" if config.table else "which the query compares as text"
    name, drop = config.cursor, ""
    cast = f"cast({name} as {'numeric' if column.type in NUMERIC else column.type}) as {name}"
    if column.type in DATED and postgres and not usual:
        cast = f"{'to_date' if column.type == 'date' else 'to_timestamp'}({name}, 'its format') as {name}"
    elif column.type in DATED and not postgres:
        cast, drop = f"{name} as an ISO date, such as 2026-01-31,", ", and drop the column's format"
    raise BadSource(
        f"{where}: cursor column {config.cursor} is text in the source and a {column.type} in the pipeline, {how}: "
        "newer rows would never come",
        f'select {cast} in a query that says "where … >= :since" of the same{drop}',
    )


def as_number(column: str, *, postgres: bool) -> str:
    """Return an expression for the number that a text is; null for what surely is none or can't be read so."""
    if postgres:
        text = f"trim({column}::text)"
        return f"CASE WHEN {text} ~ '^[+-]?[0-9]+([.][0-9]*)?$' THEN {text}::numeric END"
    text = f"trim({column})"
    whole = f"ltrim({text}, '0123456789') = '' OR ({text} GLOB '[+-][0-9]*' AND substr({text}, 2) NOT GLOB '*[^0-9]*')"
    return (
        f"CASE WHEN typeof({column}) <> 'text' THEN {column} "
        f"WHEN length({text}) BETWEEN 1 AND 18 AND ({whole}) THEN CAST({text} AS INTEGER) END"
    )


def as_day(column: str, *, postgres: bool) -> str:
    """Return an expression for the day with which an ISO text begins; null for any other."""
    if postgres:
        text = f"trim({column}::text)"
        shape = f"{text} ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}'"
        return f'CASE WHEN {shape} THEN left({text}, 10) COLLATE "C" END'
    digits = "-".join("[0-9]" * count for count in (4, 2, 2))
    return f"CASE WHEN trim({column}) GLOB '{digits}*' THEN substr(trim({column}), 1, 10) END"


def day_before(since: Cursor) -> str:
    """Return a day before that of a cursor, in whatever zones it and a text are; "" is before all days."""
    try:
        return (datetime.fromisoformat(since.value).date() - timedelta(days=2)).isoformat()
    except (ValueError, OverflowError):
        return ""

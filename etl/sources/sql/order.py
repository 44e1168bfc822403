"""What a database is asked of a cursor's column: whether its order is that of newer rows."""

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from etl.config.columns import named
from etl.config.pipeline import Pipeline
from etl.config.spellings import NUMERIC
from etl.errors import BadSource
from etl.partition import Chunk
from etl.sources.sql.statement import nothing, relation
from etl.types.cursor import Cursor, read
from etl.types.newer import incomparable, unordered
from etl.types.ordered import form_of, is_comparable
from etl.types.sql import quoted

if TYPE_CHECKING:
    from etl.sources.sql.config import Config

Ask = Callable[[str, Mapping[str, Any]], tuple[Any, ...]]  # returns the first row of a statement, or an empty one


def check_sqlite(pipeline: Pipeline, config: "Config", where: str, since: Cursor | None, ask: Ask) -> None:
    """Refuse what SQLite compares in another order: each value has a type of its own, and numbers come before texts.

    Args:
        where: The source, for errors.
        since: Where the cursor stands.
        ask: Asks the database, which has a function `regexp`.

    Raises:
        BadSource: Text is not declared and has no order, or is beside numbers.
        ConfigError: The cursor can't be compared with the column.
    """
    name = config.cursor or ""
    declared = pipeline.columns.get(named([name], pipeline)[name])
    column, source = quoted(name), relation(pipeline, config, schemas=False)
    least, greatest = (f"typeof((SELECT {which}({column}) FROM {source}))" for which in ("min", "max"))
    kinds = set(ask(f"SELECT {least}, {greatest}", {})) - {"null"}
    if not kinds:
        return
    if kinds <= {"integer", "real"} or (declared and declared.type in NUMERIC):
        check_number(pipeline, since)
    elif declared is None:
        if kinds != {"text"}:
            raise unordered(pipeline, where)
        some = f"{source} WHERE NOT {nothing(pipeline, config, postgres=False)}"
        _check_text(pipeline, where, since, ask, column, some, "REGEXP")
    elif declared.type == "string" and len(kinds) > 1:
        raise BadSource(
            f"{where}: cursor column {name} holds text beside numbers, which are always before text: "
            "newer rows would never come",
            f'select cast({name} as text) as {name} in a query that says "where … >= :since" of the same',
        )


def check_postgres(pipeline: Pipeline, config: "Config", where: str, since: Cursor | None, ask: Ask) -> None:
    """Refuse a column of text that nobody declared, and that is not in the order of time; see `check_sqlite`."""
    source = relation(pipeline, config, schemas=True)
    column = f'({quoted(config.cursor or "")})::text COLLATE "C"'
    some = f"{source} WHERE NOT {nothing(pipeline, config, postgres=True)}"
    _check_text(pipeline, where, since, ask, column, some, "~")


def check_number(pipeline: Pipeline, since: Cursor | None) -> None:
    """Refuse a cursor that is no number, as its column is."""
    try:
        if since is not None:
            read(Cursor("number", since.value))
    except ValueError:
        raise incomparable(pipeline, "number") from None


def typed_only(
    chunks: Generator[Chunk, None, str], pipeline: Pipeline, config: "Config", where: str
) -> Generator[Chunk, None, str]:
    """Pass chunks on as long as a cursor's values come as what the database compares; see `refuse_text`."""
    while True:
        try:
            chunk = next(chunks)
        except StopIteration as end:
            return str(end.value)
        if config.cursor in chunk.rows.column_names:
            refuse_text(chunk.rows[config.cursor], pipeline, config, where)
        yield chunk


def refuse_text(values: pa.ChunkedArray, pipeline: Pipeline, config: "Config", where: str) -> None:
    """Refuse a cursor's numbers or times that came as text: theirs is another order, by which newer rows would be lost.

    Where they are declared as what they are, their text is cast again.
    """
    name = config.cursor or ""
    declared = pipeline.columns.get(named([name], pipeline)[name])
    if values.type == pa.string() and len(values) > values.null_count and (not declared or declared.type == "string"):
        raise BadSource(
            f"{where}: cursor column {name} has values that are kept as text, as no type here has all of their "
            "digits: newer rows would never come",
            f"name another column, or select a number of it, such as round({name}, 9) as {name}, in a query that says "
            '"where … >= :since" of the same',
        )


def _check_text(
    pipeline: Pipeline, where: str, since: Cursor | None, ask: Ask, column: str, some: str, matches: str
) -> None:
    [greatest] = ask(f"SELECT max({column}) FROM {some}", {})
    if greatest is None:
        return
    form = form_of(greatest)
    bound = {"_etl_form": f"^(?:{form})$"}
    if form is None or ask(f"SELECT 1 FROM {some} AND NOT {column} {matches} :_etl_form LIMIT 1", bound):
        raise unordered(pipeline, where)
    if since is not None and not is_comparable(since.value, form):
        raise incomparable(pipeline, "text of its column's form")

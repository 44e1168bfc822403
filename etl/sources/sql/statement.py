"""What an SQL source is asked, and what is bound to its names. Values are never spliced into a statement."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from etl.config.columns import named, point
from etl.config.models import Column
from etl.config.pipeline import Pipeline
from etl.config.spellings import NUMERIC, spelled
from etl.config.values import STATEMENT, a_type, fill, parameters, suggest
from etl.errors import BadSource, ConfigError
from etl.partition import Piece
from etl.types.cursor import Cursor, Span, back, below, is_strict, placed, read
from etl.types.sql import literal, quoted

if TYPE_CHECKING:
    from etl.sources.sql.config import Config

DATED = ("date", "timestamp")
Window = tuple[datetime | None, datetime | None]


def source_name(pipeline: Pipeline, config: "Config") -> str:
    """Return what users see as the file of the source's rows: "sql:" and the table, or the pipeline for a query."""
    return f"sql:{_table(pipeline, config) if config.table else pipeline.name}"


def relation(pipeline: Pipeline, config: "Config", *, schemas: bool) -> str:
    """Return what follows FROM: the table, or the query in parentheses.

    Args:
        schemas: Whether a dot in the table's name divides it from its schema.
    """
    if config.query:
        return f"(\n{_query(config)}\n) AS _etl_query"
    table = _table(pipeline, config)
    return ".".join(quoted(part) for part in (table.split(".", 1) if schemas else [table]))


def select(
    pipeline: Pipeline, config: "Config", piece: Piece, span: Span, window: Window, *, postgres: bool, text_as: str = ""
) -> str:
    """Return the statement that reads one partition.

    Args:
        window: The run's; it takes the cursor's place.
        text_as: Where the cursor's column holds text, what the pipeline declares. More rows than the newer
            ones may then be read: the others are left out when their text has been cast.
    """
    conditions = []
    if config.partition and piece.keys != (None, None):
        conditions += _key_conditions(quoted(config.partition), piece)
    if config.cursor and (config.table or span.until):
        column = compared = quoted(config.cursor)
        moved, since = span.since or span.until, ":_etl_since"
        if postgres and moved is not None and (moved.kind == "string" or text_as in DATED):
            column = compared = f'({column})::text COLLATE "C"'  # by code points, as the rows are compared here
        unknown, than = f"{column} IS NULL", ">" if is_strict(pipeline) else ">="
        if text_as:
            compared = (as_day if text_as in DATED else as_number)(quoted(config.cursor), postgres=postgres)
            unknown = f"{compared} IS NULL"
        elif moved is not None and moved.kind == "string":
            unknown = f"{unknown} OR {nothing(pipeline, config, postgres=postgres)}"
        if text_as in DATED:
            since, than = ":_etl_day", ">="
        else:
            column = compared
        if span.since is not None and config.table:
            conditions.append(_either(f"{compared} {than} {since}", [unknown]))
        if span.until is not None:
            conditions.append(_either(f"{column} <= :_etl_until", [unknown]))
        for moment, condition in zip(window, (f"{column} >= :start", f"{column} < :end"), strict=True):
            conditions += [condition] if moment and config.table else []
    if config.query and not conditions:
        return _query(config)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT * FROM {relation(pipeline, config, schemas=postgres)}{where}"


def _either(condition: str, others: list[str]) -> str:
    return f"({' OR '.join([condition, *others])})"


def _key_conditions(key: str, piece: Piece) -> list[str]:
    low, high = piece.keys
    conditions = [f"{key} >= :_etl_low"] if low is not None else []
    if high is not None:
        upper = f"{key} < :_etl_high"
        conditions.append(upper if low is not None else f"({upper} OR {key} IS NULL)")
    return conditions


def values(
    pipeline: Pipeline,
    config: "Config",
    piece: Piece,
    span: Span,
    window: Window,
    *,
    postgres: bool,
    ends: tuple[Any, Any] | None = None,
    text_as: str = "",
) -> dict[str, Any]:
    """Return what is bound to the names of a statement.

    Args:
        window: The run's; it takes the cursor's place.
        ends: A value below and one above all others of the cursor's column, for a cursor that stands nowhere yet.
        text_as: See `select`.

    Raises:
        ConfigError: The query asks for a name that nothing gives.
    """
    found: dict[str, Any] = {**pipeline.params, "client": pipeline.client}
    zone = ZoneInfo(pipeline.timezone)
    moments = zip(("start", "end"), (moment and _moment(moment, zone, postgres) for moment in window), strict=True)
    found |= {name: moment for name, moment in moments if moment}
    if window[0]:
        found["date"] = f"{window[0].astimezone(zone):%Y-%m-%d}"
    found["_etl_low"], found["_etl_high"] = piece.keys
    found |= {f"_etl_nothing{at}": word for at, word in enumerate(_words(pipeline, config))}
    found["_etl_blanks"] = " \t\n\v\f\r"
    if span.since is not None:
        since = back(span.since, config.overlap)
        found["_etl_day"] = day_before(since)
        found["_etl_since"], found["since"] = (_bound(value, zone, postgres) for value in (since, below(since)))
    elif "start" in found:
        found["since"] = found["start"]
    elif ends is not None:
        found["since"] = ends[0]
    if "end" in found:
        found["until"] = found["end"]
    elif ends is not None:
        found["until"] = ends[1]
    if span.until is not None:
        found["_etl_until"] = span.until.value if text_as in DATED else _bound(span.until, zone, postgres)
        found["until"] = found.get("end") or found["_etl_until"]
    for name in parameters(config.query):
        if name not in found:
            cure = "give --start and --end, or a cursor" if name in ("since", "until", "start", "end", "date") else ""
            raise ConfigError(
                f"pipelines.{pipeline.name}.extract.query: :{name} has no value{suggest(name, found)}",
                cure or f"give it with --param {name}=…, or in the client's params",
            )
    return found


def for_psycopg(statement: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a statement with `%(name)s` for `:name`, and the values that it names."""
    names = set()

    def marked(match: Any) -> str:
        if match["name"]:
            names.add(match["name"])
            return f"%({match['name']})s"
        return str(match[0]).replace("%", "%%")

    pieces, at = [], 0
    for match in STATEMENT.finditer(statement):
        pieces += [statement[at : match.start()].replace("%", "%%"), marked(match)]
        at = match.end()
    pieces.append(statement[at:].replace("%", "%%"))
    return "".join(pieces), {name: values[name] for name in names}


def _table(pipeline: Pipeline, config: "Config") -> str:
    return fill(config.table, {**pipeline.params, "client": pipeline.client})


def _query(config: "Config") -> str:
    return config.query.strip().rstrip(";").rstrip()


def _moment(moment: datetime, zone: ZoneInfo, postgres: bool) -> str:
    local = moment.astimezone(zone) if moment.tzinfo else moment.replace(tzinfo=zone)
    if postgres:
        return local.isoformat()
    return f"{local:%Y-%m-%d}" if local.time() == datetime.min.time() else f"{local:%Y-%m-%d %H:%M:%S}"


def _bound(cursor: Cursor, zone: ZoneInfo, postgres: bool) -> Any:
    """Return a cursor's value as it is bound: PostgreSQL takes a text for what it is compared with.

    A time without a zone is one of the pipeline's. Beside a column without zones PostgreSQL looks at the clock alone.
    """
    if postgres and cursor.kind == "timestamp":
        return placed(read(cursor), zone).isoformat()
    if postgres and cursor.kind in ("number", "decimal"):
        return cursor.value.removesuffix(".0")  # the column may be of whole numbers by now
    if postgres or cursor.kind not in ("integer", "number", "decimal"):
        return cursor.value
    value = read(cursor)
    return value if cursor.kind == "integer" else float(value)


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
    cast = (
        f"{_number(name, column)} as {name}" if column.type in NUMERIC else f"cast({name} as {column.type}) as {name}"
    )
    if column.type in DATED and postgres and not usual:
        cast = f"{'to_date' if column.type == 'date' else 'to_timestamp'}({name}, 'its format') as {name}"
    elif column.type in DATED and not postgres:
        cast, drop = f"{name} as an ISO date, such as 2026-01-31,", ", and drop the column's format"
    raise BadSource(
        f"{where}: cursor column {config.cursor} is text in the source and {a_type(column.type)} in the pipeline, "
        f"{how}: newer rows would never come",
        f'select {cast} in a query that says "where … >= :since" of the same{drop}',
    )


def _number(name: str, column: Column) -> str:
    """Return what to select for the number that text means, as its column spells it."""
    if column.negative:
        return f"the number that {name} means"
    text = name
    for mark in [column.thousands or "", *(column.currency or ()), "%" if column.percent else ""]:
        text = f"replace({text}, {literal(mark)}, '')" if mark else text
    if point(column) == ",":
        text = f"replace({text}, ',', '.')"
    return f"cast({text} as numeric)" + (" / 100.0" if column.percent else "")


def nothing(pipeline: Pipeline, config: "Config", *, postgres: bool) -> str:
    """Return a condition for text of the cursor's column that stands for nothing: blanks, and the words of `null`."""
    column, words = quoted(config.cursor or ""), _words(pipeline, config)
    text = f"btrim(({column})::text, :_etl_blanks)" if postgres else f"trim({column}, :_etl_blanks)"
    return f"{text} IN ({', '.join(f':_etl_nothing{at}' for at in range(len(words)))})"


def _words(pipeline: Pipeline, config: "Config") -> list[str]:
    column = pipeline.columns.get(named([config.cursor or ""], pipeline)[config.cursor or ""])
    spellings = spelled(column, column.type, config) if column else config
    return ["", *(word.strip() for word in spellings.null or ())]


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

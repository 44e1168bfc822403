"""How far a source has been loaded: comparing a cursor's values, stepping back from one, and leaving out older rows."""

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.columns import match
from etl.config.pipeline import Pipeline
from etl.config.spellings import spelled
from etl.errors import BadSource, ConfigError, MissingColumn
from etl.types.casts import cast
from etl.types.spelling import plain
from etl.types.words import natural_word, word_of


class Cursor(NamedTuple):
    """A value of a cursor's column: what type it is of, in the pipeline's words, and its text."""

    kind: str
    value: str


class Span(NamedTuple):
    """Which rows a run reads, decided once for all of its partitions.

    Args:
        since: Where the cursor stood when the run began.
        until: The latest value then in the source, where several partitions read it one after another.
    """

    since: Cursor | None = None
    until: Cursor | None = None


def is_strict(pipeline: Pipeline) -> bool:
    """Whether rows with the cursor's very value are not read again, as an append would load them twice."""
    return pipeline.load.mode == "append" and pipeline.load.function is None


def cursor_of(value: Any) -> Cursor:
    """Return a Python value as a cursor."""
    if isinstance(value, datetime):
        return Cursor("timestamp", value.isoformat())
    if isinstance(value, date):
        return Cursor("date", value.isoformat())
    if isinstance(value, Decimal):
        return Cursor("decimal", format(value.normalize(), "f"))
    kinds: dict[type, str] = {int: "integer", float: "number"}
    return Cursor(kinds.get(type(value), "string"), repr(value) if isinstance(value, float) else str(value))


def read(cursor: Cursor) -> Any:
    """Return a cursor's value as a Python value.

    Raises:
        ValueError: It is no value of its type.
    """
    readers: dict[str, Any] = {
        "timestamp": datetime.fromisoformat, "date": date.fromisoformat, "integer": int, "number": float,
    }  # fmt: skip
    if cursor.kind == "decimal":
        if not Decimal(cursor.value).is_finite():
            raise ValueError(cursor.value)
        return Decimal(cursor.value)
    return readers.get(cursor.kind, str)(cursor.value)


def guess(text: str, kind: str | None = None) -> Cursor:
    """Return what an operator typed as a cursor.

    Args:
        kind: The type of the column, where it is known.

    Raises:
        ConfigError: It is no value of that type.
    """
    for known in [kind] if kind else ["integer", "decimal", "date", "timestamp", "string"]:
        try:
            read(found := Cursor(known, text))
        except (ValueError, ArithmeticError):
            continue
        return found
    raise ConfigError(f"{text} is no {kind}, as the cursor's column is", "write 12, 2024-01-31 or 2024-01-31T08:00:00")


def later(one: Cursor | None, other: Cursor | None, zone: str = "UTC") -> Cursor | None:
    """Return the cursor that is further on; of two types that can't be compared, the second.

    Args:
        zone: Time zone of a time that names none, compared with one that does.
    """
    if one is None or other is None:
        return one or other
    if one.kind != other.kind and {one.kind, other.kind} != {"date", "timestamp"}:
        numbers = {"integer", "number", "decimal"}
        if not {one.kind, other.kind} <= numbers:
            return other
    there = ZoneInfo(zone)
    return one if _rank(one, there) > _rank(other, there) else other


def _rank(cursor: Cursor, zone: ZoneInfo) -> Any:
    value = read(cursor)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return placed(value, zone)


def placed(value: Any, zone: ZoneInfo) -> Any:
    """Return a time that says no zone, as an operator may give it, as one of the pipeline's; anything else as it is."""
    return value.replace(tzinfo=zone) if isinstance(value, datetime) and value.tzinfo is None else value


def back(cursor: Cursor, overlap: float) -> Cursor:
    """Return the cursor stepped back.

    Args:
        overlap: Seconds for dates and times (of dates, whole days), otherwise in the column's own unit.
    """
    if not overlap:
        return cursor
    return _stepped(cursor, overlap, timedelta(seconds=overlap))


def below(cursor: Cursor) -> Cursor:
    """Return a value just under the cursor, so that a query's `> :since` finds rows with the cursor's own value too."""
    if cursor.kind == "number":
        return Cursor(cursor.kind, repr(math.nextafter(read(cursor), -math.inf)))
    return _stepped(cursor, Decimal(1).scaleb(-18) if cursor.kind == "decimal" else 1, timedelta(microseconds=1))


def _stepped(cursor: Cursor, amount: Any, span: timedelta) -> Cursor:
    kind, value = cursor.kind, read(cursor)
    if kind == "timestamp":
        return Cursor(kind, (value - span).isoformat())
    if kind == "date":
        return Cursor(kind, (value - timedelta(days=max(1, math.ceil(span.total_seconds() / 86400)))).isoformat())
    if kind == "integer":
        return Cursor(kind, str(value - math.ceil(amount)))
    if kind == "decimal":
        return Cursor(kind, format(value - Decimal(amount), "f"))
    if kind == "number":
        return Cursor(kind, repr(value - float(amount)))
    return Cursor(kind, _stepped_text(value, span))


def _stepped_text(text: str, span: timedelta) -> str:
    """Step back a date or time that is kept as text, as SQLite does, in the style it is written in."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        # Just below it, in the order of code points.
        return text[:-1] + chr(ord(text[-1]) - 1) + "\U0010ffff" if text and ord(text[-1]) > 0 else text[:-1]
    if len(text) == 10:
        return (moment.date() - timedelta(days=max(1, math.ceil(span.total_seconds() / 86400)))).isoformat()
    stepped = (moment - span).isoformat(sep=text[10])
    return stepped.replace("+00:00", "Z") if text.endswith("Z") else stepped


class Narrowed:
    """Leaves out the rows of a partition that are loaded already, and remembers the latest of the others.

    Attributes:
        unchanged: Rows left out.
        latest: The latest value of the cursor's column.
    """

    def __init__(self, pipeline: Pipeline, span: Span, file: str) -> None:
        self.pipeline, self.file = pipeline, file
        self.since = back(span.since, pipeline.extract.overlap) if span.since else None
        self.unchanged = 0
        self.latest: Cursor | None = None

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the rows of a chunk that are to be loaded.

        Raises:
            MissingColumn: There is no column of the cursor's name.
            BadSource: Its values have no order in time, or are missing where rows are appended.
        """
        name = self.pipeline.extract.cursor
        if name is None or not rows.num_columns or (not rows.num_rows and name not in rows.column_names):
            return rows
        values, empty = self._values(rows, name)
        if empty and is_strict(self.pipeline):
            raise BadSource(
                f"{self.file}: cursor column {name} is empty in {empty:,} rows: an append can't place them",
                'fill it in the source, or use mode = "merge" with a key',
            )
        if self.since is not None and len(values):
            rows, values = self._newer(rows, values)
        if len(values) > values.null_count:
            self.latest = later(self.latest, cursor_of(pc.max(values).as_py()))
        return rows

    def _newer(self, rows: pa.Table, values: pa.ChunkedArray) -> tuple[pa.Table, pa.ChunkedArray]:
        assert self.since is not None
        try:
            value = read(Cursor(natural_word(values.type), self.since.value))
            has_zone = word_of(values.type) == "timestamp" and values.type.tz
            bound = pa.scalar(placed(value, ZoneInfo(self.pipeline.timezone)) if has_zone else value, values.type)
        except (ValueError, ArithmeticError, pa.ArrowInvalid, pa.ArrowTypeError):
            raise ConfigError(
                f"the cursor of {self.pipeline.name} is no {natural_word(values.type)}, as its column is now",
                f"set it: rq-etl cursor set {self.pipeline.name} --client {self.pipeline.client} VALUE, or clear it",
            ) from None
        kept = (pc.greater if is_strict(self.pipeline) else pc.greater_equal)(values, bound)
        kept = pc.fill_null(kept, True)
        self.unchanged += len(values) - pc.sum(kept).as_py()
        return rows.filter(kept), values.filter(kept)

    def _values(self, rows: pa.Table, name: str) -> tuple[pa.ChunkedArray, int]:
        """Return the cursor's column, null where a value is not of its type, and how many values are empty."""
        names = match(rows.column_names, self.pipeline, self.file)
        headers = {column: header for header, column in reversed(names.items())}
        header = name if name in names else headers.get(name)
        if header is None:
            raise MissingColumn(
                f"{self.file}: no column {name}, which is the cursor", f"it has {', '.join(list(names)[:20])}"
            )
        values, column = plain(rows[header]), self.pipeline.columns.get(names[header])
        empty = values.null_count
        # A database compares values of its own type; text of files gets the type that the pipeline declares.
        if column and self.pipeline.extract.FACTS.windows != "query":
            column = spelled(column, column.type, self.pipeline.extract)
            values = cast(values, column, self.pipeline.timezone)[0]
        if word_of(values.type) == "boolean":
            raise BadSource(f"{self.file}: cursor column {name} is a boolean", "name a column that says what is newer")
        return values, empty


def latest_of(cursors: Sequence[Cursor | None]) -> Cursor | None:
    """Return the one that is furthest on."""
    return reduce(later, cursors, None)

"""How far a source has been loaded: comparing a cursor's values, and stepping back from one."""

import math
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from etl.config.pipeline import Pipeline
from etl.errors import ConfigError


class Cursor(NamedTuple):
    """A value of a cursor's column: what type it is of, in the pipeline's words, and its text."""

    kind: str
    value: str


class Span(NamedTuple):
    """Which rows a run reads, decided once for all of its partitions.

    Args:
        since: Where the cursor stood when the run began.
        until: The latest value then in the source, where several partitions read it one after another.
        now: When the run began, in seconds since the epoch: no cursor of times passes it. None is for a run that moves
            no cursor.
    """

    since: Cursor | None = None
    until: Cursor | None = None
    now: float | None = None


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
        "decimal": Decimal,
    }  # fmt: skip
    value = readers.get(cursor.kind, str)(cursor.value)
    is_nan = cursor.kind == "number" and math.isnan(value)  # nothing is beyond it, nor is it beyond anything
    if is_nan or (cursor.kind == "decimal" and not value.is_finite()):
        raise ValueError(cursor.value)
    return value


def bound(cursor: Cursor, word: str, zone: ZoneInfo, *, strict: bool) -> Any:
    """Return what values of a type are compared with, which their column may not have had when the cursor moved.

    Args:
        strict: Whether they have to be beyond it; else at it or beyond.

    Raises:
        ValueError, ArithmeticError: It can't be compared with them.
    """
    if word == "integer":
        value = Decimal(cursor.value)
        return math.floor(value) if strict else math.ceil(value)
    if word == "date" and cursor.kind == "timestamp":
        return placed(read(cursor), zone).astimezone(zone).date()
    return read(Cursor(word, cursor.value))


def is_readable(cursor: Cursor) -> bool:
    """Whether a text is a value of its type as it stands, in no `format` of its own."""
    try:
        read(cursor)
    except (ValueError, ArithmeticError):
        return False
    return True


def guess(text: str, kind: str | None = None) -> Cursor:
    """Return what an operator typed as a cursor.

    Args:
        kind: The type of the column, where it is known.

    Raises:
        ConfigError: It is no value of that type.
    """
    for known in [kind] if kind else ["integer", "decimal", "date", "timestamp", "string"]:
        if is_readable(found := Cursor(known, text)):
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
    if kind in ("timestamp", "date") and cursor.value != value.isoformat():  # a text of the source, in its own style
        return Cursor(kind, _stepped_text(cursor.value, span))
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
    days = timedelta(days=max(1, math.ceil(span.total_seconds() / 86400)))
    styles = {r"\d{8}": "%Y%m%d", r"\d{8}T\d{6}": "%Y%m%dT%H%M%S", r"\d{14}": "%Y%m%d%H%M%S"}
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return (date.fromisoformat(text) - days).isoformat()
        if re.match(r"\d{4}-\d\d-\d\d[T ]", text):
            stepped = (datetime.fromisoformat(text) - span).isoformat(sep=text[10])
            return stepped.replace("+00:00", "Z") if text.endswith("Z") else stepped
        for shape, style in styles.items():
            if re.fullmatch(shape, text):
                whole = max(span, timedelta(seconds=1)) if "H" in style else days
                return f"{datetime.strptime(text, style) - whole:{style}}"
    except (ValueError, OverflowError):
        pass
    # Just below it, in the order of code points.
    return text[:-1] + chr(ord(text[-1]) - 1) + "\U0010ffff" if text and ord(text[-1]) > 0 else text[:-1]


def latest_of(cursors: Sequence[Cursor | None]) -> Cursor | None:
    """Return the one that is furthest on."""
    return reduce(later, cursors, None)

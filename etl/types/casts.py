"""One column's values as its declared type: exactly, or not at all."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.models import Column
from etl.config.values import a_type
from etl.types.normalize import digits, without_nothing, words_of
from etl.types.spelling import as_text, plain
from etl.types.times import (
    INSTANT,
    WALL,
    cast_fitting,
    in_calendar,
    is_finer,
    left_out,
    localize,
    micros,
    missing,
    read_dates,
    read_timestamps,
    walls,
)
from etl.types.words import PLACES, TYPES, WHOLE_DIGITS, arrow_of, word_of

# Digits that no cast accepts: Arrow says that a value fails, not which.
_TOO_LONG = {
    "integer": "^[+-]?0*[1-9][0-9]{19}",
    # The last: of 39 digits, zeros behind the point counted, Arrow makes another number, without an error.
    "decimal": rf"^[+-]?0*[1-9][0-9]{{{WHOLE_DIGITS}}}|\.[0-9]{{{PLACES}}}[0-9]*[1-9]"
    r"|^[+-]?[0.]*[1-9](?:\.?[0-9]){38}",
}

# From here on floats are so far from each other that Arrow's own cast finds other digits in the last of nine places.
_COARSE = 2.0**22

FINER = "more than 6 digits of a second"

Failures = list[tuple[pa.ChunkedArray, str]]  # which rows (booleans without nulls), and why

_Special = tuple[Callable[[pa.ChunkedArray], Any], str]


def cast(values: pa.ChunkedArray, column: Column, zone: str, *, made: bool = False) -> tuple[pa.ChunkedArray, Failures]:
    """Return a column's values in the arrow type of `column`, null where one doesn't fit, and what didn't fit.

    Args:
        values: Text or anything else; blank text is null for every type but string, where only empty text is.
        zone: Time zone of timestamps that carry none.
        made: A user's function made the values: more than 9 places of a decimal are rounded half to even, since a
            division always has them; those of a source are refused.
    """
    target = arrow_of(column.type)
    values = without_nothing(plain(values), column)
    word = word_of(values.type)
    if word == "string":
        return _from_text(values, column, zone)
    if column.type == "string":
        return as_text(values), []
    if word == "number":  # pandas writes NaN where a value is missing; any other source has rejected its row
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if values.type == target and word not in ("number", "date", "timestamp"):
        return values, []
    if (direct := _direct(values, target, zone, bool(column.truncate), made)) is not None:
        return direct, _failed(values, direct, *_why_not(values, column, zone))
    # What is typed otherwise is spelled as ISO and plain decimals, whatever the column says of its text.
    return _from_text(as_text(values), Column(type=column.type), zone)


def only_missing(failures: Failures, zone: str) -> bool:
    """Whether all that didn't fit are times that the zone's clocks leave out."""
    return {reason for _, reason in failures} <= {missing(zone)}


def _from_text(text: pa.ChunkedArray, column: Column, zone: str) -> tuple[pa.ChunkedArray, Failures]:
    if column.type != "string":
        text = pc.utf8_trim_whitespace(text)
    if pc.any(pc.equal(text, "")).as_py():
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if column.type == "string":
        return text, []
    if column.type == "date":
        dates = read_dates(text, column.format, zone, truncate=bool(column.truncate))
        return dates, _failed(text, dates, f"not a date ({', '.join(column.format or ('%Y-%m-%d',))})")
    if column.type == "timestamp":
        moments = read_timestamps(text, column.format, zone, truncate=bool(column.truncate))
        why = f"not a timestamp ({', '.join(column.format or ('ISO 8601',))})"

        def skipped(failed: pa.ChunkedArray) -> pa.ChunkedArray:
            return left_out(read_timestamps(failed, column.format, "UTC", truncate=bool(column.truncate)), zone)

        return moments, _failed(text, moments, why, (is_finer, FINER), (skipped, missing(zone)))
    if column.type == "boolean":
        yes, no = (pc.is_in(pc.utf8_lower(text), value_set=pa.array(words, pa.string())) for words in words_of(column))
        flags = pc.if_else(pc.or_(yes, no), yes, pa.scalar(None, pa.bool_()))
        return flags, _failed(text, flags, "not a boolean")
    return _from_digits(text, column)


def _from_digits(text: pa.ChunkedArray, column: Column) -> tuple[pa.ChunkedArray, Failures]:
    failures: Failures = []
    if column.numeric():
        text, wrong = digits(text, column)
        failures, column = _bad(wrong, f"not {a_type(column.type)}"), Column(type=column.type)
    shape = TYPES[column.type].reads.replace(r"\.", column.decimal if column.decimal == "," else r"\.")
    fits = pc.match_substring_regex(text, shape)
    failures += _bad(pc.invert(fits), f"not {a_type(column.type)}")
    if failures:
        text = pc.if_else(fits, text, pa.scalar(None, pa.string()))
    if column.decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    if column.type == "integer" and pc.any(pc.starts_with(text, "+")).as_py():
        text = pc.utf8_ltrim(text, "+")
    values = cast_fitting(text, arrow_of(column.type), _TOO_LONG.get(column.type, ""))
    if column.type == "number":
        values = _finite(values)
        zero = pc.equal(values, 0.0)
        if pc.any(zero).as_py():
            lost = pc.and_(zero, pc.match_substring_regex(text, "^[^eE]*[1-9]"))
            values = pc.if_else(pc.fill_null(lost, False), pa.scalar(None, pa.float64()), values)
            failures += _bad(lost, "too close to 0 for a number")
            text = pc.if_else(pc.fill_null(lost, False), pa.scalar(None, pa.string()), text)
    return values, failures + _failed(text, values, "too many digits")


def _direct(
    values: pa.ChunkedArray, target: pa.DataType, zone: str, truncate: bool, made: bool
) -> pa.ChunkedArray | None:
    """Cast between types without going through text, null where that would lose something; None where text is best."""
    word, decimal = word_of(values.type), arrow_of("decimal")
    if word == "boolean" and target in (pa.int64(), pa.float64()):
        return pc.cast(values, target)
    if word in ("timestamp", "date"):
        if target == INSTANT:
            moments = _midnight(values) if word == "date" else micros(values, truncate=truncate)
            return moments.cast(INSTANT) if moments.type.tz else localize(moments, zone, days=word == "date")
        if target == pa.date32():
            return _midnights(values, zone, truncate)
    if target == pa.float64() and word == "decimal":
        return values.cast(pa.string()).cast(target)  # arrow's own cast misses the nearest float by a bit
    if target == pa.float64() and word == "number":
        return _finite(pc.cast(values, target))
    if word == "number" and target in (pa.int64(), decimal):
        if values.type == pa.float32() and target == decimal:
            if not made:
                return None  # its own digits are in its text
            values = values.cast(pa.string())
        values = pc.cast(values, pa.float64())
        # 2**63 and 1e29 are where the types end; arrow's own check of floats stops at the whole column.
        limit = 2.0**63 if target == pa.int64() else 10.0**WHOLE_DIGITS
        fits = pc.and_(pc.less(pc.abs(values), limit), pc.or_(pc.equal(pc.floor(values), values), target != pa.int64()))
        values = pc.if_else(fits, values, pa.scalar(None, pa.float64()))
        if target == pa.int64():
            return pc.cast(values, target, safe=False)
        decimals = _decimals(values)
        if made:
            return decimals
        again = decimals.cast(pa.string()).cast(pa.float64())
        # 0.30000000000000004 is 0.3: what a float has beyond 15 digits is what computing has left.
        same = pc.less_equal(pc.abs(pc.subtract(again, values)), pc.multiply(pc.abs(values), 1e-15))
        return pc.if_else(same, decimals, pa.scalar(None, target))
    if target == decimal and word == "decimal":
        values = values.cast(pa.decimal256(76, values.type.scale))  # arrow's cast of 128 bits wraps around
        if made and values.type.scale > PLACES:
            values = pc.round(values, PLACES, "half_to_even")
        return cast_fitting(values, target)
    if target == decimal and word == "integer":
        return cast_fitting(values, target)
    if target == pa.int64() and word == "integer":
        return cast_fitting(values, target)
    return None


def _decimals(floats: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the decimals that the shortest digits of floats say, rounded half to even."""
    large = pc.fill_null(pc.greater_equal(pc.abs(floats), _COARSE), False)
    decimals = pc.cast(pc.if_else(large, pa.scalar(None, floats.type), floats), arrow_of("decimal"))
    if not pc.any(large).as_py():
        return decimals
    text = pc.if_else(large, floats, pa.scalar(None, floats.type)).cast(pa.string())
    exact = pc.round(text.cast(pa.decimal256(76, 2 * PLACES)), PLACES, "half_to_even")
    return pc.coalesce(decimals, exact.cast(arrow_of("decimal")))


def _midnight(dates: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return dates as midnights, null what lies outside the calendar."""
    return in_calendar(dates.cast(pa.date32())).cast(WALL)


def _midnights(values: pa.ChunkedArray, zone: str, truncate: bool) -> pa.ChunkedArray:
    """Return timestamps as dates; null where there is a time of day, which a date would lose.

    Args:
        truncate: Whether the time of day is cut instead.
    """
    if word_of(values.type) == "date":
        return in_calendar(values.cast(pa.date32()))
    values = micros(values, truncate=truncate)
    if values.type.tz is not None:
        values = walls(values, zone)
    dates = values.cast(pa.date32(), safe=False)
    return (
        dates
        if truncate
        else pc.if_else(pc.equal(dates.cast(values.type), values), dates, pa.scalar(None, pa.date32()))
    )


def _finite(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.all(pc.is_finite(values)).as_py() is False:
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    return values


def _failed(before: pa.ChunkedArray, after: pa.ChunkedArray, reason: str, *special: _Special) -> Failures:
    """Return which values are null now, and why.

    Args:
        special: Which of them have a reason of their own.
    """
    if before.null_count == after.null_count:
        return []
    failed = pc.fill_null(pc.and_(pc.is_valid(before), pc.is_null(after)), False)
    found: Failures = []
    for test, its_reason in special:
        apart = pc.and_(failed, pc.fill_null(test(pc.if_else(failed, before, pa.scalar(None, before.type))), False))
        found += _bad(apart, its_reason)
        failed = pc.and_not(failed, apart)
    return [*found, *_bad(failed, reason)]


def _why_not(values: pa.ChunkedArray, column: Column, zone: str) -> tuple[Any, ...]:
    """Return why a typed value does not fit, and which have a reason of their own; see `_failed`."""
    reason, special = f"not {a_type(column.type)}", list[_Special]()
    if word_of(values.type) == "timestamp" and column.type == "timestamp":
        if values.type.unit == "ns":
            special.append((lambda moments: pc.not_equal(pc.nanosecond(moments), 0), FINER))
        if values.type.tz is None:
            special.append((lambda moments: left_out(moments, zone), missing(zone)))
    return reason, *special


def _bad(mask: pa.ChunkedArray, reason: str) -> Failures:
    return [(pc.fill_null(mask, False), reason)] if pc.any(mask).as_py() else []

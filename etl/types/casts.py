"""One column's values as its declared type: exactly, or not at all."""

import json
from datetime import date, datetime, time
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.config.models import Column
from etl.types.times import INSTANT, WALL, cast_fitting, localize, read_dates, read_timestamps

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "decimal": pa.decimal128(38, 9),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": INSTANT,
}
PLACES = 9
NAMES = {kind: f"{'an' if kind == 'integer' else 'a'} {kind}" for kind in ARROW_TYPES}

_SHAPES = {
    "integer": r"^-?[0-9]+$",
    "number": r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$",
    "decimal": r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)$",
}
_LAST_PLACE, _EXACT = Decimal(1).scaleb(-PLACES), Context(prec=400, rounding=ROUND_HALF_EVEN)
_YES, _NO = pa.array(["true", "1", "yes", "y", "t"]), pa.array(["false", "0", "no", "n", "f"])

Failures = list[tuple[pa.ChunkedArray, str]]  # which rows (booleans without nulls), and why


def cast(values: pa.ChunkedArray, column: Column, zone: str, *, made: bool = False) -> tuple[pa.ChunkedArray, Failures]:
    """Return a column's values in the arrow type of `column`, null where one doesn't fit, and what didn't fit.

    Args:
        values: Text or anything else; blank text is null for every type but string, where only empty text is.
        zone: Time zone of timestamps that carry none.
        made: A user's function made the values: decimals with more than 9 places are rounded half to even, since a
            division always has them; those of a source are refused. Floats are rounded in either case.
    """
    target = ARROW_TYPES[column.type]
    values = plain(values)
    if pa.types.is_string(values.type):
        return _from_text(values, column, zone)
    if column.type == "string":
        return as_text(values), []
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    if values.type == target and column.type != "number":
        return values, []
    if (direct := _direct(values, target, zone, made)) is not None:
        return direct, _failed(values, direct, f"not {NAMES[column.type]}")
    # What is typed otherwise is spelled as ISO and plain decimals, whatever the column says of its text.
    return _from_text(as_text(values), Column(type=column.type), zone)


def as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values as people write them: 12 for 12.0, ISO dates, true and false, JSON for what is nested."""
    kind = values.type
    if pa.types.is_string(kind):
        return values
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
    if pa.types.is_decimal(kind):
        return _spelled(values.to_pylist())
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        values = pc.cast(values, pa.timestamp(kind.unit, "UTC"))
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _spelled(values.to_pylist())
    text = pc.cast(values, pa.string())
    if pa.types.is_timestamp(kind):
        text = pc.replace_substring_regex(text, r"(?: 00:00:00)?\.0+(Z?)$", r"\1") if kind.tz is None else text
        text = pc.replace_substring_regex(text, r"\.0+Z$", "Z")
    return text


def plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values without arrow's variations on one theme: dictionaries, views, large strings, typeless nulls."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return plain(pc.cast(values, kind.value_type))
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(values, pa.string())
    return values


def from_series(series: "pd.Series[Any]", wanted: str = "") -> pa.ChunkedArray:
    """Return a pandas column as arrow, with missing values null and mixed objects as text.

    Args:
        wanted: The type it will be cast to, which decides how an object is spelled.
    """
    if series.dtype == object:
        kind = pd.api.types.infer_dtype(series, skipna=True)
        if kind == "decimal":
            try:
                return pa.chunked_array([pa.array(series, ARROW_TYPES["decimal"], from_pandas=True)])
            except pa.ArrowInvalid:
                pass
        elif kind not in ("string", "integer", "floating", "boolean", "empty"):
            return _spelled(series.tolist(), wanted)  # arrow would read a datetime among dates as a date
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return _spelled(series.tolist(), wanted)
    return plain(array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array]))


def natural_type(kind: pa.DataType) -> str:
    """Return the column type nearest to an arrow type; "string" for what has none."""
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_decimal(kind):
        return "decimal"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_date(kind):
        return "date"
    return "timestamp" if pa.types.is_timestamp(kind) else "string"


def _from_text(text: pa.ChunkedArray, column: Column, zone: str) -> tuple[pa.ChunkedArray, Failures]:
    if column.type != "string":
        text = pc.utf8_trim_whitespace(text)
    if pc.any(pc.equal(text, "")).as_py():
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    if column.type == "string":
        return text, []
    if column.type == "date":
        dates = read_dates(text, column.format)
        return dates, _failed(text, dates, f"not a date ({', '.join(column.format or ('%Y-%m-%d',))})")
    if column.type == "timestamp":
        moments = read_timestamps(text, column.format, zone)
        return moments, _failed(text, moments, f"not a timestamp ({', '.join(column.format or ('ISO 8601',))})")
    if column.type == "boolean":
        lowered = pc.ascii_lower(text)
        known = pc.or_(pc.is_in(lowered, value_set=_YES), pc.is_in(lowered, value_set=_NO))
        flags = pc.if_else(known, pc.is_in(lowered, value_set=_YES), pa.scalar(None, pa.bool_()))
        return flags, _failed(text, flags, "not a boolean")
    return _from_digits(text, column)


def _from_digits(text: pa.ChunkedArray, column: Column) -> tuple[pa.ChunkedArray, Failures]:
    shape = _SHAPES[column.type].replace(r"\.", column.decimal if column.decimal == "," else r"\.")
    fits = pc.match_substring_regex(text, shape)
    failures = _bad(pc.invert(fits), f"not {NAMES[column.type]}")
    if failures:
        text = pc.if_else(fits, text, pa.scalar(None, pa.string()))
    if column.decimal == ",":
        text = pc.replace_substring(text, ",", ".")
    values = cast_fitting(text, ARROW_TYPES[column.type])
    if column.type == "number":
        values = _finite(values)
    return values, failures + _failed(text, values, "too many digits")


def _direct(values: pa.ChunkedArray, target: pa.DataType, zone: str, made: bool) -> pa.ChunkedArray | None:
    """Cast between types without going through text, null where that would lose something; None where text is best."""
    kind = values.type
    if pa.types.is_boolean(kind) and target in (pa.int64(), pa.float64()):
        return pc.cast(values, target)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        if target == INSTANT:
            moments = values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False)
            return moments.cast(INSTANT) if moments.type.tz else localize(moments, zone)
        if target == pa.date32():
            return _midnights(values, zone)
    if target == pa.float64() and (pa.types.is_decimal(kind) or pa.types.is_floating(kind)):
        return _finite(pc.cast(values, target))
    if pa.types.is_floating(kind) and target in (pa.int64(), ARROW_TYPES["decimal"]):
        values = pc.cast(values, pa.float64())
        # 2**63 and 1e29 are where the types end; arrow's own check of floats stops at the whole column.
        limit = 2.0**63 if target == pa.int64() else 1e29
        fits = pc.and_(pc.less(pc.abs(values), limit), pc.or_(pc.equal(pc.floor(values), values), target != pa.int64()))
        return pc.cast(pc.if_else(fits, values, pa.scalar(None, pa.float64())), target, safe=target != pa.int64())
    if target == ARROW_TYPES["decimal"] and (pa.types.is_decimal(kind) or pa.types.is_integer(kind)):
        if made and pa.types.is_decimal(kind) and kind.scale > PLACES:
            values = pc.round(values, PLACES, "half_to_even")
        return cast_fitting(values, target)
    if target == pa.int64() and pa.types.is_integer(kind):
        return cast_fitting(values, target)
    return None


def _midnights(values: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Return timestamps as dates; null where there is a time of day, which a date would lose."""
    if pa.types.is_date(values.type):
        return values.cast(pa.date32())
    if values.type.tz is not None:
        instants = pd.DatetimeIndex(values.cast(pa.timestamp("us", "UTC"), safe=False).to_numpy().astype("M8[us]"))
        walls = instants.tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy()
        values = pa.chunked_array([pa.array(np.asarray(walls, "M8[us]"), WALL)])
    dates = values.cast(pa.date32(), safe=False)
    return pc.if_else(pc.equal(dates.cast(values.type), values), dates, pa.scalar(None, pa.date32()))


def _finite(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pc.all(pc.is_finite(values)).as_py() is False:
        return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    return values


def _failed(before: pa.ChunkedArray, after: pa.ChunkedArray, reason: str) -> Failures:
    if before.null_count == after.null_count:
        return []
    return _bad(pc.and_(pc.is_valid(before), pc.is_null(after)), reason)


def _bad(mask: pa.ChunkedArray, reason: str) -> Failures:
    return [(pc.fill_null(mask, False), reason)] if pc.any(mask).as_py() else []


def _spelled(values: list[Any], wanted: str = "") -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([_spell(value, wanted) for value in values], pa.string())])


def _spell(value: Any, wanted: str) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | tuple | set | np.ndarray):
        return json.dumps(
            list(value) if isinstance(value, set | np.ndarray) else value, ensure_ascii=False, default=str
        )
    if value is None or pd.isna(value):
        return None
    if isinstance(value, bool | np.bool_):
        return str(int(value)) if wanted in ("integer", "number") else str(bool(value)).lower()
    if isinstance(value, float | np.floating) and (wanted == "decimal" or float(value).is_integer()):
        value = Decimal(repr(float(value)))
    if isinstance(value, Decimal):
        if wanted == "decimal" and value.is_finite():
            value = value.quantize(_LAST_PLACE, context=_EXACT)
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, datetime) and wanted == "date" and value.tzinfo is None and value.time() == time.min:
        value = value.date()
    return value.isoformat() if isinstance(value, date) else str(value)

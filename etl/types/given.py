"""What programs hold in a column, Python's values or pandas', as an Arrow array that holds them exactly.

Arrow by itself takes all values of a list for what the first one is: a datetime among dates loses its time, and 5 is
the 6th of January 1970. So it is asked only where all are of one kind.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.types.spelling import as_json, is_nested, plain, spell, spelled
from etl.types.times import missing
from etl.types.words import arrow_of, is_dictionary, word_of

_WHOLE = 2**53  # up to here every whole number is a float
UNFIT = "not finite, before the year 1 or after 9999"
_FLOATS = (float, np.floating, Decimal)
_WRONG = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, TypeError, OverflowError)
_FAR = 30_000 * 31_556_952  # seconds, from 1970: Arrow writes years up to 32,767
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class Held(NamedTuple):
    """A column's values.

    Args:
        array: Null in place of what no type here has.
        unfit: Those by their place, as they are written.
    """

    array: pa.Array
    unfit: Mapping[int, str] = {}


def of_column(values: Any, zone: str, mark: str = ".") -> Held:
    """Return a column in one of the few types that a target has; text where its values have none in common.

    Args:
        values: A Series, an Index or a list. In pandas' NaN is a missing value, in a list it is one that no type has.
        zone: Time zone of dates and of times that say none, where others say theirs.
        mark: The decimal point of numbers that become text.
    """
    if not isinstance(values, pd.Series | pd.Index):
        return _of_objects(list(values), zone, mark)
    values = _dense(values)
    if values.dtype != object:
        try:
            array = pa.array(values, from_pandas=True)
            return of_array(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)
        except _WRONG:
            pass
    gone = pd.isna(values)
    return _of_objects([None if lost else value for value, lost in zip(values, gone, strict=True)], zone, mark)


def from_series(series: "pd.Series[Any]", wanted: str = "", point: str = ".") -> pa.ChunkedArray:
    """Return a pandas column as arrow, with missing values null and mixed objects as text.

    Args:
        wanted: The type it will be cast to, which decides how an object is spelled.
        point: The decimal point of numbers that become text.
    """
    series = _dense(series)
    if series.dtype == object:
        kind = pd.api.types.infer_dtype(series, skipna=True)
        if kind == "decimal":
            try:
                return pa.chunked_array([pa.array(series, arrow_of("decimal"), from_pandas=True)])
            except (pa.ArrowInvalid, TypeError):  # TypeError: an infinity
                pass
        elif kind not in ("string", "integer", "floating", "boolean", "empty"):
            return spelled(series.tolist(), wanted, point)  # arrow would read a datetime among dates as a date
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, OverflowError):
        return spelled(series.tolist(), wanted, point)
    return plain(array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array]))


def _dense(values: Any) -> Any:
    """Return a Series or an Index without what Arrow reads otherwise: categories and spans of pandas as objects."""
    kind = values.dtype
    if isinstance(kind, pd.SparseDtype):
        return values.astype(kind.subtype)
    mixed = isinstance(kind, pd.CategoricalDtype) and kind.categories.dtype == object
    return values.astype(object) if mixed or isinstance(kind, pd.PeriodDtype | pd.IntervalDtype) else values


def of_array(array: pa.Array) -> Held:
    """Return an Arrow array in one of the few types that a target has."""
    word = word_of(array.type)
    if is_dictionary(array.type):
        return of_array(array.dictionary_decode())
    if word in ("date", "timestamp"):
        return _of_moments(array)
    if array.type == pa.uint64():
        return Held(_cast(array, pa.int64(), pa.decimal128(20, 0)))
    if word == "number" and array.type != pa.float16():
        return Held(array)  # a float32 keeps its own digits: 0.1, not 0.10000000149011612
    if word in ("string", "number"):
        return Held(array.cast(arrow_of(word)))
    if word is not None:
        return Held(array)
    if array.type == pa.time64("ns"):
        return Held(pc.replace_substring_regex(array.cast(pa.string()), r"\.?0{0,9}$", ""))
    try:
        return Held(pa.array([_text(value) for value in array.to_pylist()], pa.string()))
    except (OverflowError, ValueError):  # a span that Python has not
        return Held(array.cast(pa.int64()).cast(pa.string()))


def decimals(values: Sequence[Any]) -> pa.Array:
    """Return numbers of several types as decimals, a float as its shortest digits say.

    Raises:
        pa.ArrowInvalid: One is no decimal of the pipeline's.
    """
    return pa.array([None if value is None else _decimal(value) for value in values], arrow_of("decimal"))


def _of_moments(array: pa.Array) -> Held:
    """Return dates or timestamps, those of six digits of a second in microseconds whatever they came in."""
    if array.type == pa.date64():
        array = _cast(array, pa.date32(), pa.timestamp("ms"))
    if word_of(array.type) == "date":
        unit, count, limit = "D", array.cast(pa.int32()).cast(pa.int64()), _FAR // 86_400
    else:
        array = _cast(array, pa.timestamp("us", array.type.tz), array.type)
        unit, count = array.type.unit, array.cast(pa.int64())
        if unit == "ns":  # reaches from 1677 to 2262
            return Held(array)
        limit = _FAR * _PER_SECOND[unit]
    far = pc.fill_null(pc.or_(pc.greater(count, limit), pc.less(count, -limit)), False)
    places = np.flatnonzero(far.to_numpy(zero_copy_only=False)).tolist()
    if not places:
        return Held(array)
    unfit = {place: str(np.int64(count[place].as_py()).astype(f"M8[{unit}]")) for place in places}
    return Held(pc.if_else(far, pa.scalar(None, array.type), array), unfit)


def _cast(array: pa.Array, kind: pa.DataType, other: pa.DataType) -> pa.Array:
    """Return an array in the first type, or in the other where that one can't hold each value."""
    try:
        return array.cast(kind)
    except pa.ArrowInvalid:
        return array.cast(other)


def _of_objects(values: list[Any], zone: str, mark: str) -> Held:
    kinds = set(map(type, values))
    if kinds & {type(pd.NaT), type(pd.NA), np.datetime64, np.timedelta64}:
        values = [_plain(value) for value in values]
        kinds = set(map(type, values))
    if kinds <= {float, type(None)} and float in kinds:  # most are such
        floats = pa.array(values, pa.float64())
        if pc.all(pc.is_finite(floats)).as_py() is not False:
            return Held(floats)
    unfit: dict[int, str] = {}
    if any(issubclass(kind, _FLOATS) for kind in kinds):
        places = [at for at, value in enumerate(values) if isinstance(value, _FLOATS) and not _is_finite(value)]
        unfit = {place: _written(values[place]) for place in places}
        values = [None if place in unfit else value for place, value in enumerate(values)] if unfit else values
        kinds = set(map(type, values)) if unfit else kinds
    try:
        array = _array(values, kinds - {type(None)}, zone)
    except _WRONG:
        array = None
    if array is None:
        array = pa.array([_text(value, mark) for value in values], pa.string())
    return Held(array, unfit)


def _array(values: list[Any], kinds: set[type], zone: str) -> pa.Array | None:
    """Return values of one family in its type; None where they are of several, or of one that Arrow has not.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError, OverflowError: The type can't hold one of them.
    """
    families = {_family(kind) for kind in kinds}
    if not families:
        return pa.nulls(len(values))
    if families == {"integer"}:
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    if families <= {"integer", "number", "decimal"}:
        return _numbers(values, kinds, families)
    if families <= {"date", "timestamp"} and "timestamp" in families:
        return _moments(values, zone)
    one = families.pop() if len(families) == 1 else ""
    return pa.array(values, arrow_of(one)) if one in ("string", "boolean", "date") else None


def _family(kind: type) -> str:
    """Return the word of a type's values, nothing for those that only text holds."""
    if issubclass(kind, bool | np.bool_):
        return "boolean"
    if issubclass(kind, np.timedelta64 | np.longdouble):
        return ""
    for types, word in (
        (int | np.integer, "integer"), (float | np.floating, "number"), (Decimal, "decimal"), (str, "string"),
        (datetime, "timestamp"), (date, "date"),
    ):  # fmt: skip
        if issubclass(kind, types):
            return word
    return ""


def _numbers(values: list[Any], kinds: set[type], families: set[str]) -> pa.Array:
    if kinds == {np.float32}:
        return pa.array(values, pa.float32())
    if "number" not in families:
        exact = [value if value is None or isinstance(value, Decimal) else Decimal(int(value)) for value in values]
        return pa.array(exact)
    whole = all(abs(int(value)) <= _WHOLE for value in values if isinstance(value, int | np.integer))
    if "decimal" not in families and whole:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return decimals(values)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, np.float32 | np.float16):
        return Decimal(str(value))
    return Decimal(repr(float(value))) if isinstance(value, float | np.floating) else Decimal(int(value))


def _moments(values: list[Any], zone: str) -> pa.Array:
    """Return datetimes, and dates among them, as timestamps.

    Raises:
        pa.ArrowInvalid, OverflowError: One is outside the calendar, or left out by the zone's clocks.
    """
    moments = [None if value is None else _moment(value) for value in values]
    unit = "ns" if any(getattr(value, "nanosecond", 0) for value in moments) else "us"
    if not any(value.tzinfo for value in moments if value is not None):
        return pa.array(moments, pa.timestamp(unit))
    place = ZoneInfo(zone)
    # A time that there was twice is the first, here as everywhere.
    aware = [value if value is None or value.tzinfo else value.replace(tzinfo=place, fold=0) for value in moments]
    found = [value if value is None else value.astimezone(UTC) for value in aware]
    for value, instant in zip(values, found, strict=True):
        is_local = isinstance(value, datetime) and value.tzinfo is None
        if is_local and instant is not None and instant.astimezone(place).replace(tzinfo=None) != value:
            raise pa.ArrowInvalid(missing(zone))  # as text it is kept, and is a reject where it is to be a time
    return pa.array(found, pa.timestamp(unit, "UTC"))


def _moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime.combine(value, time.min)


def _plain(value: Any) -> Any:
    """Return None for what pandas and numpy write where a value is missing, and numpy's moments as Python's."""
    if value is pd.NaT or value is pd.NA:
        return None
    if not isinstance(value, np.datetime64 | np.timedelta64):
        return value
    if np.isnat(value):
        return None
    if isinstance(value, np.timedelta64):
        return pd.Timedelta(value)
    day = value.item() if np.datetime_data(value.dtype)[0] == "D" else None
    return day if isinstance(day, date) else pd.Timestamp(value)


def _is_finite(value: Any) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)


def _written(value: Any) -> str:
    if value.is_nan() if isinstance(value, Decimal) else math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _text(value: Any, mark: str = ".") -> str | None:
    if is_nested(value):
        return as_json(value)
    if isinstance(value, (bool, np.bool_, *_FLOATS, bytes, bytearray, memoryview, pd.Timedelta)):
        return spell(bytes(value) if isinstance(value, bytearray | memoryview) else value, point=mark)
    return None if value is None or pd.isna(value) else str(value)

"""How values are written as text: by Arrow where it does as people do, else by Python."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.types.words import PLACES, is_dictionary, is_spelled_by_python, word_of

_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)
_LAST_PLACE, _EXACT = Decimal(1).scaleb(-PLACES), Context(prec=400, rounding=ROUND_HALF_EVEN)
MOST_DIGITS = 21  # of a whole number that a float is written as; a longer one has an exponent


def as_text(values: pa.ChunkedArray, point: str = ".") -> pa.ChunkedArray:
    """Return values as people write them: 12 for 12.0, ISO dates, true and false, JSON for what is nested.

    Args:
        point: The decimal point of numbers that are no text, where who reads them expects another.
    """
    kind = values.type
    word = word_of(kind)
    if kind == pa.string():
        return values
    if word == "number":
        text = _digits(pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values))
        return text if point == "." else pc.replace_substring(text, ".", point)
    if word == "decimal" or is_spelled_by_python(kind):
        return spelled(values.to_pylist(), point=point)
    if word == "timestamp" and kind.tz is not None:
        values = pc.cast(values, pa.timestamp(kind.unit, "UTC"))
    text = pc.cast(values, pa.string())
    if word == "timestamp":
        text = pc.replace_substring_regex(text, r"(?: 00:00:00)?\.0+(Z?)$", r"\1") if kind.tz is None else text
        text = pc.replace_substring_regex(text, r"\.0+Z$", "Z")
    return text


def _digits(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return floats as text without an exponent, but for those that are very large or small."""
    whole = pc.and_(pc.equal(pc.floor(values), values), pc.less_equal(pc.abs(values), 2.0**53))
    numbers = pc.if_else(whole, values, pa.scalar(None, values.type)).cast(pa.int64())
    text = pc.coalesce(numbers.cast(pa.string()), values.cast(pa.string()))
    scientific = pc.match_substring(text, "e")  # arrow writes 1.2e+10
    if not pc.any(scientific).as_py():
        return text
    distinct = pc.unique(pc.if_else(scientific, text, pa.scalar(None, pa.string())))
    spelled = pa.array([_without_exponent(each) for each in distinct.to_pylist()], pa.string())
    return pc.if_else(scientific, spelled.take(pc.index_in(text, value_set=distinct)), text)


def _without_exponent(number: str | None) -> str | None:
    if number is None:
        return None
    exact = Decimal(number)
    return format(exact, "f") if _is_plain(exact) else number


def _is_plain(number: Decimal) -> bool:
    return -8 < number.adjusted() < MOST_DIGITS


def plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values without arrow's variations on one theme: dictionaries, views, large strings, typeless nulls."""
    kind = values.type
    if is_dictionary(kind):
        return plain(pc.cast(values, kind.value_type))
    if word_of(kind) in ("null", "string"):
        return pc.cast(values, pa.string())
    return values


def is_nested(value: Any) -> bool:
    """Whether a value holds others."""
    return isinstance(value, Mapping | list | tuple | set | frozenset | np.ndarray)


def as_json(value: Any) -> str:
    """Return what is nested as JSON, each value in it as it is written alone; a set in one order, whoever writes it."""
    return _ENCODER.encode(_jsonable(value))


def _jsonable(value: Any) -> Any:
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, Mapping):
        keys = str | int | float | bool | None
        return {key if isinstance(key, keys) else str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, np.ndarray) and not value.ndim:
        return _jsonable(value.item())
    if is_nested(value):
        items = [_jsonable(each) for each in value]
        return sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    if isinstance(value, np.float32 | np.float16):
        return float(str(value))
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        return value.item()
    if isinstance(value, bytes):
        return spell(value)
    import pandas as pd

    return value if isinstance(value, str | int) or not pd.isna(value) else None


def spelled(values: list[Any], wanted: str = "", point: str = ".") -> pa.ChunkedArray:
    """Return Python values of any types as text; see `spell`."""
    return pa.chunked_array([pa.array([spell(value, wanted, point) for value in values], pa.string())])


def spell(value: Any, wanted: str = "", point: str = ".") -> str | None:
    """Return one Python value as text, None where it is missing: JSON of lists and mappings, ISO dates, plain digits.

    Args:
        wanted: The word of the type that it will be cast to: a boolean is 1 for a number, a float is rounded for a
            decimal, midnight is left out of a date.
        point: The decimal point of numbers that are no text, where who reads them expects another.
    """
    text = _spell(value, wanted)
    is_number = isinstance(value, float | np.floating | Decimal)
    return text.replace(".", point) if text is not None and is_number and point != "." else text


def _spell(value: Any, wanted: str) -> str | None:
    if isinstance(value, str):
        return value
    import pandas as pd

    if is_nested(value):
        return as_json(value)
    if value is None or pd.isna(value):
        return None
    if isinstance(value, bool | np.bool_):
        return str(int(value)) if wanted in ("integer", "number") else str(bool(value)).lower()
    if isinstance(value, np.float32 | np.float16):
        value = float(str(value))  # its own digits: 0.1, not 0.10000000149011612
    if isinstance(value, float | np.floating):
        if not math.isfinite(value):
            return str(float(value))
        number = repr(float(value))
        if wanted != "decimal" and not _is_plain(Decimal(number)):
            digits, _, exponent = number.partition("e")
            return f"{digits}e{int(exponent):+d}"  # as arrow writes it
        value = Decimal(number)
    if isinstance(value, Decimal):
        if not value.is_finite() or abs(value.adjusted()) > _EXACT.prec // 2:
            return str(value)
        if wanted == "decimal":
            value = value.quantize(_LAST_PLACE, context=_EXACT)
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, pd.Timedelta) and not value.nanoseconds:
        value = value.to_pytimedelta()
    if isinstance(value, datetime) and wanted == "date" and value.tzinfo is None and value.time() == time.min:
        value = value.date()
    if isinstance(value, datetime) and wanted == "timestamp" and value.tzinfo is not None:
        with suppress(OverflowError):  # a zone may be 00:53:28 from UTC, which no text says
            value = value.astimezone(UTC)
    return value.isoformat() if isinstance(value, date) else str(value)

"""How values are written as text: by Arrow where it does as people do, else by Python."""

import json
from datetime import date, datetime, time
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.types.words import PLACES, is_dictionary, is_spelled_by_python, word_of

_LAST_PLACE, _EXACT = Decimal(1).scaleb(-PLACES), Context(prec=400, rounding=ROUND_HALF_EVEN)


def as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values as people write them: 12 for 12.0, ISO dates, true and false, JSON for what is nested."""
    kind = values.type
    word = word_of(kind)
    if kind == pa.string():
        return values
    if word == "number":
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
        # Arrow writes 1.2e+10; beyond 2**53 the digits would say more than the float knows.
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less_equal(pc.abs(values), 2.0**53))
        numbers = pc.if_else(whole, values, pa.scalar(None, kind)).cast(pa.int64())
        return pc.coalesce(numbers.cast(pa.string()), values.cast(pa.string()))
    if word == "decimal" or is_spelled_by_python(kind):
        return spelled(values.to_pylist())
    if word == "timestamp" and kind.tz is not None:
        values = pc.cast(values, pa.timestamp(kind.unit, "UTC"))
    text = pc.cast(values, pa.string())
    if word == "timestamp":
        text = pc.replace_substring_regex(text, r"(?: 00:00:00)?\.0+(Z?)$", r"\1") if kind.tz is None else text
        text = pc.replace_substring_regex(text, r"\.0+Z$", "Z")
    return text


def plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values without arrow's variations on one theme: dictionaries, views, large strings, typeless nulls."""
    kind = values.type
    if is_dictionary(kind):
        return plain(pc.cast(values, kind.value_type))
    if word_of(kind) in ("null", "string"):
        return pc.cast(values, pa.string())
    return values


def spelled(values: list[Any], wanted: str = "") -> pa.ChunkedArray:
    """Return Python values of any types as text; see `spell`."""
    return pa.chunked_array([pa.array([spell(value, wanted) for value in values], pa.string())])


def spell(value: Any, wanted: str = "") -> str | None:
    """Return one Python value as text, None where it is missing: JSON of lists and mappings, ISO dates, plain digits.

    Args:
        wanted: The word of the type that it will be cast to: a boolean is 1 for a number, a float is rounded for a
            decimal, midnight is left out of a date.
    """
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

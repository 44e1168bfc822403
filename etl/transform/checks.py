"""What a column's values must be, checked by Arrow on its own arrays."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from functools import lru_cache, partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from etl.config.models import Column
from etl.types.normalize import is_blank
from etl.types.words import PLACES, arrow_of, word_of

Mask = npt.NDArray[np.bool_]

_LAST_PLACE, _EXACT = Decimal(1).scaleb(-PLACES), Context(prec=400)
_BEYOND = Decimal(10) ** 38  # further from 0 than any value of an integer or decimal column
_WIDE = pa.decimal256(38 + 1 + PLACES, PLACES)


class _Check(NamedTuple):
    """Which values pass (of a missing one, anything), and the reason of a reject that doesn't."""

    passes: Callable[[pa.ChunkedArray], Any]
    reason: str


class Checker:
    """The checks of some columns: required, allowed, min, max, pattern. A missing value fails `required` only.

    Text of nothing but blanks is no value where one is required.

    Args:
        columns: Those to check, by name.
        zone: Time zone of limits that carry none.
    """

    def __init__(self, columns: Mapping[str, Column], zone: str) -> None:
        self._checks = {name: (column.required, _checks(column, zone)) for name, column in columns.items()}

    def failures(self, rows: pa.Table) -> dict[str, list[tuple[Mask, str]]]:
        """Return for each column that fails the rows that do, and why, in the order of the checks."""
        found = {name: list(_failed(rows[name], *checks)) for name, checks in self._checks.items()}
        return {name: failures for name, failures in found.items() if failures}


def _failed(values: pa.ChunkedArray, required: bool, checks: list[_Check]) -> Iterator[tuple[Mask, str]]:
    if required:
        absent = pc.is_null(values) if word_of(values.type) != "string" else is_blank(values)
        if pc.any(absent).as_py():
            yield _numpy(absent), "required"
    for check in checks:
        failed = pc.invert(check.passes(values))
        if pc.any(failed).as_py():
            failed = _numpy(pc.and_(failed, pc.is_valid(values)))
            if failed.any():
                yield failed, check.reason


def _checks(column: Column, zone: str) -> list[_Check]:
    checks = []
    if column.allowed is not None:
        allowed = _value_set(column, zone)
        checks.append(_Check(partial(pc.is_in, value_set=allowed), "not allowed"))
    if column.min is not None:
        lowest = _bound(column, column.min, zone, ROUND_CEILING)
        checks.append(_Check(lambda values: pc.greater_equal(values, lowest), f"below {column.min}"))
    if column.max is not None:
        highest = _bound(column, column.max, zone, ROUND_FLOOR)
        checks.append(_Check(lambda values: pc.less_equal(values, highest), f"above {column.max}"))
    if column.pattern is not None:
        checks.append(_Check(partial(_matches, pattern=column.pattern), "doesn't match pattern"))
    return checks


def _limit(column: Column, value: Any, zone: str) -> Any:
    limit = column.typed(value)
    if isinstance(limit, datetime):
        return (limit if limit.tzinfo else limit.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    return limit


def _value_set(column: Column, zone: str) -> pa.Array:
    """Return the allowed values but those that no value of the column's type equals."""
    kind, allowed = arrow_of(column.type), []
    limits = [_limit(column, value, zone) for value in column.allowed or ()]
    limits += [-limit for limit in limits if limit == 0]  # Arrow tells -0.0 from 0.0
    for limit in limits:
        try:
            allowed.append(pa.scalar(limit, kind))
        except (pa.ArrowInvalid, OverflowError):  # a decimal with more places, an integer with more bits
            continue
    return pa.array(allowed, kind)


def _bound(column: Column, value: Any, zone: str, rounding: str) -> pa.Scalar:
    """Return a limit as Arrow compares it exactly: a decimal is rounded inwards to the column's places."""
    limit, kind = _limit(column, value, zone), arrow_of(column.type)
    if not isinstance(limit, Decimal | int):
        return pa.scalar(limit, kind)
    exact = min(max(Decimal(limit), -_BEYOND), _BEYOND).quantize(_LAST_PLACE, rounding, context=_EXACT)
    try:
        return pa.scalar(exact).cast(kind)
    except pa.ArrowInvalid:  # beyond all values of the column's type
        return pa.scalar(exact, _WIDE)


class Unique:
    """The values of one column seen so far in a partition."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()

    def repeated(self, values: pa.ChunkedArray) -> Mask:
        """Return which values have come before, here or in an earlier call, and remember the others."""
        keys = _keys(values)
        fresh = set(keys) - {None}
        again = np.zeros(len(values), dtype=bool)
        if len(fresh) < len(keys) - values.null_count or not self._seen.isdisjoint(fresh):
            for place, key in enumerate(keys):
                if key is not None:
                    again[place] = key in self._seen
                    self._seen.add(key)
        else:
            self._seen |= fresh
        return again


def _keys(values: pa.ChunkedArray) -> list[Any]:
    """Return values as the quickest Python objects that are equal where they are; None where one is missing."""
    word = word_of(values.type)
    if word == "decimal":
        values = pc.cast(values, pa.string())
    elif word in ("date", "timestamp"):
        values = pc.cast(values, pa.int32() if word == "date" else pa.int64())
    if values.null_count and word not in ("string", "decimal"):
        return values.to_pylist()  # type: ignore[no-any-return]
    return values.to_numpy().tolist()  # type: ignore[no-any-return]


def _matches(text: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    """Match whole values as Python's `re` does: by arrow's RE2 where both agree, which is on plain ASCII."""
    fast = _fast(pattern)
    if fast is None:
        return pc.is_in(text, value_set=_fitting(pc.unique(text), pattern))
    fits = pc.match_substring_regex(text, fast)
    foreign = pc.invert(pc.string_is_ascii(text))
    if not pc.any(foreign).as_py():
        return fits
    some = _fitting(pc.unique(text.filter(foreign)), pattern)
    return pc.if_else(foreign, pc.is_in(text, value_set=some), fits)


def _fitting(distinct: pa.Array, pattern: str) -> pa.Array:
    compiled = re.compile(pattern)
    return pa.array([value for value in distinct.drop_null().to_pylist() if compiled.fullmatch(value)], pa.string())


@lru_cache
def _fast(pattern: str) -> str | None:
    """Return the pattern for RE2, or None where RE2 can't read it or reads it in another way."""
    if "{," in pattern or "[[" in pattern or "[:" in pattern:
        return None
    fast = f"^(?:{pattern})$"
    try:
        pc.match_substring_regex(pa.array([""]), fast)
    except pa.ArrowInvalid:
        return None
    return fast


def _numpy(mask: Any) -> Mask:
    return np.array(pc.fill_null(mask, False).to_numpy(zero_copy_only=False), dtype=bool)

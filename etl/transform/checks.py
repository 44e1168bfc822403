"""What a column's values must be, checked by pandera on arrow's own arrays."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.config.models import Column

if TYPE_CHECKING:
    from pandera.pandas import Check


Mask = npt.NDArray[np.bool_]


class Checker:
    """The checks of some columns: required, allowed, min, max, pattern. Nulls are only ever `required`'s business.

    pandera's checks are called one by one: its schemas take 9 ms to tell of a few bad rows in a chunk, however small.

    Args:
        columns: Those to check, by name.
        zone: Time zone of limits that carry none.
    """

    def __init__(self, columns: Mapping[str, Column], zone: str) -> None:
        self._columns = {name: column for name, column in columns.items() if _is_checked(column)}
        self._zone = zone
        self._checks: dict[str, list[Check]] | None = None

    def failures(self, rows: pa.Table) -> dict[str, list[tuple[Mask, str]]]:
        """Return for each column that fails the rows that do, and why, in the order of the checks."""
        if not rows.num_rows:
            return {}
        if self._checks is None:  # half a second the first time, for pipelines with checks only
            self._checks = {name: _checks(column, self._zone) for name, column in self._columns.items()}
        found = {name: list(_failed(rows[name], self._columns[name], checks)) for name, checks in self._checks.items()}
        return {name: failures for name, failures in found.items() if failures}


def _failed(values: pa.ChunkedArray, column: Column, checks: "list[Check]") -> Iterator[tuple[Mask, str]]:
    there = _numpy(pc.is_valid(values))
    if column.required and not there.all():
        yield ~there, "required"
    if not checks or not there.any():
        return
    series = values.drop_null().to_pandas(types_mapper=pd.ArrowDtype)
    for check in checks:
        passed = check(series).check_output.to_numpy(dtype=bool)
        if not passed.all():
            failed = np.zeros(len(there), dtype=bool)
            failed[there] = ~passed
            yield failed, str(check.error)


class Unique:
    """The values of one column seen so far in a partition."""

    def __init__(self) -> None:
        self._seen: list[pa.Array] = []

    def repeated(self, values: pa.ChunkedArray) -> Mask:
        """Return which values have come before, here or in an earlier call, and remember the others."""
        distinct = pc.unique(values).drop_null()
        again = np.zeros(len(values), dtype=bool)
        if len(distinct) < len(values) - values.null_count:
            again = values.to_pandas(types_mapper=pd.ArrowDtype).duplicated().to_numpy() & ~_numpy(pc.is_null(values))
        if self._seen:
            seen = pa.chunked_array(self._seen)
            again |= _numpy(pc.is_in(values, value_set=seen, skip_nulls=True))
            distinct = distinct.filter(pc.invert(pc.is_in(distinct, value_set=seen)))
        self._seen.append(distinct)
        return again


def _is_checked(column: Column) -> bool:
    limits = (column.allowed, column.min, column.max, column.pattern)
    return column.required or any(limit is not None for limit in limits)


def _checks(column: Column, zone: str) -> "list[Check]":
    if all(limit is None for limit in (column.allowed, column.min, column.max, column.pattern)):
        return []
    from pandera.pandas import Check

    checks = []
    if column.allowed is not None:
        allowed = [_limit(column, value, zone) for value in column.allowed]
        checks.append(Check.isin(allowed, error="not allowed"))
    if column.min is not None:
        checks.append(Check.ge(_limit(column, column.min, zone), error=f"below {column.min}"))
    if column.max is not None:
        checks.append(Check.le(_limit(column, column.max, zone), error=f"above {column.max}"))
    if column.pattern is not None:
        pattern = column.pattern
        checks.append(Check(lambda values: _matches(values, pattern), error="doesn't match pattern"))
    return checks


def _limit(column: Column, value: Any, zone: str) -> Any:
    limit = column.typed(value)
    if isinstance(limit, datetime):
        return (limit if limit.tzinfo else limit.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    return limit


def _matches(values: "pd.Series[Any]", pattern: str) -> "pd.Series[Any]":
    """Match whole values as Python's `re` does: by arrow's RE2 where both agree, which is on plain ASCII."""
    text = pa.chunked_array(pa.array(values))
    fast = _fast(pattern)
    if fast is None:
        fits = _numpy(pc.is_in(text, value_set=_fitting(pc.unique(text), pattern)))
    else:
        fits = _numpy(pc.match_substring_regex(text, fast))
        foreign = pc.invert(pc.string_is_ascii(text))
        if pc.any(foreign).as_py():
            some = text.filter(foreign)
            fits[_numpy(foreign)] = _numpy(pc.is_in(some, value_set=_fitting(pc.unique(some), pattern)))
    return pd.Series(fits, index=values.index)


def _fitting(distinct: pa.Array, pattern: str) -> pa.Array:
    compiled = re.compile(pattern)
    return pa.array([value for value in distinct.to_pylist() if compiled.fullmatch(value)], pa.string())


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

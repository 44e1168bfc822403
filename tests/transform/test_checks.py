"""Checks and uniqueness, compared with plain Python."""

import datetime as dt
import re
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.config.models import Column
from etl.transform.checks import Checker, Unique
from etl.types.words import TYPES, arrow_of

ZONE = "Europe/Rome"
DECIMALS = st.decimals(-(10**6), 10**6, places=9) | st.sampled_from([Decimal("9" * 29), Decimal("-" + "9" * 29)])
LIMITS: dict[str, tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]] = {  # of a column's values, of its limits
    "integer": (
        st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1),
        st.integers(-5, 5) | st.integers(-(2**70), 2**70),
    ),
    "number": (
        st.integers(-3, 3).map(float) | st.just(-0.0) | st.floats(allow_nan=False),
        st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False),
    ),
    "decimal": (
        st.sampled_from(["0.1", "1.5", "1.500000001", "-2"]).map(Decimal) | DECIMALS,
        st.sampled_from([0.1, "1.5000000001", 1, "1e35", "-1e300", "1e-20"]) | DECIMALS.map(str),
    ),
    "date": (st.dates(), st.dates().map(str)),
    "timestamp": (
        st.datetimes(min_value=dt.datetime(1900, 1, 3), max_value=dt.datetime(2100, 1, 1), timezones=st.just(dt.UTC)),
        st.datetimes(min_value=dt.datetime(1900, 1, 3), max_value=dt.datetime(2100, 1, 1)).map(str),
    ),
}


def mask(values: list[Any], column: Column, kind: pa.DataType) -> dict[str, list[bool]]:
    rows = pa.table({"x": pa.chunked_array([pa.array(values, kind)])})
    found = Checker({"x": column}, ZONE).failures(rows).get("x", [])
    return {reason: failed.tolist() for failed, reason in found}


def plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value if value.tzinfo else value.replace(tzinfo=ZoneInfo(ZONE))
    return value


@pytest.mark.parametrize("word", LIMITS)
@given(data=st.data())
def test_limits_are_those_of_python(word: str, data: st.DataObject) -> None:
    values, limits = LIMITS[word]
    column = [*data.draw(st.lists(values | st.none(), max_size=8))]
    low, high = sorted(data.draw(st.tuples(limits, limits)), key=lambda limit: plain(Column(type=word).typed(limit)))
    allowed = data.draw(st.lists(limits, min_size=1, max_size=4))
    made = Column.model_validate({"type": word, "min": low, "max": high, "allowed": allowed, "required": True})
    found = mask(column, made, arrow_of(word))
    lowest, highest, *some = (plain(made.typed(limit)) for limit in (low, high, *allowed))
    wanted = {
        "required": [value is None for value in column],
        "not allowed": [value is not None and value not in some for value in column],
        f"below {made.min}": [value is not None and value < lowest for value in column],
        f"above {made.max}": [value is not None and value > highest for value in column],
    }
    assert found == {reason: failed for reason, failed in wanted.items() if any(failed)}
    assert list(found) == [reason for reason in wanted if reason in found]


@given(
    st.lists(st.none() | st.text("aAbB1é\n", max_size=4), max_size=8),
    st.sampled_from(["a+", "[ab]{1,2}", r"\w*", "(?=a).*", "a|b1", "é?", ".", "(a)\\1", "^a$", "[A-Z]+"]),
)
def test_a_pattern_fits_whole_values_as_pythons_does(values: list[str | None], pattern: str) -> None:
    failed = mask(values, Column(pattern=pattern), pa.string()).get("doesn't match pattern", [False] * len(values))
    assert failed == [value is not None and re.fullmatch(pattern, value) is None for value in values]


@pytest.mark.parametrize("word", TYPES)
@given(data=st.data())
def test_a_value_is_repeated_where_it_came_before_in_any_chunk(word: str, data: st.DataObject) -> None:
    some: dict[str, st.SearchStrategy[Any]] = {
        "string": st.sampled_from(["", "a", "A", "á"]),
        "integer": st.sampled_from([0, 1, 2**63 - 1, 2**63 - 2, -(2**63)]),
        "number": st.sampled_from([0.0, 0.1, 1.0, 1e300]),
        "decimal": st.sampled_from(["0", "0.000000001", "1", "99999999999999999999999999999"]).map(Decimal),
        "boolean": st.booleans(),
        "date": st.dates(dt.date(2024, 1, 1), dt.date(2024, 1, 3)),
        "timestamp": st.sampled_from([dt.datetime(2024, 1, 1, 0, 0, 0, micro, dt.UTC) for micro in (0, 1)]),
    }
    chunks = data.draw(st.lists(st.lists(some[word] | st.none(), max_size=5), max_size=4))
    unique, seen = Unique(), set[Any]()
    for chunk in chunks:
        again = unique.repeated(pa.chunked_array([pa.array(chunk, arrow_of(word))])).tolist()
        for value, repeated in zip(chunk, again, strict=True):
            assert repeated == (value is not None and value in seen)
            seen.add(value)

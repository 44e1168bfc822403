"""Values as their column's type: exactly, or not at all."""

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.config.models import Column
from etl.types.casts import cast
from etl.types.given import from_series
from tests.helpers.examples import examples

MOMENT = dt.datetime(2024, 1, 31, 14, 0, 0, 123456, dt.UTC)


def one(value: pa.Array, **column: Any) -> tuple[Any, str]:
    """Return what becomes of a single value, and why nothing does."""
    [found], failures = _cast(value, column)
    return found, failures[0][1] if failures else ""


def _cast(values: pa.Array, column: dict[str, Any], zone: str = "America/Chicago") -> tuple[list[Any], Any]:
    found, failures = cast(pa.chunked_array([values]), Column.model_validate(column), zone)
    return found.to_pylist(), failures


DIGITS = st.text("0123456789", max_size=45)
NUMBERS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-", "+"]),
    DIGITS,
    st.just("") | DIGITS.map(".{}".format),
    st.sampled_from(["", "", "e5", "E-400", "e400", "e-310"]),
).filter(lambda text: any(letter.isdigit() for letter in text.partition("e")[0].partition("E")[0]))


@settings(max_examples=examples(100))
@given(st.lists(NUMBERS, min_size=20, max_size=100))
def test_text_is_the_nearest_double_or_none_where_that_is_zero_or_infinite(texts: list[str]) -> None:
    found, _ = _cast(pa.array(texts), {"type": "number"})
    for text, value in zip(texts, found, strict=True):
        nearest = float(text)
        lost = math.isinf(nearest) or (nearest == 0 and Decimal(text) != 0)
        assert value == (None if lost else nearest), text


@settings(max_examples=examples(100))
@given(st.lists(st.tuples(st.integers(-(10**38) + 1, 10**38 - 1), st.integers(0, 38)), min_size=1, max_size=50))
def test_decimals_of_any_digits_are_decimals_or_none(pairs: list[tuple[int, int]]) -> None:
    for places in {places for _, places in pairs}:
        values = [_decimal(digits, places) for digits, each in pairs if each == places]
        found, _ = _cast(pa.array(values, pa.decimal128(38, places)), {"type": "decimal"})
        assert found == [value if _fits(value) else None for value in values]


def _decimal(digits: int, places: int) -> Decimal:
    return Decimal(("-" if digits < 0 else "") + f"{abs(digits)}E-{places}")


def _fits(value: Decimal) -> bool:
    digits = format(value.copy_abs(), "f")
    return set(digits.partition(".")[2][9:]) <= {"0"} and len(digits.partition(".")[0]) <= 29


@settings(max_examples=examples(100))
@given(st.lists(st.floats(allow_nan=False) | st.integers(-(10**12), 10**12).map(lambda n: n / 1000), max_size=50))
def test_floats_of_a_source_are_decimals_of_the_same_15_digits_or_none(values: list[float]) -> None:
    found, _ = _cast(pa.array(values, pa.float64()), {"type": "decimal"})
    for value, decimal in zip(values, found, strict=True):
        if decimal is None:
            assert abs(value) >= 1e29 or round(value, 9) != value
        else:
            assert abs(float(decimal) - value) <= abs(value) * 1e-15


@settings(max_examples=examples(100))
@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20)))
def test_decimals_are_the_nearest_double(values: list[Decimal]) -> None:
    found, _ = _cast(pa.array(values, pa.decimal128(38, 9)), {"type": "number"})
    assert found == [float(value) for value in values]


@settings(max_examples=examples(100))
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50))
def test_a_float_is_text_that_is_the_same_float_and_has_no_exponent_up_to_21_digits(values: list[float]) -> None:
    found, _ = _cast(pa.array(values, pa.float64()), {"type": "string"})
    beside = from_series(pd.Series([*values, "x"], dtype=object)).to_pylist()[:-1]
    for value, text, other in zip(values, found, beside, strict=True):
        assert float(text) == value
        assert ("e" in text) == (value != 0 and not 1e-7 <= abs(value) < 1e21)
        assert float(other) == value
        assert ("e" in other) == ("e" in text)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([4111111111111111.0]),
        pa.array([4111111111111111.0, 0.5]),
        pa.array([np.float64(4111111111111111.0)]),
        from_series(pd.Series([4111111111111111.0, "x"], dtype=object)).combine_chunks(),
        from_series(pd.Series([np.float64(4111111111111111.0), np.int64(5)], dtype=object)).combine_chunks(),
        from_series(pd.Series([True, 4111111111111111.0], dtype=object)[1:]).combine_chunks(),
        from_series(pd.Series([Decimal(1), 4111111111111111.0], dtype=object)[1:]).combine_chunks(),
    ],
)
def test_a_float_id_keeps_its_digits_in_a_string_column(values: pa.Array) -> None:
    assert _cast(values, {"type": "string"})[0][0] == "4111111111111111"


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("2024-01-31T14:00:00.123456{0}Z", ()),
        ("2024-01-31 08:00:00.123456{0}", ()),
        ("2024-01-31 08:00:00.123456{0}", "%Y-%m-%d %H:%M:%S.%f"),
        ("31.01.2024 08:00:00,123456{0}", "%d.%m.%Y %H:%M:%S,%f"),
        ("2024-01-31 14:00:00.123456{0} UTC", "%Y-%m-%d %H:%M:%S.%f %Z"),
        ("2024-01-31 14:00:00.123456{0}+0000", "%Y-%m-%d %H:%M:%S.%f%z"),
    ],
)
def test_a_seventh_digit_of_a_second_is_cut_where_it_is_0_or_the_column_says_so(text: str, format: str) -> None:
    column = {"type": "timestamp", "format": format}
    for zeros in ("", "0", "000"):
        assert one(pa.array([text.format(zeros)]), **column) == (MOMENT, "")
    for digits in ("7", "001", "789"):
        assert one(pa.array([text.format(digits)]), **column) == (None, "more than 6 digits of a second")
        assert one(pa.array([text.format(digits)]), **column, truncate=True) == (MOMENT, "")


@pytest.mark.parametrize("year", [1960, 2024])
def test_nanoseconds_of_a_frame_are_cut_where_the_column_says_so(year: int) -> None:
    moment = pd.Timestamp(year, 1, 31, 14, 0, 0, 123456, nanosecond=1).as_unit("ns").tz_localize("UTC")
    found = pa.array(pd.Series([moment, moment.floor("us")]))
    [fine, coarse], failures = _cast(found, {"type": "timestamp"})
    assert (fine, coarse) == (None, MOMENT.replace(year=year))
    assert failures[0][1] == "more than 6 digits of a second"
    assert _cast(found, {"type": "timestamp", "truncate": True})[0] == [MOMENT.replace(year=year)] * 2


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("type", ["timestamp", "date"])
def test_a_moment_outside_the_calendar_is_none(unit: str, zone: str | None, type: str) -> None:
    values = pa.array([2**62, -(2**62), 0, None], pa.int64()).cast(pa.timestamp(unit, zone))
    found, failures = _cast(values, {"type": type}, "UTC")
    kept = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert found == [None, None, kept if type == "timestamp" else kept.date(), None]
    assert failures[0][0].to_pylist() == [True, True, False, False]


@pytest.mark.parametrize("type", ["timestamp", "date"])
def test_a_date_outside_the_calendar_is_none(type: str) -> None:
    values = pa.array([4_000_000, 0], pa.int32()).cast(pa.date32())
    assert _cast(values, {"type": type})[0][0] is None


@given(st.lists(st.floats(-1e28, 1e28), min_size=1), st.integers(0, 9))
def test_a_float_is_the_decimal_that_its_shortest_digits_say(floats: list[float], places: int) -> None:
    values = [round(each, places) for each in floats]
    exact = [Decimal(repr(each)) for each in values]
    for made in (False, True):
        found, _ = cast(pa.chunked_array([pa.array(values)]), Column(type="decimal"), "UTC", made=made)
        assert found.to_pylist() == exact


def test_a_date_cuts_the_time_of_day_only_where_the_column_says_so() -> None:
    values = pa.array([dt.datetime(2024, 1, 31, 8, 0), dt.datetime(2024, 1, 31)], pa.timestamp("us"))
    assert _cast(values, {"type": "date"})[0] == [None, dt.date(2024, 1, 31)]
    assert _cast(values, {"type": "date", "truncate": True})[0] == [dt.date(2024, 1, 31)] * 2


@pytest.mark.parametrize(
    ("format", "text", "day"),
    [
        ((), "2026-01-31 10:00:00", 31),
        ((), "2026-01-31T23:59:59.123456789", 31),
        ((), "2026-03-29 02:30", 29),
        ((), "2026-01-31T23:30:00Z", 1),
        ((), "2026-01-31 23:30:00+01:00", 31),
        (("%d/%m/%Y",), "31/01/2026 10:00:00", 31),
        (("%Y-%m-%d", "%d.%m.%Y"), "31.01.2026 23:30:00Z", 1),
        ((), "2026-01-31 25:00:00", None),
        ((), "2026-01-31 ten", None),
        (("%d/%m/%Y",), "2026-01-31 10:00:00", None),
    ],
)
def test_a_date_cuts_the_time_of_day_of_a_text_where_the_column_says_so(
    format: tuple[str, ...], text: str, day: int | None
) -> None:
    """Of a text with a zone the day is that of the client's zone, as it is of a moment of a database."""
    column = {"type": "date", "format": format}
    assert _cast(pa.array([text]), column, "Europe/Berlin")[0] == [None]
    [found], failed = _cast(pa.array([text]), {**column, "truncate": True}, "Europe/Berlin")
    assert (found.day if found else None, bool(failed)) == (day, day is None)


@pytest.mark.parametrize("format", ["%Y-%m-%d %H:%M:%S %Z", "%Y-%m-%d %H:%M:%S%Z", "%d %b %Y %H:%M:%S %Z"])
def test_a_zone_by_name_is_utc_or_nothing(format: str) -> None:
    wall = dt.datetime(2024, 7, 1, 12, 0, 0)
    written = wall.strftime(format.replace("%Z", "{}"))
    for name in ("UTC", "GMT", "Z"):
        assert one(pa.array([written.format(name)]), type="timestamp", format=format)[0] == wall.replace(tzinfo=dt.UTC)
    for name in ("CST", "EST", "CET", "BST", "America/Chicago", ""):
        found, why = one(pa.array([written.format(name)]), type="timestamp", format=format)
        assert found is None
        assert "not a timestamp" in why


@settings(max_examples=examples(50))
@given(
    st.datetimes(min_value=dt.datetime(1000, 1, 1), max_value=dt.datetime(9000, 1, 1)).map(
        lambda moment: moment.replace(microsecond=0)
    ),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["%Y-%m-%d %H:%M:%S%z", "%d/%m/%Y %H:%M:%S %z", "%Y%m%dT%H%M%S%z"]),
)
def test_an_offset_says_the_instant(moment: dt.datetime, minutes: int, format: str) -> None:
    aware = moment.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))
    text = aware.strftime(format).zfill(len(aware.strftime(format)))
    found, _ = one(pa.array([text]), type="timestamp", format=format)
    assert found == aware


def test_a_functions_infinities_are_no_number_and_its_missing_ones_are_missing() -> None:
    for series in (
        pd.Series([1.5, np.nan, np.inf]),
        pd.Series([Decimal("1.5"), None, Decimal("Infinity")], dtype=object),
    ):
        for type in ("number", "decimal"):
            found, failures = cast(from_series(series, type), Column(type=type), "UTC", made=True)
            assert found.to_pylist()[1:] == [None, None]
            assert [mask.to_pylist() for mask, _ in failures] == [[False, False, True]]

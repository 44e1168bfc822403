"""What functions give in one column, whatever it mixes: each value as it was, or a reject."""

import datetime as dt
from decimal import Decimal
from enum import IntEnum
from itertools import chain, permutations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from etl.config.models import Column
from etl.errors import FunctionFailed
from etl.sources.resting import Given
from etl.sources.spool import spooled
from etl.transform.steps import from_frame
from etl.types.casts import cast
from etl.types.given import from_series, of_array, of_column
from tests.helpers.deliveries import pipeline

DAY, NOON = dt.date(2024, 1, 5), dt.datetime(2024, 1, 5, 12)
AWARE = dt.datetime(2024, 1, 5, 12, tzinfo=dt.UTC)
EXACT, WHOLE = Decimal("12345678901234567.25"), 2**60 + 1


class Level(IntEnum):
    LOW = 1


# Of two kinds in one column: what they are in it, whichever comes first.
MIXED: list[tuple[list[Any], list[Any]]] = [
    ([DAY, 5], ["2024-01-05", "5"]),
    ([NOON, 5], ["2024-01-05 12:00:00", "5"]),
    ([DAY, 1.5], ["2024-01-05", "1.5"]),
    ([dt.time(1), 5], ["01:00:00", "5"]),
    ([dt.timedelta(1), 5], ["1 day, 0:00:00", "5"]),
    ([np.bool_(True), 5], ["true", "5"]),
    ([DAY, NOON], [dt.datetime(2024, 1, 5), NOON]),
    ([np.datetime64("2024-01-05"), NOON], [dt.datetime(2024, 1, 5), NOON]),
    ([np.datetime64("2024-01-05T12:00:00"), DAY], [NOON, dt.datetime(2024, 1, 5)]),
    ([NOON, AWARE], [AWARE, AWARE]),
    ([1, 2.5], [1.0, 2.5]),
    ([WHOLE, 0.5], [Decimal(WHOLE), Decimal("0.5")]),
    ([np.int64(WHOLE), Decimal("0.5")], [Decimal(WHOLE), Decimal("0.5")]),
    ([EXACT, 0.5], [EXACT, Decimal("0.5")]),
    ([np.float32(0.1), EXACT], [Decimal("0.1"), EXACT]),
    ([EXACT, 0.30000000000000004], ["12345678901234567.25", "0.30000000000000004"]),
    ([np.uint64(2**63), 1], ["9223372036854775808", "1"]),
    ([Level.LOW, 2], [1, 2]),
    ([{"a": 1}, {"b": 1.5}], ['{"a": 1}', '{"b": 1.5}']),
    ([[DAY, NOON], [WHOLE, 0.5]], ['["2024-01-05", "2024-01-05 12:00:00"]', "[1152921504606846977, 0.5]"]),
    ([np.array([1, 2]), np.ones((1, 1))], ["[1, 2]", "[[1.0]]"]),
    ([{(1, 2): np.int64(3)}, {"b", "a"}], ['{"(1, 2)": 3}', '["a", "b"]']),
    ([dt.time(1, tzinfo=dt.UTC), dt.time(2)], ["01:00:00+00:00", "02:00:00"]),
]


@pytest.mark.parametrize(("values", "expected"), MIXED, ids=[f"{number}" for number in range(len(MIXED))])
def test_a_value_is_the_same_whichever_is_before_it_and_in_whatever_they_come(
    values: list[Any], expected: list[Any]
) -> None:
    for places in permutations(range(len(values))):
        some = [values[place] for place in places]
        objects = pd.Series([*some, None], dtype=object)
        given = [[*some, None], objects]
        given += [objects.astype("category")] if any(isinstance(value, dt.date) for value in values) else []
        for each in given:
            assert of_column(each, "UTC").array.to_pylist() == [*(expected[place] for place in places), None]


FRAMES: list[tuple[list[Any], list[Any]]] = [
    ([[EXACT], [0.5]], [EXACT, Decimal("0.5")]),
    ([[WHOLE], [0.5]], [Decimal(WHOLE), Decimal("0.5")]),
    ([[2**53], [0.5]], [2.0**53, 0.5]),
    ([[WHOLE], [Decimal("0.5")]], [Decimal(WHOLE), Decimal("0.5")]),
    ([np.array([2**64 - 1], "u8"), [5]], [Decimal(2**64 - 1), Decimal(5)]),
    ([np.array([16_777_217], "i4"), np.array([0.5], "f4")], [16_777_217.0, 0.5]),
    ([[DAY], [NOON]], [dt.datetime(2024, 1, 5), NOON]),
    ([[DAY], [AWARE]], [dt.datetime(2024, 1, 5, tzinfo=dt.UTC), AWARE]),
    ([[AWARE], pd.to_datetime([AWARE]).tz_convert("Asia/Tokyo")], [AWARE, AWARE]),
    ([pd.to_datetime([AWARE]).as_unit("ns"), pd.to_datetime([NOON]).as_unit("ns")], [AWARE, AWARE]),
    ([[float("nan")], [DAY]], [None, DAY]),
    ([[float("nan")], [NOON]], [None, NOON]),
    ([[float("nan")], [True]], [None, True]),
    ([[float("nan")], [WHOLE]], [None, WHOLE]),
    ([[float("nan")], [Decimal("1.5")]], [None, Decimal("1.5")]),
    ([[pd.NaT], [1]], [None, 1]),
    ([[2.0, None], [WHOLE]], [Decimal(2), None, Decimal(WHOLE)]),
    ([[True], [2]], ["true", "2"]),
]


@pytest.mark.parametrize(("frames", "expected"), FRAMES, ids=[f"{number}" for number in range(len(FRAMES))])
def test_frames_of_different_types_keep_each_value(frames: list[Any], expected: list[Any]) -> None:
    made = pipeline()
    for turned in (False, True):
        tables = [Given(pa.table([of_column(pd.Series(frame), "UTC").array], names=["v"])) for frame in frames]
        chunks = list(spooled(tables[::-1] if turned else tables, "rows", FunctionFailed, made))
        found = [chunk.rows["v"].to_pylist() for chunk in (chunks[::-1] if turned else chunks)]
        assert [*chain(*found)] == expected
        assert len({chunk.rows.schema for chunk in chunks}) == 1


def test_what_no_type_has_rejects_its_row_and_changes_no_columns_type() -> None:
    nan, inf = float("nan"), float("inf")
    for values, unfit, kept in (
        ([Decimal("Infinity"), Decimal("1.5")], {0: "Infinity"}, [None, Decimal("1.5")]),
        ([Decimal("sNaN"), Decimal("1.5")], {0: "NaN"}, [None, Decimal("1.5")]),
        ([nan, 1.5, -inf], {0: "NaN", 2: "-Infinity"}, [None, 1.5, None]),
        ([np.float32("inf"), "x"], {0: "Infinity"}, [None, "x"]),
    ):
        found = of_column(values, "UTC")
        assert (found.unfit, found.array.to_pylist()) == (unfit, kept)
    in_pandas = of_column(pd.Series([nan, Decimal("NaN"), inf, "x"], dtype=object), "UTC")
    assert (in_pandas.unfit, in_pandas.array.to_pylist()) == ({2: "Infinity"}, [None, None, None, "x"])
    far = of_array(pa.array([10**15, 1, None], pa.int64()).cast(pa.timestamp("s")))
    assert (far.unfit, far.array[0].is_valid, far.array[1].as_py()) == (
        {0: "31690708-07-05T01:46:40"},
        False,
        dt.datetime(1970, 1, 1, 0, 0, 1),
    )


def test_pandas_own_kinds_are_read_as_what_they_show() -> None:
    periods, spans = pd.Series(pd.period_range("2024-01", periods=2, freq="M")), pd.Series(pd.interval_range(0, 1))
    assert of_column(periods, "UTC").array.to_pylist() == ["2024-01", "2024-02"]
    assert from_series(periods, "string").to_pylist() == ["2024-01", "2024-02"]
    assert from_series(spans, "string").to_pylist() == ["(0, 1]"]
    assert of_column(pd.Series(pd.arrays.SparseArray([0.0, 1.5])), "UTC").array.to_pylist() == [0.0, 1.5]
    assert of_array(pa.array([5, 10**9], pa.time64("ns"))).array.to_pylist() == ["00:00:00.000000005", "00:00:01"]
    assert of_array(pa.array([86_400_005]).view(pa.date64())).array.to_pylist() == [
        dt.datetime(1970, 1, 2, 0, 0, 0, 5000)
    ]


def test_what_a_transforming_function_mixes_is_kept_too() -> None:
    made = pd.DataFrame(
        {"v": pd.Series([DAY, NOON], dtype=object).astype("category"), "w": [Decimal("inf"), Decimal(1)]}
    )
    made.index.name = "_row"
    rows, failures, spelled = from_frame(made, {}, "UTC")
    assert rows["v"].to_pylist() == [dt.datetime(2024, 1, 5, tzinfo=dt.UTC), AWARE]
    assert rows["w"].to_pylist() == [None, Decimal(1)]
    assert [mask.to_pylist() for mask, _ in failures["w"]] == [[True, False]]
    assert spelled["w"].to_pylist() == ["Infinity", "1"]
    rows, _, _ = from_frame(made, {"v": Column(type="timestamp")}, "UTC")
    assert rows["v"].to_pylist()[1] == AWARE
    narrow = from_series(pd.Series(np.array([0.1], "f4")), "decimal")
    assert cast(narrow, Column(type="decimal"), "UTC", made=True)[0].to_pylist() == [Decimal("0.1")]

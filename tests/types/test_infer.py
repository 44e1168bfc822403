"""Inferred types: stable under any cut and order, and never harmful to text."""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise, permutations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.types.infer import candidates, named_candidates, take
from etl.types.lattice import EMPTY, decide, merge_candidates
from etl.types.words import WORDS
from tests.helpers.raw_rows import pipeline


def table(values: Iterable[Any], kind: pa.DataType = None) -> pa.Table:
    array = pa.array(list(values), kind or pa.string())
    return pa.table({"x": array, "_row": pa.array(range(len(array)), pa.int64())})


def inferred(*values: str | None) -> str:
    return decide(candidates(table(values)))["x"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("1", "-20", None, ""), "integer"),
        (("1", "2.50"), "number"),
        (("999999999999999999",), "integer"),
        (("1234567890123456789",), "string"),
        (("999999999999999999", "0.5"), "decimal"),  # a float would not keep the first
        (("9007199254740993", "0.5"), "decimal"),
        (("0.1234567890123456", "1e-05", "2.5e+300"), "number"),  # as programs write floats
        (("0.12345678901234567891",), "string"),
        (("1234567890.123456789",), "decimal"),
        (("1234567890.123456789", "0.30000000000000004"), "string"),
        (("1e-400",), "string"),
        (("12345678901234567890", "1"), "string"),
        (("2.5000000000000000",), "number"),
        (("066",), "string"),
        (("-0",), "number"),
        (("NA", "1"), "string"),
        (("1e5",), "string"),
        (("12e-5",), "string"),
        (("1E-5",), "string"),
        (("+1",), "string"),
        ((".5",), "string"),
        ((" 1",), "string"),
        (("true", "false"), "boolean"),
        (("yes", "no"), "string"),
        (("2026-01-05", "2024-02-29"), "date"),
        (("2026-02-30",), "string"),
        (("2026-01-05", "2026-01-05T10:00:00Z"), "timestamp"),
        (("2026-01-05 10:00:00.5",), "timestamp"),
        (("2026-01-05 10:00:00.1234567",), "string"),
        (("9999-12-31 23:59:59",), "string"),
        (("01/05/2026",), "string"),
        ((None, ""), EMPTY),
        (("  ",), "string"),
        ((), EMPTY),
    ],
)
def test_the_narrowest_type_that_harms_nothing(values: tuple[str | None, ...], kind: str) -> None:
    assert inferred(*values) == kind


@pytest.mark.parametrize(
    ("values", "arrow", "kind"),
    [
        ([1, None], pa.int32(), "integer"),
        ([1.5], pa.float64(), "number"),
        ([Decimal("1.5")], pa.decimal128(5, 2), "decimal"),
        ([Decimal("0.0123456789")], pa.decimal128(20, 10), "string"),
        ([True], pa.bool_(), "boolean"),
        ([dt.date(2026, 1, 5)], pa.date32(), "date"),
        ([dt.datetime(2026, 1, 5)], pa.timestamp("ns"), "timestamp"),
        ([[1]], pa.list_(pa.int64()), "string"),
        ([None], pa.float64(), EMPTY),
        ([1.5, float("inf"), float("nan")], pa.float64(), "number"),
    ],
)
def test_typed_sources_keep_their_types(values: list[Any], arrow: pa.DataType, kind: str) -> None:
    assert decide(candidates(table(values, arrow))) == {"x": kind}


VALUES = st.one_of(
    st.none(),
    st.sampled_from(["", "0", "12", "-3", "007", "1.5", "NA", "true", "2026-01-05", "2026-01-05T10:00:00", "1" * 16]),
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda value: format(value, "f")),
    st.text(max_size=4),
)


@given(st.lists(VALUES, max_size=12), st.lists(st.integers(0, 12), max_size=3), st.randoms())
def test_any_cut_and_order_gives_the_same_types(values: list[str | None], cuts: list[int], luck: Any) -> None:
    whole = decide(candidates(table(values)))
    luck.shuffle(values)
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [candidates(table(values[a:b])) for a, b in pairwise(edges)]
    assert decide(merge_candidates(parts)) == whole


SETS = st.dictionaries(
    st.sampled_from("ab"),
    st.sets(st.sampled_from(WORDS)).map(lambda kinds: [k for k in WORDS if k in kinds or k == "string"]),
)


@given(SETS, SETS, SETS)
def test_merging_is_commutative_and_associative(a: Any, b: Any, c: Any) -> None:
    merged = merge_candidates([a, b, c])
    assert all(merge_candidates(order) == merged for order in permutations([a, b, c]))
    assert merge_candidates([merge_candidates([a, b]), c]) == merge_candidates([a, merge_candidates([b, c])]) == merged
    assert merge_candidates([merged, merged]) == merged


@given(st.lists(VALUES, max_size=8), st.sampled_from(["UTC", "America/Chicago", "Asia/Tokyo"]))
def test_what_was_inferred_can_be_cast(values: list[str | None], zone: str) -> None:
    rows = table(values)
    kinds = candidates(rows)["x"]
    for word in [decide({"x": kinds})["x"], *(kind for kind in kinds if kind in WORDS)]:
        assert take(rows["x"], word, zone)[1] == []


def test_columns_are_merged_by_name() -> None:
    assert merge_candidates([{"a": ["integer", "string"]}, {"b": ["string"]}]) == {
        "a": ["integer", "string"],
        "b": ["string"],
    }
    assert merge_candidates([]) == {}


def test_columns_of_partitions_are_merged_by_the_pipelines_names() -> None:
    settled = pipeline(rename={"Nr": "id"}, load={"target": "w", "table": "t", "mode": "merge", "key": ["id"]})
    many = [{"NR": ["integer", "string"], "Note": ["string"]}, {"Id": ["string"], "NOTE ": ["date", "string"]}]
    assert named_candidates(many, settled) == {"id": ["string"], "Note": ["string"]}
    assert named_candidates(many, settled, ["note", "gone"]) == {"id": ["string"], "note": ["string"]}


def test_a_column_keeps_the_type_it_has_in_the_target_where_it_fits() -> None:
    fitting = candidates(table(["1", "2"]))
    assert decide(fitting, {"x": "number", "gone": "date"}) == {"x": "number"}
    assert decide(fitting, {"x": "string"}) == {"x": "string"}
    assert decide(fitting, {"x": "date"}) == {"x": "string"}
    assert decide(fitting, {"x": EMPTY}) == {"x": "integer"}
    assert decide(candidates(table([None])), {"x": "date"}) == {"x": "date"}


def test_text_of_a_source_with_types_stays_text_unless_the_target_has_the_column() -> None:
    kinds = candidates(table(["94105", "10001"]), guess=False)
    assert decide(kinds) == {"x": "string"}
    assert decide(kinds, {"x": "integer"}) == {"x": "integer"}
    longer = merge_candidates([kinds, candidates(table(["02134"]), guess=False)])
    assert decide(longer, {"x": "integer"}) == {"x": "string"}
    assert decide(candidates(table([None]), guess=False)) == {"x": EMPTY}


def test_digits_that_the_target_does_not_keep_are_text() -> None:
    kinds = candidates(table(["12345678901234567", "0.5"]))
    assert decide(kinds) == {"x": "decimal"}
    assert decide(kinds, exact=False) == {"x": "string"}
    assert decide(candidates(table([Decimal("0.5")], pa.decimal128(5, 2))), exact=False) == {"x": "decimal"}
    longer = candidates(table([Decimal("12345678901234567.5")], pa.decimal128(38, 9)))
    assert decide(longer, exact=False) == {"x": "string"}

"""Finding columns, and casting text and typed values exactly or not at all."""

import datetime as dt
import decimal
import math
import traceback
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.config.columns import match
from etl.config.models import Column
from etl.config.pipeline import Pipeline
from etl.errors import BadSource, MissingColumn
from etl.types.casts import cast
from etl.types.given import from_series
from etl.types.spelling import as_text
from tests.helpers.raw_rows import ARROW_TYPES


def column(kind: str, **keys: Any) -> Column:
    return Column.model_validate({"type": kind, **keys})


def read(values: Any, kind: str, zone: str = "UTC", made: bool = False, **keys: Any) -> list[Any]:
    """Return each value cast, or the reason why not as a str in a list."""
    array = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    result, failures = cast(pa.chunked_array([array]), column(kind, **keys), zone, made=made)
    assert result.type == ARROW_TYPES[kind]
    seen: list[Any] = result.to_pylist()
    for mask, reason in failures:
        for place, bad in enumerate(mask.to_pylist()):
            if bad:
                assert seen[place] is None
                seen[place] = [reason]
    return seen


def test_strings_are_kept_as_they_are_and_empty_is_missing() -> None:
    assert read([" a ", "", "  ", None, "NA", "066"], "string") == [" a ", None, "  ", None, "NA", "066"]


def test_blank_is_missing_in_every_other_type() -> None:
    for kind in set(ARROW_TYPES) - {"string"}:
        assert read(["", "  ", None], kind) == [None, None, None]


def test_integers_are_plain_digits() -> None:
    good = [" 5 ", "-7", "+5", "007", "9223372036854775807", "-9223372036854775808"]
    assert read(good, "integer") == [5, -7, 5, 7, 2**63 - 1, -(2**63)]
    bad = ["1e3", "0x1F", "++5", "1.0", "1_0", "1 0", "٣", "x", "--1"]
    assert read(bad, "integer") == [["not an integer"]] * len(bad)
    assert read(["9223372036854775808", "1", "9" * 50], "integer") == [["too many digits"], 1, ["too many digits"]]


def test_numbers_are_floats_without_nan_or_infinity() -> None:
    assert read(["1", "-.5", "+2.", "1e3", " 1.25 "], "number") == [1.0, -0.5, 2.0, 1000.0, 1.25]
    bad = ["nan", "inf", "-Infinity", "1_0", "0x10", "1,5", "e5", "."]
    assert read(bad, "number") == [["not a number"]] * len(bad)
    assert read(["1e400"], "number") == [["too many digits"]]
    assert read(["1,5", "1.5"], "number", decimal=",") == [1.5, ["not a number"]]


def test_decimals_are_exact() -> None:
    good = ["0.1", "-12.50", "99999999999999999999999999999.999999999", ".5", "+1", "1.0000000000"]
    assert read(good, "decimal") == [Decimal(text) for text in good]
    assert read(["1.0123456789", "1" + "0" * 29], "decimal") == [["too many digits"]] * 2
    assert read(["1e3", "nan", "1,5", "$5", "1 000"], "decimal") == [["not a decimal"]] * 5


def test_a_declared_separator_is_the_only_one() -> None:
    read_comma = read(["12,50", "7", "1.234,50", "1.5", "1,2,3"], "decimal", decimal=",")
    assert read_comma == [Decimal("12.50"), Decimal(7), *[["not a decimal"]] * 3]


def test_booleans_without_case() -> None:
    assert read(["TRUE", "y", "1", "T", "yes"], "boolean") == [True] * 5
    assert read(["False", "N", "0", "f", "no"], "boolean") == [False] * 5
    assert read(["maybe", "2"], "boolean") == [["not a boolean"]] * 2


def test_dates_are_iso_unless_formats_are_declared() -> None:
    bad = ["2026-1-5", "2026-02-30", "2026-01-05x", "05/01/2026", "20260105", "2026-01-05 00:00:00", "0000-01-01"]
    assert read(["2026-01-05", " 2024-02-29 "], "date") == [dt.date(2026, 1, 5), dt.date(2024, 2, 29)]
    assert read(bad, "date") == [["not a date (%Y-%m-%d)"]] * len(bad)


def test_the_first_format_that_fits_a_value_is_taken() -> None:
    formats = ["%m/%d/%Y", "%d/%m/%Y", "%Y%m%d"]
    values = ["01/02/2026", "1/2/2026", "25/12/2026", "20261225", "2026115", "02/30/2026", "2026-01-01"]
    day = dt.date(2026, 12, 25)
    bad = ["not a date (%m/%d/%Y, %d/%m/%Y, %Y%m%d)"]
    assert read(values, "date", format=formats) == [dt.date(2026, 1, 2), dt.date(2026, 1, 2), day, day, bad, bad, bad]


def test_a_time_in_a_declared_date_format_is_left_out() -> None:
    values = ["2026-01-05 23:10:00", "2026-01-05 23:10:00+1400"]
    formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S%z"]
    assert read(values, "date", format=formats) == [dt.date(2026, 1, 5)] * 2


FORMATS = [
    "%m/%d/%Y",
    "%d.%m.%y",
    "%Y%m%d",
    "%d-%m-%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%d %b %Y",
    "%Y-%m-%dT%H:%M:%S.%f",
]


@given(st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2068, 12, 31)), st.sampled_from(FORMATS))
def test_formats_read_what_python_writes(moment: dt.datetime, form: str) -> None:
    text = moment.strftime(form)
    expected = dt.datetime.strptime(text, form)
    [value] = read([text], "timestamp", format=[form])
    assert value == expected.replace(tzinfo=dt.UTC)


@given(st.from_regex(r"[0-9]{1,2}/[0-9]{1,2}/[0-9]{3,5}", fullmatch=True))
def test_formats_accept_no_day_that_is_not_in_the_calendar(text: str) -> None:
    try:
        expected: Any = dt.datetime.strptime(text, "%m/%d/%Y").date()
    except ValueError:
        expected = ["not a date (%m/%d/%Y)"]
    assert read([text], "date", format="%m/%d/%Y") == [expected]


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


def test_timestamps_are_iso_and_end_in_utc() -> None:
    values = {
        "2026-01-05": utc(2026, 1, 5, 6),
        "2026-01-05 10:20": utc(2026, 1, 5, 16, 20),
        "2026-01-05T10:20:30.5": utc(2026, 1, 5, 16, 20, 30, 500000),
        "2026-01-05 10:20:30.1234560": utc(2026, 1, 5, 16, 20, 30, 123456),  # as SQL Server writes them
        "2026-01-05T10:20:30Z": utc(2026, 1, 5, 10, 20, 30),
        "2026-01-05T10:20:30-05:00": utc(2026, 1, 5, 15, 20, 30),
        "2026-01-05 10:20:30.25+0530": utc(2026, 1, 5, 4, 50, 30, 250000),
    }
    assert read(list(values), "timestamp", "America/Chicago") == list(values.values())
    bad = ["2026-01-05T24:00", "2026-02-30T10:00", "2026-01-05T10", "2026-01-05T10:20:30 CST", "9999-12-31T23:00:00"]
    assert read(bad, "timestamp", "America/Chicago") == [["not a timestamp (ISO 8601)"]] * len(bad)


@given(st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2037, 1, 1)), st.sampled_from(["America/Chicago", "UTC"]))
def test_times_without_a_zone_mean_what_python_means(moment: dt.datetime, zone: str) -> None:
    expected = moment.replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)
    assert read([moment.isoformat()], "timestamp", zone) == [expected]


def test_the_calendar_ends_in_utc() -> None:
    end, start = "9999-12-31T23:00:00", "0001-01-01T00:00:00"
    assert read([end, start], "timestamp") == [utc(9999, 12, 31, 23), utc(1, 1, 1)]
    assert read([end], "timestamp", "Asia/Tokyo") == [utc(9999, 12, 31, 14)]
    assert read([start], "timestamp", "Asia/Tokyo") == [["not a timestamp (ISO 8601)"]]


def test_times_that_clocks_repeat_or_leave_out() -> None:
    repeated, left_out = "2026-11-01T01:30:00", "2026-03-08T02:30:00"
    assert read([repeated, left_out], "timestamp", "America/Chicago") == [
        utc(2026, 11, 1, 6, 30),
        ["does not exist in America/Chicago"],
    ]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1).map(str), st.text(max_size=5)), max_size=30))
def test_a_bad_value_never_changes_its_neighbours(values: list[str | None]) -> None:
    assert read(values, "integer") == [read([value], "integer")[0] for value in values]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**28), max_value=10**28))
def test_decimals_survive(value: Decimal) -> None:
    assert read([format(value, "f")], "decimal") == [value]
    with decimal.localcontext(prec=50):
        assert as_text(pa.chunked_array([pa.array([value], ARROW_TYPES["decimal"])])).to_pylist() == [
            f"{value:f}".rstrip("0").rstrip(".")
        ]


TYPED = [
    (pa.array([1, None]), "string", ["1", None]),
    (pa.array([1.0, 2.5, math.nan]), "string", ["1", "2.5", None]),
    (pa.array([True, None]), "string", ["true", None]),
    (pa.array([Decimal("1.50")]), "string", ["1.5"]),
    (pa.array([[1, 2]]), "string", ["[1, 2]"]),
    (pa.array([b"abc"]), "string", ["abc"]),
    (pa.array(["a", "a"]).dictionary_encode(), "string", ["a", "a"]),
    (pa.nulls(2), "integer", [None, None]),
    (
        pa.array([1.0, 2.5, math.nan, 1e20, math.inf]),
        "integer",
        [1, ["not an integer"], None, *[["not an integer"]] * 2],
    ),
    (pa.array([Decimal("2.00"), Decimal("2.50")]), "integer", [2, ["not an integer"]]),
    (pa.array([2**64 - 1, 1], pa.uint64()), "integer", [["not an integer"], 1]),
    (pa.array([True, False]), "integer", [1, 0]),
    (pa.array([dt.date(2026, 1, 1)]), "integer", [["not an integer"]]),
    (pa.array([1, 2], pa.int8()), "number", [1.0, 2.0]),
    (pa.array([1.5, math.nan, math.inf]), "number", [1.5, None, ["not a number"]]),
    (pa.array([Decimal("1.5")]), "number", [1.5]),
    (pa.array([0.1, 0.1 + 0.2]), "decimal", [Decimal("0.1"), Decimal("0.3")]),
    (pa.array([7]), "decimal", [Decimal(7)]),
    (pa.array([1, 0, 2]), "boolean", [True, False, ["not a boolean"]]),
    (pa.array([dt.datetime(2026, 1, 5), dt.datetime(2026, 1, 5, 1)]), "date", [dt.date(2026, 1, 5), ["not a date"]]),
    (pa.array([dt.date(2026, 1, 5)]), "timestamp", [utc(2026, 1, 5)]),
    (pa.array([1700000000]), "timestamp", [["not a timestamp (ISO 8601)"]]),
    (pa.array([dt.datetime(2026, 1, 5)], pa.timestamp("ns")), "timestamp", [utc(2026, 1, 5)]),
]


@pytest.mark.parametrize(("values", "kind", "expected"), TYPED)
def test_typed_values_are_cast_without_loss_or_not_at_all(values: pa.Array, kind: str, expected: list[Any]) -> None:
    assert read(values, kind) == expected


def test_instants_are_dates_in_the_clients_zone() -> None:
    values = pa.array([utc(2026, 1, 5, 6), utc(2026, 1, 5)])
    assert read(values, "date", "America/Chicago") == [dt.date(2026, 1, 5), ["not a date"]]


def test_decimals_are_rounded_only_where_a_function_made_them() -> None:
    values = pa.array([Decimal("0.3333333333333333"), Decimal("0.0000000005")])
    assert read(values, "decimal") == [["not a decimal"]] * 2
    assert read(values, "decimal", made=True) == [Decimal("0.333333333"), Decimal(0)]


def test_the_columns_text_rules_are_not_for_typed_values() -> None:
    assert read(pa.array([1.5]), "number", decimal=",") == [1.5]
    assert read(pa.array([dt.date(2026, 1, 5)]), "date", format="%d.%m.%Y") == [dt.date(2026, 1, 5)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([Decimal("1.5"), None], [Decimal("1.5"), None]),
        ([Decimal("1.5"), 2.0, True], ["1.5", "2", "true"]),
        ([dt.date(2026, 1, 5), dt.datetime(2026, 1, 5, 3)], ["2026-01-05", "2026-01-05T03:00:00"]),
        ([1, "a", None, float("nan")], ["1", "a", None, None]),
        ([{"a": 1}, [1]], ['{"a": 1}', "[1]"]),
        ([None, None], [None, None]),
        ([2**70], [str(2**70)]),
    ],
)
def test_mixed_objects_become_text(values: list[Any], expected: list[Any]) -> None:
    assert from_series(pd.Series(values, dtype=object)).to_pylist() == expected


def pipeline(columns: dict[str, Any], rename: dict[str, str] | None = None, key: tuple[str, ...] = ()) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "claims",
            "client": "acme",
            "root": "root",
            "staging": "staging",
            "modules": (),
            "extract": {"type": "csv", "path": "x.csv"},
            "load": {"target": "w", "table": "claims", "mode": "merge" if key else "append", "key": key},
            "target": {"name": "w", "url": "sqlite:///w.db"},
            "columns": columns,
            "rename": rename or {},
        }
    )


def test_columns_go_by_many_names_trimmed_and_without_case() -> None:
    settled = pipeline({"claim_id": {"from": ["ClaimNo", "Claim No."]}, "amount": {}}, {"Betrag": "amount"})
    expected = {" claim no. ": "claim_id", "BETRAG": "amount", "Note ": "Note"}
    assert match([" claim no. ", "BETRAG", "Note ", "_row"], settled, "x.csv") == expected
    assert match(["AMOUNT", "Claim_ID"], settled, "x.csv") == {"AMOUNT": "amount", "Claim_ID": "claim_id"}


def test_a_rename_wins_over_from_and_may_name_a_column_nobody_declared() -> None:
    settled = pipeline({"a": {"from": "x"}, "b": {}}, {"x": "b", "y": "free"})
    assert match(["x", "y"], settled, "x.csv") == {"x": "b", "y": "free"}


def test_accents_may_be_encoded_either_way() -> None:
    for one, other in (("café", "cafe\u0301"), ("cafe\u0301", "café")):
        assert match([one], pipeline({other: {}}), "x.csv") == {one: other}
        assert match([one], pipeline({"a": {"from": other}}), "x.csv") == {one: "a"}
        assert match([one], pipeline({"b": {}}, {other: "b"}), "x.csv") == {one: "b"}
        assert match([one], pipeline({}), "x.csv") == {one: "café"}
        with pytest.raises(BadSource):
            match([one, other], pipeline({}), "x.csv")


def test_two_columns_for_one_are_refused() -> None:
    with pytest.raises(BadSource, match='"Amount" and "Betrag" are both amount'):
        match(["Amount", "Betrag"], pipeline({"amount": {"from": "Betrag"}}), "x.csv")


def test_a_column_that_is_needed_and_missing_is_named() -> None:
    settled = pipeline({"id": {"required": True}, "amount": {}}, key=("amount",))
    with pytest.raises(MissingColumn, match=r'x.csv: no column id; its header has "amount", "z"'):
        match(["amount", "z"], settled, "x.csv")
    with pytest.raises(MissingColumn, match="no column amount"):
        match(["id"], settled, "x.csv")


def test_a_header_that_may_be_a_row_is_counted_and_kept_with_the_traceback() -> None:
    settled = pipeline({"id": {"required": True}, "kind": {}, "day": {}, "amount": {}})
    with pytest.raises(MissingColumn) as caught:
        match(["kind", "Jane Roe", "1970-01-01", "12"], settled, "x.csv")
    assert caught.value.what == 'x.csv: no column id; its header has "kind", 3 other columns'
    assert "Jane Roe" in "".join(traceback.format_exception(caught.value))


def test_no_declared_column_at_all_suggests_the_delimiter() -> None:
    with pytest.raises(MissingColumn, match='delimiter = ";"'):
        match(["id;amount"], pipeline({"id": {}, "amount": {}}), "x.csv")

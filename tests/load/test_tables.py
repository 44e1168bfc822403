"""Tables are made, widened or refused; nothing is stored that would come back as something else."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from etl.errors import BadSource, ConfigError, TableMismatch, TargetRefused
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, table, values


def columns(url: str) -> set[str]:
    return set(table(url).columns) - {"_run", "_file"}


def test_a_new_column_is_added(target_url: str) -> None:
    deliver(target_url, pipeline(), chunk([{"id": 1}]))
    deliver(target_url, pipeline(), chunk([{"id": 2, "note": "x"}]), run="r2", of=partition(2))
    assert values(target_url, "id, note") == [(1, None), (2, "x")]


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_new_column_is_ignored_where_asked(target_url: str, partitions: int) -> None:
    made = pipeline("merge", key="id", new_columns="ignore")
    query(target_url, "CREATE TABLE claims_acme (id bigint PRIMARY KEY)")
    found = deliver(target_url, made, chunk([{"id": 1, "note": "x"}]), partitions=partitions)
    if partitions == 2:
        deliver(target_url, made, chunk([{"id": 2, "note": "x"}]), of=partition(2), partitions=2)
        finished(target_url, made, [partition(1), partition(2)])
    assert columns(target_url) == {"id"}
    assert found.warnings == ()


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_new_column_is_refused_where_asked(target_url: str, partitions: int) -> None:
    made = pipeline("merge", key="id", new_columns="fail")
    query(target_url, "CREATE TABLE claims_acme (id bigint PRIMARY KEY)")
    with pytest.raises(TableMismatch, match="claims_acme has no column note") as told:
        deliver(target_url, made, chunk([{"id": 1, "note": "x"}]), partitions=partitions)
    assert "new_columns" in told.value.cure


@pytest.mark.parametrize(("choice", "found"), [("ignore", {"id"}), ("add", {"id", "note"})])
def test_for_a_table_to_be_made_the_declared_columns_are_the_known_ones(
    target_url: str, choice: str, found: set[str]
) -> None:
    made = pipeline(new_columns=choice, columns={"id": {"type": "integer"}})
    deliver(target_url, made, chunk([{"id": 1, "note": "x"}]))
    assert columns(target_url) == found


def test_a_declared_column_left_out_is_warned_of(target_url: str) -> None:
    query(target_url, "CREATE TABLE claims_acme (id bigint)")
    made = pipeline(new_columns="ignore", columns={"id": {"type": "integer"}, "note": {}})
    (warning,) = deliver(target_url, made, chunk([{"id": 1, "note": "x"}])).warnings
    assert "no column note" in warning


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [1, 2])
def test_more_columns_than_a_table_can_have_are_reported_with_their_number(target_url: str, partitions: int) -> None:
    most = 2000 if target_url.startswith("sqlite") else 1600
    made = pipeline("merge", key="c0")

    def row(width: int) -> list[dict[str, str]]:
        return [{f"c{number}": "x" for number in range(width)}]

    with pytest.raises(BadSource, match=rf"would have {most + 1:,} columns.* takes {most:,}"):
        deliver(target_url, made, chunk(row(most - 3)), partitions=partitions)
    for run in ("r1", "r2"):  # one that has as many as it can stays as it is
        for part in [partition(number) for number in range(1, partitions + 1)]:
            deliver(target_url, made, chunk(row(most - 4)), of=part, partitions=partitions, run=run)


def test_a_name_longer_than_a_table_of_postgresql_can_have_is_reported(pg_url: str) -> None:
    with pytest.raises(ConfigError, match="longer than 63 bytes"):
        deliver(pg_url, pipeline(table="x" * 64), chunk([{"id": 1}]))
    deliver(pg_url, pipeline(table="public." + "x" * 63), chunk([{"id": 1}]))


MISMATCHES: list[tuple[str, Any, pa.DataType]] = [
    ("text", 1.5, pa.float64()),
    ("text", Decimal("1.5"), pa.decimal128(38, 9)),
    ("text", True, pa.bool_()),
    ("bigint", "066", pa.string()),
    ("bigint", 1.5, pa.float64()),
    ("bigint", Decimal("1.5"), pa.decimal128(38, 9)),
    ("double precision", Decimal("1.5"), pa.decimal128(38, 9)),
    ("date", "2024-01-01", pa.string()),
    ("boolean", 1, pa.int64()),
    ("timestamp", "x", pa.string()),
]


@pytest.mark.parametrize(("there", "value", "type"), MISMATCHES, ids=lambda value: str(value))
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_table_of_other_types_is_refused_with_both_types_and_the_cure(
    target_url: str, there: str, value: Any, type: pa.DataType, mode: str
) -> None:
    query(target_url, f"CREATE TABLE claims_acme (v {there})")
    with pytest.raises(
        TableMismatch, match=r"table claims_acme, column v: the table has \w+.*, the pipeline \w+"
    ) as told:
        deliver(target_url, pipeline(mode), chunk([{"v": value}], types={"v": type}))
    assert "alter the table" in told.value.cure


FITTING: list[tuple[str, Any, pa.DataType]] = [
    ("varchar(20)", "x", pa.string()),
    ("smallint", 7, pa.int64()),
    ("integer", 7, pa.int64()),
    ("numeric(10,2)", 7, pa.int64()),
    ("double precision", 7, pa.int64()),
    ("numeric(10,2)", Decimal("1.25"), pa.decimal128(38, 9)),
    ("numeric", 1.5, pa.float64()),
    ("boolean", True, pa.bool_()),
]


@pytest.mark.parametrize(("there", "value", "type"), FITTING, ids=lambda value: str(value))
def test_a_table_of_near_types_is_filled_and_found_equal_again(
    target_url: str, there: str, value: Any, type: pa.DataType
) -> None:
    query(target_url, f"CREATE TABLE claims_acme (id bigint PRIMARY KEY, v {there})")
    rows = chunk([{"id": 1, "v": value}, {"id": 2, "v": None}], types={"v": type})
    assert deliver(target_url, pipeline("merge", key="id"), rows).loaded == 2
    assert deliver(target_url, pipeline("merge", key="id"), rows, run="r2").unchanged == 2
    found = dict(values(target_url, "id, v"))
    assert found == {1: value, 2: None}


@pytest.mark.parametrize(
    ("there", "value", "type"),
    [
        ("numeric(10,2)", Decimal("1.255"), pa.decimal128(38, 9)),
        ("double precision", 2**53 + 1, pa.int64()),
    ],
    ids=["would be rounded", "no float can hold"],
)
def test_a_value_that_would_not_survive_is_refused(target_url: str, there: str, value: Any, type: pa.DataType) -> None:
    query(target_url, f"CREATE TABLE claims_acme (v {there})")
    with pytest.raises(TableMismatch, match="column v: a value does not fit") as told:
        deliver(target_url, pipeline(), chunk([{"v": value}], types={"v": type}))
    assert "1.255" not in str(told.value)


@pytest.mark.parametrize(("there", "value"), [("varchar(3)", "Jane Roe"), ("smallint", 70_000)])
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_value_too_large_for_its_column_is_reported_without_the_value(
    pg_url: str, there: str, value: Any, mode: str
) -> None:
    query(pg_url, f"CREATE TABLE claims_acme (v {there})")
    with pytest.raises(TableMismatch) as told:
        deliver(pg_url, pipeline(mode), chunk([{"v": value}]))
    assert str(value) not in str(told.value)
    if mode == "append" and there == "smallint":
        assert "column v" in told.value.what


def test_inferred_integers_go_into_a_text_column(target_url: str) -> None:
    deliver(target_url, pipeline(), chunk([{"zip": "02134"}]))
    deliver(target_url, pipeline(), chunk([{"zip": 60601}]), run="r2", of=partition(2))
    assert values(target_url, "zip") == [("02134",), ("60601",)]
    declared = pipeline(columns={"zip": {"type": "integer"}})
    deliver(target_url, declared, chunk([{"zip": 60602}]), run="r3", of=partition(3))
    assert ("60602",) in values(target_url, "zip")


def test_a_column_without_any_value_gets_its_type_from_the_first_that_has_one(target_url: str) -> None:
    deliver(target_url, pipeline(), chunk([{"id": 1, "late": None}]))
    deliver(target_url, pipeline(), chunk([{"id": 2, "late": 1.5}]), run="r2", of=partition(2))
    deliver(target_url, pipeline(), chunk([{"id": 3, "late": None}]), run="r3", of=partition(3))
    assert values(target_url, "id, late") == [(1, None), (2, 1.5), (3, None)]


def test_values_no_table_can_hold_are_reported(target_url: str) -> None:
    with pytest.raises(BadSource, match="column tags holds list"):
        deliver(target_url, pipeline(), chunk([{"tags": ["a"]}]))


@pytest.mark.parametrize("values_of", [(1, "x"), ("x", 1)])
def test_partitions_with_other_types_than_each_other_meet_in_one_that_holds_both(
    target_url: str, values_of: tuple[Any, Any]
) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    for number, value in enumerate(values_of):
        deliver(target_url, made, chunk([{"id": number, "v": value}]), of=parts[number], partitions=2)
    finished(target_url, made, parts)
    assert values(target_url, "id, v") == [(0, str(values_of[0])), (1, str(values_of[1]))]


def test_a_table_without_the_merges_key_gets_a_unique_index(target_url: str) -> None:
    deliver(target_url, pipeline(), chunk([{"id": 1, "n": "a"}]))
    made = pipeline("merge", key="id")
    assert deliver(target_url, made, chunk([{"id": 1, "n": "b"}]), run="r2").loaded == 1
    assert deliver(target_url, made, chunk([{"id": 1, "n": "b"}]), run="r3").unchanged == 1


def test_doubled_keys_in_the_table_are_reported(target_url: str) -> None:
    deliver(target_url, pipeline(), chunk([{"id": 1}, {"id": 1}]))
    with pytest.raises(TableMismatch, match="claims_acme has rows with the same id"):
        deliver(target_url, pipeline("merge", key="id"), chunk([{"id": 1}]), run="r2")


def test_a_tables_own_constraints_are_reported_by_name(target_url: str) -> None:
    query(target_url, "CREATE TABLE claims_acme (id bigint UNIQUE, who text NOT NULL)")
    with pytest.raises(TargetRefused, match="unique"):
        deliver(target_url, pipeline(), chunk([{"id": 1, "who": "Jane"}, {"id": 1, "who": "Jane"}]))
    with pytest.raises(TargetRefused, match=r"who.* needs a value") as told:
        deliver(target_url, pipeline(), chunk([{"id": 1, "who": None}]))
    assert "Jane" not in str(told.value)


def test_a_schema_that_is_missing_is_reported(pg_url: str) -> None:
    with pytest.raises(TargetRefused, match="no such schema"):
        deliver(pg_url, pipeline(table="dw.claims"), chunk([{"id": 1}]))


def test_a_column_name_longer_than_postgresql_takes_is_reported(pg_url: str) -> None:
    with pytest.raises(BadSource, match="63 bytes"):
        deliver(pg_url, pipeline(), chunk([{"x" * 64: 1}]))

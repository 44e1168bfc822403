"""Rows in, rows and rejects out: types, checks, blame."""

import datetime as dt
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.errors import BadSource, MissingColumn
from etl.partition import ROW_BITS
from etl.transform import Transformer
from tests.helpers.examples import examples
from tests.helpers.raw_rows import ARROW_TYPES, CONTEXT, apply, pipeline, raw, rejected, with_steps


def test_declared_columns_come_first_and_typed() -> None:
    columns = {kind: {"type": kind} for kind in ARROW_TYPES}
    values = {"string": "a", "integer": "1", "number": "1.5", "decimal": "2.5", "boolean": "yes", "date": "2026-01-05"}
    table = raw(free=["z"], timestamp=["2026-01-05"], **{name: [value] for name, value in reversed(values.items())})
    done = apply(pipeline(columns), table)
    assert done.rows.column_names == [*ARROW_TYPES, "free", "_row"]
    assert [done.rows.schema.field(name).type for name in ARROW_TYPES] == list(ARROW_TYPES.values())
    moment = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
    assert list(done.rows.to_pylist()[0].values()) == [
        "a", 1, 1.5, Decimal("2.5"), True, dt.date(2026, 1, 5), moment, "z", 2,
    ]  # fmt: skip


def test_rejects_carry_file_line_column_text_reason_and_the_whole_row() -> None:
    settled = pipeline({"id": {"from": "No."}, "amount": {"type": "decimal"}})
    table = raw(**{"No.": ["A1", "A2"], "amount": ["1", " x "], "free": ["ü", None]})
    done = apply(settled, table)
    assert done.rows["id"].to_pylist() == ["A1"]
    assert done.rejects.to_pylist() == [
        {
            "file": "x.csv",
            "row": 3,
            "column": "amount",
            "value": " x ",
            "reason": "not a decimal",
            "raw": '{"No.": "A2", "amount": " x ", "free": null}',
        }
    ]


def test_rows_of_several_files_are_told_apart() -> None:
    table = raw(n=["x", "y"]).set_column(1, "_row", pa.array([5, (1 << ROW_BITS) + 7]))
    done = Transformer(pipeline({"n": {"type": "integer"}}), CONTEXT, ["a.csv", "b.csv"]).apply(table)
    assert [(r["file"], r["row"]) for r in done.rejects.to_pylist()] == [("a.csv", 5), ("b.csv", 7)]


NO_MATCH = "doesn't match pattern"
CHECKS = [
    ({"required": True}, ["a", None, "", " "], {3: "required", 4: "required", 5: "required"}),
    ({"type": "integer", "required": True}, ["1", " ", "x"], {3: "required", 4: "not an integer"}),
    ({"allowed": ["OPEN", "ü"]}, ["OPEN", "ü", "open", None], {4: "not allowed"}),
    ({"type": "integer", "min": 0, "max": 10}, ["0", "10", "-1", "11"], {4: "below 0", 5: "above 10"}),
    ({"type": "integer", "allowed": [1, 2]}, ["1", "3"], {3: "not allowed"}),
    ({"type": "decimal", "min": 0.1}, ["0.1", "0.099999999"], {3: "below 0.1"}),
    ({"type": "decimal", "allowed": [1.5]}, ["1.50", "1.6"], {3: "not allowed"}),
    ({"type": "number", "max": 1}, ["1", "1.1"], {3: "above 1"}),
    ({"type": "date", "min": "2026-01-01"}, ["2026-01-01", "2025-12-31"], {3: "below 2026-01-01"}),
    ({"type": "date", "allowed": ["2026-01-01"]}, ["2026-01-01", "2025-12-31"], {3: "not allowed"}),
    ({"type": "timestamp", "max": "2026-01-01T00:00"}, ["2026-01-01", "2026-01-02"], {3: "above 2026-01-01T00:00"}),
    ({"pattern": r"\d{5}"}, ["01234", "1234", "01234\n", "٠١٢٣٤", None], {3: NO_MATCH, 4: NO_MATCH}),
    ({"pattern": r"[\w ]+|a|b"}, ["José Ñ", "a-b", "a", "é-"], {3: NO_MATCH, 5: NO_MATCH}),
    ({"pattern": r"(?P<x>.)(?=b)b(?P=x)"}, ["aba", "abc"], {3: NO_MATCH}),  # RE2 has no such things
    ({"pattern": "a{,2}"}, ["aa", "aaa"], {3: NO_MATCH}),  # which RE2 reads as text
    ({"pattern": "a|b"}, ["a", "ab"], {3: NO_MATCH}),
    ({"unique": True}, ["a", "b", "a", None, None], {4: "not unique"}),
    ({"type": "decimal", "unique": True}, ["1", "1.0", "2"], {3: "not unique"}),
]  # fmt: skip


@pytest.mark.parametrize(("column", "values", "expected"), CHECKS)
def test_checks_reject_what_fails_and_leave_nulls_alone(
    column: dict[str, Any], values: list[str | None], expected: dict[int, str]
) -> None:
    settled = pipeline({"x": column}, timezone="America/Chicago")
    assert {row: reason for row, _, _, reason in rejected(apply(settled, raw(x=values)))} == expected


def test_a_row_is_blamed_on_its_first_declared_column_only() -> None:
    columns = {"a": {"type": "integer", "min": 0}, "b": {"type": "integer"}, "c": {"required": True}}
    done = apply(pipeline(columns), raw(c=[None, None, None], b=["x", "x", "1"], a=["-1", "1", "1"]))
    assert rejected(done) == [
        (2, "a", "-1", "below 0"),
        (3, "b", "x", "not an integer"),
        (4, "c", None, "required"),
    ]


def test_unique_holds_across_chunks_and_is_taken_by_good_rows_only() -> None:
    transformer = Transformer(pipeline({"id": {"unique": True}, "n": {"type": "integer"}}), CONTEXT, ["x.csv"])
    chunks = [
        raw(2, id=["a", "b"], n=["x", "1"]),
        raw(4, id=["a", "b", "c"], n=["1"] * 3),
        raw(7, id=["c", "a", "d"], n=["1"] * 3),
    ]
    done = [transformer.apply(chunk) for chunk in chunks]
    assert [entry for each in done for entry in rejected(each)] == [
        (2, "n", "x", "not an integer"),
        (5, "id", "b", "not unique"),
        (7, "id", "c", "not unique"),
        (8, "id", "a", "not unique"),
    ]


def test_a_missing_column_is_empty_and_reported_once() -> None:
    transformer = Transformer(pipeline({"id": {}, "n": {"type": "integer"}}), CONTEXT, ["inbox/x.csv"])
    done = transformer.apply(raw(id=["a"]))
    assert done.rows.select(["id", "n"]).to_pylist() == [{"id": "a", "n": None}]
    assert done.rows.schema.field("n").type == pa.int64()
    assert done.warnings == ["inbox/x.csv has no column n: loaded as empty"]
    assert transformer.apply(raw(id=["b"])).warnings == []
    with pytest.raises(MissingColumn):
        apply(pipeline({"id": {"required": True}, "n": {}}), raw(n=["a"]))


def test_a_chunk_without_rows_has_all_columns(tmp_path: Path) -> None:
    columns = {"id": {"required": True, "unique": True}, "day": {"type": "date", "format": "%d.%m.%Y"}}
    settled = with_steps(
        tmp_path, "def f(df): raise ValueError", columns={**columns, "m": {"type": "number", "computed": True}}
    )
    done = apply(settled, raw(id=[], day=[]))
    assert done.rows.schema == pa.schema(
        [("id", pa.string()), ("day", pa.date32()), ("m", pa.float64()), ("_row", pa.int64())]
    )


def test_typed_columns_nobody_declared_keep_their_types() -> None:
    done = apply(pipeline(), raw(n=[1, 2], s=["", "066"], f=[1.5, None], t=[dt.datetime(2026, 1, 5)] * 2))
    assert [str(field.type) for field in done.rows.schema] == [
        "int64", "string", "double", "timestamp[us, tz=UTC]", "int64",
    ]  # fmt: skip
    assert done.rows["s"].to_pylist() == [None, "066"]


def test_inferred_types_are_cast_or_the_file_has_changed() -> None:
    done = apply(pipeline(rename={"N": "n"}), raw(N=["1"], s=["066"]), types={"n": "integer", "s": "string"})
    assert done.rows.to_pylist() == [{"n": 1, "s": "066", "_row": 2}]
    with pytest.raises(BadSource, match=r"x\.csv: column 1 was taken for integer"):
        apply(pipeline(), raw(N=["Jane"]), types={"N": "integer"})


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "", None]),
        st.sampled_from(["1", "-5", "x", " 7 ", "", None, "99999999999999999999"]),
        st.sampled_from(["2026-01-05", "2026-02-30", "05.01.2026", None]),
    ),
    max_size=12,
)


@settings(max_examples=examples(25))
@given(ROWS, st.lists(st.integers(0, 12), max_size=3))
def test_any_cut_into_chunks_gives_the_same_rows_and_rejects(rows: list[Any], cuts: list[int]) -> None:
    columns = {
        "id": {"required": True, "unique": True, "allowed": ["a", "b"]},
        "n": {"type": "integer", "min": 0},
        "day": {"type": "date", "format": ["%Y-%m-%d", "%d.%m.%Y"]},
    }
    table = raw(**{name: [row[place] for row in rows] for place, name in enumerate(columns)})
    whole = apply(pipeline(columns), table)
    transformer = Transformer(pipeline(columns), CONTEXT, ["x.csv"])
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [transformer.apply(table.slice(a, b - a)) for a, b in pairwise(edges)]
    assert pa.concat_tables(part.rows for part in parts).to_pylist() == whole.rows.to_pylist()
    assert pa.concat_tables(part.rejects for part in parts).to_pylist() == whole.rejects.to_pylist()

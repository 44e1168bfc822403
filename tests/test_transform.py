"""Rows in, rows and rejects out: the order of things, and that every row is accounted for."""

import datetime as dt
import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.casts import ARROW_TYPES
from etl.context import Context
from etl.errors import BadSource, ConfigError, FunctionFailed, MissingColumn
from etl.pipeline import Pipeline
from etl.plan import ROW_BITS
from etl.rejects import SCHEMA
from etl.transform import Transformed, Transformer

CONTEXT = Context(client="acme", run="r1", params={"factor": 3})


def pipeline(columns: dict[str, Any] | None = None, **keys: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "claims",
            "client": "acme",
            "root": "root",
            "staging": "staging",
            "modules": ("steps",),
            "extract": {"type": "csv", "path": "x.csv"},
            "load": {"target": "w", "table": "claims"},
            "target": {"name": "w", "url": "sqlite:///w.db"},
            "columns": columns or {},
            **keys,
        }
    )


def raw(first: int = 2, /, **columns: Any) -> pa.Table:
    count = len(next(iter(columns.values())))
    arrays = {
        name: pa.array(values, None if any(map(_typed, values)) else pa.string()) for name, values in columns.items()
    }
    return pa.table({**arrays, "_row": pa.array(range(first, first + count), pa.int64())})


def _typed(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def apply(settled: Pipeline, table: pa.Table, **keys: Any) -> Transformed:
    done = Transformer(settled, CONTEXT, ["x.csv"], **keys).apply(table)
    assert done.rejects.schema == SCHEMA
    assert done.rows.column_names[-1] == "_row"
    assert table.num_rows + done.added == done.rejects.num_rows + done.dropped + done.rows.num_rows
    return done


def rejected(done: Transformed) -> list[tuple[int, str, str, str]]:
    return [(r["row"], r["column"], r["value"], r["reason"]) for r in done.rejects.to_pylist()]


def with_steps(root: Path, code: str, *names: str, columns: dict[str, Any] | None = None, **keys: Any) -> Pipeline:
    (root / "steps.py").write_text(
        f"import pandas as pd\nfrom decimal import Decimal\nfrom etl.functions import reject\n{code}"
    )
    return pipeline(columns, root=str(root), transform=[f"steps:{name}" for name in names or ("f",)], **keys)


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
    ({"required": True}, ["a", None, "", " "], {3: "required", 4: "required"}),
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


def test_a_missing_column_is_empty_and_told_once() -> None:
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
    done = apply(pipeline(rename={"N": "n"}), raw(N=["1"], s=["066"]), types={"N": "integer", "s": "string"})
    assert done.rows.to_pylist() == [{"n": 1, "s": "066", "_row": 2}]
    with pytest.raises(BadSource, match=r"x\.csv: column N was taken for integer"):
        apply(pipeline(), raw(N=["Jane"]), types={"N": "integer"})


def test_functions_see_types_they_can_work_with(tmp_path: Path) -> None:
    code = """
seen = {}
def f(df):
    seen.update(dtypes={c: str(t) for c, t in df.dtypes.items()}, index=df.index.name, value=df.decimal.iloc[0])
    return df
"""
    values = {"string": "a", "integer": "1", "number": "1.5", "decimal": "2.5", "boolean": "yes", "date": "2026-01-05"}
    columns = {kind: {"type": kind} for kind in ARROW_TYPES}
    table = raw(timestamp=["2026-01-05T01:00:00"], **{kind: [value] for kind, value in values.items()})
    done = apply(with_steps(tmp_path, code, columns=columns), table)
    import steps  # type: ignore[import-not-found]

    assert steps.seen == {
        "dtypes": {
            "string": "str",
            "integer": "Int64",
            "number": "float64",
            "decimal": "object",
            "boolean": "boolean",
            "date": "datetime64[us]",
            "timestamp": "datetime64[us, UTC]",
        },
        "index": "_row",
        "value": Decimal("2.5"),
    }
    assert done.rows == apply(pipeline(columns), table).rows


def test_functions_run_in_order_with_their_arguments(tmp_path: Path) -> None:
    code = """
def add(df, by, client):
    df["n"] += by
    df["who"] = client
    return df
def scale(df, params):
    df["n"] *= params["factor"]
    return df
"""
    settled = with_steps(tmp_path, code, columns={"n": {"type": "integer"}})
    transform = [{"function": "steps:add", "args": {"by": 10}}, {"function": "steps:scale", "args": {}}]
    settled = Pipeline.model_validate({**settled.model_dump(), "transform": transform})
    assert apply(settled, raw(n=["1", None])).rows.to_pylist() == [
        {"n": 33, "who": "acme", "_row": 2},
        {"n": None, "who": "acme", "_row": 3},
    ]


def test_reject_keeps_the_source_row(tmp_path: Path) -> None:
    code = """
def f(df):
    df["n"] *= 100
    df = reject(df, df["n"] > 100, reason="too much", column="n")
    return reject(df, df["id"] == "c", reason="unwanted")
"""
    settled = with_steps(tmp_path, code, columns={"n": {"type": "integer"}, "id": {"from": "No"}})
    done = apply(settled, raw(No=["a", "b", "c"], n=[" 1", " 2", " 0"]))
    assert rejected(done) == [(3, "n", " 2", "too much"), (4, None, None, "unwanted")]
    assert json.loads(done.rejects["raw"][0].as_py()) == {"No": "b", "n": " 2"}


def test_dropped_and_added_rows_are_counted(tmp_path: Path) -> None:
    code = """
def f(df):
    df = df[df.index != 3]                                     # one dropped
    df = pd.concat([df, df.loc[[4, 4]]])                       # two more of line 4
    new = pd.DataFrame({"n": [7, 8]}, index=pd.Index([900, 901], name="_row"))
    return reject(pd.concat([df, new]), lambda df: df.index == 901, reason="made up")
"""
    done = apply(with_steps(tmp_path, code, columns={"n": {"type": "integer"}}), raw(n=["1", "2", "3"]))
    assert (done.dropped, done.added, done.rows.num_rows) == (1, 4, 5)
    [entry] = done.rejects.to_pylist()
    assert (entry["row"], entry["raw"], entry["reason"]) == (None, None, "made up")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(["1", "2", "3", "x", "-1"]), min_size=0, max_size=8),
    st.lists(st.integers(0, 12), max_size=12),
    st.sets(st.integers(0, 12)),
    st.sets(st.integers(0, 12)),
)
def test_every_row_is_accounted_for(
    tmp_path: Path, values: list[str], picked: list[int], bad: set[int], unfit: set[int]
) -> None:
    """Whatever a function takes away, repeats, makes, rejects or spoils."""
    code = """
def f(df, picked, bad, unfit):
    df = df.reindex(pd.Index(picked, name="_row")).astype({"n": object})
    df = reject(df, df.index.isin(bad), reason="bad")
    df["m"] = df["n"]
    df.loc[df.index.isin(unfit), "m"] = "x"
    return df
"""
    columns = {"n": {"type": "integer", "min": 0}, "m": {"type": "integer", "computed": True, "max": 2, "unique": True}}
    settled = with_steps(tmp_path, code, columns=columns)
    step = {"function": "steps:f", "args": {"picked": picked, "bad": sorted(bad), "unfit": sorted(unfit)}}
    done = apply(Pipeline.model_validate({**settled.model_dump(), "transform": [step]}), raw(n=values))
    rows = done.rejects["row"].drop_null().to_pylist()
    assert len(set(rows)) == len(rows)


def test_what_functions_return_is_cast_again(tmp_path: Path) -> None:
    code = """
import datetime as dt
def f(df):
    df["n"] = pd.Series([1.0, None, 2.5], index=df.index)
    df["d"] = [Decimal(1) / 3, 0.1, "1"]
    df["day"] = [dt.date(2026, 1, 5), pd.Timestamp("2026-01-06"), "2026-01-07"]
    df["s"] = [1, "a", None]
    df["ok"] = [True, None, 0]
    df["mixed"] = [1, "a", None]
    df["size"] = [1, 2, 3]
    return df
"""
    kinds = {"n": "integer", "d": "decimal", "day": "date", "s": "string", "ok": "boolean"}
    settled = with_steps(tmp_path, code, columns={name: {"type": kind} for name, kind in kinds.items()})
    done = apply(settled, raw(**{name: [None] * 3 for name in kinds}))
    names = [*kinds, "mixed", "size", "_row"]
    assert done.rows.to_pylist() == [
        dict(zip(names, [1, Decimal("0.333333333"), dt.date(2026, 1, 5), "1", True, "1", 1, 2], strict=True)),
        dict(zip(names, [None, Decimal("0.1"), dt.date(2026, 1, 6), "a", None, "a", 2, 3], strict=True)),
    ]
    assert rejected(done) == [(4, "n", "2.5", "not an integer")]


def test_computed_columns_are_checked_after_the_functions_and_no_others(tmp_path: Path) -> None:
    code = "def f(df):\n    df['n'] = -df['n']\n    df['m'] = df['n'] / 4\n    return df\n"
    columns = {"n": {"type": "integer", "min": 0}, "m": {"type": "number", "computed": True, "min": -1, "unique": True}}
    done = apply(with_steps(tmp_path, code, columns=columns), raw(n=["1", "4", "8", "1", "-1"]))
    assert done.rows.select(["n", "m"]).to_pylist() == [{"n": -1, "m": -0.25}, {"n": -4, "m": -1.0}]
    assert rejected(done) == [
        (4, "m", "-2", "below -1"),
        (5, "m", "-0.25", "not unique"),
        (6, "n", "-1", "below 0"),
    ]


def test_a_computed_column_in_the_source_is_the_functions_to_make(tmp_path: Path) -> None:
    settled = with_steps(
        tmp_path, "def f(df): return df", columns={"n": {}, "m": {"type": "integer", "computed": True, "max": 5}}
    )
    done = apply(settled, raw(n=["a", "b", "c"], M=["1", "x", "6"]))
    assert done.rows.to_pylist() == [{"n": "a", "m": 1, "_row": 2}]
    assert [entry[3] for entry in rejected(done)] == ["not an integer", "above 5"]
    with pytest.raises(ConfigError, match="m is computed, but no function makes it"):
        apply(pipeline({"m": {"computed": True}}), raw(n=["a"]))


WRONG = [
    ("return None", "f returned NoneType, not a DataFrame"),
    ("return df['n']", "f returned Series, not a DataFrame"),
    ("return df.reset_index()", "f returned a frame without the index _row"),
    ("return df.reset_index(drop=True)", "f returned a frame without the index _row"),
    ("return df.set_index('n', append=True)", "f returned a frame without the index _row"),
    ("return df.set_axis(pd.Index(['a'], name='_row'), axis=0)", "f returned an index _row that isn't numbers"),
    ("return df.set_axis(pd.Index([1.5], name='_row'), axis=0)", "f returned an index _row that isn't whole numbers"),
    ("return df.drop(columns='n')", "f dropped column n"),
    ("return pd.concat([df, df], axis=1)", "f returned column n twice"),
    ("return df.rename(columns={'n': 3})", "f returned a column whose name is no text"),
    ("return df.assign(_row=1)", "f returned _row as a column"),
    ("reject(df, df['n'] == 1, reason='r'); return df", "f returned rows that it had rejected"),
    ("raise ValueError('Jane Roe')", r"f raised ValueError in steps.py line 5, in f"),
]


@pytest.mark.parametrize(("code", "said"), WRONG)
def test_what_a_function_must_not_return_is_named(tmp_path: Path, code: str, said: str) -> None:
    settled = with_steps(tmp_path, f"def f(df):\n    {code}\n", columns={"n": {"type": "integer"}})
    with pytest.raises(FunctionFailed, match=said) as caught:
        apply(settled, raw(n=["1"]))
    assert "Jane" not in str(caught.value)


def test_a_computed_column_nobody_made_and_a_dropped_one_name_their_function(tmp_path: Path) -> None:
    code = "def f(df): return df.drop(columns='n')\ndef g(df): return df\ndef h(df): return df.assign(n=1)\n"
    columns = {"n": {"type": "integer"}, "s": {}}
    with pytest.raises(FunctionFailed, match="steps:f dropped column n"):
        apply(with_steps(tmp_path, code, "f", "g", columns=columns), raw(n=["1"], s=["a"]))
    assert apply(with_steps(tmp_path, code, "f", "h", columns=columns), raw(n=["2"], s=["a"])).rows[
        "n"
    ].to_pylist() == [1]
    with pytest.raises(FunctionFailed, match="steps:g did not make column m"):
        apply(with_steps(tmp_path, code, "g", columns={"n": {}, "m": {"computed": True}}), raw(n=["1"]))


def test_rows_of_an_outer_merge_have_no_line(tmp_path: Path) -> None:
    code = """
def f(df, prices):
    return df.reset_index().merge(prices, on="id", how="outer").set_index("_row")
"""
    settled = with_steps(tmp_path, code, columns={"id": {}})
    prices = pd.DataFrame({"id": ["a", "b"], "price": [1.5, 2.5]})
    context = Context(client="acme", run="r1", lookups={"prices": prices})
    done = Transformer(settled, context, ["x.csv"]).apply(raw(id=["a"]))
    assert done.rows.to_pylist() == [{"id": "a", "price": 1.5, "_row": 2}, {"id": "b", "price": 2.5, "_row": 0}]
    assert (done.dropped, done.added) == (0, 1)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "", None]),
        st.sampled_from(["1", "-5", "x", " 7 ", "", None, "99999999999999999999"]),
        st.sampled_from(["2026-01-05", "2026-02-30", "05.01.2026", None]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=25)
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

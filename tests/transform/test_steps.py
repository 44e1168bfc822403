"""The user's functions at work: what they see, what they may return, and that every row is accounted for."""

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import ConfigError, FunctionFailed
from etl.transform import Transformer
from tests.helpers.examples import examples
from tests.helpers.raw_rows import ARROW_TYPES, apply, pipeline, raw, rejected, with_steps


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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(40))
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


def test_a_computed_column_takes_the_name_of_a_header_that_another_column_reads(tmp_path: Path) -> None:
    columns = {"m": {"type": "integer", "computed": True}, "text": {"from": ["M "]}}
    settled = with_steps(tmp_path, "def f(df): return df.assign(m=df['text'].str.len())", columns=columns)
    assert apply(settled, raw(m=["abc", "x"])).rows.to_pylist() == [
        {"m": 3, "text": "abc", "_row": 2},
        {"m": 1, "text": "x", "_row": 3},
    ]


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
    ("df['m'] = pd.Series(['J\\udcf8'], df.index, object); return df", "put text into m that is not Unicode"),
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

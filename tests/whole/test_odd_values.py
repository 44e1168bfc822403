"""Values that few have: columns of DuckDB's own, spans of time, text that is none, what functions make of numbers."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from etl.load.targets import postgres
from tests.helpers.deliveries import query
from tests.helpers.project import Project, etl_toml

ADDED = "_client varchar, _run varchar, _file varchar"
HEAD = "import datetime as dt\nimport pandas as pd\n"


def given(
    etl: Project, rows: str, url: str = "sqlite:///warehouse.db", zone: str = "UTC", **keys: Any
) -> dict[str, Any]:
    """Run a pipeline t from what a function returns."""
    etl.write("steps.py", f"{HEAD}{rows}")
    extract = {"type": "function", "function": "steps:rows"}
    etl.config(etl_toml({"t": {"extract": extract, "retries": 0, **keys}}, {"acme": {"timezone": zone}}, url=url))
    run: dict[str, Any] = etl.run(pipeline="t")
    return run


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("TINYINT", [-1, 5]),
        ("UTINYINT", [5]),
        ("USMALLINT", [5, 300]),
        ("UINTEGER", [5, 300]),
        ("UBIGINT", [5, 300, 2**62]),
        ("UHUGEINT", [5, 300, 2**62]),
        ("HUGEINT", [-1, 5, 300, 2**62]),
        ("FLOAT", [-1.0, 5.0, 300.0]),  # whose seven digits do not say 2**62
    ],
)
def test_duckdbs_own_columns_keep_what_fits_them(etl: Project, kind: str, kept: list[Any]) -> None:
    path = etl.root / "w.duckdb"
    with closing(duckdb.connect(str(path))) as base:
        base.execute(f"CREATE TABLE t (v {kind}, {ADDED})")
    code = f"def rows():\n    return [{{'v': v}} for v in (5, -1, 300, {2**62})]\n"
    run = given(etl, code, f"duckdb:///{path}", columns={"v": "integer"})
    assert (run["state"], run["rows"]["rejected"]) == ("succeeded", 4 - len(kept))
    with closing(duckdb.connect(str(path))) as base:
        assert [v for (v,) in base.execute("SELECT v FROM t ORDER BY v").fetchall()] == kept


def test_frames_with_and_without_a_zone_give_the_same_instants(etl: Project) -> None:
    frames = "dt.datetime(2024, 1, 1, 10)", "dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC)", "dt.datetime(2024, 7, 1, 10)"
    code = "def rows():\n" + "".join(f"    yield pd.DataFrame({{'v': [{frame}]}})\n" for frame in frames)
    assert given(etl, code, zone="Europe/Berlin")["state"] == "succeeded"
    assert [v for (v,) in etl.rows("SELECT v FROM t ORDER BY rowid")] == [
        "2024-01-01 09:00:00", "2024-01-01 10:00:00", "2024-07-01 08:00:00",
    ]  # fmt: skip


def test_spans_of_time_are_text_and_no_number(etl: Project) -> None:
    code = "def rows():\n    return [{'v': dt.timedelta(hours=30), 't': dt.time(10, 30)}]\n\n"
    code += "def change(df):\n    df['w'] = [dt.timedelta(hours=30)]\n    return df\n"
    assert given(etl, code, transform=["steps:change"])["state"] == "succeeded"
    assert etl.rows("SELECT v, t, w FROM t") == [("1 day, 6:00:00", "10:30:00", "1 day, 6:00:00")]


def test_an_infinity_that_a_function_makes_changes_no_type(etl: Project) -> None:
    code = "def rows():\n    return [{'v': 1.5}, {'v': 0.5}]\n\ndef change(df):\n    df['w'] = [float('inf'), 2.5]\n"
    run = given(etl, f"{code}    return df\n", transform=["steps:change"])
    assert (run["state"], run["rows"]["rejected"]) == ("succeeded", 1)
    assert etl.rows("SELECT v, w FROM t") == [(0.5, 2.5)]


def test_text_that_no_database_should_hold_is_a_reject(etl: Project, target_url: str) -> None:
    with closing(sqlite3.connect(etl.root / "s.db")) as source:
        source.executescript(
            "CREATE TABLE s (id integer, v text); INSERT INTO s VALUES (1, CAST(x'61ff' AS text)),"
            "(2, CAST(x'610062' AS text)), (3, CAST(x'610D0A62' AS text))"
        )
    extract = {"type": "sql", "url": "sqlite:///s.db", "table": "s"}
    etl.config(etl_toml({"t": {"extract": extract, "retries": 0}}, url=target_url))
    run = etl.run(pipeline="t")
    assert (run["state"], run["rows"]["rejected"]) == ("succeeded", 2), run["error"]
    assert {entry["reason"] for entry in etl(f"rejects {run['run']} --rows --json").json} == {
        "not UTF-8", "NUL character",
    }  # fmt: skip
    assert query(target_url, "SELECT id, v FROM t") == [(3, "a\r\nb")]


def test_rows_behind_an_empty_chunk_reach_postgresql_as_they_are(pg_url: str, tmp_path: Path) -> None:
    column = pa.chunked_array([pa.array([], pa.string()), pa.array(["aa", None, "b"])])
    other = pa.chunked_array([pa.array([1, 2]), pa.array([3])])
    assert postgres._csv(pa.table({"a": column, "b": other})).to_pybytes() == b'"aa",1\n,2\n"b",3\n'


@pytest.mark.parametrize("columns", [{}, {"id": "integer", "day": "string"}])
def test_a_cursor_of_compact_days_in_text_goes_on_from_the_last(
    etl: Project, pg_url: str, columns: dict[str, Any]
) -> None:
    for name, url in (("pg", pg_url), ("lite", f"sqlite:///{etl.root}/s.db")):
        query(url, "CREATE TABLE s (id int, day text)")
        query(url, "INSERT INTO s VALUES (1, '20240131'), (2, '20240201')")
        extract = {"type": "sql", "url": url, "table": "s", "cursor": "day"}
        load = {"mode": "merge", "key": ["id"]}
        etl.config(etl_toml({name: {"extract": extract, "load": load, "retries": 0, "columns": columns}}))
        assert etl.run(pipeline=name)["rows"]["loaded"] == 2
        night = etl.run(pipeline=name)
        assert (night["state"], night["rows"]["loaded"]) == ("succeeded", 0), night["error"]
        query(url, "INSERT INTO s VALUES (3, '20240202')")
        assert etl.run(pipeline=name)["rows"]["loaded"] == 1
        assert etl.rows(f"SELECT id FROM {name} ORDER BY id") == [(1,), (2,), (3,)]

"""Spellings are of texts: numbers that a source gives as numbers keep their value, also where texts are among them."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.sources import extract, plan
from etl.transform import Transformer
from tests.helpers.examples import examples
from tests.helpers.project import Project, etl_toml

pytestmark = pytest.mark.slow

SPELLED = {"thousands": ".", "percent": True, "negative": "parentheses", "currency": ["€"]}
TYPES = {"number": {"type": "number", "decimal": ","}, "decimal": {"type": "decimal", "decimal": ","}, "integer": {}}
# What is written in a text, and what it means.
TEXTS = [("1.234", 1234), ("1.234,5", 1234.5), ("5 %", 0.05), ("(2)", -2), ("3 €", 3), ("1,5", 1.5)]
_number = count(1)
NUMBERS = st.integers(-(10**9), 10**9) | st.integers(-(10**9), 10**9).map(lambda number: number / 1000)
VALUES = NUMBERS.map(lambda number: (number, number)) | st.sampled_from(TEXTS) | st.just((1.234, 1.234))


def ndjson(root: Path, many: list[Any]) -> dict[str, Any]:
    name = f"{next(_number)}.ndjson"
    (root / name).write_text("".join(json.dumps({"id": n, "v": value}) + "\n" for n, value in enumerate(many)))
    return {"type": "ndjson", "path": name, "settle": 0}


def function(root: Path, many: list[Any]) -> dict[str, Any]:
    name = f"typed_spelled_{next(_number)}"
    rows = [{"id": n, "v": value} for n, value in enumerate(many)]
    (root / f"{name}.py").write_text(f"def rows():\n    return {rows!r}\n")
    return {"type": "function", "function": f"{name}:rows"}


def frames(root: Path, many: list[Any]) -> dict[str, Any]:
    name = f"typed_spelled_{next(_number)}"
    code = f"    for n, value in enumerate({many!r}):\n        yield pd.DataFrame({{'id': [n], 'v': [value]}})\n"
    (root / f"{name}.py").write_text(f"import pandas as pd\ndef rows():\n{code}")
    return {"type": "function", "function": f"{name}:rows"}


def sqlite(root: Path, many: list[Any]) -> dict[str, Any]:
    table = f"s{next(_number)}"
    with closing(sqlite3.connect(root / "source.db")) as connection, connection:
        connection.execute(f"CREATE TABLE {table} (id integer, v)")
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", list(enumerate(many)))
    return {"type": "sql", "url": f"sqlite:///{root}/source.db", "table": table}


def read(root: Path, source: dict[str, Any], column: dict[str, Any]) -> tuple[dict[int, Any], set[int]]:
    """Return the values by id, and the ids of the rejects."""
    known: dict[str, Any] = {"name": "values", "client": "acme", "root": str(root), "staging": str(root)}
    known |= {"modules": (source.get("function", "steps:").partition(":")[0],), "extract": {**source, **SPELLED}}
    known |= {"load": {"target": "w", "table": "t"}, "target": {"name": "w", "url": "sqlite:///w.db"}}
    made = Pipeline.model_validate({**known, "columns": {"id": {"type": "integer"}, "v": column}})
    context = Context(client="acme", run="r")
    [partition] = plan(made).partitions
    transformer = Transformer(made, context, [partition.pieces[0].file])
    values: dict[int, Any] = {}
    rejected: set[int] = set()
    for chunk in extract(made, partition, context):
        done = transformer.apply(chunk.rows)
        values |= {row["id"]: row["v"] for row in done.rows.to_pylist()}
        rejected |= {int(json.loads(entry["raw"])["id"]) for entry in done.rejects.to_pylist()}
    return values, rejected


@pytest.mark.parametrize("source", [ndjson, function, frames, sqlite])
def test_numbers_among_spelled_texts_keep_their_value(
    source: Callable[[Path, list[Any]], dict[str, Any]], tmp_path: Path
) -> None:
    @settings(max_examples=examples(50), suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.sampled_from(list(TYPES)), st.lists(VALUES, min_size=1, max_size=12))
    def prove(word: str, many: list[tuple[Any, Any]]) -> None:
        column = {"type": word, **TYPES[word]}
        values, rejected = read(tmp_path, source(tmp_path, [value for value, _ in many]), column)
        assert values.keys() | rejected == set(range(len(many)))
        for at, (value, meant) in enumerate(many):
            fits = word != "integer" or (Decimal(str(meant)) % 1 == 0 and value not in ("1.234,5", "5 %", "1,5"))
            assert (at in values) == fits, (word, value)
            assert at in rejected or Decimal(str(values[at])) == Decimal(str(meant)), (word, value, values[at])

    prove()


@pytest.mark.parametrize("word", TYPES)
def test_a_column_of_numbers_that_meets_texts_a_thousand_lines_later_keeps_them(tmp_path: Path, word: str) -> None:
    many = [1.234] * 1500 + ["1.234"]
    values, rejected = read(tmp_path, ndjson(tmp_path, many), {"type": word, **TYPES[word]})
    expected = {1500: 1234} if word == "integer" else {**dict.fromkeys(range(1500), Decimal("1.234")), 1500: 1234}
    assert {at: Decimal(str(value)) for at, value in values.items()} == expected
    assert len(rejected) == 1501 - len(expected)


def test_rejected_numbers_are_exported_as_their_column_is_spelled_and_loaded(etl: Project) -> None:
    columns = {"id": "integer", "v": TYPES["number"], "day": "date", "note": "string"}
    given = {"extract": {"type": "ndjson", "path": "in/*", "settle": 0, "thousands": ".", "null": ["NA"]}}
    etl.config(etl_toml({"t": {**given, "retries": 0, "columns": columns}}))
    rows = [(1, 1.234, "no day", "NA"), (2, "1.234", "no day", "NA"), (3, 1.5, "2026-01-01", "x")]
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    etl.write("in/a.ndjson", "\n".join(lines))
    run = etl.run(pipeline="t")
    assert run["rows"]["rejected"] == 2
    out = etl.root / "bad.csv"
    assert etl(f"rejects {run['run']} --export", str(out)).code == 0
    out.write_text(out.read_text().replace("no day", "2026-01-02"))
    assert etl(f"rejects {run['run']} --load", str(out)).code == 0
    assert etl.rows("select id, v, note from t order by id") == [(1, 1.234, None), (2, 1234.0, None), (3, 1.5, "x")]


def test_floats_of_a_decimal_column_are_the_same_decimals_when_their_rows_are_exported_and_loaded(etl: Project) -> None:
    """123456789.12345679 once was the decimal of its binary fraction, which no float of SQLite keeps."""
    floats = [123456789.12345679, 1e23, 0.30000000000000004, 0.1234567890123]
    with closing(sqlite3.connect(etl.root / "source.db")) as base, base:
        base.execute("CREATE TABLE t (v REAL, day TEXT)")
        base.executemany("INSERT INTO t VALUES (?, ?)", [(v, day) for day in ("2026-01-01", "no day") for v in floats])
    extract = {"type": "sql", "url": "sqlite:///source.db", "table": "t"}
    etl.config(etl_toml({"t": {"extract": extract, "retries": 0, "columns": {"v": "decimal", "day": "date"}}}))
    run = etl.run(pipeline="t")
    assert run["rows"]["rejected"] == 4 + 2  # more than 9 places, and 10**23, which SQLite gives back otherwise
    direct = etl.rows("SELECT v FROM t ORDER BY v")
    assert direct == [(0.3,), (123456789.12345679,)]
    out = etl.root / "bad.csv"
    assert etl(f"rejects {run['run']} --export", str(out)).code == 0
    out.write_text(out.read_text().replace("no day", "2026-01-02"))
    etl(f"rejects {run['run']} --load", str(out))
    assert etl.rows("SELECT v FROM t WHERE day = '2026-01-02' ORDER BY v") == direct


def test_a_function_that_mixes_numbers_and_texts_gives_the_numbers_it_says(etl: Project) -> None:
    code = "def mix(df):\n    df['v'] = [1.234, '1.234', None, 5][: len(df)]\n    return df.astype({'v': object})\n"
    etl.write("steps.py", code)
    column = {"type": "number", "decimal": ",", "thousands": ".", "computed": True}
    given = {"transform": ["steps:mix"], "retries": 0, "columns": {"id": "integer", "v": column}}
    etl.config(etl_toml({"t": given}))
    (etl.root / "inbox/acme/claims-1.csv").unlink()
    etl.write("inbox/acme/a.csv", "id\n1\n2\n3\n4\n")
    assert etl.run(pipeline="t")["state"] == "succeeded"
    assert etl.rows("select v from t order by id") == [(1.234,), (1234.0,), (None,), (5.0,)]


def test_a_column_that_nobody_declared_stays_text_where_thousands_have_points(etl: Project) -> None:
    extract = {"path": "inbox/{client}/*.csv", "thousands": ".", "delimiter": ";"}
    (etl.root / "inbox/acme/claims-1.csv").unlink()
    etl.config(etl_toml({"t": {"extract": extract, "retries": 0, "columns": {"id": "integer"}}}))
    with closing(sqlite3.connect(etl.root / "warehouse.db")) as target, target:
        target.execute("CREATE TABLE t (id INTEGER, v TEXT, _client TEXT, _run TEXT, _file TEXT)")
    etl.write("inbox/acme/a.csv", "id;v\n1.000;1.234\n2;1,5\n")
    assert etl.run(pipeline="t")["state"] == "succeeded"
    assert etl.rows("select id, v from t order by id") == [(2, "1,5"), (1000, "1.234")]

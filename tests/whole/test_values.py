"""A value in, by every kind of source; the value out of every kind of target, by its own driver: equal, or rejected."""

import csv
import datetime as dt
import io
import json
import math
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.load import limits
from etl.sources import extract, plan
from etl.transform import Transformer
from tests.helpers.deliveries import deliver, query
from tests.helpers.examples import examples

ROWS, MORE = 20, 380
_number = count(1)

# Columns that are there before, by target and type; None: the load makes the table.
STRINGS = ("text", "varchar(5)", "char(5)")
THERE: dict[str, dict[str, tuple[str | None, ...]]] = {
    "sqlite": {
        "string": (None, "text", "varchar(5)"),
        "integer": (None, "integer", "real", "numeric"),
        "number": (None, "real", "numeric"),
        "decimal": (None, "numeric", "decimal(12,2)"),
        "boolean": (None, "boolean"),
        "date": (None, "date"),
        "timestamp": (None, "timestamp"),
    },
    "postgresql": {
        "string": (None, *STRINGS),
        "integer": (None, "smallint", "integer", "double precision", "real", "numeric(6,2)"),
        "number": (None, "double precision", "real", "numeric", "numeric(12,3)"),
        "decimal": (None, "numeric(12,2)", "numeric(38,9)", "numeric(4,0)"),
        "boolean": (None, "boolean"),
        "date": (None, "date"),
        "timestamp": (None, "timestamptz(0)", "timestamp(3)", "timestamp"),
    },
    "duckdb": {
        "string": (None, "varchar"),
        "integer": (None, "smallint", "integer", "double", "decimal(6,2)"),
        "number": (None, "double"),
        "decimal": (None, "decimal(12,2)"),
        "boolean": (None, "boolean"),
        "date": (None, "date"),
        "timestamp": (None, "timestamptz", "timestamp"),
    },
}
LETTERS = "abcXYZ019 .,-+éßø中\u00a0\u0301\U0001f600\"'\\;%_"
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=8)
MOMENTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS | st.sampled_from(["ab", "abcde", "abcdef", "ab   ", "abcde  ", " a", "NaN", "1e5", "066"]),
    "integer": st.integers(-(2**70), 2**70)
    | st.integers(-40_000, 40_000)
    | st.sampled_from([2**53 + 1, 16_777_217, -67_696_808, 59_634_290]),
    "number": st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**9), 10**9).map(lambda number: number / 1000)
    | st.sampled_from([0.1, 1 / 3, 16_777_217.0, 59_634_290.0, 1e39, 5e-324, 4111111111111111.0]),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**35), max_value=10**35, places=9)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**5), max_value=10**5, places=2)
    | st.builds(lambda digits, places: Decimal(f"{digits}E-{places}"), st.integers(0, 10**37), st.integers(0, 12)),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": MOMENTS | MOMENTS.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)),
}
# What is never rejected, whatever the column.
EASY: dict[str, list[Any]] = {
    "string": ["a", "066", "x y"],
    "integer": [0, -7, 100],
    "number": [0.5, -2.0, 100.0],
    "decimal": [Decimal(7), Decimal(-12)],
    "boolean": [True, False],
    "date": [dt.date(2024, 2, 29)],
    "timestamp": [dt.datetime(2024, 2, 29, 23, 59, 59)],
}


def many(type: str, luck: Random, size: int) -> list[Any]:
    """Return values of a type, at no cost: hypothesis looks for the odd ones, these are for the number."""

    def moment() -> dt.datetime:
        finest = luck.choice((1, 1000, 10**6))
        since = luck.randrange(0, 10**6 * 86400 * 3_652_000, finest)
        return dt.datetime(1, 1, 2) + dt.timedelta(microseconds=since)

    def decimal() -> Decimal:
        most = 10 ** luck.randint(1, 37)
        return Decimal(f"{luck.randrange(-most, most)}E-{luck.randint(0, 12)}")

    def number() -> float:
        found = struct.unpack("<d", luck.randbytes(8))[0]
        return found if math.isfinite(found) and luck.random() < 0.5 else luck.randint(-(10**12), 10**12) / 1000

    def text() -> str:
        return "".join(luck.choice(LETTERS) for _ in range(luck.randint(1, 8)))

    make: dict[str, Callable[[], Any]] = {
        "string": text,
        "integer": lambda: luck.randint(-(2 ** luck.randint(1, 66)), 2 ** luck.randint(1, 66)),
        "number": number,
        "decimal": decimal,
        "boolean": lambda: luck.random() < 0.5,
        "date": lambda: moment().date(),
        "timestamp": moment,
    }
    return [make[type]() for _ in range(size)]


def written(value: Any) -> str:
    """Return a value as text of a file."""
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def as_csv(root: Path, type: str, values: list[Any]) -> dict[str, Any]:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("id", "v"), *((n, written(v)) for n, v in enumerate(values))])
    name = f"{next(_number)}.csv"
    (root / name).write_text(text.getvalue(), encoding="utf-8", newline="")
    return {"type": "csv", "path": name, "settle": 0}


def as_ndjson(root: Path, type: str, values: list[Any]) -> dict[str, Any]:
    def token(value: Any) -> str:
        return written(value) if type in ("integer", "number", "decimal", "boolean") else json.dumps(str(value))

    name = f"{next(_number)}.ndjson"
    lines = (f'{{"id": {n}, "v": {token(value)}}}\n' for n, value in enumerate(values))
    (root / name).write_text("".join(lines), encoding="utf-8")
    return {"type": "ndjson", "path": name, "settle": 0}


def as_function(root: Path, type: str, values: list[Any]) -> dict[str, Any]:
    name = f"given_values_{next(_number)}"
    rows = [{"id": n, "v": value} for n, value in enumerate(values)]
    code = f"import datetime\nfrom decimal import Decimal\n\ndef rows():\n    return {rows!r}\n"
    (root / f"{name}.py").write_text(code, encoding="utf-8")
    return {"type": "function", "function": f"{name}:rows"}


def as_sqlite(root: Path, type: str, values: list[Any]) -> dict[str, Any]:
    path, table = root / "source.db", f"s{next(_number)}"
    kinds = {"integer": "integer", "number": "real", "boolean": "integer"}
    texts = (Decimal, dt.date)
    kept = [written(value) if isinstance(value, texts) or abs_(value) >= 2**63 else value for value in values]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE {table} (id integer, v {kinds.get(type, 'text')})")
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", list(enumerate(kept)))
    return {"type": "sql", "url": f"sqlite:///{path}", "table": table}


def abs_(value: Any) -> Any:
    return abs(value) if isinstance(value, int) else 0


SOURCES: dict[str, Callable[[Path, str, list[Any]], dict[str, Any]]] = {
    "csv": as_csv,
    "ndjson": as_ndjson,
    "function": as_function,
    "sqlite": as_sqlite,
}


def as_postgres(url: str) -> Callable[[Path, str, list[Any]], dict[str, Any]]:
    """Return a source of a table of PostgreSQL."""
    kinds = {"string": "text", "integer": "numeric", "number": "float8", "decimal": "numeric", "timestamp": "timestamp"}

    def fill(root: Path, type: str, values: list[Any]) -> dict[str, Any]:
        table = f"s{next(_number)}"
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE {table} (id int, v {kinds.get(type, type)})".encode())
            with cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
                for row in enumerate(values):
                    copy.write_row(row)
        return {"type": "sql", "url": url, "table": table}

    return fill


@pytest.fixture(params=["sqlite", "postgresql", "duckdb"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty target."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("pg_url")
        return url
    return f"{request.param}:///{tmp_path}/target.db"


def read_back(url: str, table: str, type: str) -> list[tuple[int, Any]]:
    """Return ids and values as the database's own driver gives them."""
    path = url.partition(":///")[2]
    if url.startswith("postgresql"):
        with psycopg.connect(url) as server:
            server.execute("SET TIME ZONE 'UTC'")
            return server.execute(f"SELECT id, v FROM {table}".encode()).fetchall()
    if url.startswith("duckdb"):
        with closing(duckdb.connect(path)) as base:
            shown = "make_timestamp(epoch_us(v))" if type == "timestamp" else "v"  # without pytz
            return base.execute(f"SELECT id, {shown} FROM {table}").fetchall()
    with closing(sqlite3.connect(path)) as lite:
        return lite.execute(f"SELECT id, v FROM {table}").fetchall()


def is_equal(type: str, value: Any, stored: Any, there: str | None) -> bool:
    """Whether what a driver gives is what was given."""
    if stored is None:
        return False
    if type == "string":
        return bool(stored.rstrip(" ") == value.rstrip(" ") if there == "char(5)" else stored == value)
    if type == "date":
        return str(stored) == str(value)
    if type == "timestamp":
        moment = dt.datetime.fromisoformat(stored) if isinstance(stored, str) else stored
        return bool(moment.replace(tzinfo=None) == value)
    if isinstance(stored, float) and isinstance(value, Decimal):
        return Decimal(repr(stored)) == value
    if isinstance(value, float) and isinstance(stored, Decimal):
        return Decimal(repr(value)) == stored
    return bool(stored == value)


def brought(root: Path, url: str, config: dict[str, Any], type: str, there: str | None) -> tuple[str, dict[int, str]]:
    """Load a source's values; return the table's name, and the reasons of the rejects by id."""
    number = next(_number)
    table = f"t{number}"
    if there is not None:
        query(url, f"CREATE TABLE {table} (id integer, v {there}, _client text, _run text, _file text)")
    module = config.get("function", "steps:").partition(":")[0]
    known: dict[str, Any] = {
        "name": "values",
        "client": "acme",
        "root": str(root),
        "staging": str(root),
        "modules": (module,),
    }
    known |= {"extract": config, "load": {"target": "w", "table": table}, "target": {"name": "w", "url": url}}
    made = Pipeline.model_validate({**known, "columns": {"id": {"type": "integer"}, "v": {"type": type}}})
    context = Context(client="acme", run=f"r{number}")
    [partition] = plan(made).partitions
    transformer = Transformer(made, context, [partition.pieces[0].file], None, limits(made, url))
    tables, rejects = [], []
    for chunk in extract(made, partition, context):
        done = transformer.apply(chunk.rows)
        tables.append(done.rows.combine_chunks())
        rejects += chunk.rejects.to_pylist() + done.rejects.to_pylist()
    counts = deliver(url, made, *tables, run=f"r{number}", of=partition, content=f"c{number}")
    assert counts.loaded == sum(table.num_rows for table in tables)
    assert {reject["column"] for reject in rejects} <= {"v"}
    assert all(reject["reason"] for reject in rejects)
    return table, {int(json.loads(reject["raw"])["id"]): reject["reason"] for reject in rejects}


def kinds_of(url: str) -> Iterator[tuple[str, str | None]]:
    for type, columns in THERE[url.partition(":")[0]].items():
        yield from ((type, there) for there in columns)


@pytest.mark.parametrize("source", [*SOURCES, "postgresql"])
def test_a_value_comes_out_as_it_went_in_or_is_rejected(
    target: str, source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fill = SOURCES[source] if source in SOURCES else as_postgres(request.getfixturevalue("pg_url"))

    @settings(max_examples=examples(10), suppress_health_check=list(HealthCheck))
    @given(st.data())
    def prove(data: st.DataObject) -> None:
        type, there = data.draw(st.sampled_from(list(kinds_of(target))))
        values = data.draw(st.lists(VALUES[type], min_size=1, max_size=ROWS))
        values += many(type, Random(data.draw(st.integers(0, 2**32))), MORE) + EASY[type]
        table, rejected = brought(tmp_path, target, fill(tmp_path, type, values), type, there)
        stored = dict(read_back(target, table, type))
        assert stored.keys() | rejected.keys() == set(range(len(values)))
        assert not stored.keys() & rejected.keys()
        for at, value in enumerate(values):
            assert at in rejected or is_equal(type, value, stored[at], there), (type, there, value, stored[at])
        easy = range(len(values) - len(EASY[type]), len(values))
        assert not rejected.keys() & set(easy), (type, there, rejected)
        if there is None:
            assert all(not has_room(type, values[at], target) for at in rejected), (type, rejected)

    prove()


def has_room(type: str, value: Any, url: str) -> bool:
    """Whether a column that the load makes surely keeps a value."""
    if type in ("string", "boolean", "date", "timestamp"):
        return True
    if type == "integer":
        return bool(-(2**63) <= value < 2**63)
    if type == "number":
        return math.isfinite(value)
    digits = len(value.as_tuple().digits)
    return digits <= 15 and value.as_tuple().exponent >= -9 and abs(value) < 10**15

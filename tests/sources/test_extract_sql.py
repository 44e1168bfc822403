"""Tables and queries of PostgreSQL and SQLite as sources."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import BadSource, ConfigError, SourceUnreachable
from etl.partition import Partition
from etl.sources import extract, plan
from etl.sources.sql.statement import for_psycopg
from etl.types.cursor import Cursor, Span

ROWS = [(1, "Ann", 1.5), (2, "Bob", None), (7, "O'Neil", 2.25)]


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database that rows come from."""
    if request.param == "sqlite":
        sqlite3.connect(tmp_path / "source.db").close()
        return "sqlite:///source.db"
    url: str = request.getfixturevalue("pg_url")
    return url


@pytest.fixture
def filled(source: str, tmp_path: Path) -> str:
    """A database with a table of people."""
    change(source, tmp_path, "CREATE TABLE people (id integer, name text, amount float)")
    for id, name, amount in ROWS:
        name = name.replace("'", "''")
        change(source, tmp_path, f"INSERT INTO people VALUES ({id}, '{name}', {amount or 'NULL'})")
    return source


def change(url: str, root: Path, statement: str) -> None:
    """Run a statement that returns nothing."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(root / url.removeprefix("sqlite:///"))) as lite, lite:
            lite.execute(statement)
        return
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def pipeline(root: Path, url: str, **extract_: Any) -> Pipeline:
    """Return a pipeline that reads `people`."""
    mode = {"mode": "merge", "key": ["id"]}
    known: dict[str, Any] = {"name": "people", "client": "acme", "root": str(root), "staging": str(root), "modules": ()}
    known |= {"load": {"target": "w", "table": "people", **mode}, "target": {"name": "w", "url": "sqlite:///w.db"}}
    params = extract_.pop("params", {})
    if "query" not in extract_:
        extract_ = {"table": "people", **extract_}
    return Pipeline.model_validate({**known, "params": params, "extract": {"type": "sql", "url": url, **extract_}})


def rows(pipeline: Pipeline, span: Span | None = None, partitions: tuple[Partition, ...] | None = None) -> pa.Table:
    """Return what all partitions give."""
    context = Context(client="acme", run="r")
    chunks = [
        chunk.rows
        for partition in partitions or plan(pipeline).partitions
        for chunk in extract(pipeline, partition, context, span)
    ]
    return pa.concat_tables(chunks, promote_options="permissive")


def test_a_tables_rows_come_typed_and_numbered(filled: str, tmp_path: Path) -> None:
    found = rows(pipeline(tmp_path, filled))
    assert found.schema.types == [pa.int64(), pa.string(), pa.float64(), pa.int64()]
    assert [tuple(row.values()) for row in found.to_pylist()] == [(*row, n) for n, row in enumerate(ROWS, 1)]


def test_every_row_is_in_one_partition_of_a_key(filled: str, tmp_path: Path) -> None:
    change(filled, tmp_path, "INSERT INTO people VALUES (NULL, 'without key', 0)")
    made = pipeline(tmp_path, filled, partition="id", rows=2)
    planned = plan(made).partitions
    assert [piece.keys for partition in planned for piece in partition.pieces] == [(None, 2), (2, 4), (4, 6), (6, None)]
    change(filled, tmp_path, "INSERT INTO people VALUES (-5, 'before', 0), (900, 'after', 0)")
    assert sorted(rows(made, partitions=planned)["name"].to_pylist()) == [
        "Ann",
        "Bob",
        "O'Neil",
        "after",
        "before",
        "without key",
    ]


def test_keys_that_are_far_apart_make_no_empty_partitions(filled: str, tmp_path: Path) -> None:
    change(filled, tmp_path, "INSERT INTO people VALUES (1000000000, 'far', 0)")
    assert len(plan(pipeline(tmp_path, filled, partition="id")).partitions) == 1
    made = pipeline(tmp_path, filled, partition="id", rows=1)
    assert rows(made, partitions=plan(made).partitions).num_rows == len(ROWS) + 1


def test_a_key_of_text_is_refused(filled: str, tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="partition column name is not of whole numbers"):
        plan(pipeline(tmp_path, filled, partition="name"))


def test_an_empty_table_has_one_partition(source: str, tmp_path: Path) -> None:
    change(source, tmp_path, "CREATE TABLE people (id integer, name text)")
    made = pipeline(tmp_path, source, partition="id")
    assert len(plan(made).partitions) == 1
    assert rows(made).num_rows == 0


def test_a_query_gets_its_values_by_name_and_never_spliced(filled: str, tmp_path: Path) -> None:
    query = "SELECT id, name, '50%:x' AS note FROM people -- :nothing\n WHERE name = :name AND 'acme' = :client;"
    made = pipeline(tmp_path, filled, query=query, params={"name": "O'Neil"})
    assert rows(made).drop_columns("_row").to_pylist() == [{"id": 7, "name": "O'Neil", "note": "50%:x"}]
    made = pipeline(tmp_path, filled, query=query, params={"name": "' OR 1=1 --"})
    assert rows(made).num_rows == 0


def test_a_query_is_cut_by_a_key_too(filled: str, tmp_path: Path) -> None:
    made = pipeline(tmp_path, filled, query="SELECT id, name FROM people WHERE id > :least", params={"least": 1})
    cut = made.model_copy(update={"extract": made.extract.model_copy(update={"partition": "id", "rows": 3})})
    assert len(plan(cut).partitions) == 2
    assert sorted(rows(cut)["id"].to_pylist()) == [2, 7]


def test_a_name_without_a_value_is_reported(filled: str, tmp_path: Path) -> None:
    made = pipeline(tmp_path, filled, query="SELECT * FROM people WHERE name = :nmae", params={"name": "x"})
    with pytest.raises(ConfigError, match=":nmae has no value; did you mean name"):
        rows(made)


def test_names_are_quoted(source: str, tmp_path: Path) -> None:
    change(source, tmp_path, 'CREATE TABLE "select x""; --" ("Order" integer)')
    change(source, tmp_path, 'INSERT INTO "select x""; --" VALUES (1)')
    made = pipeline(tmp_path, source, table='select x"; --', partition="Order")
    assert rows(made)["Order"].to_pylist() == [1]


@pytest.mark.parametrize("since", [Cursor("integer", "2"), None])
def test_rows_from_the_cursor_on_are_read(filled: str, tmp_path: Path, since: Cursor | None) -> None:
    by_table = pipeline(tmp_path, filled, cursor="id")
    strictly = "SELECT * FROM people WHERE id > :since AND id <= :until"
    by_query = pipeline(tmp_path, filled, query=strictly, cursor="id")
    expected = [2, 7] if since else [1, 2, 7]
    assert rows(by_table, Span(since))["id"].to_pylist() == expected
    assert rows(by_query, Span(since))["id"].to_pylist() == expected


def test_rows_later_than_when_the_run_began_wait_for_the_next(filled: str, tmp_path: Path) -> None:
    made = pipeline(tmp_path, filled, cursor="id")
    assert rows(made, Span(None, Cursor("integer", "2")))["id"].to_pylist() == [1, 2]


def test_a_database_that_is_not_there_can_be_tried_again(tmp_path: Path) -> None:
    for url in ("sqlite:///none.db", "postgresql:///x?host=/nowhere/at/all"):
        with pytest.raises(SourceUnreachable, match="sql:people can't be reached") as caught:
            rows(pipeline(tmp_path, url))
        assert caught.value.retryable
        assert caught.value.exit_code == 3
    assert not (tmp_path / "none.db").exists()


def test_a_secret_that_is_missing_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pipelines\.people\.extract\.url: NO_SUCH_URL is not in the environment"):
        rows(pipeline(tmp_path, "${NO_SUCH_URL}"))


def test_an_environment_variable_that_names_a_database_that_can_be_no_source_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_URL", "duckdb:///source.duckdb")
    made = pipeline(tmp_path, "${SOURCE_URL}")
    with pytest.raises(ConfigError, match=r"extract\.url: DuckDB can't be a source"):
        rows(made)


@pytest.mark.parametrize("query", ["SELEC 1", "SELECT nothing FROM people", "SELECT * FROM nobody"])
def test_a_wrong_statement_is_reported(filled: str, tmp_path: Path, query: str) -> None:
    with pytest.raises(BadSource, match="sql:people: ") as caught:
        rows(pipeline(tmp_path, filled, query=query))
    assert not caught.value.retryable


def test_nothing_can_be_written_through_a_source(filled: str, tmp_path: Path) -> None:
    with pytest.raises(BadSource):
        rows(pipeline(tmp_path, filled, query="DELETE FROM people RETURNING id"))
    assert rows(pipeline(tmp_path, filled)).num_rows == 3


def test_two_columns_of_a_name_are_refused(filled: str, tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="columns of the same name"):
        rows(pipeline(tmp_path, filled, query="SELECT id, name AS ID FROM people"))


def test_errors_quote_no_value(pg_url: str, tmp_path: Path) -> None:
    with pytest.raises(BadSource) as caught:
        rows(pipeline(tmp_path, pg_url, query="SELECT 'Jane Roe'::text::integer AS id"))
    assert "Jane" not in str(caught.value)


def test_postgresql_types_come_without_loss(pg_url: str, tmp_path: Path) -> None:
    query = """SELECT 12.50::numeric AS price, '2024-03-10 02:30:00-06'::timestamptz AS at, '2024-02-29'::date AS day,
        '2024-01-01 10:00:00.000001'::timestamp AS wall, true AS yes, '\\x6869'::bytea AS raw,
        '{"a": 1}'::jsonb AS doc, ARRAY[1, 2] AS list, 9223372036854775807::bigint AS big, NULL::integer AS nothing"""
    found = rows(pipeline(tmp_path, pg_url, query=query))
    assert found.to_pylist() == [
        {
            "price": Decimal("12.50"),
            "at": datetime(2024, 3, 10, 8, 30, tzinfo=UTC),
            "day": date(2024, 2, 29),
            "wall": datetime(2024, 1, 1, 10, 0, 0, 1),
            "yes": True,
            "raw": "\\x6869",
            "doc": '{"a": 1}',
            "list": "{1,2}",
            "big": 2**63 - 1,
            "nothing": None,
            "_row": 1,
        }
    ]
    assert found.schema.field("price").type == pa.decimal128(38, 9)
    assert found.schema.field("nothing").type == pa.int64()


@pytest.mark.parametrize("value", ["1.1234567890123", "1e40"])
def test_numbers_that_no_decimal_holds_come_as_text(pg_url: str, tmp_path: Path, value: str) -> None:
    query = f"SELECT * FROM (VALUES (12.5::numeric), ({value}::numeric)) AS v (n)"
    found = rows(pipeline(tmp_path, pg_url, query=query))["n"].to_pylist()
    assert found == ["12.5", {"1e40": str(10**40)}.get(value, value)]


BEYOND = "infinite, before the year 1 or after 9999"


@pytest.mark.parametrize(
    ("type", "good", "bad", "reason"),
    [
        ("float8", 1.5, "NaN", "not a finite number"),
        ("float4", 0.5, "-Infinity", "not a finite number"),
        ("numeric", Decimal("12.500000000"), "NaN", "not a finite number"),
        ("numeric", Decimal("12.500000000"), "Infinity", "not a finite number"),
        ("date", date(2024, 2, 29), "infinity", BEYOND),
        ("date", date(2024, 2, 29), "0044-03-15 BC", BEYOND),
        ("timestamp", datetime(2024, 2, 29, 1, 2, 3), "-infinity", BEYOND),
        ("timestamp", datetime(2024, 2, 29, 1, 2, 3), "10000-01-01 00:00:00", BEYOND),
        ("timestamptz", datetime(2024, 2, 29, tzinfo=UTC), "infinity", BEYOND),
    ],
)
def test_a_value_that_no_type_here_has_rejects_its_row_and_no_other(
    pg_url: str, tmp_path: Path, type: str, good: Any, bad: str, reason: str
) -> None:
    change(pg_url, tmp_path, f"CREATE TABLE people (id int, v {type}, w float8)")
    change(pg_url, tmp_path, f"INSERT INTO people VALUES (1, '{good}', 1), (2, '{bad}', 'NaN'), (3, NULL, 2)")
    made = pipeline(tmp_path, pg_url)
    chunks = list(extract(made, plan(made).partitions[0], Context(client="acme", run="r")))
    assert pa.concat_tables([chunk.rows for chunk in chunks]).to_pylist() == [
        {"id": 1, "v": good, "w": 1.0, "_row": 1},
        {"id": 3, "v": None, "w": 2.0, "_row": 3},
    ]
    [reject] = pa.concat_tables([chunk.rejects for chunk in chunks]).to_pylist()
    assert (reject["row"], reject["column"], reject["value"], reject["reason"]) == (2, "v", bad, reason)
    assert json.loads(reject["raw"]) == {"id": "2", "v": bad, "w": "NaN"}


def test_an_infinity_of_sqlite_rejects_its_row(tmp_path: Path) -> None:
    change("sqlite:///s.db", tmp_path, "CREATE TABLE people (id integer, v real)")
    change("sqlite:///s.db", tmp_path, "INSERT INTO people VALUES (1, 1.5), (2, 9e999)")
    made = pipeline(tmp_path, "sqlite:///s.db")
    [chunk] = extract(made, plan(made).partitions[0], Context(client="acme", run="r"))
    assert chunk.rows["v"].to_pylist() == [1.5]
    assert chunk.rejects["value"].to_pylist() == ["Infinity"]


def test_an_sqlite_column_of_many_types_comes_as_text(tmp_path: Path) -> None:
    change("sqlite:///s.db", tmp_path, "CREATE TABLE people (a, b, c)")
    insert = "INSERT INTO people VALUES (1, 1, 9007199254740993), ('066', 1.5, 0.5), (x'6869', 2, NULL)"
    change("sqlite:///s.db", tmp_path, insert)
    found = rows(pipeline(tmp_path, "sqlite:///s.db"))
    assert found["a"].to_pylist() == ["1", "066", "\\x6869"]
    assert found["b"].to_pylist() == [1.0, 1.5, 2.0]
    assert found["c"].to_pylist() == [9007199254740993, Decimal("0.5"), None]


def test_parameters_are_found_where_they_are_parameters() -> None:
    statement = "SELECT ':a', \"b:c\", x::int, $$ :no $$, 5 % 2 -- :n\n FROM t WHERE a > :since /* :q */ AND b = :since"
    text, used = for_psycopg(statement, {"since": 1, "until": 2})
    assert used == {"since": 1}
    assert text == statement.replace(" :since", " %(since)s").replace("5 % 2", "5 %% 2")


def test_text_of_a_database_without_an_encoding_is_text(postgres_url: str, tmp_path: Path) -> None:
    url = postgres_url.replace("/postgres?", "/ascii_source?")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE ascii_source ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    try:
        with psycopg.connect(url, client_encoding="utf8") as database:
            database.execute("CREATE TABLE claims (id int, town text); INSERT INTO claims VALUES (1, 'Zürich')")
        assert rows(pipeline(tmp_path, url, table="claims"))["town"].to_pylist() == ["Zürich"]
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute("DROP DATABASE ascii_source WITH (FORCE)")


@pytest.mark.parametrize("word", ["returning", "lateral", "order", 'he said "x" %s', "a:b", "Mixed"])
def test_names_of_tables_and_columns_are_quoted(source: str, tmp_path: Path, word: str) -> None:
    quoted = '"' + word.replace('"', '""') + '"'
    change(source, tmp_path, f"CREATE TABLE {quoted} (id integer, {quoted} integer)")
    change(source, tmp_path, f"INSERT INTO {quoted} VALUES (1, 10), (2, 20)")
    made = pipeline(tmp_path, source, table=word, partition=word, cursor=word)
    assert rows(made, Span(Cursor("integer", "15")))[word].to_pylist() == [20]


ASKED = {  # how a query names what is in a row
    "sqlite": ["json_extract('{}', v)", "(SELECT count(*) FROM f WHERE f MATCH v || ':')"],
    "postgresql": [
        "say(v)",
        "look(v)",
        "v::regproc",
        "current_setting(v)",
        "query_to_xml('SELECT t.' || v, true, true, '')",
    ],
}


@pytest.mark.parametrize(("kind", "asked"), [(kind, asked) for kind in ASKED for asked in ASKED[kind]])
def test_what_a_database_says_of_a_row_is_not_repeated(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, asked: str
) -> None:
    if kind == "sqlite":
        url, query = f"sqlite:///{tmp_path}/source.db", "SELECT {} AS x FROM t"
        with closing(sqlite3.connect(tmp_path / "source.db")) as database:
            database.executescript(
                "CREATE TABLE t (v); INSERT INTO t VALUES ('Jane4711'); CREATE VIRTUAL TABLE f USING fts5(a)"
            )
    else:
        url, query = request.getfixturevalue("pg_url"), "SELECT {}::text AS x FROM t"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("""
                CREATE TABLE t (v text); INSERT INTO t VALUES ('Jane4711');
                CREATE FUNCTION say(v text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                    RAISE EXCEPTION 'no %', v USING ERRCODE = '42P01'; END $$;
                CREATE FUNCTION look(v text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                    EXECUTE format('SELECT %I', v); RETURN 1; END $$
            """)
    for part, told in ((asked, "jane4711"), ("nosuch", "")):
        with pytest.raises(BadSource) as refused:
            rows(pipeline(tmp_path, url, query=query.format(part)))
        text = str(refused.value).casefold()
        assert ("jane" in text, bool(refused.value.cure), "nosuch" in text) == (False, True, not told)


@pytest.mark.parametrize(
    "password", ["Jane 4711", "Jane%zz", "Jane%00", "Jane@4711", "Jane#4711", "Jane/4711", "Jane[4711"]
)
def test_a_password_that_is_spelled_wrongly_is_not_quoted(tmp_path: Path, password: str) -> None:
    with pytest.raises((ConfigError, SourceUnreachable)) as refused:
        plan(pipeline(tmp_path, f"postgresql://reader:{password}@127.0.0.1:1/app", partition="id"))
    assert "Jane" not in f"{refused.value}"
    assert refused.value.cure

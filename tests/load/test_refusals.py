"""Every error of a database is a sentence with a cure, and holds no value of a row."""

import re
import sqlite3
from typing import Any

import duckdb
import psycopg
import pytest

from etl.errors import EtlError, TableMismatch, TargetRefused
from etl.load.targets import kind_named
from tests.helpers.deliveries import chunk, deliver, partition, pipeline, query, values

SECRET = "Jane Roe 4711"
OWN = "_run TEXT, _file TEXT"


def is_sentence(error: EtlError) -> bool:
    """Whether an error says what and where, has a cure, and holds nothing of a row."""
    text = f"{error} {error.cure}"
    words = re.findall(r"[a-z']{2,}", str(error).partition("\n")[0].removeprefix("target x"))
    return "target x" in text and len(words) >= 3 and bool(error.cure) and "Jane" not in text and "4711" not in text


def test_every_state_of_postgresql_that_a_trigger_may_raise_is_a_sentence_without_its_words(pg_url: str) -> None:
    kind = kind_named("postgresql")
    states = sorted(state for state in psycopg.errors._sqlcodes if re.fullmatch(r"[0-9A-Z]{5}", state))
    assert len(states) > 200
    query(pg_url, """
        CREATE FUNCTION fail(state text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'Jane Roe 4711'
        USING ERRCODE = state, DETAIL = 'Jane 4711', HINT = 'Jane 4711', TABLE = 'Jane 4711', COLUMN = 'Jane 4711',
        CONSTRAINT = 'Jane 4711', DATATYPE = 'Jane 4711', SCHEMA = 'Jane 4711'; END $$
    """)  # fmt: skip
    wrong = {}
    with psycopg.connect(pg_url, autocommit=True) as database:
        for state in (*states, "ZZ001", "P0042"):
            if state[:2] in ("00", "01", "02"):
                continue
            try:
                database.execute("SELECT fail(%s)", (state,))
            except psycopg.Error as error:
                made = kind.translate(error, "target x")
                if not is_sentence(made):
                    wrong[state] = str(made)
    assert wrong == {}


def test_every_class_of_psycopg_is_a_sentence(pg_url: str) -> None:
    kind = kind_named("postgresql")
    classes = [each for each in vars(psycopg.errors).values() if isinstance(each, type)]
    classes = [each for each in classes if issubclass(each, psycopg.Error)]
    for each in classes:
        for connecting in (False, True):
            made = kind.translate(
                each(SECRET if getattr(each, "sqlstate", None) else ""), "target x", connecting=connecting
            )
            assert is_sentence(made) or connecting, (each, made)


def test_every_code_of_sqlite_is_a_sentence() -> None:
    kind = kind_named("sqlite")
    names = [name for name in vars(sqlite3) if name.startswith("SQLITE_") and isinstance(getattr(sqlite3, name), int)]
    assert len(names) > 90
    for name in [*names, "", "SQLITE_NEW"]:
        error: Any = sqlite3.OperationalError(f"{SECRET} constraint failed: {SECRET}")
        error.sqlite_errorname = name
        assert is_sentence(kind.translate(error, "target x")), name


def test_every_class_of_duckdb_is_a_sentence() -> None:
    kind = kind_named("duckdb")
    classes = [each for each in vars(duckdb).values() if isinstance(each, type) and issubclass(each, duckdb.Error)]
    assert len(classes) > 25
    for each in classes:
        assert is_sentence(kind.translate(each(f"Error: {SECRET}"), "target x")), each


# --- what real tables say ---

ROWS = [{"id": 1, "v": SECRET}]


def refused(url: str, setup: str, rows: Any = ROWS, mode: str = "append", **more: Any) -> str:
    """Set up, load, and return the two lines of the refusal."""
    with psycopg.connect(url, autocommit=True) as database:
        database.execute(setup.encode())
    with pytest.raises(TargetRefused) as caught:
        deliver(url, pipeline(mode, **more), chunk(rows))
    text = f"{caught.value}"
    assert SECRET not in text
    assert caught.value.cure
    return text


RAISES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no %', NEW.v; END $$;
    CREATE TRIGGER t BEFORE INSERT ON claims_acme FOR EACH ROW EXECUTE FUNCTION refuse()
"""
ASKS = RAISES.replace("RAISE EXCEPTION 'no %', NEW.v", "{}")
CASES = {
    "exclusion": ("v text, EXCLUDE USING btree (v WITH =)", "", "excludes another"),
    "unique": ("v text UNIQUE", "", "same unique values"),
    "check": ("v text CONSTRAINT short CHECK (length(v) < 3)", "", "constraint short"),
    "parent": ("v text REFERENCES names(v)", "", "refers to one that is missing"),
    "deferred": ("v text REFERENCES names(v) DEFERRABLE INITIALLY DEFERRED", "", "refers to one that is missing"),
    "null": ("v text, w int NOT NULL", "", "column w, needs a value|column w needs a value"),
    "length": ("v varchar(3)", "", "column v: text longer"),
    "trigger": ("v text", RAISES, "function refuse, refuses a row by a trigger"),
    "cast in a trigger": ("v text", ASKS.format("PERFORM NEW.v::int"), "function refuse, type integer: a text"),
    "name in a trigger": (
        "v text",
        ASKS.format("EXECUTE format('SELECT %I()', NEW.v)"),
        "function refuse, refuses a row by a trigger of its own .UndefinedFunction 42883.",
    ),
    "rights in a trigger": (
        "v text",
        ASKS.format(
            "EXECUTE format('CREATE TABLE %1$I (); ALTER TABLE %1$I OWNER TO pg_monitor', NEW.v); "
            "SET LOCAL ROLE pg_read_all_stats; EXECUTE format('DELETE FROM %I', NEW.v)"
        ),
        "function refuse, refuses a row by a trigger of its own .InsufficientPrivilege 42501.",
    ),
    "reserved": ("v uuid", "", "column v, type uuid: a text that is no value"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_table_of_postgresql_that_refuses_rows_says_why(pg_url: str, name: str) -> None:
    columns, after, what = CASES[name]
    query(pg_url, "CREATE TABLE names (v text PRIMARY KEY)")
    rows = [{"id": 1, "v": SECRET}, {"id": 2, "v": SECRET}]
    setup = f"CREATE TABLE claims_acme (id BIGINT, {columns}, {OWN}); {after}"
    assert re.search(what, refused(pg_url, setup, rows))


def test_a_row_without_a_partition_says_so(pg_url: str) -> None:
    setup = f"""CREATE TABLE claims_acme (id BIGINT, v TEXT, {OWN}) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF claims_acme FOR VALUES FROM (10) TO (20)"""
    assert "table claims_acme has no partition for a row" in refused(pg_url, setup)
    assert "does not belong in the partition table low" in refused(
        pg_url, "ALTER TABLE claims_acme ADD _client text", table="low"
    )


@pytest.mark.parametrize("action", ["NO ACTION", "RESTRICT", "NO ACTION DEFERRABLE INITIALLY DEFERRED"])
def test_a_replace_under_a_foreign_key_names_the_table_and_merge(pg_url: str, action: str) -> None:
    query(pg_url, f"CREATE TABLE claims_acme (id BIGINT PRIMARY KEY, v TEXT, {OWN})")
    query(pg_url, f"CREATE TABLE vans (claim BIGINT REFERENCES claims_acme ON DELETE {action})")
    deliver(pg_url, pipeline("replace"), chunk([{"id": 1, "v": "a"}]))
    query(pg_url, "INSERT INTO vans VALUES (1)")
    with pytest.raises(TargetRefused, match="rows of vans refer to rows which replace takes away") as caught:
        deliver(pg_url, pipeline("replace"), chunk([{"id": 2, "v": "b"}]), run="r2", content="c2")
    assert 'mode = "merge"' in caught.value.cure
    assert (
        deliver(pg_url, pipeline("merge", key="id"), chunk([{"id": 1, "v": "c"}]), run="r3", content="c3").loaded == 1
    )


def test_what_is_not_permitted_is_named(pg_url: str) -> None:
    setup = f"""DROP ROLE IF EXISTS loader; CREATE ROLE loader LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO loader;
        CREATE TABLE claims_acme (id BIGINT, v TEXT, {OWN})"""
    with psycopg.connect(pg_url, autocommit=True) as database:
        database.execute(setup.encode())
    loader = pg_url.replace("postgres@", "loader@")
    try:
        assert "does not permit it: table claims_acme" in refused(loader, "")
        query(pg_url, "GRANT ALL ON claims_acme TO loader; ALTER TABLE claims_acme ENABLE ROW LEVEL SECURITY")
        assert "row-level security" in refused(loader, "")
        assert "change of table claims_acme" in refused(loader, "", [{"id": 1, "v": "a", "w": 1}])
    finally:
        query(pg_url, "DROP OWNED BY loader; DROP ROLE loader")


def test_a_column_whose_type_has_no_order_is_no_key(pg_url: str) -> None:
    setup = f"CREATE TABLE claims_acme (id BIGINT, v json, {OWN})"
    assert "lacks a type, operator class" in refused(pg_url, setup, [{"id": 1, "v": "{}"}], "merge", key="v")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_text_is_kept_in_a_database_of_another_encoding_or_refused(postgres_url: str, encoding: str) -> None:
    name = f"other_{encoding.lower()}"
    url = postgres_url.replace("/postgres?", f"/{name}?")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    try:
        deliver(url, pipeline(), chunk([{"id": 1, "v": "Zürich"}]))
        with psycopg.connect(url, client_encoding="utf8") as database:
            assert database.execute("SELECT v, length(v) FROM claims_acme").fetchall()[0][0] in (
                "Zürich",
                "Zürich".encode(),
            )
        if encoding == "LATIN1":
            with pytest.raises(TableMismatch, match="encoding does not have"):
                deliver(url, pipeline(), chunk([{"id": 1, "v": "数"}]), run="r2", of=partition(2))
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_strict_table_of_sqlite_names_the_column(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    query(url, f"CREATE TABLE claims_acme (id INTEGER, v TEXT, {OWN}) STRICT")
    assert deliver(url, pipeline(), chunk([{"id": 1, "v": "a"}])).loaded == 1
    query(url, "CREATE TRIGGER t BEFORE INSERT ON claims_acme BEGIN SELECT RAISE(ABORT, 'Jane'); END")
    with pytest.raises(TargetRefused, match="refuses a row by a trigger") as caught:
        deliver(url, pipeline(), chunk([{"id": 2, "v": "b"}]), run="r2", of=partition(2))
    assert "Jane" not in str(caught.value)


def test_a_replace_under_a_foreign_key_of_duckdb_says_so(tmp_path: Any) -> None:
    url = f"duckdb:///{tmp_path}/t.duckdb"
    query(url, f"CREATE TABLE claims_acme (id BIGINT PRIMARY KEY, {OWN})")
    query(url, "CREATE TABLE vans (claim BIGINT REFERENCES claims_acme(id))")
    deliver(url, pipeline("replace"), chunk([{"id": 1}]))
    query(url, "INSERT INTO vans VALUES (1)")
    with pytest.raises(TargetRefused, match="rows which replace takes away"):
        deliver(url, pipeline("replace"), chunk([{"id": 2}]), run="r2", content="c2")
    assert values(url, "id") == [(1,)]


def test_a_file_of_duckdb_beside_which_no_log_can_be_written_is_read_only() -> None:
    text = 'TransactionContext Error: Failed to commit: Cannot open file "w.duckdb.wal": Permission denied'
    made = kind_named("duckdb").translate(duckdb.TransactionException(text), "target x")
    assert str(made).splitlines()[0] == "target x is read-only"


def test_a_check_of_duckdb_names_its_table() -> None:
    with duckdb.connect() as database:
        database.execute("CREATE TABLE people (v TEXT CHECK (length(v) < 3))")
        with pytest.raises(duckdb.ConstraintException) as refused:
            database.execute(f"INSERT INTO people VALUES ('{SECRET}')")
    made = kind_named("duckdb").translate(refused.value, "target x")
    assert is_sentence(made)
    assert 'table "people", refuses a row by a check of its own' in str(made)

"""Cursors: newer rows alone are read, none is lost, and the place moves with the rows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import etl.load
from etl.errors import ConfigError, TargetBusy
from etl.types.cursor import Cursor, back, below, cursor_of, guess, later
from jobs.api import Run
from tests.helpers.examples import examples
from tests.helpers.project import Folder, Project

pytest_plugins: list[str] = []
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SQL = """
[settings]
staging = "staging"
[targets.warehouse]
url = "{target}"
[pipelines.claims]
extract = {{ type = "sql", url = "{source}", table = "claims", cursor = "updated_at"{more} }}
load = {{ target = "warehouse", table = "loaded", mode = "{mode}"{load} }}
retries = 0
[clients.acme]
"""


@pytest.fixture
def etl_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@contextmanager
def database(url: str) -> Iterator[sa.Connection]:
    """Open a database, and commit at the end."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield connection


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    """Return a query's rows."""
    with database(url) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def tell(url: str, *statements: str) -> None:
    """Run statements."""
    with database(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def prepared(etl_: Project, url: str, **changes: str) -> None:
    """Make a table of claims and a project that loads it into another table of the same database."""
    text = {"mode": "merge", "load": ', key = ["id"]', "more": ""} | changes
    etl_.config(SQL.format(source=url, target=url, **text))
    tell(url, "CREATE TABLE claims (id integer PRIMARY KEY, name text, updated_at timestamp)")
    tell(url, *(f"INSERT INTO claims VALUES ({n}, 'n{n}', '2024-01-0{n} 00:00:00')" for n in range(1, 6)))


COPIED = "SELECT id, name FROM loaded ORDER BY id"


def test_a_second_run_reads_the_newer_rows_alone(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url)
    assert etl_.run()["rows"]["loaded"] == 5
    tell(target_url, "UPDATE claims SET name = 'new', updated_at = '2024-02-01 00:00:00' WHERE id = 2")
    again = etl_.run()["rows"]
    assert (again["read"], again["loaded"], again["unchanged"]) == (
        2,
        1,
        1,
    )  # the last one is read again, as its equals may come
    assert etl_("cursor get claims --client acme --json").json["value"].startswith("2024-02-01")
    assert etl_.run("--full-refresh")["rows"]["unchanged"] == 5


def test_a_row_of_the_same_value_that_comes_late_is_loaded(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url, more=', partition = "id", rows = 2')
    etl_.run()
    tell(target_url, "INSERT INTO claims VALUES (9, 'late', '2024-01-05 00:00:00')")
    assert etl_.run()["rows"]["loaded"] == 1


def test_an_overlap_finds_rows_that_come_late(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url, more=', overlap = "36h"')
    etl_.run()
    tell(target_url, "INSERT INTO claims VALUES (9, 'late', '2024-01-03 12:00:00')")
    tell(target_url, "INSERT INTO claims VALUES (8, 'too late', '2024-01-03 11:59:59')")
    assert etl_.run()["rows"]["loaded"] == 1
    assert (9, "late") in ask(target_url, COPIED)


def test_an_append_takes_each_row_once(etl_: Project, target_url: str) -> None:
    columns = '\n[pipelines.claims.columns]\nid = { type = "integer", unique = true }\n[clients.acme]'
    prepared(etl_, target_url, mode="append", load="", more=', partition = "id", rows = 2')
    etl_.change(('cursor = "updated_at"', 'cursor = "id"'), ("\n[clients.acme]", columns))
    assert etl_.run()["rows"]["loaded"] == 5
    tell(target_url, "INSERT INTO claims VALUES (6, 'six', '2024-01-01 00:00:00')")
    assert etl_.run()["rows"] == {
        **dict.fromkeys(("added", "rejected", "dropped", "superseded", "unchanged"), 0),
        "read": 1,
        "loaded": 1,
    }
    refused = etl_.run("--full-refresh")
    assert refused["state"] == "failed"
    assert "has moved since" in refused["error"]
    assert len(ask(target_url, COPIED)) == 6


def test_the_cursor_stays_where_a_run_is_not_complete(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url, more=', partition = "id", rows = 2')
    with failing(3):
        assert etl_.run()["state"] == "failed"
    assert etl_("cursor get claims --client acme --json").json["value"] is None
    assert etl_.run()["state"] == "succeeded"
    assert len(ask(target_url, COPIED)) == 5


def test_the_cursor_is_set_and_cleared_by_hand(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url)
    assert etl_("cursor set claims --client acme --json", "2024-01-04 00:00:00").json["run"] is None
    assert etl_.run()["rows"]["read"] == 2
    etl_("cursor clear claims --client acme")
    assert etl_.run()["rows"]["read"] == 5
    assert etl_("cursor set claims --client acme", "soon").code in (0, 2)


def test_rows_of_files_behind_the_cursor_are_unchanged(etl_: Project) -> None:
    etl_.config("""
[settings]
staging = "staging"
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/*.csv", cursor = "at" }
load = { target = "warehouse", table = "claims", mode = "merge", key = ["id"] }
[pipelines.claims.columns]
id = { type = "integer" }
at = { type = "date", format = ["%d.%m.%Y"], from = ["Date"] }
[clients.acme]
""")
    etl_.write("inbox/a.csv", "id,Date\n1,01.02.2024\n2,15.01.2024\n")
    assert etl_.run()["rows"]["loaded"] == 2
    assert etl_("cursor get claims --client acme --json").json["value"] == "2024-02-01"
    etl_.write("inbox/b.csv", "id,Date\n3,02.02.2024\n4,31.01.2024\n5,wrong\n")
    assert etl_.run()["rows"] == {
        "read": 5,
        "added": 0,
        "rejected": 1,
        "dropped": 0,
        "superseded": 0,
        "loaded": 1,
        "unchanged": 3,
    }


def test_a_file_that_is_appended_may_have_wrong_values_but_no_empty_ones(etl_: Project) -> None:
    etl_.config("""
[settings]
staging = "staging"
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/*.csv", cursor = "id" }
load = { target = "warehouse", table = "claims", mode = "append" }
retries = 0
[pipelines.claims.columns]
id = { type = "integer", unique = true }
name = { type = "string" }
[clients.acme]
""")
    etl_.write("inbox/a.csv", "id,name\n1,one\nx,wrong\n")
    rows = etl_.run()["rows"]
    assert (rows["loaded"], rows["rejected"]) == (1, 1)
    etl_.write("inbox/a.csv", "id,name\n1,one\nx,wrong\n2,two\n")
    rows = etl_.run()["rows"]
    assert (rows["loaded"], rows["rejected"], rows["unchanged"]) == (1, 1, 1)
    etl_.write("inbox/a.csv", "id,name\n,none\n3,three\n")
    assert "cursor column id is empty in 1 rows" in etl_.run()["error"]


@pytest.mark.parametrize(
    ("load", "more", "said"),
    [
        ('mode = "append"', "", "an append can't tell rows that have the same value"),
        ('mode = "replace"', "", "would drop the rows that a cursor leaves out"),
        ('mode = "merge", key = ["id"]', ', overlap = "1x"', "must be a span of time"),
        ('mode = "merge", key = ["id"]', ', query = "select 1"', "give either table"),
    ],
)
def test_what_would_lose_or_double_rows_is_a_mistake(etl_: Project, load: str, more: str, said: str) -> None:
    text = SQL.format(source="sqlite:///s.db", target="sqlite:///w.db", mode="merge", load="", more=more)
    etl_.config(text.replace('mode = "merge"', load))
    said_ = etl_("validate")
    assert said_.code == 2
    assert said in said_.err


def test_a_query_must_ask_for_newer_rows(etl_: Project) -> None:
    text = SQL.format(source="sqlite:///s.db", target="sqlite:///w.db", mode="merge", load=', key = ["id"]', more="")
    etl_.config(text.replace('table = "claims", cursor', 'query = "select * from claims", cursor'))
    assert "say … where updated_at >= :since" in etl_("validate").err


VALUES = st.one_of(
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dates(datetime(1900, 1, 1).date()),
    st.datetimes(datetime(1900, 1, 1)),
)


@given(VALUES)
def test_what_is_below_a_value_is_before_it(value: Any) -> None:
    cursor = cursor_of(value)
    assert later(below(cursor), cursor) == cursor != below(cursor)
    assert later(back(cursor, 3600), cursor) == cursor


@pytest.mark.parametrize(
    ("text", "earlier"),
    [
        ("2024-01-01 00:00:00", "2023-12-31 23:00:00"),
        ("2024-01-01T00:00:00Z", "2023-12-31T23:00:00Z"),
        ("2024-01-01", "2023-12-31"),
    ],
)
def test_times_kept_as_text_are_stepped_back_in_their_style(text: str, earlier: str) -> None:
    assert back(Cursor("string", text), 3600) == Cursor("string", earlier)
    assert below(Cursor("string", text)).value < text


def test_text_is_stepped_back_by_code_points() -> None:
    assert "mA" < below(Cursor("string", "mB")).value < "mB"
    assert guess("007", "string") == Cursor("string", "007")
    with pytest.raises(ConfigError, match="is no integer"):
        guess("soon", "integer")


@contextmanager
def failing(at: int, *, after: bool = False) -> Iterator[None]:
    """Have the target's call number `at`, of loads and finishes, raise, before it or once it is committed."""
    calls = 0
    real = {name: getattr(etl.load, name) for name in ("load", "finish")}

    def broken(name: str) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at and not after:
                raise TargetBusy("killed before")
            answer = real[name](*args, **named)
            if calls == at:
                raise TargetBusy("killed after")
            return answer

        return call

    for name in real:
        setattr(etl.load, name, broken(name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(etl.load, name, function)


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 8), st.integers(0, 3)),
        st.tuples(st.just("run"), st.integers(0, 6), st.booleans()),
    ),
    min_size=2,
    max_size=10,
)


@pytest.mark.slow
@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(EDITS, st.booleans())
def test_incremental_runs_equal_a_full_load(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[Any, ...]], cut: bool
) -> None:
    """Whatever is edited between runs, and wherever runs are killed and retried."""
    from jobs.run.submit import submit_run
    from jobs.session import Session

    root = tmp_path_factory.mktemp("incremental")
    with closing(sqlite3.connect(root / "source.db")) as source:
        source.execute("CREATE TABLE claims (id integer PRIMARY KEY, name text, updated_at integer)")
        source.commit()
        text = SQL.format(
            source=f"sqlite:///{root}/source.db", target=f"sqlite:///{root}/w.db", mode="merge", load=', key = ["id"]',
            more=', partition = "id", rows = 3' if cut else "",
        )  # fmt: skip
        session = Session(Folder(root, text).path, inline=True)
        try:
            clock = 0
            from etl.config.pipeline import resolve

            for number, edit in enumerate([*edits, ("run", 0, False)]):
                if edit[0] == "put":
                    clock += edit[2] // 2  # so that values are equal again and again
                    source.execute("REPLACE INTO claims VALUES (?, ?, ?)", (edit[1], f"v{number}", clock))
                    source.commit()
                    continue
                with failing(edit[1], after=edit[2]):
                    run = Run(session, submit_run(session.connection, resolve(session.config, "claims", "acme"))).wait(
                        60
                    )
                if run.state == "failed" and edit[1] % 2:
                    run.retry().wait(60)
            assert run.state == "succeeded", run.error
        finally:
            session.close()
        expected = source.execute("SELECT id, name FROM claims ORDER BY id").fetchall()
    if expected:
        assert ask(f"sqlite:///{root}/w.db", COPIED) == expected


BERLIN = """
[settings]
staging = "staging"
[targets.warehouse]
url = "{target}"
[pipelines.claims]
extract = {{ {source}, cursor = "updated_at" }}
load = {{ target = "warehouse", table = "loaded", mode = "{mode}"{key} }}
columns = {{ id = {{ type = "integer" }}, updated_at = {{ type = "timestamp", unique = true }} }}
[clients.acme]
timezone = "Europe/Berlin"
"""
ROWS = ((1, "2026-04-10 08:59"), (2, "2026-04-10 10:30"), (3, "2026-04-10 14:00"))


@pytest.mark.parametrize(("mode", "key"), [("merge", ', key = ["id"]'), ("append", "")])
@pytest.mark.parametrize("kind", ["csv", "timestamp", "timestamptz"])
def test_a_time_that_is_set_without_a_zone_is_the_clients(
    etl_: Project, pg_url: str, kind: str, mode: str, key: str
) -> None:
    """At ten in Berlin, whatever the source makes of zones; no row after it is lost, and none comes twice."""
    text = {"target": pg_url, "mode": mode, "key": key}
    if kind == "csv":
        lines = "".join(f"{id},{moment}\n" for id, moment in ROWS)
        etl_.config(BERLIN.format(source='type = "csv", path = "claims.csv", settle = 0', **text))
        (etl_.root / "claims.csv").write_text("id,updated_at\n" + lines)
    else:
        etl_.config(BERLIN.format(source=f'type = "sql", url = "{pg_url}", table = "claims"', **text))
        tell(pg_url, f"CREATE TABLE claims (id integer PRIMARY KEY, updated_at {kind})")
        zone = "+02" if kind == "timestamptz" else ""
        tell(pg_url, *(f"INSERT INTO claims VALUES ({id}, '{moment}{zone}')" for id, moment in ROWS))
    etl_("cursor set claims --client acme", "2026-04-10T10:00:00")
    loaded = [etl_.run()["rows"]["loaded"] for _ in range(2)]
    assert loaded == [2, 0]
    assert [int(id) for (id,) in ask(pg_url, "SELECT id FROM loaded ORDER BY id")] == [2, 3]

"""Names of tables and columns: every legal one is taken, in every mode and on every kind of target."""

from typing import Any

import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from etl.config.pipeline import Pipeline
from etl.load import tables
from etl.load.targets import TargetFacts
from etl.load.targets.connect import transaction
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query
from tests.helpers.examples import examples

pytestmark = pytest.mark.slow

# https://www.sqlite.org/lang_keywords.html
_SQLITE = """
abort action add after all alter always analyze and as asc attach autoincrement before begin between by cascade case
cast check collate column commit conflict constraint create cross current current_date current_time current_timestamp
database default deferrable deferred delete desc detach distinct do drop each else end escape except exclude exclusive
exists explain fail filter first following for foreign from full generated glob group groups having if ignore immediate
in index indexed initially inner insert instead intersect into is isnull join key last left like limit match
materialized natural no not nothing notnull null nulls of offset on or order others outer over partition plan pragma
preceding primary query raise range recursive references regexp reindex release rename replace restrict returning right
rollback row rows savepoint select set table temp temporary then ties to transaction trigger unbounded union unique
update using vacuum values view virtual when where window with without rowid oid _rowid_ excluded rank lost rows
"""
SQLITE = _SQLITE.split()
STRANGE = [
    "%(param_1)s", "%(", "a b", 'he said "x"', "it's", "margin %", "%s", "%(x)s", "a:b", ":x", "?", "back\\slash", "$1",
    "Straße", "数", "{x}", "`tick`", "[x]", "a.b", "--", "/*", ";", "a,b", "(a)", " lead", "UPPER", "Mixed", "1st", "#",
    "@x", "é", "e\u0301", "😀",
]  # fmt: skip
MODES = ["append", "merge", "replace", "by"]


def words(url: str) -> list[str]:
    """Return the keywords of all kinds of databases, and names that need quotes for other reasons."""
    found = [
        *SQLITE,
        *STRANGE,
        *(word for (word,) in duckdb.execute("SELECT keyword_name FROM duckdb_keywords()").fetchall()),
    ]
    if url.startswith("postgresql"):
        found += [word for (word,) in query(url, "SELECT word FROM pg_get_keywords()")]
    return sorted(dict.fromkeys(found))


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def rows_of(url: str, table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    """Return rows of a table, by a statement of this test's own."""
    statement = f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table)}"
    with transaction(url) as connection:
        driver: Any = connection.connection.driver_connection
        if url.startswith("duckdb"):
            return sorted(driver.execute(statement, ())[2])
        return sorted(driver.execute(statement).fetchall())


def made_of(mode: str, columns: list[str], table: str, **more: Any) -> Pipeline:
    """Return a pipeline whose keys are the first of the columns, and whose newest is the last."""
    if mode == "merge":
        more |= {"key": columns[:-1], "newest": columns[-1]}
    if mode == "by":
        more |= {"by": columns[:-1]}
    return pipeline("replace" if mode == "by" else mode, table=table.replace("{", "").replace("}", ""), **more)


def load_twice(url: str, made: Pipeline, columns: list[str]) -> None:
    """Load a row, then it and another one from two partitions; see that the values are where they belong."""
    first = {name: number for number, name in enumerate(columns)}
    second = {name: number + 1000 for name, number in first.items()}
    deliver(url, made, chunk([first]), run=f"1 {made.table}"[:40])
    parts, run = [partition(2), partition(3)], f"2 {made.table}"[:40]
    for part, row in zip(parts, (first, second), strict=True):
        deliver(url, made, chunk([row]), run=run, of=part, partitions=2, content=f"c{part.number}")
    finished(url, made, parts, run=run)
    twice = [tuple(first.values())] if made.load.mode == "append" else []
    wanted = [tuple(first.values()), *twice, tuple(second.values())]
    assert rows_of(url, made.table, columns) == sorted(wanted)


@pytest.mark.parametrize("mode", MODES)
def test_every_keyword_and_every_strange_name_is_a_column_and_a_key(url: str, mode: str) -> None:
    most = 30 if url.startswith("postgresql") else 200  # columns of an index
    names, size = words(url), most if mode in ("merge", "by") else 1000
    for start in range(0, len(names), size):
        group = names[start : start + size]
        load_twice(url, made_of(mode, group, f"t{start}"), group)


def test_a_keyword_is_a_unique_column_and_a_new_one(url: str) -> None:
    names = ["returning", "lateral", "nothing", "excluded", 'x "y" %']
    unique = {name: {"type": "integer", "unique": True} for name in names}
    made, parts = pipeline(columns=unique), [partition(1), partition(2)]
    for part in parts:
        row = {**dict.fromkeys(names, 1), names[0]: part.number}
        deliver(url, made, chunk([row]), of=part, partitions=2, content=f"c{part.number}")
    assert [each.column for each in finished(url, made, parts).duplicates] == [names[1]]
    more = {**dict.fromkeys(names, 3), **dict.fromkeys(words(url), 4)}
    deliver(url, pipeline(), chunk([more]), run="r2", of=partition(3))
    assert rows_of(url, "claims_acme", names) == [(1, 1, 1, 1, 1), tuple(more[name] for name in names)]


LETTERS = st.sampled_from("aZé9_ \"'%:?\\.`[]{}()$@#;,-/*ß数😀")
NAMES = st.one_of(st.sampled_from([*SQLITE, *STRANGE]), st.text(LETTERS, min_size=1, max_size=12))
COLUMNS = st.lists(NAMES.filter(str.strip), min_size=2, max_size=4, unique_by=str.casefold)


@settings(
    max_examples=examples(40), phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(columns=COLUMNS, table=NAMES, mode=st.sampled_from(MODES))
def test_any_legal_name_is_a_tables_and_a_columns(url: str, columns: list[str], table: str, mode: str) -> None:
    made = made_of(mode, columns, table.replace(".", "") + " t")
    load_twice(url, made, columns)
    with transaction(url) as connection:
        tables.drop(connection, made.table)
        connection.exec_driver_sql("DELETE FROM _etl_loads")


def test_a_schema_may_have_any_name(url: str, facts: TargetFacts) -> None:
    for name in ("select", 'a "b" %', "Straße") if facts.schemas else ():
        with transaction(url) as connection:
            connection.execute(sa.schema.CreateSchema(name))
        made, parts = pipeline("merge", key="id", table=f"{name}.user"), [partition(1), partition(2)]
        for part in parts:
            deliver(url, made, chunk([{"id": part.number}], types={"id": pa.int64()}), of=part, partitions=2)
        assert finished(url, made, parts).loaded == 2

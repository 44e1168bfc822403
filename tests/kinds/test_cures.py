"""An error about types names all of a table's columns at once, and what it says to do is all there is to do."""

import re
import tempfile
from dataclasses import replace
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from etl.config.models import Column
from etl.errors import TableMismatch
from tests.helpers.deliveries import connected, pipeline, query
from tests.helpers.examples import examples
from tests.helpers.nights import Night, Nights

pytestmark = pytest.mark.slow

TYPES = {  # of the user's table, each with a value that is there
    "INTEGER": "7",
    "BIGINT": "9007199254740993",
    "NUMERIC(10,2)": "1.5",
    "DOUBLE PRECISION": "0.1",
    "BOOLEAN": "true",
    "DATE": "'2024-01-05'",
    "TIMESTAMP": "'2024-01-05 10:00:00'",
    "VARCHAR(40)": "'x'",
    "TEXT": "'x'",
}
TEXTS = {
    "integer": "10",
    "number": "10.5",
    "decimal": "1.25",
    "boolean": "true",
    "date": "2024-01-05",
    "timestamp": "2024-01-05T10:00:00Z",
    "string": "NA",
}
WIDTH = 5
_DECLARE = re.compile(r'declare type = "(\w+)" for (\w+) in \[columns\]')


def check(seed: int, url: str, table: str) -> None:
    """Load rows into a table of the user's that doesn't fit, do what the error says, and load them again."""
    luck = Random(seed)
    names = [f"v{number}" for number in range(WIDTH)]
    theirs = {name: luck.choice(list(TYPES)) for name in names}
    words = {name: luck.choice(list(TEXTS)) for name in names}
    declared = {name: Column.model_validate({"type": words[name]}) for name in names if luck.random() < 0.5}
    made = ", ".join(f"{name} {type}" for name, type in theirs.items())
    query(url, f"CREATE TABLE {table} (id BIGINT, {made}, _client TEXT, _run TEXT, _file TEXT)")
    query(
        url, f"INSERT INTO {table} VALUES (-1, {', '.join(TYPES[type] for type in theirs.values())}, NULL, NULL, NULL)"
    )
    rows = pa.table({name: [TEXTS[word]] for name, word in words.items()})

    def load(columns: dict[str, Any], number: int) -> None:
        runs = Nights(url, pipeline(table=table).model_copy(update={"columns": columns}))
        for step in runs.steps(Night(number, "acme", [rows])):
            step()

    try:
        load(declared, 1)
        return
    except TableMismatch as error:
        cure = error.cure
    columns = {**declared, **{name: Column.model_validate({"type": word}) for word, name in _DECLARE.findall(cure)}}
    _, has_statement, statement = cure.partition("alter the table: ")
    if has_statement:
        with connected(url) as connection:
            driver: Any = connection.connection.driver_connection
            for each in statement.split("; "):
                driver.execute(each)  # as it is
            driver.commit()
    load(columns, 2)
    assert query(url, f"SELECT count(*) FROM {table}") == [(2,)]


@settings(max_examples=examples(60), deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_the_cure_of_an_error_about_types_works_at_the_first_try(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(seed, f"sqlite:///{folder}/1.db", "t")


@settings(
    max_examples=examples(40),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 2**32))
def test_the_cure_works_at_the_first_try_on_postgresql(pg_url: str, seed: int) -> None:
    query(pg_url, "DROP SCHEMA IF EXISTS one CASCADE")
    query(pg_url, "CREATE SCHEMA one")
    check(seed, pg_url, "one.t")


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_numbers_that_nobody_declared_go_into_a_column_that_reads_text(pg_url: str, mode: str) -> None:
    query(pg_url, "CREATE TABLE t (id bigint, v json, _client text, _run text, _file text)")
    runs = Nights(pg_url, pipeline(mode, table="t", **({"key": "id"} if mode == "merge" else {})))
    for step in runs.steps(Night(0, "acme", [pa.table({"v": ["10"]}), pa.table({"v": ["[1]"]})])):
        step()
    assert query(pg_url, "SELECT v FROM t ORDER BY id") == [(10,), ([1],)]


def test_the_cure_says_first_what_has_to_go(url: str) -> None:
    """A view, a view of that and an index, of a column that text comes into."""
    query(url, "CREATE TABLE t (id bigint, v bigint, _client text, _run text, _file text)")
    query(url, "CREATE VIEW seen AS SELECT v FROM t")
    query(url, "CREATE VIEW more AS SELECT v FROM seen")
    query(url, "CREATE INDEX quick ON t (v)")
    runs = Nights(url, pipeline(table="t"))

    def load() -> None:
        for step in runs.steps(Night(0, "acme", [pa.table({"v": ["NA"]})])):
            step()

    with pytest.raises(TableMismatch) as told:
        load()
    found = re.fullmatch("drop (.+), alter the table, and make (?:it|them) again: (.+)", told.value.cure)
    assert found, told.value.cure
    for each in [*(f"DROP {what}" for what in found[1].split(", ")), *found[2].split("; ")]:
        query(url, each)
    load()
    assert query(url, "SELECT v FROM t") == [("NA",)]


BEFORE = {
    "a": "10",
    "b": "1.5",
    "d": "2024-07-05",
    "e": "9007199254740993",
    "f": "2024-01-05T10:00:00Z",
    "g": "2024-03-05",
}
AFTER = {"a": "10.5", "b": "NA", "d": "2024-01-05 10:00:00", "e": "0.5", "f": "x", "g": "NA"}
THEIRS = "a bigint, b double precision, d date, e bigint, f timestamp, g date"


@pytest.mark.parametrize("theirs", ["", "id bigint, " + THEIRS + ", _client text, _run text, _file text"])
def test_the_cure_works_where_rows_of_others_were_loaded_before(url: str, theirs: str) -> None:
    """The rows of each client are as if the table had been widened by itself."""
    if theirs:
        query(url, f"CREATE TABLE t ({theirs})")
    made = pipeline(table="t").model_copy(update={"type_changes": "widen" if theirs else "fail"})
    nights = [
        Night(number, client, [pa.table({name: [value] for name, value in row.items()})])
        for number, client, row in ((0, "berlin", BEFORE), (1, "lima", AFTER), (2, "berlin", BEFORE))
    ]
    runs, others = Nights(url, made), Nights(url, pipeline(table="u"))
    for night in nights:
        for step in others.steps(replace(night, number=night.number + 10)):
            step()
        try:
            for step in runs.steps(night):
                step()
        except TableMismatch as told:
            assert night.number == 1
            for each in told.cure.partition("alter the table: ")[2].split("; "):
                query(url, each)
            for step in runs.steps(night):
                step()
    assert [*runs.table()[1].values()] == [*others.table()[1].values()]

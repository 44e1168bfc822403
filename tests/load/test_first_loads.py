"""First loads of several clients at once, changes of a table that others read, and columns that others depend on."""

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from etl.errors import EtlError, TableMismatch
from etl.load import swap
from etl.load.columns import change
from tests.helpers.deliveries import pipeline, query
from tests.helpers.nights import Night, Nights
from tests.helpers.processes import PATIENCE, until


def night(number: int, client: str, *files: list[str]) -> Night:
    return Night(number, client, [pa.table({"v": pa.array(cells, pa.string())}) for cells in files])


def do(steps: list[Callable[[], None]]) -> None:
    for step in steps:
        step()


def wait_for_a_waiter(url: str) -> None:
    until(lambda: query(url, "SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1"))


@pytest.mark.parametrize("mode", ["merge", "replace"])
def test_two_clients_that_make_a_table_at_once_both_load(
    pg_url: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Nights(pg_url, pipeline(mode, table="t", **({"key": "id"} if mode == "merge" else {})))
    first = runs.steps(night(0, "acme", ["1"], ["2"]))
    second = runs.steps(night(1, "berlin", ["NA"], ["2.5"]))
    do(first[:-1])
    do(second[:-1])
    write, go_on, is_made = swap.write, threading.Event(), threading.Event()

    def held(winners: Any, **more: Any) -> int:
        if winners.pipeline.client == "acme":
            is_made.set()
            assert go_on.wait(PATIENCE)
        return write(winners, **more)

    monkeypatch.setattr(swap, "write", held)
    errors: list[EtlError] = []

    def finish(step: Callable[[], None]) -> None:
        try:
            step()
        except EtlError as error:
            errors.append(error)

    threads = [threading.Thread(target=finish, args=[steps[-1]]) for steps in (first, second)]
    threads[0].start()
    assert is_made.wait(PATIENCE)
    threads[1].start()
    wait_for_a_waiter(pg_url)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    assert query(pg_url, "SELECT v FROM t ORDER BY id") == [("1",), ("2",), ("NA",), ("2.5",)]


DEPENDENTS = {
    "view": "CREATE VIEW seen AS SELECT v FROM t",
    "materialized view": "CREATE MATERIALIZED VIEW seen AS SELECT v FROM t",
    "index": "CREATE INDEX seen ON t (v)",
    "index of an expression": "CREATE INDEX seen ON t ((v + 1))",
    "check": "ALTER TABLE t ADD CONSTRAINT seen CHECK (v > 0)",
    "foreign key": "CREATE UNIQUE INDEX seen ON t (v); CREATE TABLE other (v BIGINT REFERENCES t (v))",
    "trigger": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
    "CREATE TRIGGER seen BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "generated column": "ALTER TABLE t ADD COLUMN seen BIGINT GENERATED ALWAYS AS (v * 2) STORED",
    "policy": "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY seen ON t USING (v > 0)",
    "default": "ALTER TABLE t ALTER COLUMN v SET DEFAULT 7",
    "statistics": "CREATE STATISTICS seen ON v, id FROM t",
    "views of views": "CREATE VIEW seen AS SELECT v FROM t; CREATE VIEW more AS SELECT v FROM seen; "
    "CREATE MATERIALIZED VIEW most AS SELECT v FROM more; CREATE VIEW other AS SELECT v FROM t",
    "rule": "CREATE RULE seen AS ON DELETE TO t WHERE old.v > 0 DO INSTEAD NOTHING",
    "trigger of the column": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
    "CREATE TRIGGER seen BEFORE UPDATE OF v ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "function": "CREATE FUNCTION seen() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT max(v) FROM t; END",
}
DROPPED = {  # what an error says has to go, and how it goes
    r"((?:materialized )?view \w+|index \w+|function .+)": r"DROP \1",
    r"constraint (\w+) on table (\w+)": r"ALTER TABLE \2 DROP CONSTRAINT \1",
    r"(trigger|rule|policy) (\w+) on table (\w+)": r"DROP \1 \2 ON \3",
    r"generated column (\w+)": r"ALTER TABLE t DROP COLUMN \1",
}


@pytest.mark.parametrize("what", DEPENDENTS)
def test_a_column_that_something_depends_on_keeps_its_type(pg_url: str, what: str) -> None:
    runs = Nights(pg_url, pipeline(table="t"))
    do(runs.steps(night(0, "acme", ["1"])))
    query(pg_url, DEPENDENTS[what])
    with pytest.raises(TableMismatch, match=r"depends? on it") as told:
        do(runs.steps(night(1, "acme", ["NA"])))
    assert 'ALTER TABLE "t" ALTER COLUMN "v" TYPE TEXT' in told.value.cure
    assert query(pg_url, "SELECT id, v FROM t") == [(0, 1)]
    cured(pg_url, told.value.cure)
    do(runs.steps(night(2, "acme", ["NA"])))
    assert query(pg_url, "SELECT v FROM t ORDER BY id") == [("1",), ("NA",)]


def test_a_column_of_the_users_own_under_a_view_is_cured_too(pg_url: str) -> None:
    query(pg_url, "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, _client text, _run text, _file text)")
    query(pg_url, "CREATE VIEW seen AS SELECT id, v FROM t")
    runs = Nights(pg_url, pipeline(table="t"))
    with pytest.raises(TableMismatch, match="rq-etl has not made it") as told:
        do(runs.steps(night(0, "acme", ["NA"])))
    assert told.value.cure.startswith("drop view seen, alter the table, and make it again: ALTER TABLE")
    cured(pg_url, told.value.cure)
    do(runs.steps(night(1, "acme", ["NA"])))
    assert query(pg_url, "SELECT v FROM t") == [("NA",)]


def cured(url: str, cure: str) -> None:
    """Do what an error about a column's type says."""
    goes, _, statement = cure.rpartition(": ")
    if found := re.fullmatch("drop (.+), alter the table, and make (?:it|them) again", goes):
        for what in found[1].split(", "):
            pattern = next(each for each in DROPPED if re.fullmatch(each, what))
            query(url, re.sub(pattern, DROPPED[pattern], what))
    query(url, statement)


def test_a_reader_keeps_nobody_waiting_while_a_column_becomes_wider(
    pg_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another reads the table for long: the change gives up and asks again, and further readers don't queue behind."""
    monkeypatch.setattr(change, "PAUSE", 0.05)
    runs = Nights(pg_url, pipeline(table="t"))
    do(runs.steps(night(0, "acme", ["1"])))
    longest, done = 0.0, threading.Event()

    def widen() -> None:
        do(runs.steps(night(1, "acme", ["NA"])))
        done.set()

    with psycopg.connect(pg_url) as reader:
        reader.execute("SELECT * FROM t")  # holds the table until its transaction ends
        thread = threading.Thread(target=widen)
        thread.start()
        wait_for_a_waiter(pg_url)
        for _ in range(5):
            began = time.monotonic()
            query(pg_url, "SELECT count(*) FROM t")
            longest = max(longest, time.monotonic() - began)
        assert not done.is_set()
    thread.join(PATIENCE)
    assert done.is_set()
    assert longest < 5  # half a second of the lock, and what a busy machine adds
    assert query(pg_url, "SELECT v FROM t ORDER BY id") == [("1",), ("NA",)]

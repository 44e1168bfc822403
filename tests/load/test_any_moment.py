"""Another client's run comes between any two statements of a load: both load, and into the same columns."""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query
from tests.helpers.examples import examples
from tests.helpers.processes import PATIENCE, until

NUMBERS, DATES, TEXTS = (0.0, 0.5), (date(2026, 1, 2), date(2026, 1, 3)), ("soon", "never")
WAITS = "SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1"
COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = 't' AND left(column_name, 1) <> '_'"


class Statements:
    """Does something just before one of the statements of this thread."""

    def __init__(self) -> None:
        self.thread, self.at, self.count = threading.get_ident(), -1, 0
        self.act: Callable[[], Any] = list
        sa.event.listen(sa.Engine, "before_cursor_execute", self._listen)

    def _listen(self, *_: Any) -> None:
        if self.at > 0 and threading.get_ident() == self.thread:
            self.count += 1
            if self.count == self.at:
                self.act()

    def run(self, body: Callable[[], None], at: int, act: Callable[[], None]) -> int:
        """Run something and do `act` before its statement number `at`; returns how many statements there were."""
        self.at, self.act, self.count = at, act, 0
        try:
            body()
        finally:
            self.at = -1
        return self.count


@pytest.fixture
def statements() -> Iterator[Statements]:
    made = Statements()
    yield made
    sa.event.remove(sa.Engine, "before_cursor_execute", made._listen)


class Other:
    """A run of another client, in a thread of its own."""

    def __init__(self, url: str, run: Callable[[], None]) -> None:
        self.url, self.run = url, run
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._do)

    def _do(self) -> None:
        try:
            self.run()
        except Exception as error:  # the test's own thread says it
            self.error = error

    def meet(self) -> None:
        """Go as far as locks let it."""
        self.thread.start()
        until(lambda: not self.thread.is_alive() or query(self.url, WAITS))


def run(
    url: str, of: Pipeline, number: int, files: int, values: Sequence[Any], names: Sequence[str] = ("id", "v")
) -> None:
    """Load and finish a run of so many files, with a row for each of the values."""
    parts = [partition(each, file=f"{number}-{each}.csv") for each in range(1, files + 1)]
    for part in parts:
        ids = [number * 100 + part.number * 10 + row for row in range(len(values))]
        made = chunk([dict(zip(names, row, strict=True)) for row in zip(ids, values, strict=True)])
        deliver(url, of, made, run=f"r{number}", of=part, partitions=files, content=f"c{number}-{part.number}")
    if files > 1:
        finished(url, of, parts, run=f"r{number}", read=files * 2)


@pytest.mark.slow
@pytest.mark.parametrize("there", [False, True], ids=["no table", "a table without the column"])
@pytest.mark.parametrize(("mode", "files"), [("append", 1), ("merge", 1), ("merge", 2), ("replace", 2)])
def test_a_run_that_another_client_meets_at_any_moment_loads_into_the_same_columns(
    pg_url: str, statements: Statements, mode: str, files: int, there: bool
) -> None:
    of = pipeline(mode, table="t", **({"key": "id"} if mode == "merge" else {}))
    acme, berlin = (of.model_copy(update={"client": name}) for name in ("acme", "berlin"))
    theirs = ["id", "V"] if mode == "merge" or there else ["ID", "V"]
    moment, count = 1, 1
    while moment <= count:
        query(pg_url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        before = acme if there else pipeline(table="other")  # rq-etl's own tables are there in any case
        deliver(pg_url, before, chunk([{"id": 1}]), run="r0", of=partition(file="0.csv"), content="c0")
        other = Other(pg_url, lambda: run(pg_url, berlin, 2, files, NUMBERS, theirs))
        count = statements.run(lambda: run(pg_url, acme, 1, files, NUMBERS), moment, other.meet)
        if moment > count:
            break
        other.thread.join(PATIENCE)
        assert other.error is None, f"at statement {moment}"
        columns = {name.lower(): name for (name,) in query(pg_url, COLUMNS)}
        assert query(pg_url, f"SELECT count(*) FROM ({COLUMNS}) AS c") == [(2,)], f"at statement {moment}"
        found = query(pg_url, f'SELECT "{columns["v"]}" FROM t WHERE _run <> \'r0\' ORDER BY "{columns["id"]}"')
        assert found == [(value,) for _ in range(2 * files) for value in NUMBERS], f"at statement {moment}"
        moment += max(1, count // examples(30))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "files", "first", "mine"),
    [
        ("append", 1, DATES[0], DATES),
        ("merge", 1, DATES[0], DATES),
        ("merge", 2, DATES[0], DATES),
        ("replace", 2, DATES[0], DATES),
        pytest.param("append", 1, 1, (0.5, 1.5), id="append-1-both make it wider"),
    ],
)
def test_a_column_that_another_client_makes_wider_at_any_moment_takes_both_clients_values(
    pg_url: str, statements: Statements, mode: str, files: int, first: Any, mine: Sequence[Any]
) -> None:
    of = pipeline(mode, table="t", **({"key": "id"} if mode == "merge" else {}))
    acme, berlin = (of.model_copy(update={"client": name}) for name in ("acme", "berlin"))
    moment, count = 1, 1
    while moment <= count:
        query(pg_url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        deliver(pg_url, acme, chunk([{"id": 1, "v": first}]), run="r0", of=partition(file="0.csv"), content="c0")
        other = Other(pg_url, lambda: run(pg_url, berlin, 2, files, TEXTS))
        count = statements.run(lambda: run(pg_url, acme, 1, files, mine), moment, other.meet)
        if moment > count:
            break
        other.thread.join(PATIENCE)
        assert other.error is None, f"at statement {moment}"
        found = query(pg_url, "SELECT v FROM t WHERE _run <> 'r0' ORDER BY id")
        assert found == [(str(v),) for values in (mine, TEXTS) for _ in range(files) for v in values], f"at {moment}"
        moment += max(1, count // examples(30))

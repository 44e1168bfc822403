"""Another client's run comes between any two statements of a load: both load, and the table has each column once."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query
from tests.helpers.examples import examples
from tests.helpers.processes import PATIENCE, until

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


def run(url: str, of: Pipeline, number: int, names: list[str], files: int) -> None:
    """Load and finish a run of so many files, with two rows each."""
    parts = [partition(each, file=f"{number}-{each}.csv") for each in range(1, files + 1)]
    for part in parts:
        rows = [dict(zip(names, row, strict=True)) for row in wanted(number, part.number)]
        made = chunk(rows, types={names[1]: pa.float64()})
        deliver(url, of, made, run=f"r{number}", of=part, partitions=files, content=f"c{number}-{part.number}")
    if files > 1:
        finished(url, of, parts, run=f"r{number}", read=files * 2)


def wanted(number: int, file: int) -> list[tuple[int, float]]:
    return [(number * 100 + file * 10 + row, row / 2) for row in (0, 1)]


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
        other = Other(pg_url, lambda: run(pg_url, berlin, 2, theirs, files))
        count = statements.run(lambda: run(pg_url, acme, 1, ["id", "v"], files), moment, other.meet)
        if moment > count:
            break
        other.thread.join(PATIENCE)
        assert other.error is None, f"at statement {moment}"
        columns = {name.lower(): name for (name,) in query(pg_url, COLUMNS)}
        assert query(pg_url, f"SELECT count(*) FROM ({COLUMNS}) AS c") == [(2,)], f"at statement {moment}"
        rows = query(pg_url, f'SELECT "{columns["id"]}", "{columns["v"]}" FROM t WHERE _run <> \'r0\' ORDER BY 1')
        assert rows == [row for n in (1, 2) for file in range(files) for row in wanted(n, file + 1)], f"at {moment}"
        moment += max(1, count // examples(30))

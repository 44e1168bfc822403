"""The same runs inline, on fakeredis and through real workers give the same tables, counts and rejects."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis

from etl.config.pipeline import resolve
from jobs import settings
from jobs.api import Run
from jobs.demo.generate import generate
from jobs.process.inprocess import InProcessWorker
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.store import keys
from jobs.store import runs as store_runs
from tests.helpers.project import Folder, etl_toml
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

PATIENCE = 120.0
# what no two runs have in common: moments, and the order in which partitions were loaded
MOMENTS = ("loaded_at", "submitted", "started", "finished", "modified", "modified_each", "sequence")
PLACES = ("inline", "fakeredis", "workers")

MODES: dict[str, dict[str, Any]] = {
    "appended": {"mode": "append"},
    "merged": {"mode": "merge", "key": ["id"]},
    "newest": {"mode": "merge", "key": ["id"], "newest": "at"},
    "replaced": {"mode": "replace"},
    "months": {"mode": "replace", "by": ["month"]},
}
COLUMNS = {
    "id": {"type": "string", "required": True},
    "month": "string",
    "amount": {"type": "decimal", "min": 0},
    "at": "timestamp",
}
FILES = {
    "1.csv": "id,month,amount,at\na,01,1.5,2026-01-01\nb,01,2,2026-01-02\na,01,3,2025-12-31\n,01,4,2026-01-01\n",
    "2.csv": "id,month,amount,at\nb,02,5,2026-01-01\nc,02,-6,2026-01-01\nd,02,x,2026-01-01\ne,02,007,2026-01-01\n",
    "3.csv": "id,month,amount,at\na,01,8,2026-01-03\nf,03,9,\ng,03,10\n",
}
SECOND_NIGHT = {"3.csv": "id,month,amount,at\na,01,8,2026-01-04\nh,03,11,2026-01-09\n"}


@dataclass(frozen=True)
class Seen:
    """What a series of runs has left behind."""

    tables: dict[str, list[tuple[Any, ...]]]
    runs: list[dict[str, Any]]
    rejects: list[list[Any]]


Series = Callable[["Bench"], None]


class Bench:
    """One place where runs are run, and what they have shown."""

    def __init__(self, folder: Path, url: str, session: Session) -> None:
        self.folder, self.session = folder, session
        self.engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        self.runs: list[dict[str, Any]] = []
        self.rejects: list[list[Any]] = []
        self.ids: list[str] = []

    def run(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Run pipelines for clients, all at once, to their end."""
        config = self.session.config
        started = [Run(self.session, submit_run(self.session.connection, resolve(config, *pair))) for pair in pairs]
        for run in started:
            found = run.wait(PATIENCE).json()
            kept = ("pipeline", "client", "state", "rows", "partitions", "failures", "warnings", "error", "exit")
            self.ids.append(run.id)
            self.runs.append({key: self.anonymous(found[key]) for key in kept})
            self.rejects.append([entry.__dict__ for entry in run.rejects()])

    def deliver(self, client: str, files: dict[str, str]) -> None:
        """Write a client's files; a later one in name is the newer one."""
        for name, text in files.items():
            file = self.folder / "inbox" / client / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def seen(self) -> Seen:
        """Return what is in the target, but for ids and moments, and what the runs said."""
        tables = {}
        with self.engine.connect() as connection:
            for name in sa.inspect(connection).get_table_names():
                columns = [column["name"] for column in sa.inspect(connection).get_columns(name)]
                wanted = [f'"{column}"' for column in columns if column not in MOMENTS]
                rows = connection.execute(sa.text(f'SELECT {", ".join(wanted)} FROM "{name}"'))
                tables[self.anonymous(name)] = sorted((self.anonymous(tuple(row)) for row in rows), key=repr)
        return Seen(tables, self.runs, self.rejects)

    def anonymous(self, value: Any) -> Any:
        """Return a value with each run's id replaced by which of the runs it is."""
        if isinstance(value, str):
            for number, id in enumerate(self.ids):
                value = value.replace(id, f"run {number}")
            return re.sub(re.escape(str(self.folder)), "FOLDER", value)
        if isinstance(value, dict):
            return {key: self.anonymous(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.anonymous(each) for each in value)
        return value


_number = count(1)


@pytest.fixture
def everywhere(
    tmp_path: Path, request: pytest.FixtureRequest, redis_server: RedisServer, workers: StartWorkers
) -> Callable[[Callable[[Path, str], None], Series], list[Seen]]:
    """`everywhere(write, series)` writes a project three times, runs a series of runs in each, and says what it saw."""

    def all_three(write: Callable[[Path, str], None], series: Series, kind: str = "sqlite") -> list[Seen]:
        found = []
        for place in PLACES:
            folder = tmp_path / str(next(_number)) / "project"
            folder.mkdir(parents=True)
            url = f"sqlite:///{folder}/target.db"
            if kind == "postgresql":
                url = request.getfixturevalue("pg_url")
            write(folder, url)
            if place == "workers":
                workers(3, env={"ETL_CONFIG": str(folder / "etl.toml")})
                session = Session(folder / "etl.toml", redis_server.url, workers=0)
            else:
                fake = request.getfixturevalue("fake_redis")
                session = Session(folder / "etl.toml", None if place == "inline" else fake, inline=place == "inline")
            bench = Bench(folder, url, session)
            try:
                series(bench)
                found.append(bench.seen())
            finally:
                bench.engine.dispose()
                session.close()
                settings.use(None)
        return found

    return all_three


def assert_same(one: Seen, other: Seen) -> None:
    """Compare what two places have shown, piece by piece, so that a difference can be read."""
    assert one.runs == other.runs
    assert one.rejects == other.rejects
    assert one.tables.keys() == other.tables.keys()
    for name, rows in one.tables.items():
        assert rows == other.tables[name], name


def write_modes(folder: Path, url: str) -> None:
    """Write one pipeline for each way of loading, with and without declared columns, for two clients."""
    made = {
        f"{name}{suffix}": {"load": load, "transform": [], "retries": 0, "columns": columns}
        for name, load in MODES.items()
        for suffix, columns in (("", COLUMNS), ("_plain", {}))
    }
    Folder(folder, etl_toml(made, ["acme", "globex"], url=url, defaults={"pipelines": [*made], "max_active": 2}))


def two_nights(bench: Bench) -> None:
    """Run every pipeline for both clients, then again after one file has changed, and once more unchanged."""
    bench.deliver("acme", FILES)
    bench.deliver("globex", {"1.csv": FILES["1.csv"]})
    pairs = [(name, client) for name in bench.session.config.pipelines for client in ("acme", "globex")]
    # One run at a time makes each table: types that nobody declared are those of the first rows that came.
    for pair in pairs:
        bench.run([pair])
    bench.deliver("acme", SECOND_NIGHT)
    bench.run(pairs)
    bench.run(pairs)


@pytest.mark.slow
def test_every_mode_over_two_nights(everywhere: Any) -> None:
    inline, fake, workers = everywhere(write_modes, two_nights)
    assert_same(inline, fake)
    assert_same(inline, workers)
    states = {(run["pipeline"], run["client"], run["state"]) for run in inline.runs}
    assert ("appended", "acme", "failed") in states  # its file has changed since it was appended
    assert {run["state"] for run in inline.runs if not run["pipeline"].startswith("appended")} >= {"succeeded"}
    assert any(inline.rejects)


@pytest.mark.slow
def test_every_mode_into_postgresql_by_workers_is_as_inline_into_postgresql(everywhere: Any) -> None:
    """The three places share one database, one after another: what comes first is there for the others."""

    def write(folder: Path, url: str) -> None:
        write_modes(folder, url)
        engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            for name in sa.inspect(connection).get_table_names():
                connection.execute(sa.text(f'DROP TABLE "{name}"'))
        engine.dispose()

    inline, fake, workers = everywhere(write, two_nights, "postgresql")
    assert_same(inline, fake)
    assert_same(inline, workers)


@pytest.mark.slow
def test_the_demo(everywhere: Any) -> None:
    def write(folder: Path, url: str) -> None:
        generate(folder, scale=0.05)

    def series(bench: Bench) -> None:
        clients = ("acme", "lakeside", "north")
        bench.run([("claims", client) for client in clients])
        bench.run([("claims", client) for client in clients])

    inline, fake, workers = everywhere(write, series)
    assert_same(inline, fake)
    assert_same(inline, workers)
    assert [run["state"] for run in inline.runs].count("failed") == 2
    assert all(inline.rejects)


def test_types_of_another_clients_rows_are_met_when_they_came_first(tmp_path: Path, fake_redis: Redis) -> None:
    """A client without a value takes its column for text; before it loads, another makes the table with numbers."""
    url = f"sqlite:///{tmp_path}/target.db"
    pipeline = {"transform": [], "load": {"mode": "merge", "key": ["id"]}}
    text = etl_toml({"visits": pipeline}, ["acme", "globex"], url=url, defaults={"pipelines": ["visits"]})
    Folder(tmp_path, text)
    session = Session(tmp_path / "etl.toml", fake_redis)
    bench = Bench(tmp_path, url, session)
    bench.deliver("acme", {"1.csv": "id,code\na1,\na2,\n"})
    bench.deliver("globex", {"1.csv": "id,code\ng1,7\ng2,8\n"})
    first = submit_run(fake_redis, resolve(session.config, "visits", "acme"))
    worker = InProcessWorker(fake_redis)
    worker.work(until=lambda: (1, "transform") in store_runs.stage_records(fake_redis, first))
    fake_redis.hset(keys.client_key("acme"), "paused", "1")
    bench.run([("visits", "globex")])
    fake_redis.hdel(keys.client_key("acme"), "paused")
    assert Run(session, first).wait(PATIENCE).error is None
    with bench.engine.connect() as connection:
        found = connection.execute(sa.text("SELECT _client, id, code FROM visits ORDER BY id")).all()
    assert [tuple(row) for row in found] == [
        ("acme", "a1", None), ("acme", "a2", None), ("globex", "g1", 7), ("globex", "g2", 8),
    ]  # fmt: skip
    bench.engine.dispose()
    session.close()

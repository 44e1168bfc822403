"""The target cut, locked, full, at odds with another transaction: tried again where that helps, told where not."""

import contextlib
import os
import resource
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import fakeredis
import psycopg
import pytest

from jobs import settings
from jobs.process.inprocess import InProcessWorker
from jobs.run.retry import retry_run
from tests.helpers.postgres import as_postgres
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

TROUBLE = """
create sequence tries;
create table visits (id text, note text, _client text, _run text, _file text);
create function trouble() returns trigger language plpgsql as $trouble$ begin
  if nextval('tries') <= {times} then {statement}; end if;
  return null;
end $trouble$;
create trigger trouble after insert on visits for each statement execute function trouble();
"""


class Bench(QueuedProject):
    """A project with one file, worked on in this process."""

    def __init__(self, root: Path, url: str) -> None:
        self.url = url
        super().__init__(root, fakeredis.FakeRedis(server=fakeredis.FakeServer()), self.text())
        self.fill(3)

    def text(self, delay: int = 0) -> str:
        """Return an etl.toml whose retries come after so many seconds."""
        pipeline = {
            "extract": {"path": "*.csv"},
            "load": {"mode": "append"},
            "retries": 2,
            "retry_delays": [delay],
            "columns": {"id": {"type": "string", "required": True}, "note": "string"},
        }
        return etl_toml({"visits": pipeline}, url=self.url)

    def trouble(self, statement: str, times: int) -> None:
        """Have so many inserts end in a statement, after the rows were written."""
        with psycopg.connect(self.url) as database:
            database.execute(
                "drop sequence if exists tries; drop table if exists visits; drop function if exists trouble"
            )
            database.execute(TROUBLE.format(statement=statement, times=times).encode())

    def fill(self, count: int, width: int = 1) -> None:
        lines = [f"r{number},{'x' * width}" for number in range(count)]
        self.write("a.csv", "\n".join(["id,note", *lines]) + "\n")

    def submit(self, client: str = "acme", pipeline: str = "visits", **options: Any) -> str:
        return super().submit(client, pipeline, **options)

    def work(self) -> None:
        InProcessWorker(self.connection, inline=True).work()

    @property
    def tries(self) -> int:
        with psycopg.connect(self.url) as database:
            [(tries,)] = database.execute("select last_value from tries").fetchall()
        return int(tries)


@pytest.fixture
def bench(tmp_path: Path, pg_url: str) -> Bench:
    """A project whose target is a PostgreSQL database."""
    return Bench(tmp_path, pg_url)


@pytest.fixture
def file(tmp_path: Path) -> Bench:
    """A project whose target is an SQLite file."""
    return Bench(tmp_path, "sqlite:///warehouse.db")


def raised(code: str) -> str:
    return f"raise exception 'Jane Roe' using errcode = '{code}'"


def count(url: str) -> int:
    with psycopg.connect(url) as database:
        [(rows,)] = database.execute("select count(*) from visits").fetchall()
    return int(rows)


@pytest.mark.parametrize(
    "statement",
    [
        "perform pg_terminate_backend(pg_backend_pid())",
        raised("40001"),
        raised("40P01"),
        raised("57P01"),
        raised("53300"),
        raised("55P03"),
    ],
    ids=["cut", "serialization", "deadlock", "shutdown", "connections", "lock"],
)
def test_what_another_try_cures_is_tried_again_and_loaded_once(bench: Bench, statement: str) -> None:
    bench.trouble(statement, times=2)
    run = bench.submit()
    bench.work()
    assert (bench.record(run)["state"], bench.tries, count(bench.url)) == ("succeeded", 3, 3)


def test_trouble_that_lasts_fails_the_run_and_says_what_it_was(bench: Bench) -> None:
    bench.trouble(raised("40001"), times=9)
    run = bench.submit()
    bench.work()
    found = bench.record(run)
    assert (found["state"], bench.tries) == ("failed", 3)
    assert "another transaction changed the same rows" in found["error"]
    with psycopg.connect(bench.url) as database:
        database.execute("drop trigger trouble on visits")
    retry_run(settings.config(), bench.connection, run)
    bench.work()
    assert (bench.record(run)["state"], count(bench.url)) == ("succeeded", 3)


@pytest.mark.parametrize(
    ("code", "why"),
    [("53100", "full disk"), ("53200", "out of memory"), ("42501", "does not permit"), ("25006", "read-only")],
)
def test_what_no_try_cures_fails_at_once_with_its_reason(bench: Bench, code: str, why: str) -> None:
    bench.trouble(raised(code), times=9)
    run = bench.submit()
    bench.work()
    found = bench.record(run)
    assert (found["state"], bench.tries) == ("failed", 1)
    assert why in found["error"]
    assert "Jane" not in str(found)


def test_a_lock_that_is_held_is_waited_for_and_then_tried_again(bench: Bench) -> None:
    bench.config(bench.text(delay=1))
    run = bench.submit()
    bench.work()
    assert bench.record(run)["state"] == "succeeded"
    name = bench.url.split("@/")[1].split("?")[0]
    with psycopg.connect(bench.url, autocommit=True) as admin:
        admin.execute(f"alter database {name} set lock_timeout = '100ms'".encode())
    (bench.root / "b.csv").write_text("id,note\nr9,x\n")
    worker = InProcessWorker(bench.connection, inline=True)
    with psycopg.connect(bench.url) as other:
        other.execute("lock table visits in access exclusive mode")
        run = bench.submit()
        while not bench.connection.zcard("rq:scheduled:etl-acme"):
            assert worker.step()
    worker.work()
    assert (bench.record(run)["state"], count(bench.url)) == ("succeeded", 4)


def test_a_full_disk_of_postgresql_fails_the_run_and_a_retry_loads_when_there_is_room(bench: Bench) -> None:
    disk = bench.root / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k,mode=0777", "tmpfs", disk], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file system of a limited size can be made here")
    try:
        bench.root.chmod(0o755)
        for folder in bench.root.parents:
            if os.stat(folder).st_uid == os.geteuid() and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        space = disk / "space"
        space.mkdir(mode=0o700)
        if identity := as_postgres():
            os.chown(space, identity["user"], identity["group"])
        name = bench.url.split("@/")[1].split("?")[0]
        with psycopg.connect(bench.url, autocommit=True) as admin:
            admin.execute(f"create tablespace small_{name} location '{space}'".encode())
            admin.execute(f"alter role postgres in database {name} set default_tablespace = small_{name}".encode())
        bench.fill(20_000, width=80)
        run = bench.submit()
        bench.work()
        found = bench.record(run)
        assert (found["state"], "full disk" in str(found["error"])) == ("failed", True), found["error"]
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        retry_run(settings.config(), bench.connection, run)
        bench.work()
        assert (bench.record(run)["state"], count(bench.url)) == ("succeeded", 20_000)
    finally:
        with contextlib.suppress(psycopg.Error), psycopg.connect(bench.url, autocommit=True) as admin:
            admin.execute(f"alter role postgres in database {name} reset default_tablespace".encode())
            for (table,) in admin.execute("select tablename from pg_tables where schemaname = 'public'").fetchall():
                admin.execute(f'drop table "{table}"'.encode())
            admin.execute(f"drop tablespace small_{name}".encode())
        subprocess.run(["umount", "-l", disk], check=False)


def test_a_full_disk_of_sqlite_fails_the_run_and_a_retry_loads_when_there_is_room(file: Bench) -> None:
    file.fill(3)
    run = file.submit()
    file.work()
    file.fill(20_000, width=80)
    (file.root / "a.csv").rename(file.root / "b.csv")
    file.fill(3)
    run = file.submit()
    worker = InProcessWorker(file.connection, inline=True)
    while "00001.transform.json" not in os.listdir(file.root / "staging" / "acme" / run):
        worker.step()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((file.root / "warehouse.db").stat().st_size + 100_000, limits[1]))
    try:
        worker.work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = file.record(run)
    assert (found["state"], "disk" in str(found["error"])) == ("failed", True), found["error"]
    retry_run(settings.config(), file.connection, run)
    file.work()
    assert file.record(run)["state"] == "succeeded"
    with contextlib.closing(sqlite3.connect(file.root / "warehouse.db")) as database:
        assert database.execute("select count(*), count(distinct id) from visits").fetchone() == (20_003, 20_000)

"""A project in a folder and the real command line on it, in this process, for tests of what a user sees."""

import contextlib
import io
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

import cli
from jobs import settings
from jobs.commands.options import shared
from jobs.process.inprocess import InProcessWorker

ETL_TOML = """
[settings]
staging = "staging"
modules = ["steps"]
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/{client}/claims-*.csv" }
transform = []
load = { target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"] }
retries = 0
[pipelines.claims.columns]
claim_id = { type = "string", required = true, unique = true }
amount = { type = "decimal", min = 0 }
[clients.acme]
[clients.globex]
"""
CLAIMS = "claim_id,amount\nA1,10.50\nA2,20\n"
LONG_AGO = 1_700_000_000  # a file that is older than `settle` is read at once


@dataclass(frozen=True)
class Said:
    """What a command answered: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


class Project:
    """A folder with an etl.toml, and `rq-etl` in it: `project("run claims --client acme --inline")`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written = 0

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file; each is a second younger than the one before."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.written += 1
        os.utime(path, (LONG_AGO + self.written, LONG_AGO + self.written))
        return path

    def config(self, text: str = ETL_TOML, *changes: tuple[str, str]) -> None:
        """Write etl.toml, with texts in it replaced."""
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = self.root / "etl.toml"
        path.write_text(text, encoding="utf-8")
        self.written += 1
        os.utime(path, (LONG_AGO + self.written, LONG_AGO + self.written))

    def __call__(self, command: str, *more: str) -> Said:
        """Run a command as `rq-etl` would be run; its words are split at blanks, `more` is kept whole."""
        shared.forget()  # as a process of its own would start
        settings.use(None)
        out, err = io.StringIO(), io.StringIO()
        argv, sys.argv = sys.argv, ["rq-etl", *command.split(), *more]
        code: Any = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    cli.main()
                except SystemExit as ended:
                    code = ended.code or 0
        finally:
            sys.argv = argv
            shared.forget()
        return Said(int(code), out.getvalue(), err.getvalue())

    def run(self, *more: str, pipeline: str = "claims", client: str = "acme") -> Any:
        """Run a pipeline inline and return the run as --json tells it."""
        [run] = self(f"run {pipeline} --client {client} --inline --json", *more).json
        return run

    def rows(self, query: str, database: str = "warehouse.db") -> list[tuple[Any, ...]]:
        """Ask an SQLite target."""
        with closing(sqlite3.connect(self.root / database)) as connection:
            return connection.execute(query).fetchall()

    def tables(self, database: str = "warehouse.db") -> list[str]:
        """Return the names of the target's tables but our own."""
        if not (self.root / database).exists():
            return []
        names = self.rows("select name from sqlite_master where type = 'table' order by 1", database)
        return [name for (name,) in names if not name.startswith("_etl_")]


@pytest.fixture
def etl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project with two clients and a file of claims, in the working directory."""
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    made.config()
    made.write("inbox/acme/claims-1.csv", CLAIMS)
    yield made
    settings.use(None)


@pytest.fixture
def work(real_redis: Redis) -> Callable[[], bool]:
    """Do all that is queued on the private Redis, here."""
    return InProcessWorker(real_redis).work


def is_short(said: Said) -> bool:
    """Whether an error is one or two lines on stderr, and no traceback."""
    return said.err.startswith("rq-etl: ") and said.err.count("\n") <= 2 and "Traceback" not in said.err

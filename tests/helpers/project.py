"""A project in a folder: its etl.toml from what a test wants of it, its files, its target, and `rq-etl` in it."""

import contextlib
import io
import json
import os
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
from etl.config.pipeline import Config, Pipeline, resolve
from etl.config.read import load_config
from jobs import settings
from jobs.commands.options import shared

WAREHOUSE = "sqlite:///warehouse.db"
LONG_AGO = 1_700_000_000  # a file that is older than `settle` is read at once
CLAIMS = "claim_id,amount\nA1,10.50\nA2,20\n"


def toml(value: Any) -> str:
    """Return a value as TOML writes it in one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def etl_toml(
    pipelines: Mapping[str, Mapping[str, Any]],
    clients: Mapping[str, Mapping[str, Any]] | Iterable[str] = ("acme",),
    *,
    url: str = WAREHOUSE,
    defaults: Mapping[str, Any] | None = None,
    **more: Any,
) -> str:
    """Return an etl.toml with staging beside it and a target `warehouse`.

    Args:
        pipelines: By name, what differs from one that appends inbox/{client}/*.csv, however new they are, to a table
            of its own name. `extract` and `load` are laid over that; an extract of another type replaces it. A column
            is its keys, or its type.
        clients: Their names, or what each says by name.
        url: Of the target.
        defaults: What clients have where they say nothing.
        more: Keys of [settings].
    """
    lines = ["[settings]", 'staging = "staging"', *(f"{key} = {toml(value)}" for key, value in more.items())]
    lines += ['modules = ["steps"]'] if "modules" not in more else []
    lines += ["[targets.warehouse]", f"url = {toml(url)}"]
    lines += ["[defaults]", *(f"{key} = {toml(value)}" for key, value in defaults.items())] if defaults else []
    for name, given in pipelines.items():
        extract = {"type": "csv", "path": "inbox/{client}/*.csv", "settle": 0}
        extract = (extract if given.get("extract", {}).get("type", "csv") == "csv" else {}) | given.get("extract", {})
        load = {"target": "warehouse", "table": name} | given.get("load", {})
        tables = {"extract": extract, "load": load, **given}
        columns = tables.pop("columns", {})
        lines += [f"[pipelines.{name}]"]
        lines += [f"{key} = {toml({'extract': extract, 'load': load}.get(key, tables[key]))}" for key in tables]
        lines += [f"[pipelines.{name}.columns]"] if columns else []
        for column, keys in columns.items():
            lines.append(f"{column} = {toml(keys if isinstance(keys, Mapping) else {'type': keys})}")
    for client, keys in clients.items() if isinstance(clients, Mapping) else ((name, {}) for name in clients):
        lines += [f"[clients.{client}]", *(f"{key} = {toml(value)}" for key, value in keys.items())]
    return "\n".join([*lines, ""])


TWO_COLUMNS = {
    "claim_id": {"type": "string", "required": True, "unique": True},
    "amount": {"type": "decimal", "min": 0},
}
ETL_TOML = etl_toml(
    {
        "claims": {
            "extract": {"path": "inbox/{client}/claims-*.csv"},
            "transform": [],
            "load": {"mode": "merge", "key": ["claim_id"]},
            "retries": 0,
            "columns": TWO_COLUMNS,
        }
    },
    ["acme", "globex"],
).replace(", settle = 0", "")


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


class Folder:
    """A folder with an etl.toml, which this process works for once it is written."""

    def __init__(self, root: Path, config: str = "", files: Mapping[str, str | bytes] | None = None) -> None:
        self.root, self.path = root, root / "etl.toml"
        self.written = 0
        if config:
            self.config(config)
        for name, content in (files or {}).items():
            self.write(name, content)

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
        self.write("etl.toml", text)
        settings.use(self.path)

    def change(self, *changes: tuple[str, str]) -> None:
        """Replace texts in etl.toml, which must be there."""
        self.config(self.path.read_text(encoding="utf-8"), *changes)

    def loaded(self) -> Config:
        """Read etl.toml."""
        return load_config(self.path)

    def pipeline(self, name: str = "claims", client: str = "acme") -> Pipeline:
        """Return a client's pipeline as etl.toml says it now."""
        return resolve(self.loaded(), name, client)

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


class Project(Folder):
    """A project and the real command line on it, in this process: `project("run claims --client acme --inline")`."""

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
        """Run a pipeline inline and return the run as --json shows it."""
        [run] = self(f"run {pipeline} --client {client} --inline --json", *more).json
        return run


def is_short(said: Said) -> bool:
    """Whether an error is one or two lines on stderr, and no traceback."""
    return said.err.startswith("rq-etl: ") and said.err.count("\n") <= 2 and "Traceback" not in said.err

"""Rows of files that a cursor passes by: those that an earlier run has read are loaded, of others a warning says so."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project import Project, etl_toml

MODES: dict[str, dict[str, Any]] = {"append": {"mode": "append"}, "merge": {"mode": "merge", "key": ["id"]}}
COLUMNS = {"id": "string", "u": {"type": "integer", "unique": True}}


@pytest.fixture(params=[("append", "csv"), ("merge", "csv"), ("append", "ndjson")], ids=lambda each: "-".join(each))
def etl_(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of one client that loads files by a cursor."""
    monkeypatch.chdir(tmp_path)
    mode, kind = request.param
    made = Project(tmp_path)
    extract = {"type": kind, "path": "inbox/acme/*", "cursor": "u", "settle": 0}
    made.config(etl_toml({"claims": {"extract": extract, "load": MODES[mode], "columns": COLUMNS, "retries": 0}}))
    return made


def night(etl_: Project, name: str, *rows: tuple[int, Any]) -> list[str]:
    """Put a file of ids and cursors into the inbox and run; returns the warnings."""
    kind = "ndjson" if "ndjson" in (etl_.root / "etl.toml").read_text() else "csv"
    lines = [f"{id},{u}" if kind == "csv" else f'{{"id": "{id}", "u": {u}}}' for id, u in rows]
    etl_.write(f"inbox/acme/{name}", "\n".join([*(["id,u"] if kind == "csv" else []), *lines, ""]))
    run = etl_.run()
    assert run["state"] == "succeeded", run["error"]
    return [warning for warning in run["warnings"] if "the cursor" in warning]


def said(name: str, rows: str) -> str:
    return f"inbox/acme/{name}: {rows} new, but not beyond the cursor (column u): not loaded; "


def test_a_new_files_old_rows_are_said_once(etl_: Project) -> None:
    assert night(etl_, "1", (1, 1), (2, 5)) == []
    [warning] = night(etl_, "2", (3, 3), (4, 6))
    assert warning.startswith(said("2", "1 row is"))
    assert night(etl_, "2", (3, 3), (4, 6)) == []


def test_old_rows_that_come_into_a_known_file_are_said(etl_: Project) -> None:
    assert night(etl_, "1", (1, 1), (2, 5)) == []
    assert night(etl_, "1", (1, 1), (2, 5), (3, 7), (4, 8)) == []
    [warning] = night(etl_, "1", (1, 1), (2, 5), (3, 7), (4, 8), (5, 2), (6, 3), (7, 9))
    assert warning.startswith(said("1", "2 rows are"))


def test_a_row_that_was_rejected_and_is_mended_too_late_is_said(etl_: Project) -> None:
    assert night(etl_, "1", (1, 1), (2, '"x"')) == []
    assert night(etl_, "2", (3, 9)) == []
    [warning] = night(etl_, "1", (1, 1), (2, 5))
    assert warning.startswith(said("1", "1 row is"))
    assert night(etl_, "1", (1, 1), (2, 5)) == []

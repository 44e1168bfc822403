"""Rows whose values the table would change, or no type has: rejected in a whole run, exported, fixed and loaded."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.helpers.project import Project, etl_toml

COLUMNS = {"id": "integer", "at": "timestamp", "n": "number"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_what_a_table_would_round_is_rejected_exported_and_loaded_once_it_is_fixed(pg_url: str, folder: Path) -> None:
    """Case 11."""
    project = Project(folder, etl_toml({"clock": {"retries": 0, "columns": COLUMNS}}, ["oak"], url=pg_url))
    asked(pg_url, "CREATE TABLE clock (id int, at timestamptz(0), n real, _client text, _run text, _file text)")
    lines = ["2026-01-01 10:00:00.6,1", "2026-01-01 10:00:00,16777217", "2026-01-01 10:00:00,0.1"]
    project.write("inbox/oak/1.csv", "id,at,n\n" + "".join(f"{n},{line}\n" for n, line in enumerate(lines)))
    run = project.run(pipeline="clock", client="oak")
    assert (run["state"], run["rows"]["rejected"], run["rows"]["loaded"]) == ("succeeded", 2, 1)
    assert asked(pg_url, "SELECT id, n FROM clock") == [(2, 0.1)]
    said = project(f"rejects {run['run']} --json")
    assert {(entry["column"], entry["reason"]) for entry in said.json} == {
        ("at", "does not fit the table's timestamp(0) with time zone"),
        ("n", "does not fit the table's real"),
    }
    out = folder / "bad.csv"
    assert project(f"rejects {run['run']} --export", str(out)).code == 0
    fixed = out.read_text().replace("00.6", "00").replace("16777217", "16777216")
    project.write("inbox/oak/2.csv", "".join(line.split(",", 4)[4] for line in fixed.splitlines(keepends=True)))
    assert project.run(pipeline="clock", client="oak")["rows"]["loaded"] == 2
    assert len(asked(pg_url, "SELECT id FROM clock")) == 3


def test_max_rejects_counts_what_a_table_would_round(pg_url: str, folder: Path) -> None:
    given: dict[str, Any] = {"retries": 0, "max_rejects": 0, "columns": COLUMNS}
    project = Project(folder, etl_toml({"clock": given}, ["oak"], url=pg_url))
    asked(pg_url, "CREATE TABLE clock (id int, at timestamptz(0), n real, _client text, _run text, _file text)")
    project.write("inbox/oak/1.csv", "id,at,n\n1,2026-01-01 10:00:00.6,1\n2,2026-01-01,1\n")
    assert project.run(pipeline="clock", client="oak")["state"] == "failed"
    assert asked(pg_url, "SELECT count(*) FROM clock") == [(0,)]


def test_nan_and_infinity_are_rejected_and_change_no_type(pg_url: str, folder: Path) -> None:
    """Case 13."""
    extract = {"type": "sql", "url": pg_url, "table": "probe"}
    load = {"table": "probe_copy", "mode": "replace"}
    project = Project(
        folder, etl_toml({"probe": {"extract": extract, "load": load, "retries": 0}}, ["oak"], url=pg_url)
    )
    asked(pg_url, "CREATE TABLE probe (id int, v float8)")
    asked(pg_url, "INSERT INTO probe VALUES (1, 1.5), (2, 'NaN')")
    assert project.run(pipeline="probe", client="oak")["rows"]["rejected"] == 1
    asked(pg_url, "INSERT INTO probe VALUES (3, 'Infinity')")
    run = project.run(pipeline="probe", client="oak")
    assert (run["state"], run["rows"]["rejected"], run["rows"]["loaded"]) == ("succeeded", 2, 1)
    assert asked(pg_url, "SELECT id, v FROM probe_copy") == [(1, 1.5)]


def test_two_keys_that_sqlite_would_take_for_one_are_rejected(folder: Path) -> None:
    columns = {"key": {"type": "decimal", "required": True}, "v": "string"}
    given = {"load": {"mode": "merge", "key": ["key"]}, "retries": 0, "columns": columns}
    project = Project(folder, etl_toml({"claims": given}))
    lines = "1234567890123456781,a\n1234567890123456782,b\n1234567890123.25,c\n"
    project.write("inbox/acme/1.csv", "key,v\n" + lines)
    for _ in range(2):
        run = project.run()
        assert (run["state"], run["rows"]["rejected"]) == ("succeeded", 2)
        assert project.rows("SELECT key, v FROM claims") == [(1234567890123.25, "c")]


def test_a_column_of_32_bits_equals_what_was_loaded_into_it(pg_url: str, folder: Path) -> None:
    given = {"load": {"mode": "merge", "key": ["id"]}, "retries": 0, "columns": {"id": "integer", "n": "number"}}
    project = Project(folder, etl_toml({"claims": given}, url=pg_url))
    asked(pg_url, "CREATE TABLE claims (_client text, id bigint, n real, _run text, _file text)")
    project.write("inbox/acme/1.csv", "id,n\n1,0.1\n")
    assert project.run()["rows"]["loaded"] == 1
    project.write("inbox/acme/2.csv", "id,n\n1,0.1\n")
    assert project.run()["rows"]["loaded"] == 0

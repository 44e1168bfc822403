"""Types that nobody declared only widen: the table is the same in whatever order files and nights come."""

import sqlite3
from contextlib import chdir, closing
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tests.helpers.project import Project, etl_toml

pytestmark = pytest.mark.slow

VALUES = ["10", "10.5", "1.50", "NA", "", "true", "2024-01-05", "2024-01-05T10:00:00Z", "007", "+5"]
VALUES += ["12345678901234567", "0.30000000000000004", "12345678901234567890", "1e-05"]


def canonical(value: Any) -> Any:
    """Return a value free of how numbers, booleans and instants are spelled."""
    text = str(value)
    if value is None or (text[:1] in "0+" and text[1:2].isdigit()):
        return value
    try:
        return Decimal(text)
    except InvalidOperation:
        pass
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return text


def loaded(nights: list[tuple[int, str]]) -> tuple[str, list[Any]]:
    """Load one file a night; return the column's type and its values."""
    with TemporaryDirectory() as folder, chdir(folder):
        project = Project(Path(folder), etl_toml({"t": {"retries": 0}}))
        for number, value in nights:
            project.write(f"inbox/acme/{number}.csv", f"id,v\nx{number},{value}\n")
            run = project.run(pipeline="t")
            assert run["state"] == "succeeded", run["error"]
        [(kind,)] = project.rows("SELECT type FROM pragma_table_info('t') WHERE name = 'v'")
        return kind, [canonical(value) for (value,) in project.rows("SELECT v FROM t ORDER BY id")]


@settings(max_examples=examples(8), deadline=None)  # a whole run each; test_widening_order has the many
@given(st.lists(st.sampled_from(VALUES), min_size=2, max_size=4), st.randoms())
def test_the_order_of_nights_does_not_change_the_table(values: list[str], luck: Any) -> None:
    nights = list(enumerate(values))
    first = loaded(nights)
    luck.shuffle(nights)
    assert loaded(nights) == first


def test_text_of_a_typed_source_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    extract = {"type": "sql", "url": f"sqlite:///{tmp_path}/stores.db", "table": "stores"}
    project.config(etl_toml({"stores": {"extract": extract, "load": {"mode": "replace"}, "retries": 0}}))
    nights = ["CREATE TABLE stores (id integer, zip text); INSERT INTO stores VALUES (1, '94105'), (2, '10001')"]
    for night in [*nights, "INSERT INTO stores VALUES (3, '02134')"]:
        with closing(sqlite3.connect(tmp_path / "stores.db")) as source:
            source.executescript(night)
        assert project.run(pipeline="stores")["state"] == "succeeded"
        assert project.rows("SELECT DISTINCT typeof(zip) FROM stores") == [("text",)]
    assert ("02134",) in project.rows("SELECT zip FROM stores")


@pytest.mark.parametrize("choice", ["widen", "fail"])
def test_a_warning_or_an_error_names_the_column_and_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path, etl_toml({"t": {"retries": 0, "type_changes": choice}}))
    project.write("inbox/acme/a.csv", "a,b\n1,2\n")
    project.run(pipeline="t")
    project.write("inbox/acme/b.csv", "a,b\n1,2\nsecret,1.25\n")
    run = project.run(pipeline="t")
    told = " ".join(run["warnings"]) if choice == "widen" else run["error"]
    assert run["state"] == ("succeeded" if choice == "widen" else "failed")
    assert "column a" in told
    assert "column b" in told
    assert "secret" not in told
    assert choice == "fail" or "inbox/acme/b.csv, line 3" in told


def test_the_statement_of_an_error_is_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path, etl_toml({"t": {"retries": 0}}))
    project.write("inbox/acme/a.csv", "a,b\nNA,1.5\n")
    with closing(sqlite3.connect(tmp_path / "warehouse.db")) as target:
        target.executescript("CREATE TABLE t (a INTEGER, b INTEGER, _client TEXT, _run TEXT, _file TEXT)")
        error = project.run(pipeline="t")["error"]
        target.executescript(error.partition("alter the table: ")[2])
    assert project.run(pipeline="t")["state"] == "succeeded"
    assert project.rows("SELECT a, b FROM t") == [("NA", 1.5)]


@pytest.mark.parametrize(
    ("old", "other"), [("1.10", "beta"), ("2026-01-01T10:00:00+02:00", "later"), ("2026-01-01", "x"), ("7", "007")]
)
def test_a_key_that_nobody_declared_is_found_again_whatever_came_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, other: str
) -> None:
    """It keeps its spelling: 1.10 and 1.1 are two keys."""
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path, etl_toml({"t": {"retries": 0, "load": {"mode": "merge", "key": ["ver"]}}}))
    for number, (key, value) in enumerate([(old, "old"), (other, "z"), (old, "new"), ("1.1", "a")]):
        project.write(f"inbox/acme/{number}.csv", f"ver,v\n{key},{value}\n")
        assert project.run(pipeline="t")["state"] == "succeeded"
    assert sorted(project.rows("SELECT ver, v FROM t")) == sorted([(old, "new"), (other, "z"), ("1.1", "a")])

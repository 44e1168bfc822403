"""Tables of the user's own whose texts are equal though they differ: a row counts as what it became there."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.deliveries import query
from tests.helpers.project import Project, etl_toml

OWN = "_client text, _run text, _file text"
SQLITE = "sqlite:///warehouse.db"
MERGE = {"mode": "merge", "key": ["id"]}


def project(root: Path, url: str = SQLITE, **given: Any) -> Project:
    pipeline = {"load": MERGE, "retries": 0, "columns": {"id": "string", "v": "string"}, **given}
    return Project(root, etl_toml({"claims": pipeline}, ["acme"], url=url))


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def counts(run: Any) -> tuple[str, int, int, int]:
    rows = run["rows"]
    return run["state"], rows["loaded"], rows["unchanged"], rows["superseded"]


@pytest.mark.parametrize("collation", ["nocase", "RTRIM"])
@pytest.mark.parametrize("key", ["", "primary key"])
@pytest.mark.parametrize("files", [1, 2])
def test_keys_that_sqlite_holds_equal_are_one_row(tmp_path: Path, collation: str, key: str, files: int) -> None:
    made = project(tmp_path)
    query(SQLITE, f"create table claims (id text collate {collation} {key}, v text, {OWN})")
    one, two = ("ab", "AB") if collation == "nocase" else ("ab", "ab  ")
    lines = [f'"{one}",1\n', f'"{two}",2\n']
    for number in range(files):
        text = "".join(lines) if files == 1 else lines[number]
        made.write(f"inbox/acme/{number}.csv", "id,v\n" + text)
    assert counts(made.run()) == ("succeeded", 1, 0, 1)
    assert made.rows("SELECT v FROM claims") == [("2",)]
    made.write("inbox/acme/9.csv", f'id,v\n"{one}",3\n')
    assert counts(made.run())[:2] == ("succeeded", 1)
    assert made.rows("SELECT v FROM claims") == [("3",)]


def test_a_text_that_sqlite_holds_equal_is_a_change(tmp_path: Path) -> None:
    made = project(tmp_path)
    query(SQLITE, f"create table claims (id text primary key, v text collate nocase, {OWN})")
    for text in ("ab", "AB"):
        made.write("inbox/acme/1.csv", f"id,v\n1,{text}\n")
        assert counts(made.run()) == ("succeeded", 1, 0, 0)
        assert made.rows("SELECT v FROM claims") == [(text,)]


def test_a_collation_that_is_not_deterministic_decides_what_a_key_is_and_not_what_a_change_is(
    tmp_path: Path, pg_url: str
) -> None:
    query(pg_url, "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    query(pg_url, f"create table claims (id text collate blind, v text collate blind, {OWN}, unique (id))")
    made = project(tmp_path, pg_url)
    made.write("inbox/acme/1.csv", "id,v\nab,x\nAB,y\n")
    assert counts(made.run()) == ("succeeded", 1, 0, 1)
    made.write("inbox/acme/1.csv", "id,v\nAb,Y\n")
    assert counts(made.run()) == ("succeeded", 1, 0, 0)
    assert query(pg_url, "select v from claims") == [("Y",)]

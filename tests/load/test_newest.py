"""Text that nobody declared and that says which row is newest: dates or times of one form, or refused with the cure."""

from pathlib import Path

import pytest

from tests.helpers.project import Project, etl_toml
from tests.types.test_cursor import ask, tell

SAID = "column u: it says which row is newest, and holds text that is not declared"
CURE = 'declare columns.u: as what it is compared, such as type = "integer"'


@pytest.fixture
def etl_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_url: str) -> Project:
    """A project whose clients a and b share a table."""
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    load = {"table": "shared", "mode": "merge", "key": ["id"], "newest": "u"}
    made.config(etl_toml({"claims": {"load": load, "retries": 0}}, ["a", "b"], url=target_url))
    return made


def night(etl_: Project, client: str, name: str, rows: str) -> str:
    """Load a file of a client; returns the error, or ""."""
    etl_.write(f"inbox/{client}/{name}.csv", f"id,u,x\n{rows}\n")
    return etl_.run(client=client)["error"] or ""


@pytest.mark.parametrize("columns", ["", '[pipelines.claims.columns]\nid = { type = "string" }\n'])
def test_a_word_among_numbers_is_refused_whoever_was_first(etl_: Project, target_url: str, columns: str) -> None:
    etl_.change(("[clients.a]", f"{columns}[clients.a]"))
    said = night(etl_, "b", "1", "1,NA,q")
    assert SAID in said
    assert CURE in said
    tell(target_url, "CREATE TABLE shared (id text, u text, x text, _client text, _run text, _file text)")
    tell(target_url, "INSERT INTO shared VALUES ('1', '9', 'old', 'a', 'r0', 'f')")  # as earlier versions did
    assert SAID in night(etl_, "a", "1", "1,10,new")


def test_text_of_one_form_says_which_row_is_newest(etl_: Project, target_url: str) -> None:
    assert night(etl_, "a", "1", "1,20260102T100000,old\n1,20260101T100000,older") == ""
    assert night(etl_, "a", "2", "1,20260103T100000,new\n2,20260101T100000,other") == ""
    assert ask(target_url, "SELECT x FROM shared ORDER BY id") == [("new",), ("other",)]
    assert SAID in night(etl_, "a", "3", "1,2026-01-04,x")

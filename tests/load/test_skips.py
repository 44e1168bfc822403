"""Files that have not changed since they were loaded are left as they are."""

import os
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.load import known
from etl.staging import Marker
from jobs.run import partitions
from jobs.run.stage import StageContext
from tests.helpers.deliveries import query
from tests.helpers.project import LONG_AGO, Project, etl_toml

pytestmark = pytest.mark.slow

MODES: list[dict[str, Any]] = [
    {"mode": "append"},
    {"mode": "merge", "key": ["id"]},
    {"mode": "replace", "by": ["_file"]},
]


def text(url: str, mode: dict[str, Any], **name: Any) -> str:
    """Return an etl.toml that loads two columns so."""
    pipeline = {
        "extract": {"path": "inbox/*.csv"},
        "load": mode,
        "retries": 0,
        "columns": {"id": "integer", "name": {"type": "string", **name}},
    }
    return etl_toml({"claims": pipeline}, url=url)


@pytest.fixture
def etl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of two files."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, "", {"inbox/a.csv": "id,name\n1,one\n2,two\n", "inbox/b.csv": "id,name\n3,three\n"})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read."""
    files: list[str] = []
    real = partitions._read

    def noted(work: StageContext, connection: Redis) -> Marker:
        files.append(work.partition.pieces[0].file)
        return real(work, connection)

    monkeypatch.setattr(partitions, "_read", noted)
    known._asked.clear()  # runs of windows have the same ids in each test
    return files


@pytest.mark.parametrize("mode", MODES)
def test_an_unchanged_file_is_not_read_again(
    etl: Project, target_url: str, read: list[str], mode: dict[str, Any]
) -> None:
    etl.config(text(target_url, mode))
    assert etl.run()["rows"]["loaded"] == 3
    for _ in range(2):
        read.clear()
        again = etl.run()["rows"]
        assert (again["read"], again["loaded"], again["unchanged"]) == (3, 0, 3)
        assert read == []


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_changed_file_is_loaded_by_its_mode_and_the_other_stays(
    etl: Project, target_url: str, read: list[str], mode: dict[str, Any]
) -> None:
    etl.config(text(target_url, mode))
    etl.run()
    for content, name in (("id,name\n3,drei\n", "drei"), ("id,name\n3,three\n", "three")):  # and back again
        read.clear()
        etl.write("inbox/b.csv", content)
        assert etl.run()["rows"]["loaded"] == 1
        assert read == ["inbox/b.csv"]
        assert rows(target_url) == [(1, "one"), (2, "two"), (3, name)]


@pytest.mark.parametrize("mode", MODES[1:])
def test_full_refresh_reads_everything(etl: Project, target_url: str, read: list[str], mode: dict[str, Any]) -> None:
    etl.config(text(target_url, mode))
    etl.run()
    read.clear()
    etl.run("--full-refresh")
    assert sorted(read) == ["inbox/a.csv", "inbox/b.csv"]
    assert len(rows(target_url)) == 3


def test_a_file_with_rejects_is_read_again_to_tell_them(etl: Project, target_url: str, read: list[str]) -> None:
    etl.config(text(target_url, MODES[1]))
    etl.write("inbox/b.csv", "id,name\n3,three\nx,wrong\n")
    etl.run()
    read.clear()
    again = etl.run()["rows"]
    assert (again["read"], again["rejected"], again["unchanged"]) == (4, 1, 3)
    assert read == ["inbox/b.csv"]


def test_a_changed_pipeline_reads_its_files_again(etl: Project, target_url: str, read: list[str]) -> None:
    etl.config(text(target_url, MODES[1]))
    etl.run()
    read.clear()
    etl.config(text(target_url, MODES[1], allowed=["one", "three"]))
    assert etl.run()["rows"]["rejected"] == 1
    assert len(read) == 2


def test_a_small_file_that_replaces_itself_is_unchanged(etl: Project, target_url: str) -> None:
    etl.config(text(target_url, MODES[2]))
    etl.run()
    etl.write("inbox/c.csv", "id,name\n4,four\n")
    again = etl.run()["rows"]
    assert (again["loaded"], again["unchanged"]) == (1, 3)
    assert len(rows(target_url)) == 4


def test_a_file_is_read_again_when_it_was_touched_to_win_over_another(
    etl: Project, target_url: str, read: list[str]
) -> None:
    etl.config(text(target_url, MODES[1]))
    etl.run()
    etl.write("inbox/c.csv", "id,name\n1,uno\n")
    etl.run()
    os.utime("inbox/b.csv", (LONG_AGO + 100, LONG_AGO + 100))
    read.clear()
    assert etl.run()["rows"]["loaded"] == 0
    os.utime("inbox/c.csv", (LONG_AGO + 200, LONG_AGO + 200))  # it is the newest of its rows in either case
    assert etl.run()["rows"]["loaded"] == 0
    os.utime("inbox/a.csv", (LONG_AGO + 300, LONG_AGO + 300))
    assert etl.run()["rows"]["loaded"] == 1
    assert rows(target_url) == [(1, "one"), (2, "two"), (3, "three")]
    os.utime("inbox/c.csv", (LONG_AGO + 400, LONG_AGO + 400))
    assert etl.run()["rows"]["loaded"] == 1
    assert rows(target_url) == [(1, "uno"), (2, "two"), (3, "three")]
    assert etl.run()["rows"]["loaded"] == 0
    assert read == ["inbox/b.csv", "inbox/a.csv", "inbox/c.csv"]


def test_rows_that_are_gone_from_the_table_are_loaded_again(etl: Project, target_url: str, read: list[str]) -> None:
    etl.config(text(target_url, MODES[1]))
    etl.run()
    query(target_url, "DELETE FROM claims")
    assert etl.run()["rows"]["loaded"] == 3


def with_step(url: str, mode: dict[str, Any], **more: Any) -> str:
    """Return an etl.toml whose rows go through a function."""
    pipeline = {"extract": {"path": "inbox/*.csv"}, "load": mode, "retries": 0, "transform": ["steps:mark"], **more}
    return etl_toml({"claims": {**pipeline, "columns": {"id": "integer", "name": "string"}}}, url=url)


@pytest.mark.parametrize("mode", MODES)
def test_files_are_read_again_when_the_pipelines_code_has_changed_unless_they_were_appended(
    etl: Project, target_url: str, read: list[str], mode: dict[str, Any]
) -> None:
    step = "def mark(df):\n    df['name'] = df['name'] + '{}'\n    return df\n"
    etl.write("steps.py", step.format("!"))
    etl.config(with_step(target_url, mode))
    etl.run()
    etl.write("steps.py", step.format("?"))
    read.clear()
    again = etl.run()
    assert again["state"] == "succeeded"
    if mode["mode"] == "append":
        assert (again["rows"]["unchanged"], read) == (3, [])
        return
    assert again["rows"]["loaded"] == 3
    assert rows(target_url) == [(1, "one?"), (2, "two?"), (3, "three?")]
    read.clear()
    assert etl.run()["rows"]["unchanged"] == 3
    assert read == []


@pytest.mark.parametrize("mode", MODES[1:])
def test_files_are_read_again_when_a_lookup_has_changed(
    etl: Project, target_url: str, read: list[str], mode: dict[str, Any]
) -> None:
    etl.write("steps.py", "def mark(df, marks):\n    df['name'] = df['name'] + marks['mark'][0]\n    return df\n")
    etl.write("marks.csv", "mark\n!\n")
    lookups = {"marks": {"type": "csv", "path": "marks.csv", "settle": 0}}
    etl.config(with_step(target_url, mode, lookups=lookups))
    etl.run()
    read.clear()
    assert etl.run()["rows"]["unchanged"] == 3
    assert read == []
    etl.write("marks.csv", "mark\n?\n")
    assert etl.run()["rows"]["loaded"] == 3
    assert rows(target_url) == [(1, "one?"), (2, "two?"), (3, "three?")]


def test_what_an_earlier_release_has_loaded_is_not_read_again_for_what_it_did_not_write_down(
    etl: Project, target_url: str, read: list[str]
) -> None:
    etl.write("steps.py", "def mark(df):\n    return df\n")
    etl.config(with_step(target_url, MODES[1]))
    etl.run()
    query(target_url, "DROP INDEX _etl_loads_sequence")
    for column in ("code", "lookups", "modified", "modified_each", "sequence", "good"):
        query(target_url, f"ALTER TABLE _etl_loads DROP COLUMN {column}")
    etl.write("steps.py", "def mark(df):\n    return df.copy()\n")
    read.clear()
    assert etl.run()["rows"]["unchanged"] == 3
    assert read == []


STAMP = "def mark(df, {}):\n    df['name'] = {}\n    return df\n"


@pytest.mark.parametrize("mode", MODES[:2])
def test_a_file_is_read_again_for_another_window_where_a_function_asks_for_it(
    etl: Project, target_url: str, read: list[str], mode: dict[str, Any]
) -> None:
    etl.write("steps.py", STAMP.format("*, start=None", "str(start)[:10]"))
    etl.config(with_step(target_url, mode, extract={"path": "inbox/{date:%Y}.csv"}))
    etl.write("inbox/2024.csv", "id,name\n1,one\n")
    backfill = "backfill claims --client acme --start 2024-01-01 --end {} --inline --json"
    assert etl(backfill.format("2024-01-02")).code == 0
    [run] = etl(backfill.format("2024-01-03")).json
    if mode["mode"] == "append":  # the file is appended once, whatever it would be for another window
        assert (rows(target_url), run["rows"]["unchanged"]) == ([(1, "2024-01-01")], 1)
        assert "what they make of them for this one is not loaded" in run["warnings"][0]
    else:
        assert (rows(target_url), run["warnings"]) == ([(1, "2024-01-02")], [])
    assert len(read) == 2


def test_a_window_that_no_function_asks_for_reads_no_file_again(etl: Project, target_url: str, read: list[str]) -> None:
    etl.write("steps.py", STAMP.format("start=None", "start"))
    load = {
        "transform": [{"function": "steps:mark", "args": {"start": "x"}}],
        "extract": {"path": "inbox/{date:%Y}.csv"},
    }
    etl.config(with_step(target_url, MODES[1], **load))
    etl.write("inbox/2024.csv", "id,name\n1,one\n")
    assert etl("backfill claims --client acme --start 2024-01-01 --end 2024-01-03 --inline").code == 0
    assert (rows(target_url), len(read)) == ([(1, "x")], 1)


def rows(url: str) -> list[tuple[object, ...]]:
    """Return the table."""
    return query(url, "SELECT id, name FROM claims ORDER BY id")

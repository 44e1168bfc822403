"""Rejects that were fixed and loaded: each once, as a row of the file that it came from."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.deliveries import query
from tests.helpers.project import Project, etl_toml

pytestmark = pytest.mark.slow

COLUMNS = {"id": "integer", "v": "integer"}
MODES: list[dict[str, Any]] = [
    {"mode": "append"},
    {"mode": "append", "atomic": True},
    {"mode": "merge", "key": ["id"]},
    {"mode": "replace"},
    {"mode": "replace", "by": ["_file"]},
    {"mode": "replace", "by": ["v"]},
]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No redis-server."""
    monkeypatch.setenv("PATH", "")


def loads(etl: Project, mode: dict[str, Any], url: str = "sqlite:///warehouse.db", **more: Any) -> None:
    given = {"extract": {"path": "in/*.csv", **more}, "load": mode, "columns": COLUMNS}
    etl.config(etl_toml({"m": given}, url=url))


def fix(etl: Project, old: str, new: str) -> None:
    path: Path = etl.root / "fix.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def fixed(etl: Project, run: str) -> dict[str, Any]:
    """Load the fixed rows of a run, and return what became of them."""
    [found] = etl(f"rejects {run} --load fix.csv --json").json
    assert found["state"] == "succeeded", found
    return {name: found["rows"][name] for name in ("loaded", "unchanged", "rejected")} | {"run": found["run"]}


def counts(found: dict[str, Any]) -> tuple[int, int, int]:
    return found["loaded"], found["unchanged"], found["rejected"]


def rejecting(etl: Project, mode: dict[str, Any], *files: str, url: str = "sqlite:///warehouse.db") -> str:
    """Load files in/a.csv, in/b.csv of these rows, export the rejects, and return the run."""
    loads(etl, mode, url)
    for name, rows in zip("ab", files, strict=False):
        etl.write(f"in/{name}.csv", f"id,v\n{rows}")
    run: str = etl.run(pipeline="m")["run"]
    exported(etl, run)
    return run


def exported(etl: Project, run: str) -> list[str]:
    assert etl(f"rejects {run} --export fix.csv").code == 0
    return (etl.root / "fix.csv").read_text().splitlines()


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_rows_that_are_fixed_one_after_another_are_loaded_once_each(
    etl: Project, target_url: str, mode: dict[str, Any]
) -> None:
    first = rejecting(etl, mode, "1,1\n2,bad\n3,worse\n", "4,bad\n5,5\n", url=target_url)
    fix(etl, "2,bad", "2,20")
    assert counts(fixed(etl, first)) == (1, 0, 2)
    fix(etl, "3,worse", "3,30")
    assert counts(fixed(etl, first)) == (1, 1, 1)
    fix(etl, "4,bad", "4,40")
    assert counts(fixed(etl, first)) == (1, 2, 0)
    assert counts(fixed(etl, first)) == (0, 3, 0)
    rows = query(target_url, "select id, v, _file from m order by id")
    files = ["in/a.csv"] * 3 + ["in/b.csv"] * 2
    assert rows == [(n, v, file) for (n, v), file in zip(enumerate([1, 20, 30, 40, 5], 1), files, strict=True)]


def test_a_row_that_is_fixed_in_the_second_export_is_the_row_of_the_first(etl: Project) -> None:
    """Its file and line are those that it has in its source, through however many exports."""
    loads(etl, {"mode": "append"})
    etl.write("in/a.csv", 'id,v\n1,1\n2,"x\ny"\n3,bad\n4,bad\n')
    first = etl.run(pipeline="m")["run"]
    exported(etl, first)
    fix(etl, "3,bad", "3,30")
    again = fixed(etl, first)
    assert counts(again) == (1, 0, 2)
    lines = [line.split(",")[:2] for line in exported(etl, again["run"]) if line.startswith("in/")]
    assert lines == [["in/a.csv", "3"], ["in/a.csv", "6"]]
    fix(etl, "4,bad", "4,40")
    assert counts(fixed(etl, again["run"])) == (1, 0, 1)
    exported(etl, first)
    fix(etl, "bad", "9")
    assert counts(fixed(etl, first)) == (0, 2, 1)
    assert etl.rows("select id, v from m order by id") == [(1, 1), (3, 30), (4, 40)]


def test_a_row_that_a_later_run_of_the_same_file_rejects_is_the_same_row(etl: Project) -> None:
    loads(etl, {"mode": "append"})
    etl.write("in/a.csv", "id,v\n1,1\n2,bad\n")
    first = etl.run(pipeline="m")["run"]
    later = etl.run(pipeline="m")["run"]
    for run, loaded in ((first, 1), (later, 0)):
        exported(etl, run)
        fix(etl, "bad", "20")
        assert counts(fixed(etl, run)) == (loaded, 1 - loaded, 0)


def test_a_corrected_file_replaces_the_rows_that_were_fixed_of_it(etl: Project, target_url: str) -> None:
    first = rejecting(etl, {"mode": "replace", "by": ["_file"]}, "1,1\n2,bad\n", "3,3\n", url=target_url)
    fix(etl, "bad", "20")
    assert counts(fixed(etl, first)) == (1, 0, 0)
    # The same file is rejected again, and what was fixed of it stays.
    for _ in range(2):
        rows = etl.run(pipeline="m")["rows"]
        assert (rows["loaded"], rows["unchanged"], rows["rejected"]) == (0, 2, 1)
    assert query(target_url, "select id, v from m order by id") == [(1, 1), (2, 20), (3, 3)]
    etl.write("in/a.csv", "id,v\n1,1\n2,21\n")
    assert etl.run(pipeline="m")["rows"]["loaded"] == 2
    assert query(target_url, "select id, v from m order by id") == [(1, 1), (2, 21), (3, 3)]


@pytest.mark.parametrize("mode", [{"mode": "replace"}, {"mode": "replace", "by": ["_file"]}], ids=str)
def test_a_row_that_is_fixed_after_its_file_was_replaced_is_superseded(etl: Project, mode: dict[str, Any]) -> None:
    first = rejecting(etl, mode, "1,1\n2,bad\n", "3,3\n4,bad\n")
    fix(etl, "bad", "20")
    etl.write("in/a.csv", "id,v\n1,1\n2,21\n")
    etl.run(pipeline="m")
    [run] = etl(f"rejects {first} --load fix.csv --json").json
    assert (run["rows"]["loaded"], run["rows"]["superseded"]) == (1, 1)
    assert run["warnings"] == ["1 fixed row is not loaded: m has another version of the file by now"]
    assert etl.rows("select id, v from m order by id") == [(1, 1), (2, 21), (3, 3), (4, 20)]


def test_what_a_replace_took_out_is_loaded_again(etl: Project) -> None:
    first = rejecting(etl, {"mode": "replace"}, "1,1\n2,bad\n")
    fix(etl, "bad", "20")
    assert counts(fixed(etl, first)) == (1, 0, 0)
    assert etl.run(pipeline="m")["rows"]["rejected"] == 1
    assert etl.rows("select id, v from m") == [(1, 1)]
    assert counts(fixed(etl, first)) == (1, 0, 0)


def test_a_row_that_was_fixed_of_one_file_is_missing_of_another_still(etl: Project) -> None:
    first = rejecting(etl, {"mode": "append"}, "1,1\n2,a\n", "3,3\n4,a\n")
    fix(etl, "2,a", "2,20")
    assert counts(fixed(etl, first)) == (1, 0, 1)
    loads(etl, {"mode": "append"}, null=["a"])
    run = etl.run(pipeline="m")
    assert (run["rows"]["unchanged"], run["rows"]["rejected"]) == (3, 1)
    [warning] = run["warnings"]
    assert "in/b.csv was appended by run" in warning


def test_fixed_rows_beat_no_newer_version_of_their_own_file(etl: Project) -> None:
    first = rejecting(etl, {"mode": "merge", "key": ["id"]}, "1,1\n2,bad\n")
    etl.write("in/a.csv", "id,v\n1,1\n2,200\n")
    etl.run(pipeline="m")
    fix(etl, "bad", "20")
    assert counts(fixed(etl, first)) == (0, 0, 0)  # it is superseded
    assert etl.rows("select id, v from m order by id") == [(1, 1), (2, 200)]


def test_rows_that_somebody_added_to_an_export_are_loaded_once(etl: Project) -> None:
    first = rejecting(etl, {"mode": "append"}, "2,bad\n3,bad\n4,4\n")
    with (etl.root / "fix.csv").open("a") as file:
        file.write(",,,,7,70\n")
    for old, expected in (("2,bad", (2, 0, 1)), ("3,bad", (1, 2, 0))):
        fix(etl, old, f"{old[0]},1")
        assert counts(fixed(etl, first)) == expected


def test_fixed_rows_of_a_file_that_still_have_too_few_fields_are_rejects_again(etl: Project) -> None:
    first = rejecting(etl, {"mode": "append"}, "1,1\n2\n3\n", "4,bad\n5,5\n")
    fix(etl, "4,bad", "4,4")
    assert counts(fixed(etl, first)) == (1, 0, 2)


def test_a_row_that_the_table_takes_since_it_was_altered_is_loaded(etl: Project, pg_url: str) -> None:
    """The file is the same, and yet there are more good rows in it: it is not left as it is."""
    query(pg_url, "create table m (id bigint, name varchar(3))")
    given = {"extract": {"path": "in/*.csv"}, "load": {"mode": "replace", "by": ["_file"]}}
    etl.config(etl_toml({"m": {**given, "columns": {"id": "integer", "name": "string"}}}, url=pg_url))
    etl.write("in/a.csv", "id,name\n1,abc\n2,abcdef\n")
    assert etl.run(pipeline="m")["rows"]["rejected"] == 1
    assert etl.run(pipeline="m")["rows"]["unchanged"] == 1
    query(pg_url, "alter table m alter column name type varchar(9)")
    assert etl.run(pipeline="m")["rows"]["loaded"] == 2


FUNCTION = """
def rows():
    return [{"id": 1, "v": "1"}, {"id": 2, "v": "bad"}, {"id": 3, "v": "worse"}]
"""
SQL = {"type": "sql", "url": "sqlite:///source.db", "table": "s", "partition": "id", "rows": 3}


@pytest.mark.parametrize("extract", [{"type": "function", "function": "steps:rows"}, SQL], ids=["function", "sql"])
def test_fixed_rows_of_no_file_are_loaded_once_each(etl: Project, extract: dict[str, Any]) -> None:
    etl.write("steps.py", FUNCTION)
    query(f"sqlite:///{etl.root}/source.db", "create table s (id integer, v text)")
    query(f"sqlite:///{etl.root}/source.db", "insert into s values (1, '1'), (2, 'bad'), (5, 'worse')")
    given = {"extract": extract, "load": {"mode": "append"}, "columns": COLUMNS}
    etl.config(etl_toml({"m": given}))
    first = etl.run(pipeline="m")["run"]
    exported(etl, first)
    for old, new, expected in (("bad", "20", (1, 0, 1)), ("worse", "30", (1, 1, 0)), ("30", "30", (0, 2, 0))):
        fix(etl, old, new)
        assert counts(fixed(etl, first)) == expected
    assert etl.rows("select v from m where v > 9 order by v") == [(20,), (30,)]


def test_no_fixed_row_is_taken_for_another_that_was_rejected_in_the_same_place(etl: Project) -> None:
    """A database counts the rows of each of its partitions from one."""
    query(f"sqlite:///{etl.root}/source.db", "create table s (id integer, v text)")
    query(f"sqlite:///{etl.root}/source.db", "insert into s values (1, '1'), (2, 'bad'), (5, '5'), (6, 'worse')")
    etl.config(etl_toml({"m": {"extract": SQL, "load": {"mode": "append"}, "columns": COLUMNS}}))
    first = etl.run(pipeline="m")["run"]
    lines = exported(etl, first)
    assert [line.split(",")[1] for line in lines[1:]] == ["2", "2"]
    for old, new in (("bad", "20"), ("worse", "30")):
        (etl.root / "fix.csv").write_text("\n".join([lines[0], *(line for line in lines if old in line), ""]))
        fix(etl, old, new)
        assert counts(fixed(etl, first)) == (1, 0, 0)

"""Rejected rows: kept as they came, exported, and loaded again once they are mended."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.rejects import fields, raw_json
from tests.helpers.project import ETL_TOML, Project, etl_toml

NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)
ODD = b'claim_id,amount,note\nA1,1,good\nA2\nA3,3,note,more\nA4,4,"un"quoted\nA5,x,"two\nlines"\n'


@given(NAMES, st.lists(st.text(max_size=3), min_size=1, max_size=8))
def test_a_row_comes_back_as_it_was_whether_it_fits_its_header_or_not(names: list[str], values: list[str]) -> None:
    assert fields(raw_json(names, values), names) == values


@given(NAMES, NAMES, st.lists(st.text(max_size=3), min_size=1, max_size=8))
def test_a_row_that_does_not_fit_its_header_fits_none(names: list[str], others: list[str], values: list[str]) -> None:
    everywhere = list(dict.fromkeys([*others, *names]))
    given = fields(raw_json(names, values), everywhere)
    assert (len(given) == len(everywhere)) == (len(values) == len(names))


def test_a_row_that_can_not_be_read_is_one_text_and_one_of_no_source_is_empty() -> None:
    assert fields(raw_json(["a", "b"], [], 'x,"y'), ["a", "b"]) == ['x,"y']
    assert fields(None, ["a", "b"]) == []


@pytest.fixture
def appended(etl: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that appends, and a file with rows of every kind of fault, on a machine without redis-server."""
    monkeypatch.setenv("PATH", "")
    etl.config(ETL_TOML, ('mode = "merge", key = ["claim_id"]', 'mode = "append"'))
    etl.write("inbox/acme/claims-1.csv", ODD)
    assert etl.run()["rows"]["rejected"] == 4
    assert etl("rejects acme/claims --export mend.csv").code == 0
    return etl


def mend(etl: Project, old: str, new: str) -> None:
    path: Path = etl.root / "mend.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_rejects_are_exported_as_they_came(appended: Project) -> None:
    assert (appended.root / "mend.csv").read_text().splitlines()[:5] == [
        "_file,_row,_column,_reason,claim_id,amount,note",
        'inbox/acme/claims-1.csv,3,,"has 1 field, header has 3",A2',
        'inbox/acme/claims-1.csv,4,,"has 4 fields, header has 3",A3,3,note,more',
        'inbox/acme/claims-1.csv,5,,text after a closing quote,"A4,4,""un""quoted"',
        'inbox/acme/claims-1.csv,6,amount,not a decimal,A5,x,"two',
    ]


def test_rejects_are_reported_by_file_and_line_whichever_stage_found_them(appended: Project) -> None:
    appended.write("inbox/acme/claims-2.csv", "claim_id,amount\nA1,x\nA7\nA8,8\nA8,x\n")
    run = appended.run()
    assert run["rows"]["rejected"] == 7
    found = appended(f"rejects {run['run']} --rows --json").json
    places = [(entry["file"][-5], entry["row"]) for entry in found]
    assert places == [("1", 3), ("1", 4), ("1", 5), ("1", 6), ("2", 2), ("2", 3), ("2", 5)]


def test_rejects_that_nobody_fixed_are_rejected_again(appended: Project) -> None:
    """No field is filled up, none is left out, unless somebody says so."""
    mend(appended, "A5,x", "A5,5")
    [run] = appended("rejects acme/claims --load mend.csv --json").json
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 1, 3)
    reasons = [entry["reason"] for entry in appended("rejects acme/claims --rows --json").json]
    assert reasons == ["has 1 field, header has 3", "has 4 fields, header has 3", "has 1 field, header has 3"]
    mend(appended, ",A2", ",A2,2,")
    mend(appended, "note,more", "note")
    assert appended("rejects acme/claims --load mend.csv").code == 0


@pytest.mark.parametrize(
    ("before", "mark", "quoted"), [("", ";", True), ("sep=;\r\n", ";", False), ("\ufeff", "\t", True)]
)
def test_fixed_rows_are_read_as_a_spreadsheet_writes_them(
    appended: Project, before: str, mark: str, quoted: bool
) -> None:
    mend(appended, "A5,x", "A5,5")
    path: Path = appended.root / "mend.csv"
    with path.open(encoding="utf-8", newline="") as source:
        rows = list(csv.reader(source))
    text = io.StringIO()
    csv.writer(text, delimiter=mark, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(rows)
    path.write_text(before + text.getvalue(), encoding="utf-8", newline="")
    [run] = appended("rejects acme/claims --load mend.csv --json").json
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 1, 3)
    for content, what in ((b"PK\x03\x04\x14\0", "a ZIP or Excel file"), (b"<html><p>x</p></html>", "an HTML page")):
        path.write_bytes(content)
        said = appended("rejects acme/claims --load mend.csv")
        assert (said.code, said.err.splitlines()[0]) == (2, f"rq-etl: mend.csv is {what}, not CSV")


def test_fixed_rows_are_appended_once_however_often_they_are_loaded(appended: Project) -> None:
    mend(appended, "A5,x", "A5,5")
    first = appended.run("--full-refresh")["run"]
    for name, loaded in ((first, 1), ("acme/claims", 0), (first, 0)):
        [run] = appended(f"rejects {name} --load mend.csv --json").json
        assert (run["state"], run["rows"]["loaded"], run["rows"]["unchanged"]) == ("succeeded", loaded, 1 - loaded)
    assert appended.rows("select claim_id from claims order by 1") == [("A1",), ("A5",)]


def spelled(etl: Project, amount: str | dict[str, str]) -> None:
    given = {"extract": {"path": "inbox/{client}/s.csv"}, "load": {"mode": "append"}}
    etl.config(etl_toml({"claims": {**given, "columns": {"id": "integer", "amount": amount}}}))


@pytest.fixture
def german(etl: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that has appended a file of which a row was rejected, as its amount is spelled otherwise."""
    monkeypatch.setenv("PATH", "")
    spelled(etl, "decimal")
    etl.write("inbox/acme/s.csv", 'id,amount\n1,"1.234,50"\n2,99\n')
    run = etl.run()
    assert (run["rows"]["rejected"], run["rows"]["loaded"]) == (1, 1)
    return etl


@pytest.mark.parametrize("how", [(), ("--full-refresh",)], ids=str)
def test_rows_rejected_when_their_file_was_appended_are_never_counted_unchanged(german: Project, how: str) -> None:
    [first] = german("runs --json").json
    assert german.run(*how)["warnings"] == []  # its reject is this run's own
    spelled(german, {"type": "decimal", "decimal": ",", "thousands": "."})
    for _ in range(2):
        run = german.run(*how)
        assert run["state"] == "succeeded"
        assert (run["rows"]["rejected"], run["rows"]["unchanged"], run["rows"]["loaded"]) == (1, 1, 0)
        [warning] = run["warnings"]
        assert f"inbox/acme/s.csv was appended by run {first['run']}, which did not load 1 of 2 rows" in warning
        assert f"rq-etl rejects {first['run']} --export" in warning
        [entry] = german(f"rejects {run['run']} --rows --json").json
        assert (entry["row"], entry["reason"]) == (2, f"rejected by run {first['run']}: not a decimal")


def test_rows_are_loaded_by_the_cure_that_the_warning_names(german: Project) -> None:
    [first] = german("runs --json").json
    spelled(german, {"type": "decimal", "decimal": ",", "thousands": "."})
    german.run()
    assert german(f"rejects {first['run']} --export r.csv").code == 0
    [run] = german(f"rejects {first['run']} --load r.csv --json").json
    assert run["rows"]["loaded"] == 1
    assert german.rows("select id, amount from claims order by id") == [(1, 1234.5), (2, 99)]
    run = german.run()
    assert (run["rows"]["rejected"], run["rows"]["unchanged"], run["warnings"]) == (0, 2, [])


def test_a_file_mended_where_it_lies_is_led_to_its_rejects_first(german: Project) -> None:
    [first] = german("runs --json").json
    german.run()
    german.write("inbox/acme/s.csv", "id,amount\n1,1234.5\n2,99\n")
    error = german.run()["error"]
    assert f"has changed since run {first['run']} appended it" in error
    assert 0 < error.index(f"rq-etl rejects {first['run']} --export") < error.index('by = ["_file"]')


def test_fixed_rows_beat_no_file_newer_than_the_one_they_came_from(
    etl: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    given = {"load": {"mode": "merge", "key": ["id"]}, "extract": {"path": "in/*.csv"}}
    etl.config(etl_toml({"m": {**given, "columns": {"id": "integer", "v": "integer"}}}))
    etl.write("in/a.csv", "id,v\n1,bad\n2,bad\n5,3\n")
    etl.write("in/b.csv", "id,v\n2,bad\n")
    first = etl.run(pipeline="m")["run"]
    etl.write("in/c.csv", "id,v\n1,200\n")
    etl.run(pipeline="m")
    etl(f"rejects {first} --export r.csv")
    lines = (etl.root / "r.csv").read_text().splitlines()
    fixed = [line.replace("bad", str(10 + number)) for number, line in enumerate(lines)]
    (etl.root / "r.csv").write_text("\n".join([*fixed, ",,,,7,70", ""]))
    [run] = etl(f"rejects {first} --load r.csv --json").json
    assert (run["state"], run["rows"]["read"], run["rows"]["superseded"]) == ("succeeded", 4, 2)
    assert etl.rows("select id, v from m order by id") == [(1, 200), (2, 13), (5, 3), (7, 70)]


def test_a_value_with_a_newline_stays_in_its_line_of_the_table(german: Project) -> None:
    german.write("inbox/acme/s.csv", 'id,amount\n1,"A\nB"\n')
    run = german.run()
    lines = german(f"rejects {run['run']} --rows").out.splitlines()
    assert len(lines) == 2
    assert r"A\nB" in lines[1]


def test_what_is_wrong_with_a_run_is_printed_once(german: Project) -> None:
    spelled(german, {"type": "decimal", "decimal": ",", "thousands": "."})
    assert german("run claims --client acme --inline").out.count("was appended by run") == 1

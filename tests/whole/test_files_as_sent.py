"""Files as people send them, from file to table: what they mean is loaded, or refused with what they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project import Project, etl_toml


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Sent":
    """A project whose pipeline takes what a test sends."""
    monkeypatch.chdir(tmp_path)
    return Sent(tmp_path)


class Sent(Project):
    """A project with one pipeline `goods`."""

    def take(self, files: Mapping[str, str | bytes], **pipeline: Any) -> Any:
        """Write etl.toml and files, run, and return the run."""
        clients = pipeline.pop("clients", ("oak",))
        self.config(etl_toml({"goods": {"retries": 0, **pipeline}}, clients))
        for name, content in files.items():
            self.write(f"inbox/oak/{name}", content)
        return self.run(pipeline="goods", client="oak")


def test_the_line_that_excel_reads_names_the_delimiter_and_is_no_header(sent: Sent) -> None:
    for name, text in {
        "a.csv": "sep=;\nid;name\n1;bolt\n2;nut\n",
        "b.csv": '\ufeff"SEP=|"\r\nid|name\r\n1|bolt\r\n2|nut\r\n',
    }.items():
        run = sent.take({name: text}, extract={"delimiter": "auto", "path": f"inbox/oak/{name}"})
        assert (run["state"], run["rows"]["loaded"], run["warnings"]) == ("succeeded", 2, [])
    run = sent.take({"c.csv": "sep=\t\nid\tname\n3\tbolt\n".encode("utf-16")}, extract={
        "delimiter": "\t", "path": "inbox/oak/c.csv"
    })  # fmt: skip
    assert (run["state"], run["rows"]["loaded"]) == ("succeeded", 1)
    assert sent.rows("select id, name from goods") == [(1, "bolt"), (2, "nut")] * 2 + [(3, "bolt")]


def test_a_delimiter_that_the_file_contradicts_is_refused(sent: Sent) -> None:
    run = sent.take({"a.csv": "sep=;\nid;name\n1;bolt\n"})
    assert run["state"] == "failed"
    assert 'line 1 says that the delimiter is ";"' in run["error"]


def test_an_empty_field_behind_the_last_delimiter_of_every_row_is_dropped(sent: Sent) -> None:
    run = sent.take({"places.csv": "id,name,lat,lon\n1,mill,0,0,\n2,weir,0,0,\n"})
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 2, 0)
    assert sent.rows("select id, name, lat, lon from goods") == [(1, "mill", 0, 0), (2, "weir", 0, 0)]


@pytest.mark.parametrize(("header", "column"), [("cafe\u0301", "café"), ("café", "cafe\u0301")])
def test_a_header_is_its_column_however_its_accents_are_encoded(sent: Sent, header: str, column: str) -> None:
    run = sent.take({"menu.csv": f"id,{header}\n1,5\n"}, columns={"id": "integer", f'"{column}"': "integer"})
    assert (run["state"], run["warnings"]) == ("succeeded", [])
    assert sent.rows(f'select id, "{column}" from goods') == [(1, 5)]


def test_blanks_before_a_quote_are_passed_over_or_the_row_is_rejected(sent: Sent) -> None:
    notes = {"notes.csv": 'id, "note"\n1, "a"\n2, "b, c"\n'}
    run = sent.take(notes, all_rejected="warn")
    assert (run["rows"]["loaded"], run["rows"]["rejected"]) == (0, 2)
    assert sum("skip_initial_space = true" in warning for warning in run["warnings"]) == 2
    run = sent.take(notes, extract={"skip_initial_space": True})
    assert (run["state"], run["warnings"]) == ("succeeded", [])
    assert sent.rows("select id, note from goods") == [(1, "a"), (2, "b, c")]


BAD = "id,day\n1,never\n2,never\n"
DAYS = {"id": "integer", "day": "date"}


def test_a_run_of_which_every_row_is_rejected_has_failed_and_its_rejects_are_there(sent: Sent) -> None:
    run = sent.take({"a.csv": BAD}, columns=DAYS, retries=3)
    assert (run["state"], run["exit"], run["attempt"]) == ("failed", 1, 1)
    assert run["error"].startswith("all 2 rows were rejected: nothing was loaded")
    assert sent(f"rejects {run['run']} --export out.csv").code == 0
    assert (sent.root / "out.csv").read_text().count("not a date") == 2


@pytest.mark.parametrize("split", ["rows", "none"])
def test_a_file_of_which_every_row_is_rejected_is_a_warning_where_others_are_fine(sent: Sent, split: str) -> None:
    files = {"a.csv": BAD, "b.csv": "id,day\n1,2024-01-01\n2,never\n", "c.csv": "id,day\n1\n2,never\n"}
    run = sent.take(files, columns=DAYS, extract={"split": split})
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 1, 5)
    assert sorted(run["warnings"]) == [f"inbox/oak/{name}.csv: all 2 rows were rejected" for name in "ac"]


def test_a_cursor_stays_where_every_row_was_rejected(sent: Sent) -> None:
    columns = {"id": "integer", "day": "date"}
    keys = {"extract": {"cursor": "day"}, "load": {"mode": "merge", "key": ["id"]}, "columns": columns}
    assert sent.take({"a.csv": "id,day\n1,2024-01-01\n"}, **keys)["state"] == "succeeded"
    before = sent.rows("select value from _etl_cursors")
    (sent.root / "inbox/oak/a.csv").unlink()
    assert sent.take({"b.csv": "id,day\nx,2024-02-01\ny,2024-03-01\n"}, **keys)["state"] == "failed"
    assert sent.rows("select value from _etl_cursors") == before


def test_a_file_whose_rows_all_have_another_number_of_fields_fails_by_itself(sent: Sent) -> None:
    run = sent.take({"a.csv": "id,day\n1,2,3\n4,5,6\n", "b.csv": "id,day\n7,8\n"})
    assert (run["state"], run["rows"]["loaded"]) == ("failed", 1)
    assert "inbox/oak/a.csv: all rows have 3 fields, the header has 2" in run["error"]


@pytest.mark.parametrize(
    "blank", ["\u00a0", "\u200b", "\u2060", "\u200d\ufeff", "\u00ad", "\u2800", "\u3164 ", "\u3000"]
)
def test_what_shows_nothing_is_no_required_value_and_no_part_of_a_header(sent: Sent, blank: str) -> None:
    columns = {"id": "integer", "name": {"required": True}}
    run = sent.take({"a.csv": f"\ufeff\ufeffid,\u200bname\n1,{blank}\n2,x\n"}, columns=columns)
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 1, 1)
    assert sent.rows("select id, name from goods") == [(2, "x")]


def test_an_error_about_a_header_is_of_two_lines_whatever_is_in_it(sent: Sent) -> None:
    columns = {"id": "integer", '"first name"': {"required": True}}
    error = sent.take({"a.csv": 'id,"first\nname"\n1,x\n'}, columns=columns)["error"]
    assert error.splitlines() == [
        'inbox/oak/a.csv: no column first name; its header has "id", "first\\nname"',
        '  if it goes by another name, give it: columns."first name".from = ["…"], or rename for this client',
    ]


def test_a_window_without_a_beginning_is_told_so(sent: Sent) -> None:
    sent.take({"a.csv": "id\n1\n"})
    said = sent("plan goods --client oak --end 2026-01-31")
    assert (said.code, said.err.splitlines()[0]) == (2, "rq-etl: a window to 2026-01-31 has no beginning")


def test_a_file_without_any_declared_column_is_not_read_among_others(sent: Sent) -> None:
    """As by itself: else its rows were empty, beside a column named by all of its header."""
    files = {"a.csv": "id,day\n1,2024-01-01\n", "b.csv": "id;day\n2;2024-01-02\n"}
    run = sent.take(files, columns=DAYS, extract={"split": "none"})
    assert (run["state"], run["rows"]["loaded"]) == ("failed", 0)
    assert "inbox/oak/b.csv: none of the declared columns (id, day) is in it" in run["error"]
    assert 'delimiter = ";" or "auto" would split this header' in run["error"]

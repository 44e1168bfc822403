"""What people see in a terminal: tables that fit it, progress, and errors in two lines."""

import io
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from jobs.views import console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    """`terminal(80)` makes standard output one of so many columns, and returns what is written to it."""

    def of(columns: int) -> io.StringIO:
        file = io.StringIO()
        file.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr("sys.stdout", file)
        monkeypatch.setattr(
            console, "out", lambda: Console(file=file, width=columns, highlight=False, color_system=None)
        )
        return file

    return of


@pytest.fixture
def zoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`zoned("Asia/Tokyo")` has this machine's clock in that zone."""

    def use(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield use
    monkeypatch.undo()
    time.tzset()


def run(**changes: Any) -> dict[str, Any]:
    """Return a run in the public JSON shape."""
    rows = dict.fromkeys(("read", "added", "rejected", "dropped", "superseded", "loaded", "unchanged"), 0)
    return {
        "run": "afjmvec595",
        "pipeline": "claims",
        "client": "lakeside",
        "state": "failed",
        "seconds": 12.25,
        "rows": {**rows, "read": 1_500_000, "loaded": 1_499_000, "rejected": 1_000},
        "partitions": {"total": 24, "done": 11, "failed": 1, "blocked": 0},
        "failures": [],
        "warnings": [],
        "error": None,
        **changes,
    }


def lines(file: io.StringIO) -> list[str]:
    """Return what was printed, without blanks at the ends."""
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_a_run_stands_in_one_line_of_its_terminal(terminal: Callable[[int], io.StringIO], columns: int) -> None:
    """What can be spared is left out; ids and numbers are never cut."""
    file = terminal(columns)
    console.results([run()])
    head, line = lines(file)
    assert len(line) <= columns
    assert "afjmvec595" in line
    assert "1,500,000" in line
    assert ("rows/s" in head) == (columns >= 100)


def test_kinds_of_rows_that_never_occur_take_no_place(terminal: Callable[[int], io.StringIO]) -> None:
    """Dropped, added and superseded are shown where there are some."""
    file = terminal(120)
    console.results([run()])
    assert "dropped" not in lines(file)[0]
    file = terminal(120)
    console.results([run(rows={**run()["rows"], "dropped": 3})])
    assert "dropped" in lines(file)[0]


def test_a_failure_is_what_and_where_and_then_the_cure(terminal: Callable[[int], io.StringIO]) -> None:
    """Two lines, the file named once."""
    error = "inbox/a.csv: no column id\n  rename it"
    file = terminal(120)
    console.notes(run(failures=[{"partition": 2, "file": "inbox/a.csv", "stage": "transform", "error": error}]))
    assert lines(file) == ["lakeside/claims: partition 2, transform: inbox/a.csv: no column id", "  rename it"]


def test_an_error_that_is_a_partitions_is_reported_once(terminal: Callable[[int], io.StringIO]) -> None:
    """A run of one partition has the same error."""
    failure = {"partition": 1, "file": "inbox/a.csv", "stage": "load", "error": "the table is read-only"}
    file = terminal(120)
    console.notes(run(failures=[failure], error="the table is read-only", warnings=["inbox/b.csv is still growing"]))
    assert lines(file) == [
        "lakeside/claims: partition 1, load of inbox/a.csv: the table is read-only",
        "lakeside/claims: inbox/b.csv is still growing",
    ]


def test_a_cause_of_many_runs_is_printed_once_with_their_number(terminal: Callable[[int], io.StringIO]) -> None:
    """Though each client's file has a path of its own; a cause that one run has alone is said by its name."""
    away, none = "target warehouse can't be reached: refused\n  start it", "no file matches inbox/{}/claims-*.csv"
    failed = [run(client=f"c{number:02}", run=f"r{number}", error=away) for number in range(40)]
    missing = [run(client=name, run=name, error=none.format(name)) for name in ("acme", "north")]
    warned = [run(run=f"w{number}", state="succeeded", warnings=["inbox/b.csv is still growing"]) for number in (1, 2)]
    file = terminal(120)
    console.causes([*failed, *missing, *warned, run(run="x", error="the disk is full")])
    assert lines(file) == [
        "40 runs: target warehouse can't be reached: refused", "  start it",
        "2 runs: no file matches inbox/{client}/claims-*.csv",
        "2 runs: inbox/b.csv is still growing",
        "lakeside/claims: the disk is full",
    ]  # fmt: skip


def test_a_cause_of_many_partitions_is_printed_once(terminal: Callable[[int], io.StringIO]) -> None:
    failures = [{"partition": at, "file": f"{at}.csv", "stage": "load", "error": "the disk is full"} for at in range(3)]
    file = terminal(120)
    console.notes(run(failures=failures, error="3 partitions failed"))
    assert lines(file) == ["lakeside/claims: 3 partitions, load: the disk is full"]


def test_runs_that_wait_for_one_reason_are_one_line_and_the_next_to_begin_is_none(
    terminal: Callable[[int], io.StringIO],
) -> None:
    queued = [run(run=f"r{at}", state="queued", waiting="no worker is alive") for at in range(40)]
    soon = run(run="x", state="queued", waiting="its turn is next; 1 of 2 workers busy")
    held = run(run="y", state="held", waiting="behind run x (queued)")
    file = terminal(120)
    console.causes([*queued, soon, held])
    assert lines(file) == ["40 runs wait: no worker is alive", "lakeside/claims waits: behind run x (queued)"]


@pytest.mark.parametrize("columns", [80, 120])
def test_lists_say_how_many_warnings_and_unmet_expectations_a_run_has(
    terminal: Callable[[int], io.StringIO], columns: int
) -> None:
    file = terminal(columns)
    console.results([run(state="succeeded", warnings=["a", "b"], odd=["a"])])
    head, line = lines(file)[:2]
    assert "unchanged" in head
    assert "!2?1" in line
    assert lines(file)[2] == console.LEGEND
    assert max(map(len, (head, line))) <= columns


def test_a_moment_is_in_this_machines_zone_and_names_it(zoned: Callable[[str], None]) -> None:
    zoned("Asia/Tokyo")
    assert console.zone() == "JST"
    assert console.moment("2026-01-09T20:00:00+00:00") == "2026-01-10 05:00"
    assert console.clock(1_767_988_800.0) == "2026-01-10 05:00 JST"
    assert re.fullmatch(r"\d\d:\d\d:\d\d JST", console.clock(time.time()))


def test_what_looks_like_markup_is_text(terminal: Callable[[int], io.StringIO]) -> None:
    """Names of columns may have brackets."""
    file = terminal(80)
    console.table(["column"], [{"column": "[red]"}, {"column": "a[0]"}])
    assert lines(file)[1:] == ["[red]", "a[0]"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_spans_are_reported_in_the_largest_unit_that_fits(seconds: float | None, text: str | None) -> None:
    """Roughly, as for the age of a success."""
    assert console.span(seconds) == text


def test_one_is_not_many() -> None:
    """Numbers agree with their nouns."""
    assert [console.plural(1, "row"), console.plural(2_000, "row")] == ["1 row", "2,000 rows"]


def test_status_tells_what_is_due_and_late_where_something_is_scheduled(
    terminal: Callable[[int], io.StringIO], zoned: Callable[[str], None]
) -> None:
    """Due is in the zone of this machine, as all times on a screen, and a line names that."""
    zoned("America/Chicago")
    line = {
        "client": "acme", "pipeline": "claims", "state": "failed", "last_success": None, "age": None,
        "rows": None, "run": "afjmvec595", "due": None, "late": None,
    }  # fmt: skip
    file = terminal(120)
    console.status([line])
    assert "due" not in lines(file)[0]
    file = terminal(80)
    console.status([{**line, "due": "2026-01-09T09:00:00+01:00", "late": 93_600.0}])
    assert "2026-01-09 02:00" in lines(file)[1]
    assert lines(file)[2] in ("times are in CST", "times are in CDT")
    assert "26 h" in lines(file)[1]
    assert all(len(each) <= 80 for each in lines(file))

"""What people see in a terminal: tables, and reports of runs."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from etl.safe_message import printable

COLORS = {"succeeded": "green", "failed": "red", "canceled": "yellow", "running": "cyan"}
NARROW = 16  # letters; a column whose cells are no longer than that is never wrapped


def out() -> Console:
    """Return the console of standard output; wide where it is not a terminal, so that nothing is cut."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)


def table(
    columns: Sequence[str], found: Iterable[Mapping[str, Any]], *, title: str | None = None, spare: Sequence[str] = ()
) -> None:
    """Print dictionaries, a line each, under those of their keys that are columns; numbers are at the right.

    Args:
        spare: Columns that are left out, one after the other, where the terminal is too narrow for all.
    """
    console, lines, left = out(), list(found), list(columns)
    shown = _table(left, lines)
    for name in spare:
        if Measurement.get(console, console.options.update(width=10_000), shown).maximum > console.width:
            left.remove(name)
            shown = _table(left, lines)
    if title:
        say(title)
    console.print(shown)


def _table(columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        values = [line.get(name) for line in lines]
        numeric = bool(lines) and all(isinstance(value, int | float | None) for value in values)
        narrow = numeric or all(len(str(value)) <= NARROW for value in values)
        shown.add_column(cell(name), justify="right" if numeric else "left", overflow="fold", no_wrap=narrow)
    for line in lines:
        # What a value of a row holds breaks no line of a table; our own errors have two.
        shown.add_row(*[cell(line.get(name), keep="\n" if name == "error" else "") for name in columns])
    return shown


def plural(number: int, noun: str) -> str:
    """Return `1 row`, `2 rows`, `3 statuses`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def span(seconds: float | None) -> str | None:
    """Return a span for people, in the largest unit that fits it: `12 s`, `5 min`, `3 h`, `8 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds is not None and seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return None if seconds is None else f"{seconds:.0f} s"


def cell(value: object, keep: str = "\n") -> Text:
    """Return a value as a table shows it; states have colors, and nothing in a text is markup."""
    if value is None:
        return Text("-")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Text(f"{value:,}" if isinstance(value, int) else f"{value:,.1f}")
    return Text(printable(str(value), keep=keep), style=COLORS.get(str(value), ""))


def say(text: str) -> None:
    """Print a text that may quote names and values: control characters do nothing to a terminal, nor in a pipe."""
    print(printable(text, keep="\n\t"), flush=True)


def results(found: Sequence[Mapping[str, Any]]) -> None:
    """Print one line a run: rows by kind, seconds, rows a second; then what failed and what was noticed."""
    kinds = ["read", "rejected", *kinds_of(found, "dropped", "added", "superseded"), "loaded", "unchanged"]
    columns = ("client", "pipeline", "state", *kinds, "seconds", "rows/s", "run")
    has_one = len({run["pipeline"] for run in found}) == 1
    table(columns, with_rows(found), spare=("rows/s", "seconds", *(["pipeline"] if has_one else [])))
    for run in found:
        notes(run)


def with_rows(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return runs with their rows by kind, and rows read in a second, beside their other fields."""
    return [
        {**run, **run["rows"], "rows/s": int(run["rows"]["read"] / run["seconds"]) if run["seconds"] else None}
        for run in found
    ]


def kinds_of(found: Iterable[Mapping[str, Any]], *kinds: str) -> list[str]:
    """Return those of some kinds of rows that occur in the runs."""
    found = list(found)
    return [kind for kind in kinds if any(run["rows"].get(kind) for run in found)]


def status(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print each client's pipelines: the last run, how old the last success is, what is due and what is late."""
    scheduled = ["due", "late"] if any(line.get("due") or line.get("late") for line in lines) else []
    columns = ("client", "pipeline", "state", "last success", "age", *scheduled, "rows", "run")
    shown = [
        {
            **line,
            "last success": moment(line["last_success"]),
            "age": span(line["age"]),
            "due": _clock(line["due"]),
            "late": span(line["late"]),
        }
        for line in lines
    ]
    table(columns, shown, spare=("run", "rows", "last success"))
    for line in lines:
        for warning in line.get("warnings", ()):
            _note("yellow", "warning", warning)


def moment(text: str | None) -> str | None:
    """Return a moment in ISO 8601 as people read it, to the minute, in this machine's zone; `zone` names that."""
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}" if text else None


def zone() -> str:
    """Return the name of this machine's time zone as it is now, such as `CET`: all times on a screen are in it."""
    return datetime.now().astimezone().tzname() or "local time"


def clock(seconds: float) -> str:
    """Return a moment in seconds since the epoch with its zone: to the second, or on other days to the minute."""
    at, now = datetime.fromtimestamp(seconds).astimezone(), datetime.now().astimezone()
    return f"{at:%H:%M:%S %Z}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M %Z}"


def ago(text: str | None) -> str | None:
    """Return how long ago a moment in ISO 8601 was, in words: `3 h ago`."""
    past = span(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())) if text else None
    return f"{past} ago" if past else None


def show(run: Mapping[str, Any]) -> None:
    """Print one run with its partitions' stages."""
    results([run])
    print(f"rows: {counts(run['rows'])}")
    print(f"partitions: {counts(run['partitions'])}")
    lines = [{**line, "counts": counts(line["counts"])} for line in run["stages"][:150]]
    table(("partition", "stage", "state", "seconds", "counts"), lines, title="\nstages")


def counts(by_kind: Mapping[str, int]) -> str:
    """Return numbers by kind in a line: `read 1,000, rejected 20`."""
    return ", ".join(f"{kind} {count:,}" for kind, count in by_kind.items())


def notes(run: Mapping[str, Any]) -> None:
    """Print why a run failed, by partition, and its warnings."""
    name = f"{run['client']}/{run['pipeline']}"
    errors = {failure["error"] for failure in run["failures"]}
    if run["error"] and run["error"] not in errors:
        _note("red", name, run["error"])
    for failure in run["failures"][:10]:
        where = f"partition {failure['partition']}, {failure['stage']}"
        if failure["file"] and not failure["error"].startswith(failure["file"]):
            where += f" of {failure['file']}"
        _note("red", name, f"{where}: {failure['error']}")
    if len(run["failures"]) > 10:
        _note("red", name, f"and {len(run['failures']) - 10} more: rq-etl show {run['run']}")
    for warning in run["warnings"][:10]:
        _note("yellow", name, warning)


def _note(color: str, name: str, text: str) -> None:
    # A terminal gets whole words; what is piped somewhere keeps its lines.
    out().print(Text.assemble((f"{printable(name)}:", color), " ", cell(text)), soft_wrap=not sys.stdout.isatty())


def clients(found: Sequence[Mapping[str, Any]], fairness: float | None) -> None:
    """Print a line a client, the busiest first, and how fairly workers were shared over the last hour."""
    heads = ("client", "state", "limit", "waiting", "running", "held", "last run", "wait", "a job takes", "share")
    busy = sorted(found, key=lambda line: (-line["running"], -line["waiting"], -line["held"], line["client"]))
    lines = [
        {
            **line,
            "last run": line["last_state"],
            "wait": None if line["wait_seconds"] is None else f"{line['wait_seconds']:.2f} s",
            "a job takes": None if line["service_seconds"] is None else f"{line['service_seconds']:.2f} s",
            "share": None if line["share"] is None else f"{line['share']:.1%}",
        }
        for line in busy
    ]
    table(heads, lines)
    if fairness is not None:
        out().print(f"worker time was shared with a fairness of {fairness:.2f} over the last hour (1 is even)")

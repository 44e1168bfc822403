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
from jobs.views.causes import Cause, grouped, name_of

COLORS = {"succeeded": "green", "failed": "red", "missing": "red", "canceled": "yellow", "running": "cyan"}
MARKS = "!?"  # the column of a table that says how many warnings and unmet expectations there are: `!2?1`
LEGEND = "!2?1 is 2 warnings and 1 expectation that was not met"
NAME = 8  # letters of a worker's name in a table
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
    for name in [name for name in spare if name in left]:
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


def took(seconds: float | None) -> str | None:
    """Return how long something took, in words: a short span to a tenth of a second."""
    return f"{seconds:.1f} s" if seconds is not None and seconds < 10 else span(seconds)


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


def results(found: Sequence[Mapping[str, Any]], *, ages: bool = False, waits: bool = True) -> None:
    """Print one line a run: rows by kind, seconds, rows a second; then what failed, waits and was noticed, by cause.

    Args:
        ages: Whether to say how long ago each was submitted.
        waits: Whether to say why runs wait.
    """
    kinds = ["read", "rejected", *kinds_of(found, "dropped", "added", "superseded"), "loaded", "unchanged"]
    marked = [MARKS] if any(run.get("warnings") or run.get("odd") for run in found) else []
    age = ["age"] if ages else []
    columns = ("client", "pipeline", "state", *kinds, *marked, *age, "time", "rows/s", "run")
    has_one = len({run["pipeline"] for run in found}) == 1
    table(columns, with_rows(found), spare=("rows/s", "time", *(["pipeline"] if has_one else []), "age"))
    if marked:
        say(LEGEND)
    causes(found, waits=waits)


def with_rows(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return runs as a table shows them: rows by kind, rows read in a second, how many warnings, spans in words."""
    return [
        {
            **run,
            **run["rows"],
            MARKS: marks(len(run["warnings"]), len(run.get("odd") or ())),
            "age": ago(run.get("submitted")),
            "time": took(run["seconds"]),
            "rows/s": int(run["rows"]["read"] / run["seconds"]) if run["seconds"] else None,
        }
        for run in found
    ]


def marks(warnings: int, odd: int) -> str | None:
    """Return how many warnings and unmet expectations there are as a table shows it, or None for neither."""
    return f"!{warnings}" * bool(warnings) + f"?{odd}" * bool(odd) or None


def kinds_of(found: Iterable[Mapping[str, Any]], *kinds: str) -> list[str]:
    """Return those of some kinds of rows that occur in the runs."""
    found = list(found)
    return [kind for kind in kinds if any(run["rows"].get(kind) for run in found)]


def status(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print each client's pipelines: the last run, how old the last success is, what is due, late, waits and is odd."""
    scheduled = ["due", "late"] if any(line.get("due") or line.get("late") for line in lines) else []
    shown = [
        {
            **line,
            "last success": moment(line["last_success"]),
            "age": span(line["age"]),
            "due": moment(line["due"]),
            "late": span(line["late"]),
            "delivery": _came(line.get("delivery")),
            "unchanged": line.get("unchanged") or None,
            MARKS: marks(line.get("noticed") or 0, len(line.get("odd") or ())),
        }
        for line in lines
    ]
    extra = [name for name in ("unchanged", MARKS) if any(line[name] for line in shown)]
    expected = ["delivery"] if any(line.get("delivery") for line in lines) else []
    columns = ("client", "pipeline", "state", "last success", "age", *scheduled, *expected, "rows", *extra, "run")
    table(columns, shown, spare=("run", "unchanged", "rows", "last success"))
    if any(line["due"] or line["last success"] for line in shown):
        say(f"times are in {zone()}")
    if MARKS in extra:
        say(LEGEND)
    _waits({f"{line['client']}/{line['pipeline']}": line.get("waiting") for line in lines}, "pipelines")
    for line in lines:
        for warning in line.get("warnings", ()):
            _note("yellow", "warning", warning)


def _came(line: Mapping[str, Any] | None) -> str | None:
    """Return in a few words how it is with a delivery."""
    if line is None:
        return None
    left = _left(line["due"])
    if line["came"]:
        return f"came, {span(line['late'])} late" if line["late"] else "came"
    return "missing" if line["missing"] else f"due in {span(left)}" if left > 0 else f"due {span(-left)} ago"


def deliveries(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each delivery, and what is odd about it."""
    now = datetime.now(UTC)
    shown = [
        {
            **line,
            "due": moment(line["due"]),
            "came": moment(line["came"]) or ("missing" if line["missing"] else None),
            "late": span(
                (now - datetime.fromisoformat(line["due"])).total_seconds() if line["missing"] else line["late"]
            ),
            "files": f"{len(line['files'])} of {line['expected']}" if line["expected"] else len(line["files"]) or None,
            "odd": len(line["odd"]) or None,
        }
        for line in lines
    ]
    columns = ("client", "pipeline", "due", "came", "late", "files", "odd", "state", "rows", "run")
    table(columns, shown, spare=("rows", "files", "run", "state"))
    if lines:
        say(f"times are in {zone()}")
    for line in lines:
        for sentence in line["odd"]:
            _note("yellow", f"{line['client']}/{line['pipeline']} of {line['day']}", sentence)


def _left(text: str) -> float:
    return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()


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


def show(run: Mapping[str, Any], note: str = "") -> None:
    """Print one run with its partitions' stages, those that run now first, and the workers that it has lost.

    Args:
        note: A line more.
    """
    results([run], waits=False)
    print(f"rows: {counts(run['rows'])}")
    print(f"partitions: {counts(run['partitions'])}")
    if run.get("submitted"):
        say(f"submitted: {ago(run['submitted'])}, {clock(datetime.fromisoformat(run['submitted']).timestamp())}")
    for text in filter(None, (f"waits: {run['waiting']}" if run.get("waiting") else "", note)):
        say(text)
    for loss in run.get("lost", ()):
        say(lost(loss, has_ended=bool(run.get("finished"))))
    ordered = sorted(run["stages"], key=lambda line: line["state"] != "running")
    lines = [
        {
            **line,
            "worker": (line.get("worker") or "-")[:NAME],
            "time": took(line["seconds"]),
            "counts": (line["state"] == "waiting" and line["error"]) or counts(line["counts"]),
        }
        for line in ordered[:150]
    ]
    columns = ("partition", "stage", "state", "worker", "attempt", "time", "counts")
    table(columns, lines, title="\nstages", spare=("worker",))


def lost(loss: Mapping[str, Any], *, has_ended: bool) -> str:
    """Return in a line which worker was lost, when, with what, and when that began again.

    Args:
        has_ended: Whether its run has.
    """
    whose = f"worker {loss['worker'] or 'unknown'}@{loss['host'] or 'unknown'} (pid {loss['pid'] or 'unknown'})"
    what = whose if loss["what"] == "worker" else f"the process of {whose}"
    where = loss["stage"] + (f" of partition {loss['partition']}" if loss["partition"] else "")
    again = f"begun again after {took(loss['seconds'])}" if loss["resumed"] else "not begun again"
    yet = "" if loss["resumed"] or has_ended else " yet"
    at = clock(datetime.fromisoformat(loss["at"]).timestamp())
    return f"{at} {what} was lost in {where}; {again}{yet}"


def counts(by_kind: Mapping[str, int]) -> str:
    """Return numbers by kind in a line: `read 1,000, rejected 20`."""
    return ", ".join(f"{kind} {count:,}" for kind, count in by_kind.items())


def notes(run: Mapping[str, Any]) -> None:
    """Print why a run failed, by partition, and its warnings."""
    causes([run], waits=False)


def causes(found: Sequence[Mapping[str, Any]], *, waits: bool = True) -> None:
    """Print why runs failed, wait, and what was noticed: one cause once, with the number of its runs.

    Args:
        waits: Whether to say why runs wait; that a run is the next to begin is never said.
    """
    for (color, text), group in grouped(found).items():
        _note(color, *_cause(text, group))
    if waits:
        _waits({run["run"]: run.get("waiting") for run in found}, "runs", {run["run"]: name_of(run) for run in found})


def _cause(alike: str, group: Sequence[Cause]) -> tuple[str, str]:
    """Return whose cause it is, and in which words it is printed."""
    first, text = group[0], group[0].text if len({cause.text for cause in group}) == 1 else alike
    if several := len({cause.run["run"] for cause in group} - {first.run["run"]}):
        return plural(several + 1, "run"), text
    if len(group) > 1 and first.partition is not None:
        stages = "/".join(dict.fromkeys(cause.where.partition(" ")[0] for cause in group))
        return name_of(first.run), f"{plural(len(group), 'partition')}, {stages}: {text}"
    where = f"partition {first.partition}, {first.where}: " if first.partition is not None else ""
    return name_of(first.run), f"{where}{text}"


def _waits(reasons: Mapping[str, str | None], noun: str, names: Mapping[str, str] | None = None) -> None:
    """Print why runs or pipelines wait, each reason once; that one is the next to begin is no reason.

    Args:
        reasons: By run or pipeline.
        names: What each is called where it is alone.
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason and not reason.startswith("its "):
            groups.setdefault(reason, []).append(name)
    for reason, group in groups.items():
        one = (names or {}).get(group[0], group[0])
        _note("cyan", f"{one} waits" if len(group) == 1 else f"{len(group)} {noun} wait", reason)


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

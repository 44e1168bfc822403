"""What people see in a terminal: tables, and progress while runs are waited for."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from jobs import runs
from jobs.api import POLL
from jobs.session import Session

COLORS = {"succeeded": "green", "failed": "red", "canceled": "yellow", "running": "cyan"}


def out() -> Console:
    """Return the console of standard output; wide where it is not a terminal, so that nothing is cut."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print rows under column heads; numbers stand right."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    body = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[index], int | float | None) for row in body)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        shown.add_row(*[_cell(value) for value in row])
    out().print(shown)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        text = str(value)
        return f"[{COLORS[text]}]{text}[/]" if text in COLORS else text.replace("[", "\\[")
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


def watch(session: Session, ids: Sequence[str], *, quiet: bool = False) -> list[dict[str, Any]]:
    """Wait until runs have ended, showing rows and partitions per client, and return them.

    Args:
        quiet: Show nothing.
    """
    pending = set(ids)
    if quiet:
        return _wait(session, ids, pending, lambda shown: None)
    if not sys.stdout.isatty():
        return _wait(session, ids, pending, _line)
    with Live(console=out(), refresh_per_second=8, transient=True) as live:
        started = time.monotonic()

        def tick() -> None:
            live.update(_progress(runs.snapshot(session.connection, ids), time.monotonic() - started))

        return _wait(session, ids, pending, lambda shown: None, tick)


def _wait(
    session: Session, ids: Sequence[str], pending: set[str], ended: Any, tick: Any = None
) -> list[dict[str, Any]]:
    shown = 0.0
    while pending:
        still = {run for run in pending if session.is_active(run)}
        for run in runs.snapshot(session.connection, sorted(pending - still)):
            ended(run)
        pending = still
        if pending:
            session.advance(POLL)
        if tick and time.monotonic() - shown > 0.2:
            tick()
            shown = time.monotonic()
    return runs.snapshot(session.connection, ids)


def _line(run: Mapping[str, Any]) -> None:
    rows = run["rows"]
    print(
        f"{run['client']}/{run['pipeline']} {run['state']}: {rows['read']:,} read, {rows['rejected']:,} rejected, "
        f"{rows['loaded']:,} loaded in {run['seconds'] or 0:.1f} s"
        + (f" - {first_line(run['error'])}" if run["error"] else ""),
        flush=True,
    )


def _progress(found: Sequence[Mapping[str, Any]], seconds: float) -> Table:
    trouble = {"failed": 0, "running": 1, "queued": 2}
    live = Table(box=None, pad_edge=False, header_style="bold", title=f"{seconds:.0f} s", title_justify="right")
    for name in ("client", "pipeline", "state"):
        live.add_column(name)
    live.add_column("partitions", justify="right")
    live.add_column("", width=20)
    for name in ("rows read", "rejected", "loaded"):
        live.add_column(name, justify="right")
    ordered = sorted(found, key=lambda run: (trouble.get(run["state"], 3), run["client"]))
    for run in ordered[:40]:
        done, total = run["partitions"]["done"], run["partitions"]["total"]
        filled = int(20 * done / total) if total else 0
        bar = f"[green]{'━' * filled}[/][dim]{'━' * (20 - filled)}[/]"
        rows = run["rows"]
        numbers = [f"{rows[kind]:,}" for kind in ("read", "rejected", "loaded")]
        live.add_row(run["client"], run["pipeline"], _cell(run["state"]), f"{done}/{total}", bar, *numbers)
    if len(ordered) > 40:
        live.add_row(f"and {len(ordered) - 40} more")
    return live


def results(found: Sequence[Mapping[str, Any]]) -> None:
    """Print one line a run: rows by kind, seconds, rows a second; then what failed and what was noticed."""
    table(
        ("client", "pipeline", "state", "read", "rejected", "loaded", "unchanged", "seconds", "rows/s", "run"),
        [
            (
                run["client"],
                run["pipeline"],
                run["state"],
                *(run["rows"][kind] for kind in ("read", "rejected", "loaded", "unchanged")),
                run["seconds"],
                int(run["rows"]["read"] / run["seconds"]) if run["seconds"] else None,
                run["run"],
            )
            for run in found
        ],
    )
    for run in found:
        notes(run)


def show(run: Mapping[str, Any]) -> None:
    """Print one run with its partitions' stages."""
    results([run])
    rows = ", ".join(f"{kind} {count:,}" for kind, count in run["rows"].items())
    print(f"rows: {rows}")
    print("partitions: " + ", ".join(f"{kind} {count:,}" for kind, count in run["partitions"].items()))
    columns = ("partition", "stage", "state", "seconds", "counts")
    lines = [[*(line[name] for name in columns[:-1]), _counts(line["counts"])] for line in run["stages"][:150]]
    table(columns, lines, title="\nstages")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in counts.items())


def notes(run: Mapping[str, Any]) -> None:
    """Print why a run failed, by partition, and its warnings."""
    console, name = out(), f"{run['client']}/{run['pipeline']}"
    said = {failure["error"] for failure in run["failures"]}
    if run["error"] and run["error"] not in said:
        console.print(f"[red]{name}:[/] {_cell(run['error'])}", soft_wrap=True)
    for failure in run["failures"][:10]:
        where = f"partition {failure['partition']} ({failure['file']}), {failure['stage']}"
        console.print(f"[red]{name}:[/] {_cell(where)}: {_cell(failure['error'])}", soft_wrap=True)
    if len(run["failures"]) > 10:
        console.print(f"[red]{name}:[/] and {len(run['failures']) - 10} more: rq-etl show {run['run']}")
    for warning in run["warnings"][:10]:
        console.print(f"[yellow]{name}:[/] {_cell(warning)}", soft_wrap=True)


def first_line(text: str) -> str:
    """Return the first line of an error."""
    return text.splitlines()[0] if text else text

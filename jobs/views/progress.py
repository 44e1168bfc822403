"""Waiting for runs: in a terminal one live table, those in trouble first; elsewhere a line as each run ends."""

import re
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from etl.safe_message import printable
from jobs.session import Session
from jobs.store import runs
from jobs.views import causes, console, history, waiting

BAR = 10
REASONS = 4  # lines of a table that say why runs wait
PATIENCE = 2.0  # seconds that a run waits without a word for what may pass soon
SOON = ("its ", "behind ", "at its cap ", "held for ")
WORDS = ("failed", "canceled", "running", "waiting", "done")

Run = Mapping[str, Any]


def watch(session: Session, ids: Sequence[str], *, quiet: bool = False) -> list[dict[str, Any]]:
    """Wait until runs have ended, showing rows and partitions per client unless `quiet`, and return them.

    Without a terminal, stderr says which runs wait, and why.
    """
    _warn_of_cron(session, ids)
    if not quiet and sys.stdout.isatty():
        _show_table(session, ids)
    else:
        waits, pending, said = Waits(), set(ids), set[str]()
        for over in session.ended(ids):
            pending -= {*over}
            for run in [] if quiet else _snapshot(session, sorted(over)):
                _line(run, said if len(ids) > 1 else None)
            if pending and waits.is_time():
                for text in waits.changed(_snapshot(session, sorted(pending))):
                    print(f"rq-etl: {text}", file=sys.stderr, flush=True)
    return _snapshot(session, ids)


def _warn_of_cron(session: Session, ids: Sequence[str]) -> None:
    """Say once that nothing serves the schedules or deliveries of these runs' pipelines."""
    pairs = {
        (run["client"], run["pipeline"]) for run in session.patiently(lambda: runs.snapshot(session.connection, ids))
    }
    unserved = session.patiently(lambda: waiting.without_cron(session.connection, session.config, pairs))
    if unserved and not session.is_ours:
        print(f"rq-etl: {waiting.NO_CRON}", file=sys.stderr, flush=True)


class Waits:
    """Which runs wait, and why, as far as it has not been said.

    Args:
        apart: Seconds between two looks.
    """

    def __init__(self, apart: float = 0.5) -> None:
        self.apart = apart
        self._due = 0.0
        self._since: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()

    def is_time(self) -> bool:
        """Whether to look again."""
        return time.monotonic() >= self._due

    def changed(self, found: Sequence[Run]) -> list[str]:
        """Return a line for each reason that runs wait for: one that may pass soon is said after some seconds."""
        now, groups = time.monotonic(), dict[str, list[str]]()
        self._due = now + self.apart
        for run in found:
            id, reason = run["run"], run["waiting"]
            if not reason:
                self._since.pop(id, None)
                continue
            began = self._since.setdefault(id, now)
            key = id, re.sub(r"\d[\d,:.]*", "", reason)  # the same, though it is some seconds less
            if key in self._said or (reason.startswith(SOON) and now - began < PATIENCE):
                continue
            self._said.add(key)
            groups.setdefault(reason, []).append(f"{run['client']}/{run['pipeline']}")
        return [_waiting(reason, names) for reason, names in groups.items()]


def _waits(found: Sequence[Run]) -> list[str]:
    """Return a line for each reason that runs wait for, what most of them wait for first."""
    groups: dict[str, list[str]] = {}
    for run in found:
        if run.get("waiting"):
            groups.setdefault(run["waiting"], []).append(f"{run['client']}/{run['pipeline']}")
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return [_waiting(reason, names) for reason, names in ordered]


def _waiting(reason: str, names: Sequence[str]) -> str:
    return printable(f"{names[0]} waits: {reason}" if len(names) == 1 else f"{len(names):,} runs wait: {reason}")


def _show_table(session: Session, ids: Sequence[str]) -> None:
    with Live(console=console.out(), refresh_per_second=8, transient=True) as live:
        started, due = time.monotonic(), 0.0
        for _ in session.ended(ids):
            if (began := time.monotonic()) > due:
                live.update(table(_snapshot(session, ids), began - started, live.console))
                due = time.monotonic() + max(0.2, 10 * (time.monotonic() - began))  # the cores are the workers'


def _snapshot(session: Session, ids: Sequence[str]) -> list[dict[str, Any]]:
    return session.patiently(lambda: history.snapshot(session, ids, works=session.in_process))


def _line(run: Run, said: set[str] | None) -> None:
    """Print how a run has ended, and why, where others go on before what is wrong is printed in full.

    Args:
        said: The causes that lines have said before; one is said once. None where no line says why.
    """
    rows, cause = run["rows"], _why(run) if said is not None else ""
    alike = causes.alike(run["client"], cause)
    why = "" if not cause else " - the same" if alike in (said or ()) else f" - {cause}"
    if said is not None:
        said.add(alike)
    console.say(
        f"{run['client']}/{run['pipeline']} {run['state']}: {rows['read']:,} read, {rows['rejected']:,} rejected, "
        f"{rows['loaded']:,} loaded in {run['seconds'] or 0:.1f} s{why}"
    )


def table(found: Sequence[Run], seconds: float, terminal: Console) -> Group:
    """Return what is shown while runs go on: as many lines as fit, trouble first, why runs wait, and sums."""
    waits = _waits(found)[:REASONS]
    shown = _chosen(found, terminal.height - 4 - len(waits))  # a head, two lines of sums, and the cursor's
    has_several = len({run["pipeline"] for run in found}) > 1
    lines = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name in ("client", *(["pipeline"] if has_several else []), "state"):
        lines.add_column(name, no_wrap=True)
    for name in ("partitions", "read", "rejected", "loaded", "time"):
        lines.add_column(name, justify="right", no_wrap=True)
    lines.add_column(no_wrap=True, overflow="ellipsis", ratio=1)  # what is wrong has the room that is left
    for run in shown:
        names = [run["client"], *([run["pipeline"]] if has_several else [])]
        numbers = [f"{run['rows'][kind]:,}" for kind in ("read", "rejected", "loaded")]
        past = console.span(run["seconds"]) or ""
        lines.add_row(
            *map(console.cell, names),
            console.cell(run["state"]),
            _bar(run["partitions"]),
            *numbers,
            past,
            console.cell(_why(run)),
        )
    hidden = [run for run in found if run not in shown]
    ends = [f"… {len(hidden):,} more: {', '.join(_states(hidden))}"] if hidden else []
    ends.append(f"{sums(found)}, {seconds:.0f} s")
    ends = [*waits, *ends]
    return Group(lines, *(Text(text, no_wrap=True, overflow="ellipsis") for text in ends))


def sums(found: Sequence[Run]) -> str:
    """Return in a line how many runs there are, in which states, and their partitions and rows."""
    over, total = sum(_over(run["partitions"]) for run in found), sum(run["partitions"]["total"] for run in found)
    read = console.plural(sum(run["rows"]["read"] for run in found), "row")
    parts = [console.plural(len(found), "run"), *_states(found)]
    return ", ".join([*parts, f"{over:,} of {console.plural(total, 'partition')}", f"{read} read"])


def _chosen(found: Sequence[Run], room: int) -> list[Run]:
    """Return as many runs as there is room for, trouble first; a third of it shows what goes well, in any case."""
    ordered = sorted(found, key=_order)
    running = [run for run in ordered if _rank(run) > 2 and run["state"] == "running"][: room // 3]
    others = [run for run in ordered if run not in running][: max(1, room - len(running))]
    return sorted([*others, *running], key=_order)


def _order(run: Run) -> tuple[Any, ...]:
    """Return what runs are sorted by: trouble, then the share of rejects, then how long they have been running."""
    rejected = run["rows"]["rejected"] / max(1, run["rows"]["read"])
    lasting = run["seconds"] or 0.0 if run["state"] == "running" else 0.0
    return _rank(run), -rejected, -lasting, run["client"], run["pipeline"]


def _rank(run: Run) -> int:
    """Return 0 where a run has failed, 1 where a part has, 2 for rejects and warnings, then running, waiting, done."""
    if run["state"] in ("failed", "canceled"):
        return 0
    if run["partitions"]["failed"] or run["partitions"]["blocked"]:
        return 1
    return 2 if run["rows"]["rejected"] or run["warnings"] else 3 + WORDS.index(_word(run))


def _word(run: Run) -> str:
    return {"succeeded": "done", "held": "waiting", "queued": "waiting"}.get(run["state"]) or str(run["state"])


def _states(found: Sequence[Run]) -> list[str]:
    counts = Counter(map(_word, found))
    return [f"{counts[word]:,} {word}" for word in WORDS if counts[word]]


def _bar(partitions: Mapping[str, int]) -> str:
    total, over = partitions["total"], _over(partitions)
    good, upto = (BAR * count // total if total else 0 for count in (partitions["done"], over))
    bar = f"[green]{'━' * good}[/][red]{'━' * (upto - good)}[/][dim]{'━' * (BAR - upto)}[/]"
    return f"{bar} {over:,}/{total:,}"


def _over(partitions: Mapping[str, int]) -> int:
    return partitions["done"] + partitions["failed"] + partitions["blocked"]


def _why(run: Run) -> str:
    """Return, in a line, what is wrong with a run, or nothing."""
    failed = run["partitions"]["failed"]
    texts = [
        run["error"] or "",
        run.get("waiting") or "",
        *run["warnings"],
        f"{console.plural(failed, 'partition')} failed" if failed else "",
    ]
    return next(filter(None, texts), "").partition("\n")[0]

"""The demo: make three clients' claims, load them, and say what happened and what to type next."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl.pipeline import resolve
from jobs import console, graph, project, rejects
from jobs.demo.generate import generate

if TYPE_CHECKING:
    from jobs.session import Session
    from jobs.shared import Shared

PER_SCALE = 30_000  # rows of all clients at scale 1, about


def main(shared: "Shared", folder: Path, rows: int | None) -> int:
    """Write the demo's folder, run its pipeline for all three clients and print what came of it.

    Returns:
        0 where all went as it should: two clients succeeded, and the third failed for its broken file alone.
    """
    truths = generate(folder, scale=(rows or PER_SCALE) / PER_SCALE)
    shared.config = str(folder / "etl.toml")
    project.use(shared.config)
    session = shared.session(workers=2)
    try:
        ids = {}
        for client in truths:
            resolved = resolve(session.config, "claims", client)
            ids[client] = graph.submit(session.connection, resolved)
        if not shared.json:
            print(f"three clients' claims in {folder}/inbox, {_workers(session)}", flush=True)
        found = console.watch(session, list(ids.values()), quiet=shared.json)
        reasons = {run["client"]: rejects.counted(session, run["run"]) for run in found}
    finally:
        session.close()
    expected = {client: (list(truth.failing), truth.loaded) for client, truth in truths.items()}
    actual = {run["client"]: ([failure["file"] for failure in run["failures"]], _kept(run)) for run in found}
    shared.print({"folder": str(folder), "runs": found, "rejects": reasons}, lambda: _show(folder, found, reasons))
    if actual != expected:
        print(f"rq-etl: the demo's numbers are not those of its generator: {actual} instead of {expected}")
        return 1
    return 0


def _kept(run: dict[str, Any]) -> int:
    return int(run["rows"]["loaded"] + run["rows"]["unchanged"])


def _workers(session: "Session") -> str:
    if session.in_process:
        return (
            "in this process: no redis-server is on PATH (sudo apt-get install redis-server gives two worker processes)"
        )
    return "two worker processes"


def _show(folder: Path, found: list[dict[str, Any]], reasons: dict[str, list[dict[str, Any]]]) -> None:
    columns = ("client", "state", "read", "rejected", "why", "dropped", "loaded", "unchanged", "seconds", "rows/s")
    lines = []
    for run in found:
        why: Counter[str] = Counter()
        for line in reasons[run["client"]]:
            why[line["reason"]] += line["rows"]
        rows = run["rows"]
        text = "\n".join(f"{count} {reason}" for reason, count in why.most_common())
        pace = int(rows["read"] / run["seconds"]) if run["seconds"] else None
        lines.append(
            [
                run["client"],
                run["state"],
                rows["read"],
                rows["rejected"],
                text,
                rows["dropped"],
                rows["loaded"],
                rows["unchanged"],
                run["seconds"],
                pace,
            ]
        )
    print()
    console.table(columns, lines)
    for run in found:
        console.notes(run)
    here = f"cd {folder} && " if folder != Path() else ""
    print(
        f"\nThe warehouse is {folder}/warehouse.db, table claims. lakeside's broken file failed by itself; the others are whole."
    )
    print("What to type next:")
    for command, what in (
        ("rq-etl rejects acme/claims --rows", "the rows that were turned away, by file and line"),
        ("rq-etl plan claims --client north --rows 5", "what a run would read, and its first rows"),
        ("rq-etl run claims --client acme", "the same files again: every row is unchanged"),
        ("rq-etl retry lakeside/claims", "after taking the # from two lines near the end of etl.toml"),
    ):
        print(f"  {here}{command:<44} # {what}")

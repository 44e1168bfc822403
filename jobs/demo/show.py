"""The demo: make three clients' claims, load them, and say what happened and what to type next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etl.config.pipeline import resolve
from jobs import settings
from jobs.demo.generate import generate
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.views import console, progress, rejects

PER_SCALE = 30_000  # rows of all clients at scale 1, about


def load(folder: Path, rows: int | None, redis: str | None, *, quiet: bool) -> tuple[dict[str, Any], str]:
    """Write the demo's folder and run its pipeline for all three clients.

    Args:
        rows: How many rows to make, about; None makes 30,000.

    Returns:
        What came of it, and what is wrong with it or "": two clients succeed, and the third fails for its broken
        file alone.
    """
    truths = generate(folder, scale=(rows or PER_SCALE) / PER_SCALE)
    session = Session(folder / "etl.toml", redis, workers=2)
    try:
        ids = [submit_run(session.connection, resolve(session.config, "claims", client)) for client in truths]
        if not quiet:
            print(f"three clients' claims in {folder}/inbox, {_workers(session)}", flush=True)
        found = progress.watch(session, ids, quiet=quiet)
        reasons = {run["client"]: rejects.counted(session, run["run"]) for run in found}
    finally:
        session.close()
    expected = {client: (list(truth.failing), truth.loaded) for client, truth in truths.items()}
    actual = {
        run["client"]: ([f["file"] for f in run["failures"]], run["rows"]["loaded"] + run["rows"]["unchanged"])
        for run in found
    }
    wrong = f"the demo's numbers are not those of its generator: {actual} instead of {expected}"
    return {"folder": str(folder), "runs": found, "rejects": reasons}, "" if actual == expected else wrong


def _workers(session: Session) -> str:
    alone = "in this process: no redis-server is on PATH (sudo apt-get install redis-server gives two worker processes)"
    return alone if session.in_process else "two worker processes"


def show(outcome: Mapping[str, Any]) -> None:
    """Print what came of the demo, and what to type next."""
    folder, found, reasons = outcome["folder"], outcome["runs"], outcome["rejects"]
    kinds = ["read", "rejected", *console.kinds_of(found, "dropped", "superseded"), "loaded"]
    kinds += console.kinds_of(found, "unchanged")
    print()
    console.table(("client", "state", *kinds, "seconds", "rows/s"), console.with_rows(found))
    print()
    clients = [run["client"] for run in found]
    console.table(("rejected because", *clients), _why(clients, reasons))
    print()
    for run in found:
        console.notes(run)
    print("\nThat file failed by itself: all other files are loaded. Where the rows are:")
    print(f"  {folder}/warehouse.db, table claims, an SQLite database")
    print("\nWhat to type next:")
    print(f"  cd {folder}")
    command = settings.command(Path(folder))
    for words, what in (
        ("rejects acme/claims --rows", "the rows turned away"),
        ("plan claims --client north --rows 5", "look without loading"),
        ("run claims --client acme", "again: all unchanged"),
        ("retry lakeside/claims", "after fixing etl.toml"),
        ("up", "workers, and a dashboard"),
    ):
        print(f"  {command} {words:<37} # {what}")
    print("etl.toml says near its end which two lines fix the broken file.")


def _why(clients: Sequence[str], reasons: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return a line for each reason, with its rows by client; formats and limits are left out."""
    counts: dict[str, Counter[str]] = {}
    for client in clients:
        for line in reasons[client]:
            counts.setdefault(line["reason"].partition(" (")[0], Counter())[client] += line["rows"]
    ordered = sorted(counts, key=lambda reason: (-sum(counts[reason].values()), reason))
    return [{"rejected because": reason, **counts[reason]} for reason in ordered]

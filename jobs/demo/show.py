"""The demo: make three clients' claims, load them, and say what happened and what to type next."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl.config.pipeline import resolve
from jobs import settings
from jobs.demo.generate import generate
from jobs.run.submit import submit_run
from jobs.views import console, progress, rejects

if TYPE_CHECKING:
    from jobs.commands.options import Shared
    from jobs.session import Session


PER_SCALE = 30_000  # rows of all clients at scale 1, about


def main(shared: "Shared", folder: Path, rows: int | None) -> int:
    """Write the demo's folder, run its pipeline for all three clients and print what came of it.

    Returns:
        0 where all went as it should: two clients succeeded, and the third failed for its broken file alone.
    """
    truths = generate(folder, scale=(rows or PER_SCALE) / PER_SCALE)
    shared.config = str(folder / "etl.toml")
    settings.use(shared.config)
    session = shared.session(workers=2)
    try:
        ids = {}
        for client in truths:
            resolved = resolve(session.config, "claims", client)
            ids[client] = submit_run(session.connection, resolved)
        if not shared.json:
            print(f"three clients' claims in {folder}/inbox, {_workers(session)}", flush=True)
        found = progress.watch(session, list(ids.values()), quiet=shared.json)
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
    kinds = ["read", "rejected", *console.kinds_of(found, "dropped", "superseded"), "loaded"]
    kinds += console.kinds_of(found, "unchanged")
    lines = [
        [run["client"], run["state"], *(run["rows"][kind] for kind in kinds), run["seconds"], console.pace(run)]
        for run in found
    ]
    print()
    console.table(("client", "state", *kinds, "seconds", "rows/s"), lines)
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
    command = settings.command(folder)
    for words, what in (
        ("rejects acme/claims --rows", "the rows turned away"),
        ("plan claims --client north --rows 5", "look without loading"),
        ("run claims --client acme", "again: all unchanged"),
        ("retry lakeside/claims", "after mending etl.toml"),
    ):
        print(f"  {command} {words:<37} # {what}")
    print("etl.toml says near its end which two lines mend the broken file.")


def _why(clients: Sequence[str], reasons: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[object]]:
    """Return a line for each reason, with its rows by client; formats and limits are left out."""
    counts: dict[str, Counter[str]] = {}
    for client in clients:
        for line in reasons[client]:
            counts.setdefault(line["reason"].partition(" (")[0], Counter())[client] += line["rows"]
    ordered = sorted(counts, key=lambda reason: (-sum(counts[reason].values()), reason))
    return [[reason, *(counts[reason].get(client) for client in clients)] for reason in ordered]

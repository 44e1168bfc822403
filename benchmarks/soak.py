"""Soak: many clients' runs through real workers, round after round; nothing may be left behind.

    python benchmarks/soak.py --clients 300 --rounds 10 --workers 4

Each round gives every client a new file of claims (three stages and a finish), submits all the runs at once to a
private redis-server, waits for them, and prints the seconds, the runs' states, and the jobs that are still deferred,
queued, started or scheduled. Then RQ's own views are asked: registries, leases, workers. The exit code is 1 where
anything is left, failed, or counted wrongly.
"""

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis import Redis
from rq import Worker

from etl.config.pipeline import resolve
from jobs.queue import FairQueue
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.store import runs
from jobs.store.keys import PREFIX

STAGES = 4  # jobs of a run of one partition, finish included
UNFINISHED = ("deferred", "queued", "started", "scheduled")
DRAIN = 10.0  # seconds that the last jobs may take to be written down after the last run has ended

CONFIG = """
[settings]
staging = "staging"
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/{client}/claims.csv", settle = 0 }
transform = []
load = { target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"] }
[pipelines.claims.columns]
claim_id = { type = "string", required = true }
amount = { type = "decimal", min = 0 }
updated_at = { type = "timestamp" }
[defaults]
pipelines = ["claims"]
"""


@dataclass(frozen=True)
class Round:
    """What one round has shown.

    Args:
        seconds: From the first submission until the last run had ended; `submitting` is the first part of it.
        states: How many runs ended in each state.
        left: How many jobs are still in each unfinished state.
        trouble: What else is not as it should be, in sentences.
        megabytes: What Redis has in memory.
    """

    number: int
    seconds: float
    submitting: float
    states: dict[str, int]
    left: dict[str, int]
    trouble: tuple[str, ...]
    megabytes: float

    @property
    def is_clean(self) -> bool:
        """Whether every run has succeeded and nothing is left."""
        return set(self.states) == {"succeeded"} and not any(self.left.values()) and not self.trouble


def soak(folder: Path, clients: int, rounds: int, workers: int, rows: int) -> Iterator[Round]:
    """Run the rounds in a folder and yield what each has shown."""
    names = [f"client_{number:04d}" for number in range(clients)]
    folder.joinpath("etl.toml").write_text(CONFIG + "".join(f"[clients.{name}]\n" for name in names))
    session = Session(folder / "etl.toml", workers=workers)
    try:
        for number in range(1, rounds + 1):
            _deliver(folder, names, number, rows)
            began = time.monotonic()
            ids = [submit_run(session.connection, resolve(session.config, "claims", name)) for name in names]
            submitting = time.monotonic() - began
            while session.active().intersection(ids):
                session.advance(0.1)
            seconds = time.monotonic() - began
            found = runs.snapshot(session.connection, ids)
            trouble = [f"{run['client']}: {run['error']}" for run in found if run["error"]][:5]
            trouble += [f"{run['client']} loaded {run['rows']}" for run in found if run["rows"]["loaded"] != rows][:5]
            yield Round(
                number,
                round(seconds, 2),
                round(submitting, 2),
                dict(Counter(run["state"] for run in found)),
                _left(session.connection),
                (*trouble, *_views(session.connection, names, workers, number), *_tables(folder, names, number, rows)),
                round(session.connection.info("memory")["used_memory"] / 1e6, 1),
            )
    finally:
        session.close()


def _deliver(folder: Path, names: list[str], number: int, rows: int) -> None:
    """Write a new file for each client: every amount has changed since the last round."""
    for name in names:
        file = folder / "inbox" / name / "claims.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{name}-{row},{number}.{row % 100:02d},2026-01-{number % 28 + 1:02d} 08:00:00" for row in range(rows)]
        file.write_text("\n".join(["claim_id,amount,updated_at", *lines, ""]))


def _left(connection: Redis) -> dict[str, int]:
    """Return how many jobs have not ended, by state, once what is being written down is written."""
    give_up = time.monotonic() + DRAIN
    while True:
        keys = [key for key in connection.scan_iter("rq:job:*", count=5000) if key.count(b":") == 2]
        pipe = connection.pipeline(transaction=False)
        for key in keys:
            pipe.hget(key, "status")
        states = Counter((state or b"gone").decode() for state in pipe.execute())
        left = {state: states[state] for state in UNFINISHED}
        if not any(left.values()) or time.monotonic() > give_up:
            return left
        time.sleep(0.1)


def _views(connection: Redis, names: list[str], workers: int, rounds: int) -> list[str]:
    """Return what RQ's own views (`rq info`, the dashboard) show wrongly."""
    trouble = []
    for name in names:
        queue = FairQueue(PREFIX + name, connection=connection)
        shown = {
            "queued": queue.count,
            "started": queue.started_job_registry.count,
            "deferred": queue.deferred_job_registry.count,
            "scheduled": queue.scheduled_job_registry.count,
            "failed": queue.failed_job_registry.count,
            "canceled": queue.canceled_job_registry.count,
            "finished": queue.finished_job_registry.count,
        }
        wanted = {**dict.fromkeys(shown, 0), "finished": rounds * STAGES}
        trouble += [f"{queue.name}: {shown[kind]} {kind}" for kind in shown if shown[kind] != wanted[kind]]
    known = Worker.all(connection=connection)
    if len(known) != workers:
        trouble.append(f"{len(known)} workers are registered, {workers} are alive")
    trouble += [f"{worker.name} is at job {job}" for worker in known if (job := worker.get_current_job_id())]
    done = sum(worker.successful_job_count for worker in known)
    wanted = rounds * STAGES * len(names)
    if done - wanted not in (0, 1):  # once an hour there is a cleanup
        trouble.append(f"workers counted {done} jobs, there were {wanted}")
    leftovers = ("rq:execution*", "etl:active", "etl:holder:*", "etl:run:*:jobs")
    for pattern in leftovers:
        if found := sum(1 for _ in connection.scan_iter(pattern, count=5000)):
            trouble.append(f"{found} keys like {pattern} are left")
    return trouble[:20]


def _tables(folder: Path, names: list[str], number: int, rows: int) -> list[str]:
    """Return what the warehouse has wrongly."""
    with closing(sqlite3.connect(folder / "warehouse.db")) as connection:
        found = connection.execute(
            "SELECT count(*), count(DISTINCT claim_id), CAST(min(amount) AS int), CAST(max(amount) AS int) FROM claims"
        ).fetchone()
        ledger = connection.execute("SELECT count(*) FROM _etl_loads").fetchone()[0]
    wanted = (rows * len(names), rows * len(names), number, number)
    trouble = [f"the table has (rows, claims, least, most) {found} instead of {wanted}"] if found != wanted else []
    return trouble + ([f"the ledger has {ledger} rows"] if ledger != number * len(names) else [])


def main() -> int:
    """Run the soak and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=50, help="rows of a client's file")
    options = parser.parse_args()
    os.environ.pop("REDIS_URL", None)  # a private server, not the developer's own
    bad = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        for each in soak(Path(folder), options.clients, options.rounds, options.workers, options.rows):
            bad += not each.is_clean
            print(json.dumps(asdict(each)), flush=True)
    print(f"{options.rounds - bad} of {options.rounds} rounds clean", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())

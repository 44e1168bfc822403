"""No-op jobs per second with two workers: rq-etl's `enqueue` and workers against stock RQ's.

python -m benchmarks.noop [--jobs 1000] [--rounds 3]
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

from redis import Redis
from rq import Queue
from rq.job import Job

from benchmarks import servers

MODULE = "def add(x, y):\n    return x + y\n"


def stock(where: Path, url: str, count: int) -> float:
    """Return seconds for so many jobs with stock `rq worker`s."""
    connection = Redis.from_url(url)
    command = [sys.executable, "-m", "rq.cli", "worker", "--quiet", "--url", url]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RQ_")}
    with servers.processes([command] * 2, where, {**environment, "PYTHONPATH": str(where)}):
        servers.ready(url, 2)
        queue = Queue(connection=connection)
        began = time.monotonic()
        jobs = [queue.enqueue("steps.add", 2, 3) for _ in range(count)]
        return ended(connection, jobs) - began


def ours(where: Path, url: str, count: int) -> float:
    """Return seconds for so many jobs of 20 clients with our workers."""
    from jobs import settings
    from jobs.enqueue import enqueue_on

    connection = Redis.from_url(url)
    settings.use(where / "etl.toml")
    with servers.workers(url, 2, where):
        began = time.monotonic()
        jobs: list[Job] = [
            enqueue_on(connection, f"c{number % 20:02d}", "steps:add", (2, 3)) for number in range(count)
        ]
        return ended(connection, jobs) - began


def ended(connection: Redis, jobs: list[Job]) -> float:
    """Wait until all jobs have ended; return when."""
    for job in reversed(jobs):
        while True:
            status = connection.hget(job.key, "status")
            if status in (b"finished", b"failed"):
                assert status == b"finished", job.id
                break
            time.sleep(0.01)
    return time.monotonic()


def main() -> None:
    """Measure both as often as asked for, in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    rates: dict[str, list[float]] = {"rq-etl": [], "stock rq": []}
    with servers.folder() as where, servers.redis_server(where) as url:
        (where / "steps.py").write_text(MODULE)
        (where / "etl.toml").write_text('[settings]\nmodules = ["steps"]\n')
        for _ in range(asked.rounds):
            for way, measure in {"rq-etl": ours, "stock rq": stock}.items():
                Redis.from_url(url).flushall()
                rates[way].append(asked.jobs / measure(where, url, asked.jobs))
                print(f"  {way}: {rates[way][-1]:.0f}/s", file=sys.stderr)
    medians = {way: statistics.median(found) for way, found in rates.items()}
    table: list[tuple[str, ...]] = [("", "jobs/s (median)", "all rounds", "rq-etl is")]
    for way, found in rates.items():
        all_rounds = " ".join(f"{rate:.0f}" for rate in found)
        table.append((way, f"{medians[way]:.0f}", all_rounds, f"{medians['rq-etl'] / medians[way]:.1f}×"))
    servers.report(f"{asked.jobs:,} no-op jobs, two workers, from the first enqueue to the last end", table)


if __name__ == "__main__":
    main()

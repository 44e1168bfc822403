"""What it costs that the next client's job gets a new horse where the user's code has run.

One worker's horse takes the jobs of small runs of many clients in turn, once without and once with a function of the
user's own. Processor seconds are of this process and its horses.

    python -m benchmarks.horses [--clients 40] [--rows 2000]
"""

import argparse
import os
import resource
import time
from pathlib import Path

from redis import Redis

from benchmarks import claims, servers
from etl.config.pipeline import resolve
from jobs import settings
from jobs.process import horse
from jobs.process.complete import complete
from jobs.queue import dequeue
from jobs.run.submit import submit_run


def used() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def night(connection: Redis, names: list[str]) -> tuple[int, int, float, float]:
    """Return how many jobs and horses a run of each client took, and seconds and processor seconds."""
    for name in names:
        submit_run(connection, resolve(settings.config(), "claims", name))
    ours = horse.Horse(connection)
    jobs, horses, began, before = 0, set(), time.monotonic(), used()
    while found := dequeue(connection):
        job, queue = found
        ours.send(job)
        outcome = None
        while outcome is None:
            outcome = ours.outcome(5)
        assert outcome.kind == "done", outcome
        horses.add(ours.pid)
        complete(connection, job, queue, outcome)
        jobs += 1
    ours.stop()
    return jobs, len(horses), time.monotonic() - began, used() - before


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--rows", type=int, default=2000)
    asked = parser.parse_args()
    names = [f"c{number:03d}" for number in range(asked.clients)]
    table: list[tuple[str, ...]] = [("", "jobs", "horses", "seconds", "processor s")]
    with servers.folder() as where, servers.redis_server(where) as url:
        connection = Redis.from_url(url)
        for function in (False, True):
            home = Path(where, "with" if function else "without")
            for number, name in enumerate(names):
                claims.write(home / "inbox" / name / "claims.csv", count=asked.rows, seed=number)
            os.chdir(home)
            target = f"sqlite:///{home}/target.db"
            settings.use(claims.project(home, target, asked.clients, function=function))
            horse.preload()
            jobs, horses, seconds, processor = night(connection, names)
            row = (str(jobs), str(horses), f"{seconds:.2f}", f"{processor:.2f}")
            table.append(("with a function" if function else "without a function", *row))
    servers.report(f"{asked.clients} clients × 4 jobs of {asked.rows:,} rows, one horse at a time", table)


if __name__ == "__main__":
    main()

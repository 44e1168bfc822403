"""300 clients, 3 small stages each, two workers: rq-etl, Celery's `chain`, and `multiprocessing.Pool(2)` with no queue.

The stages are the same functions for all three: read a CSV of 2,000 rows into Parquet, cast and check it, load it
with its ledger row. rq-etl alone also plans, keeps counts and closes each run. Workers are up when the clock starts; it
stops at the last commit (rq-etl: when the last run is closed). Processor seconds are of this process, the workers and
the servers; on a busy machine they tell more.

    python -m benchmarks.clients [--clients 300] [--rows 2000] [--target postgresql|sqlite] [--rounds 3] [--function]

With `--function` the rows pass through a function of the user's own, after which the next client gets a new horse.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from redis import Redis

from benchmarks import claims, servers
from benchmarks.servers import ROOT


def same_stages(config: str, client: str, stage: str) -> None:
    """Do one stage of a client without a queue: what rq-etl's job does between taking and reporting."""
    from benchmarks import stages

    stages.perform(config, client, stage)


class Clock:
    """Counts seconds, and processor seconds of this process, the servers and the workers."""

    def __init__(self, *sessions: int) -> None:
        self.sessions = sessions
        self.began, self.used = time.monotonic(), self._used()

    def _used(self) -> float:
        return time.process_time() + servers.processor_seconds(*self.sessions)

    def read(self) -> tuple[float, float]:
        """Return both, since it was made."""
        seconds = time.monotonic() - self.began
        time.sleep(2)  # PostgreSQL's process for the last connection is counted when it has ended
        return seconds, self._used() - self.used


def three(given: tuple[str, str]) -> None:
    """Do a client's three stages, in a process of the pool."""
    for stage in ("extract", "transform", "load"):
        same_stages(*given, stage)


def warm(_: int) -> None:
    """Import what stages need."""
    import jobs.stages  # noqa: F401

    time.sleep(0.5)


def with_pool(config: Path, clients: list[str], *servers_: int) -> tuple[float, float]:
    """Return seconds and processor seconds for all clients with two processes and no queue."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(warm, range(8), chunksize=1)
        clock = Clock(*servers_, *(child.pid for child in multiprocessing.active_children() if child.pid))
        pool.map(three, [(str(config), client) for client in clients], chunksize=1)
        return clock.read()


def with_celery(config: Path, clients: list[str], url: str, *servers_: int) -> tuple[float, float]:
    """Return seconds and processor seconds for all clients as Celery chains, acknowledged late, two processes."""
    os.environ["BENCH_REDIS"] = f"redis+socket://{url.removeprefix('unix://')}"
    from celery import chain

    from benchmarks.celery_app import app, load, transform
    from benchmarks.celery_app import extract as first

    command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_app", "worker", "-c", "2", "-l", "WARNING"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with servers.processes([[*command, "--without-gossip", "--without-mingle"]], config.parent, environment) as [
        worker
    ]:
        servers.until(lambda: bool(app.control.ping(timeout=0.5)), "Celery", 60)
        time.sleep(4)  # its processes import pandas
        clock = Clock(*servers_, worker.pid)
        chains = [
            chain(first.si(str(config), client), transform.si(str(config), client), load.si(str(config), client))
            for client in clients
        ]
        results = [each.apply_async() for each in chains]
        for result in results:
            result.get(timeout=300, interval=0.01, disable_sync_subtasks=False)
        return clock.read()


def with_us(config: Path, clients: list[str], url: str, *servers_: int) -> tuple[float, float]:
    """Return seconds and processor seconds for all clients as runs of rq-etl, two workers."""
    from etl.config.pipeline import resolve
    from jobs import api
    from jobs.run.submit import submit_run
    from jobs.session import Session

    with servers.workers(url, 2, config.parent) as workers:
        session = Session(config, url, workers=0)
        clock = Clock(*servers_, *(worker.pid for worker in workers))
        loaded = session.config
        runs = [
            api.Run(session, submit_run(session.connection, resolve(loaded, "claims", client))) for client in clients
        ]
        ended = list(api.wait(runs, 300))
        seconds = clock.read()
        wrong = [run for run in ended if run.state != "succeeded"]
        assert not wrong, wrong[0].json()
        return seconds


def count(url: str) -> int:
    """Return how many rows the target has."""
    with sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:")).connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM claims")).scalar_one())


def main() -> None:
    """Measure each as often as asked for, in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--target", default="postgresql")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--function", action="store_true")
    parser.add_argument("--only", choices=("rq-etl", "celery", "pool"))
    asked = parser.parse_args()
    names = [f"c{number:03d}" for number in range(asked.clients)]
    seconds: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    with servers.folder() as where, servers.redis_server(where) as url, servers.postgresql(where) as database:
        inbox = where / "inbox"
        for number, name in enumerate(names):
            claims.write(inbox / name / "claims.csv", count=asked.rows, seed=number)
        postmaster = int((where / "pg" / "data" / "postmaster.pid").read_text().split()[0])
        pids = (postmaster, int(Redis.from_url(url).info("server")["process_id"]))
        ways: dict[str, Callable[[Path], tuple[float, float]]] = {
            "rq-etl": lambda config: with_us(config, names, url, *pids),
            "celery": lambda config: with_celery(config, names, url, *pids),
            "pool": lambda config: with_pool(config, names, *pids),
        }
        rows = set()
        for turn in range(asked.rounds):
            for way, measure in ways.items():
                if asked.only not in (None, way):
                    continue
                home = where / f"{way.replace('-', '_')}{turn}"
                home.mkdir()
                (home / "inbox").symlink_to(inbox)
                target = f"sqlite:///{home}/target.db" if asked.target == "sqlite" else database(home.name)
                config = claims.project(home, target, asked.clients, function=asked.function)
                Redis.from_url(url).flushall()
                took, processor = measure(config)
                seconds.setdefault(way, []).append(took)
                used.setdefault(way, []).append(processor)
                rows.add(count(target))
                print(f"  {way}: {took:.2f} s, processor {processor:.2f} s", file=sys.stderr)
        assert len(rows) == 1, rows
        medians = {way: statistics.median(times) for way, times in seconds.items()}
        efforts = {way: statistics.median(times) for way, times in used.items()}
        table: list[tuple[str, ...]] = [
            ("", "seconds (median)", "all rounds", "rq-etl takes", "processor s", "rq-etl takes")
        ]
        for way, median in medians.items():
            each = " ".join(f"{one:.2f}" for one in seconds[way])
            ratio, work = medians.get("rq-etl", 0) / median, efforts.get("rq-etl", 0) / efforts[way]
            table.append((way, f"{median:.2f}", each, f"{ratio:.2f}×", f"{efforts[way]:.1f}", f"{work:.2f}×"))
        title = f"{asked.clients} clients × 3 stages of {asked.rows:,} rows into {asked.target}, two workers"
        servers.report(f"{title}; {rows.pop():,} rows loaded each", table)


if __name__ == "__main__":
    main()

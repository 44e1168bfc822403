"""Whether a storm has left everything as it should be: tables, receipts, ledger, queues."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from redis import Redis

from benchmarks.storm.data import PIPELINES, Truth

Ended = Mapping[tuple[str, str, int], Mapping[str, Any]]
UNFINISHED = (b"queued", b"started", b"deferred", b"scheduled")


@dataclass
class Verdict:
    """What is wrong.

    Args:
        lost, doubled: Rows missing from tables, and rows that are there too often or shouldn't be.
        stuck: Jobs that have not ended, leases and runs that nobody holds.
        wrong: Receipts and ledger rows that disagree with the truth, in sentences.
    """

    lost: int
    doubled: int
    stuck: list[str]
    wrong: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.stuck or self.wrong)


def judge(
    url: str, connection: Redis, truth: Truth, ended: Mapping[tuple[str, str, int], Mapping[str, Any]]
) -> Verdict:
    """Compare what is there with the truth.

    Args:
        url: Of the PostgreSQL database.
        ended: The last run of each client's pipeline and round, in the public JSON shape.
    """
    lost = doubled = 0
    wrong: list[str] = []
    with psycopg.connect(url) as database:
        for pipeline in (*PIPELINES, "nightly"):
            wanted = truth.table(pipeline)
            there = rows(database, pipeline)
            missing, surplus = wanted - there, there - wanted
            lost += missing.total()
            doubled += surplus.total()
            for what, some in (("lacks", missing), ("should not have", surplus)):
                wrong += [f"{pipeline} {what} {row}" for row in list(some)[:3]]
        wrong += _ledger(database, truth, ended)
    for key, run in ended.items():
        wrong += _receipts(key, run, truth)
    return Verdict(lost, doubled, stuck(connection), wrong)


def rows(database: psycopg.Connection, pipeline: str) -> Counter[tuple[Any, ...]]:
    """Return a table's rows, as the truth has them."""
    if database.execute("SELECT to_regclass(%s)", (pipeline,)).fetchone() == (None,):
        return Counter()
    file = ", _file" if pipeline == "visits" else ""
    columns = (
        "_client, id, day::text, amount, status, to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS'), net"
    )
    return Counter(database.execute(f"SELECT {columns}{file} FROM {pipeline}").fetchall())  # type: ignore[arg-type]


def _receipts(key: tuple[str, str, int], run: Mapping[str, Any], truth: Truth) -> list[str]:
    counts, got = truth.counts[key], run["rows"]
    counted = got["loaded"] + got["unchanged"] + got["superseded"]
    pairs = {
        "read": (counts.read, got["read"]),
        "rejected": (counts.rejected, got["rejected"]),
        "dropped": (counts.dropped, got["dropped"]),
        "loaded, unchanged or superseded": (counts.good, counted),
    }
    name = f"run {run['run']} of {key}"
    found = [
        f"{name}: {what}: {want} in the files, {have} in the receipts"
        for what, (want, have) in pairs.items()
        if want != have
    ]
    return found if run["state"] == "succeeded" else [f"{name} is {run['state']}: {run['error']}", *found]


def _ledger(database: psycopg.Connection, truth: Truth, ended: Ended) -> list[str]:
    """Compare `_etl_loads` with the tables: of an append, each file once; of every run, each partition once."""
    wrong = []
    query = "SELECT file, count(*) FROM _etl_loads WHERE mode = 'append' AND final AND loaded > 0 GROUP BY client, file"
    wrong += [f"{file} was appended {times} times" for file, times in database.execute(query) if times != 1]
    [(loaded,)] = database.execute("SELECT coalesce(sum(loaded), 0) FROM _etl_loads WHERE mode = 'append' AND final")
    if loaded != truth.appended.total():
        wrong.append(f"_etl_loads says that {loaded} rows were appended, the files have {truth.appended.total()}")
    for key, run in ended.items():
        state = database.execute("SELECT state FROM _etl_runs WHERE run = %s", (run["run"],)).fetchone()
        if state != ("succeeded",):
            wrong.append(f"run {run['run']} of {key} succeeded, _etl_runs says {state}")
        query = "SELECT count(*), count(*) FILTER (WHERE final), coalesce(sum(loaded + unchanged + superseded), 0)"
        [(partitions, final, counted)] = database.execute(f"{query} FROM _etl_loads WHERE run = %s", (run["run"],))
        want = (run["partitions"]["total"],) * 2 + (truth.counts[key].good,)
        if (partitions, final, counted) != want:
            wrong.append(f"run {run['run']} of {key}: _etl_loads has {(partitions, final, counted)} instead of {want}")
    return wrong


def stuck(connection: Redis) -> list[str]:
    """Return what has not ended: jobs, leases, runs and places that runs hold."""
    keys = [key for key in connection.scan_iter("rq:job:*", count=5000) if key.count(b":") == 2]
    states = {key.decode(): connection.hget(key, "status") for key in keys}
    found = [f"{key} is {state!r}" for key, state in states.items() if state in UNFINISHED]
    for pattern in ("rq:wip:*", "etl:holder:*", "etl:run:*:jobs"):
        found += [f"{key.decode()} is left" for key in connection.scan_iter(pattern, count=5000)]
    found += [f"run {run.decode()} is active" for run in connection.smembers("etl:active")]  # type: ignore[union-attr]
    return found


def shadows(url: str) -> int:
    """Return how many shadow tables are left in the target."""
    with psycopg.connect(url) as database:
        query = "SELECT count(*) FROM pg_tables WHERE tablename LIKE '\\_etl\\_shadow\\_%'"
        [(count,)] = database.execute(query)
    return int(count)

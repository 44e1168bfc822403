"""NDJSON into one DuckDB file: two clients, three workers, one of them killed; then every row and reject is compared.

    python benchmarks/ndjson.py [--megabytes 60] [--target duckdb|sqlite]

Two clients have a file each, of half the megabytes, cut into several partitions. While the first loads go on, one
worker is killed with SIGKILL and started again. Afterwards the table is compared with what Python's json reads of the
files, row for row, and the rejects with the bad lines by their numbers.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from redis import Redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import servers
from rq_etl import submit, wait

CONFIG = """
[settings]
staging = "staging"
[targets.warehouse]
url = "{url}"
[pipelines.events]
extract = {{ type = "ndjson", path = "inbox/{{client}}/*.ndjson" }}
load = {{ target = "warehouse", table = "events", mode = "append" }}
retries = 5
retry_delays = [1, 5]
[pipelines.events.columns]
id     = {{ type = "string", required = true }}
at     = {{ type = "timestamp" }}
amount = {{ type = "decimal" }}
count  = {{ type = "integer" }}
note   = {{ type = "string" }}
[clients.acme]
[clients.north]
"""
BAD = ('{"id": "x", "amount": 1.5', "[1, 2]", "no json at all", '{"id": NaN}')


def lines_of(client: str, size: int, seed: int) -> list[str]:
    """Return a client's lines, one in five hundred of them no JSON object."""
    dice, lines, length = random.Random(seed), [], 0
    while length < size:
        number = len(lines)
        row = {
            "id": f"{client}-{number:07d}",
            "at": f"2026-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}T{dice.randrange(24):02d}:15:30Z",
            "amount": dice.randrange(1, 10**7) / 100,
            "count": dice.randrange(10**9),
            "note": dice.choice(["", 'said "no"', "Zoë\tü", "line\nbreak", None, "066"]),
        }
        line = dice.choice(BAD) if dice.random() < 0.002 else json.dumps(row, ensure_ascii=bool(number % 2))
        lines.append(line)
        length += len(line.encode()) + 1
    return lines


def expected(lines: list[str]) -> tuple[Counter[tuple[Any, ...]], list[int]]:
    """Return the rows that Python's json reads, and the numbers of the lines that are none."""

    def refuse(token: str) -> None:
        raise ValueError(token)

    rows: Counter[tuple[Any, ...]] = Counter()
    bad = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line, parse_constant=refuse)
            if not isinstance(row, dict):
                raise ValueError("no object")
        except ValueError:
            bad.append(number)
            continue
        rows[
            row["id"], row["at"].replace("T", " ").rstrip("Z"), round(row["amount"] * 100), row["count"], row["note"]
        ] += 1
    return rows, bad


def loaded(target: str, folder: Path) -> Counter[tuple[Any, ...]]:
    """Return what is in the table, read by the database's own driver."""
    query = "SELECT id, at, amount, count, note FROM events"
    if target == "duckdb":
        import duckdb

        with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.execute(query.replace(" at,", " strftime(at, '%Y-%m-%d %H:%M:%S'),")).fetchall()
    else:
        import sqlite3

        found = sqlite3.connect(folder / "warehouse.db").execute(query).fetchall()
    return Counter((id, at, round(float(amount) * 100), count, note) for id, at, amount, count, note in found)


def main() -> int:
    """Load, kill, compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=60)
    parser.add_argument("--target", choices=("duckdb", "sqlite"), default="duckdb")
    options = parser.parse_args()
    with servers.folder() as folder, servers.redis_server(folder) as url:
        suffix = {"duckdb": "duckdb:///warehouse.duckdb", "sqlite": "sqlite:///warehouse.db"}[options.target]
        (folder / "etl.toml").write_text(CONFIG.format(url=suffix))
        wanted: Counter[tuple[Any, ...]] = Counter()
        bad: dict[str, list[int]] = {}
        for seed, client in enumerate(("acme", "north")):
            lines = lines_of(client, options.megabytes * 1_000_000 // 2, seed)
            path = folder / "inbox" / client / "events.ndjson"
            path.parent.mkdir(parents=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            os.utime(path, (time.time() - 60,) * 2)
            rows, bad[client] = expected(lines)
            wanted += rows
        with servers.workers(url, 3, folder) as processes:
            began = time.monotonic()
            runs = [submit("events", client, config=folder / "etl.toml", redis=url) for client in bad]
            connection = Redis.from_url(url)
            servers.until(lambda: any(run.rows.read for run in runs), "a first extract")
            os.killpg(processes[0].pid, signal.SIGKILL)
            connection.close()
            with servers.workers(url, 1, folder):
                ended = list(wait(runs, timeout=600))
        seconds = time.monotonic() - began
        there = loaded(options.target, folder)
        rejects = {run.client: sorted(reject.row for reject in run.rejects()) for run in ended}
        partitions = sum(run.partitions["total"] for run in ended)
        lost, more = wanted - there, there - wanted
        print(
            f"{options.megabytes} MB, {sum(wanted.values()):,} rows, {partitions} partitions, 2 clients, 3 workers, "
            f"1 killed, into {options.target}: {', '.join(run.state for run in ended)} in {seconds:.1f} s; "
            f"{sum(lost.values())} rows lost, {sum(more.values())} more; "
            f"rejects {'equal' if rejects == bad else 'DIFFER'} ({sum(map(len, bad.values()))} bad lines)"
        )
        for run in ended:
            if run.error:
                print(f"{run.client}: {run.error}")
        return int(bool(lost or more or rejects != bad or any(run.state != "succeeded" for run in ended)))


if __name__ == "__main__":
    sys.exit(main())

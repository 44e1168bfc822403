"""A CSV of 66 MB into PostgreSQL and SQLite: one worker of rq-etl against `pandas.read_csv` + `DataFrame.to_sql`.

rq-etl's figure is from submitting the run to its end: planning, staging, checks, rejects, ledger. pandas checks
nothing, and loads bad amounts as text. Each process loads two files of that size: the first makes it warm (imports,
memory, compiled statements), the next shows what it does all night. Processor seconds count PostgreSQL's too: on a
busy machine they tell more.

    python -m benchmarks.load [--megabytes 66] [--rounds 3] [--target postgresql sqlite]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import sqlalchemy as sa

from benchmarks import claims, servers

Measured = tuple[float, float]  # seconds, and processor seconds
FIRST, NEXT = "c000", "c001"  # clients whose files a process loads one after the other


def with_pandas(files: list[Path], url: str, postmaster: int) -> list[Measured]:
    """Return what pandas takes for each file, one after the other in a process of its own."""
    code = f"from benchmarks.load import naive; naive({[str(file) for file in files]!r}, {url!r}, {postmaster})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=servers.ROOT, capture_output=True, text=True, check=True)
    return [(float(seconds), float(used)) for seconds, used in map(str.split, ran.stdout.splitlines())]


def naive(files: list[str], url: str, postmaster: int) -> None:
    """Load files as most scripts do; print the seconds and processor seconds that each took."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    for file in files:
        before = servers.processor_seconds(postmaster)
        began, used = time.monotonic(), time.process_time()
        pd.read_csv(file).to_sql("claims", engine, if_exists="append", index=False, chunksize=100_000)
        seconds, used = time.monotonic() - began, time.process_time() - used
        engine.dispose()
        time.sleep(2)  # PostgreSQL's process for the last connection is counted when it has ended
        print(seconds, used + servers.processor_seconds(postmaster) - before)


def with_us(config: Path, url: str, clients: list[str], *sessions: int) -> list[Measured]:
    """Return what one worker takes for each client's run, one after the other, with the servers' processor time."""
    from etl.config.pipeline import resolve
    from jobs import api
    from jobs.run.submit import submit_run
    from jobs.session import Session

    session = Session(config, url, workers=0)
    found = []
    for client in clients:
        pipeline = resolve(session.config, "claims", client)
        before = servers.processor_seconds(*sessions)
        began = time.monotonic()
        run = api.Run(session, submit_run(session.connection, pipeline)).wait(600)
        seconds = time.monotonic() - began
        assert run.state == "succeeded", run.json()
        time.sleep(2)
        found.append((seconds, servers.processor_seconds(*sessions) - before))
    return found


def main() -> None:
    """Measure each as often as asked for, in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=66)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", nargs="*", default=["postgresql", "sqlite"])
    asked = parser.parse_args()
    with servers.folder() as where, servers.redis_server(where) as redis, servers.postgresql(where) as database:
        files = [where / "inbox" / client / "claims.csv" for client in (FIRST, NEXT)]
        for seed, file in enumerate(files, 1):
            rows = claims.write(file, megabytes=asked.megabytes, seed=seed)
        postmaster = int((where / "pg" / "data" / "postmaster.pid").read_text().split()[0])
        for kind in asked.target:
            found: dict[str, list[Measured]] = {}
            for turn in range(asked.rounds):
                for mode in ("append", "merge", "merge again", "read_csv + to_sql"):
                    home = where / f"{kind}_{mode.split()[0].replace('_', '')}{turn}"
                    if mode == "merge again":
                        for file in files:
                            file.touch()
                    else:
                        home.mkdir()
                        (home / "inbox").symlink_to(where / "inbox")
                        target = f"sqlite:///{home}/target.db" if kind == "sqlite" else database(home.name)
                    if mode == "read_csv + to_sql":
                        took = with_pandas(files, target, postmaster)
                    else:
                        config = claims.project(home, target, 2, mode=mode.split()[0])
                        with servers.workers(redis, 1, home) as [worker]:
                            took = with_us(config, redis, [FIRST, NEXT], worker.pid, postmaster)
                    for when, one in zip(("first", "next"), took, strict=True):
                        found.setdefault(f"{mode}, {when}", []).append(one)
                        print(f"  {kind}, {mode}, {when}: {one[0]:.1f} s, processor {one[1]:.1f} s", file=sys.stderr)
            report(kind, f"{files[0].stat().st_size / 1e6:.0f} MB", rows, found)


def medians(measured: list[Measured]) -> Measured:
    """Return the medians of seconds and of processor seconds."""
    return statistics.median(seconds for seconds, _ in measured), statistics.median(used for _, used in measured)


def report(kind: str, size: str, rows: int, found: dict[str, list[Measured]]) -> None:
    """Print a table; what a process does first is compared with what pandas does first, what it does next with that."""
    table: list[tuple[str, ...]] = [
        (kind, "seconds (median)", "all rounds", "rows/s", "times as fast", "processor s", "a part of")
    ]
    for name, measured in found.items():
        base = found[f"read_csv + to_sql, {name.rpartition(' ')[2]}"]
        median, spent = medians(measured)
        slow, effort = medians(base)
        each = " ".join(f"{seconds:.1f}" for seconds, _ in measured)
        speed = (f"{rows / median:,.0f}", f"{slow / median:.1f}×")
        table.append((name, f"{median:.1f}", each, *speed, f"{spent:.1f}", f"1/{effort / spent:.1f}"))
    servers.report(f"{size} of CSV, {rows:,} rows × 10 columns, one worker", table)


if __name__ == "__main__":
    main()

"""A CSV of 66 MB into PostgreSQL and SQLite: one worker of rq-etl against `pandas.read_csv` + `DataFrame.to_sql`.

rq-etl's figure is from submitting the run to its end: planning, staging, checks, rejects, ledger. pandas checks
nothing, and loads bad amounts as text.

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


def with_pandas(file: Path, url: str) -> float:
    """Return the seconds that pandas takes, in a process of its own."""
    code = f"import time; from benchmarks.load import naive; print(naive({str(file)!r}, {url!r}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=servers.ROOT, capture_output=True, text=True, check=True)
    return float(ran.stdout)


def naive(file: str, url: str) -> float:
    """Load a file as most scripts do; return the seconds it took."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    began = time.monotonic()
    pd.read_csv(file).to_sql("claims", engine, if_exists="append", index=False, chunksize=100_000)
    return time.monotonic() - began


def with_us(config: Path, url: str) -> float:
    """Return the seconds that one worker takes for a run."""
    from etl.pipeline import resolve
    from jobs import api, graph
    from jobs.session import Session

    session = Session(config, url, workers=0)
    pipeline = resolve(session.config, "claims", "c000")
    began = time.monotonic()
    run = api.Run(session, graph.submit(session.connection, pipeline)).wait(600)
    seconds = time.monotonic() - began
    assert run.state == "succeeded", run.json()
    return seconds


def main() -> None:
    """Measure each as often as asked for, in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=66)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--target", nargs="*", default=["postgresql", "sqlite"])
    asked = parser.parse_args()
    with servers.folder() as where, servers.redis_server(where) as redis, servers.postgresql(where) as database:
        file = where / "inbox" / "c000" / "claims.csv"
        rows = claims.write(file, megabytes=asked.megabytes)
        for kind in asked.target:
            seconds: dict[str, list[float]] = {}
            for turn in range(asked.rounds):
                for mode in ("append", "merge", "merge again", "read_csv + to_sql"):
                    home = where / f"{kind}_{mode.split()[0].replace('_', '')}{turn}"
                    if mode == "merge again":
                        file.touch()
                    else:
                        home.mkdir()
                        (home / "inbox").symlink_to(where / "inbox")
                        target = f"sqlite:///{home}/target.db" if kind == "sqlite" else database(home.name)
                    if mode == "read_csv + to_sql":
                        took = with_pandas(file, target)
                    else:
                        config = claims.project(home, target, 1, mode=mode.split()[0])
                        with servers.workers(redis, 1, home):
                            took = with_us(config, redis)
                    seconds.setdefault(mode, []).append(took)
                    print(f"  {kind}, {mode}: {took:.1f} s", file=sys.stderr)
            base = statistics.median(seconds["read_csv + to_sql"])
            table: list[tuple[str, ...]] = [(kind, "seconds (median)", "all rounds", "rows/s", "times as fast")]
            for mode, found in seconds.items():
                median = statistics.median(found)
                each = " ".join(f"{one:.1f}" for one in found)
                table.append((mode, f"{median:.1f}", each, f"{rows / median:,.0f}", f"{base / median:.1f}×"))
            servers.report(f"{file.stat().st_size / 1e6:.0f} MB of CSV, {rows:,} rows × 10 columns, one worker", table)


if __name__ == "__main__":
    main()

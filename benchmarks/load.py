"""A CSV of 66 MB into PostgreSQL and SQLite: one worker of rq-etl against `pandas.read_csv` + `DataFrame.to_sql`.

rq-etl's figure is from submitting the run to its end: planning, staging, checks, rejects, ledger. pandas checks
nothing, and loads bad amounts as text. Processor seconds count PostgreSQL's too: on a busy machine they tell more.

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


def with_pandas(file: Path, url: str, postmaster: int) -> tuple[float, float]:
    """Return the seconds and processor seconds that pandas takes, in a process of its own."""
    before = servers.processor_seconds(postmaster)
    code = f"import time; from benchmarks.load import naive; print(naive({str(file)!r}, {url!r}))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=servers.ROOT, capture_output=True, text=True, check=True)
    seconds, used = map(float, ran.stdout.split())
    time.sleep(2)
    return seconds, used + servers.processor_seconds(postmaster) - before


def naive(file: str, url: str) -> str:
    """Load a file as most scripts do; return the seconds and processor seconds it took."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    began, used = time.monotonic(), time.process_time()
    pd.read_csv(file).to_sql("claims", engine, if_exists="append", index=False, chunksize=100_000)
    return f"{time.monotonic() - began} {time.process_time() - used}"


def with_us(config: Path, url: str, *sessions: int) -> tuple[float, float]:
    """Return the seconds that one worker takes for a run, and the processor seconds of the sessions at work."""
    from etl.pipeline import resolve
    from jobs import api, graph
    from jobs.session import Session

    session = Session(config, url, workers=0)
    pipeline = resolve(session.config, "claims", "c000")
    before = servers.processor_seconds(*sessions)
    began = time.monotonic()
    run = api.Run(session, graph.submit(session.connection, pipeline)).wait(600)
    seconds = time.monotonic() - began
    assert run.state == "succeeded", run.json()
    time.sleep(2)  # PostgreSQL's process for the last connection is counted when it has ended
    return seconds, servers.processor_seconds(*sessions) - before


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
        postmaster = int((where / "pg" / "data" / "postmaster.pid").read_text().split()[0])
        for kind in asked.target:
            seconds: dict[str, list[float]] = {}
            used: dict[str, list[float]] = {}
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
                        took, processor = with_pandas(file, target, postmaster)
                    else:
                        config = claims.project(home, target, 1, mode=mode.split()[0])
                        with servers.workers(redis, 1, home) as [worker]:
                            took, processor = with_us(config, redis, worker.pid, postmaster)
                    used.setdefault(mode, []).append(processor)
                    seconds.setdefault(mode, []).append(took)
                    print(f"  {kind}, {mode}: {took:.1f} s, processor {processor:.1f} s", file=sys.stderr)
            base, effort = (statistics.median(times["read_csv + to_sql"]) for times in (seconds, used))
            table: list[tuple[str, ...]] = [
                (kind, "seconds (median)", "all rounds", "rows/s", "times as fast", "processor s", "a part of")
            ]
            for mode, found in seconds.items():
                median, spent = statistics.median(found), statistics.median(used[mode])
                each = " ".join(f"{one:.1f}" for one in found)
                speed = (f"{rows / median:,.0f}", f"{base / median:.1f}×")
                table.append((mode, f"{median:.1f}", each, *speed, f"{spent:.1f}", f"1/{effort / spent:.1f}"))
            servers.report(f"{file.stat().st_size / 1e6:.0f} MB of CSV, {rows:,} rows × 10 columns, one worker", table)


if __name__ == "__main__":
    main()

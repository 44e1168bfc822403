"""Peak memory of one worker while it plans, extracts, transforms and loads a CSV, of 100 MB and of 2 GB.

The peak is `VmHWM` of /proc: of the `rq worker` process plus that of its horse, the largest where it was replaced.
Pages that both share are counted twice. The goal is to stay under 600 MB whatever the size.

    python -m benchmarks.memory [--megabytes 100 2000] [--target postgresql|sqlite] [--mode append|merge]
"""

import argparse
import contextlib
import sys
import time
from pathlib import Path

from benchmarks import claims, servers

GOAL = 600


def peaks(session: int) -> dict[int, int]:
    """Return the highest memory so far of each process of a session that is alive, in KB."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                lines = (folder / "status").read_text().splitlines()
                found[int(folder.name)] = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return found


def measure(where: Path, redis: str, target: str, mode: str) -> tuple[float, dict[str, int], int, int]:
    """Return seconds, the run's rows, and the peaks of worker and horse in MB."""
    from etl.config.pipeline import resolve
    from jobs import api
    from jobs.run.submit import submit_run
    from jobs.session import Session

    config = claims.project(where, target, 1, mode=mode)
    with servers.workers(redis, 1, where) as [worker]:
        session = Session(config, redis, workers=0)
        began = time.monotonic()
        run = api.Run(session, submit_run(session.connection, resolve(session.config, "claims", "c000")))
        highest: dict[int, int] = {}
        while run.id in session.active():
            for pid, memory in peaks(worker.pid).items():
                highest[pid] = max(memory, highest.get(pid, 0))
            time.sleep(0.05)
        seconds = time.monotonic() - began
        ended = run.json()
        assert ended["state"] == "succeeded", ended
        own = highest.pop(worker.pid)
        return seconds, ended["rows"], own // 1024, max(highest.values()) // 1024


def main() -> None:
    """Measure each size once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, nargs="*", default=[100, 2000])
    parser.add_argument("--target", default="postgresql")
    parser.add_argument("--mode", default="append")
    asked = parser.parse_args()
    table: list[tuple[str, ...]] = [
        ("file", "rows", "seconds", "worker, MB", "horse, MB", "together, MB", f"of {GOAL} MB")
    ]
    with servers.folder() as where, servers.redis_server(where) as redis, servers.postgresql(where) as database:
        for megabytes in asked.megabytes:
            home = where / f"m{megabytes}"
            file = home / "inbox" / "c000" / "claims.csv"
            claims.write(file, megabytes=megabytes)
            target = f"sqlite:///{home}/target.db" if asked.target == "sqlite" else database(home.name)
            seconds, rows, worker, horse = measure(home, redis, target, asked.mode)
            size = f"{file.stat().st_size / 1e6:,.0f} MB"
            file.unlink()
            both = worker + horse
            table.append((
                size, f"{rows['read']:,}", f"{seconds:.0f}", str(worker), str(horse), str(both), f"{both / GOAL:.0%}"
            ))  # fmt: skip
            print(f"  {table[-1]}", file=sys.stderr)
    servers.report(f"Peak memory of one worker, {asked.mode} into {asked.target}", table)


if __name__ == "__main__":
    main()

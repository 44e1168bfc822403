"""How soon a job begins again whose worker, or whose horse, is killed, among many busy clients.

Two workers take short jobs in turn of all clients; a third has the job in hand and is killed, or its horse is.

    python -m benchmarks.rescue [--clients 800] [--rounds 5]
"""

import argparse
import os
import signal
import statistics
import time
from pathlib import Path

from redis import Redis

from benchmarks import servers
from jobs.queue import FairQueue

TASKS = """
import os, time

def short():
    time.sleep(0.05)

def held(name):
    with open(name, "a") as file:
        file.write(f"{os.getpid()} {os.getppid()} {time.time()}\\n")
    while not os.path.exists(name + ".go"):
        time.sleep(0.01)
"""


def begun(file: Path) -> list[list[str]]:
    """Return the processes that have begun the job, their workers, and when."""
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def measure(connection: Redis, where: Path, whom: str, number: int) -> float:
    """Return the seconds from a kill to the job's second beginning."""
    file = where / f"{whom}{number}"
    FairQueue("etl-c000", connection=connection).enqueue(
        "own_tasks.held", args=(str(file),), at_front=True, timeout=600
    )
    servers.until(lambda: len(begun(file)) == 1, "the job begins", 120)
    horse, worker, _ = begun(file)[0]
    killed = time.time()
    os.kill(int(worker if whom == "worker" else horse), signal.SIGKILL)
    servers.until(lambda: len(begun(file)) == 2, "the job begins again", 120)
    file.with_suffix(".go").touch()
    again = float(begun(file)[1][2])
    return again - killed


def main() -> None:
    """Kill as often as asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    table: list[tuple[str, ...]] = [("killed", "seconds (median)", "slowest")]
    with servers.folder() as where, servers.redis_server(where) as url:
        connection = Redis.from_url(url)
        (where / "own_tasks.py").write_text(TASKS)
        (where / "etl.toml").write_text('[settings]\nmodules = ["own_tasks"]\nstaging = "staging"\n')
        for whom in ("worker", "horse"):
            found = []
            for number in range(asked.rounds):
                connection.flushall()
                with servers.workers(url, 3, where):
                    for client in range(asked.clients):
                        queue = FairQueue(f"etl-c{client:03d}", connection=connection)
                        queue.enqueue_many([queue.prepare_data("own_tasks.short") for _ in range(4)])
                    found.append(measure(connection, where, whom, number))
            table.append((whom, f"{statistics.median(found):.1f}", f"{max(found):.1f}"))
    servers.report(f"a job among {asked.clients} busy clients, begun again", table)


if __name__ == "__main__":
    main()

"""What one job costs Redis, from dequeue to complete, with 1 to 2,000 clients; and what an idle worker costs it.

    python -m benchmarks.fetch [--jobs 2000] [--clients 1 10 100 1000 2000]

Counted by Redis itself (`INFO commandstats`): processor time and commands, those inside Lua included.
"""

import argparse
import random
import statistics
import time

from redis import Redis

from benchmarks import servers
from jobs.process.complete import Outcome, complete
from jobs.process.maintenance import rescue
from jobs.queue import FairQueue, ServedQueues, dequeue

IDLE_SECONDS = 15.0
PROBES = 30


def cost(connection: Redis) -> tuple[float, int, int]:
    """Return Redis' processor time in ms, commands with those inside Lua, and those that were sent."""
    stats = connection.info("commandstats")
    calls = sum(int(stat["calls"]) for stat in stats.values())
    sent = int(connection.info("stats")["total_commands_processed"])
    cpu = connection.info("cpu")
    return 1000 * (cpu["used_cpu_sys"] + cpu["used_cpu_user"]), calls, sent


def per_job(connection: Redis, clients: int, jobs: int) -> tuple[float, float]:
    """Return ms of Redis and commands for each job."""
    connection.flushall()
    names = [f"etl-c{number:04}" for number in range(clients)]
    for number in range(jobs):
        FairQueue(names[number % clients], connection=connection).enqueue("steps.nothing")
    dequeue(connection, worker="warm")
    before = cost(connection)
    done = 0
    while (found := dequeue(connection, worker="w")) is not None:
        complete(connection, *found, Outcome("done"))
        done += 1
    after = cost(connection)
    return (after[0] - before[0]) / done, (after[1] - before[1]) / done


def idle(connection: Redis, clients: int) -> tuple[float, float]:
    """Return ms of Redis for a look that finds nothing, and for a look of maintenance."""
    connection.flushall()
    names = [f"etl-c{number:04}" for number in range(clients)]
    connection.sadd("rq:queues", *[f"rq:queue:{name}" for name in names])
    times = []
    for look in (ServedQueues(connection, ["default"]).has_jobs, lambda: rescue(connection, names)):
        before = cost(connection)[0]
        for _ in range(300):
            look()
        times.append((cost(connection)[0] - before) / 300)
    return times[0], times[1]


def started_after(connection: Redis) -> float:
    """Return the seconds until an idle worker begins a new job."""
    job = FairQueue("etl-probe", connection=connection).enqueue("steps.nothing", failure_ttl=60)
    servers.until(lambda: job.get_status(refresh=True) in ("failed", "finished"), "the worker")
    job.refresh()
    time.sleep(random.random())  # at no fixed moment between two looks
    return (job.started_at - job.enqueued_at).total_seconds()


def main() -> None:
    """Measure each number of clients in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 10, 100, 1000, 2000])
    asked = parser.parse_args()
    rows: list[tuple[str, ...]] = [("clients", "ms a job", "commands a job", "idle look, ms", "maintenance, ms")]
    with servers.folder() as where, servers.redis_server(where) as url:
        connection = Redis.from_url(url)
        for clients in asked.clients:
            milliseconds, commands = per_job(connection, clients, max(asked.jobs, clients))
            look, empty = idle(connection, clients)
            rows.append((f"{clients:,}", f"{milliseconds:.3f}", f"{commands:.1f}", f"{look:.3f}", f"{empty:.3f}"))
    servers.report("Redis' own cost of a job, dequeue to complete, by the number of clients", rows)
    with servers.folder() as where, servers.redis_server(where) as url:
        (where / "etl.toml").write_text("")
        connection = Redis.from_url(url)
        with servers.workers(url, 1, where):
            before, began = cost(connection), time.monotonic()
            time.sleep(IDLE_SECONDS)
            after, seconds = cost(connection), time.monotonic() - began
            waits = sorted(started_after(connection) for _ in range(PROBES))
    sent, calls = ((after[at] - before[at]) / seconds for at in (2, 1))
    print(f"\nAn idle worker sends {sent:.1f} commands a second ({calls:.1f} with those inside Lua).")
    print(
        f"A job begins {statistics.median(waits):.2f} s (median of {PROBES}), at most {waits[-1]:.2f} s, after it came."
    )


if __name__ == "__main__":
    main()

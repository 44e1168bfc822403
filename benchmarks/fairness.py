"""How long small clients wait beside one with a hundred times the work: rq-etl, RQ's orders, and Celery with one queue.

    python -m benchmarks.fairness [--clients 300] [--jobs 3] [--heavy 300] [--workers 4]

Every job sleeps 5 ms and notes when it began. The heavy client's jobs are enqueued first, then the others'. RQ serves a
queue per client with SimpleWorkers (no fork), in its default order and round robin.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from rq import Queue

from benchmarks import servers

STEPS = """
import json, os, time
from redis import Redis

connection = Redis.from_url(os.environ["BENCH_REDIS"])

def work(client):
    connection.rpush("began", json.dumps([client, time.time()]))
    time.sleep(0.005)
"""
CELERY = """
import os
import steps
from celery import Celery

app = Celery("fair", broker=os.environ["BENCH_REDIS"].replace("unix:", "redis+socket:"), backend=None)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_ignore_result=True)

@app.task(name="work")
def work(client):
    steps.work(client)
"""
ROUND_ROBIN = """
from rq import SimpleWorker
from rq.worker import RoundRobinWorker

class Worker(SimpleWorker):
    reorder_queues = RoundRobinWorker.reorder_queues
"""

Enqueue = Callable[[str], object]


def order(asked: argparse.Namespace) -> list[str]:
    """Return whose job is enqueued when: the heavy client's all first."""
    small = [f"c{number:03}" for number in range(1, asked.clients)]
    return ["c000"] * (asked.jobs * asked.heavy) + [name for _ in range(asked.jobs) for name in small]


def measure(url: str, whose: list[str], enqueue: Enqueue, command: Callable[[], object]) -> dict[str, list[float]]:
    """Enqueue everything, let `command` start the workers, and return each client's waits in seconds."""
    connection = Redis.from_url(url)
    for name in whose:
        enqueue(name)
    began = time.time()
    command()
    servers.until(lambda: connection.llen("began") >= len(whose), "jobs", 1800)
    waits: dict[str, list[float]] = {}
    for raw in connection.lrange("began", 0, -1):
        name, at = json.loads(raw)
        waits.setdefault(name, []).append(at - began)
    return waits


def main() -> None:
    """Measure each way once, in one run, and print the small clients' waits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=3, help="of each small client")
    parser.add_argument("--heavy", type=int, default=100, help="times that work for the first client")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--celery", help="python of an environment with Celery")
    asked = parser.parse_args()
    whose = order(asked)
    found: dict[str, dict[str, list[float]]] = {}
    with servers.folder() as where, servers.redis_server(where) as url:
        for name, text in {"steps": STEPS, "fair_celery": CELERY, "round_robin": ROUND_ROBIN}.items():
            (where / f"{name}.py").write_text(text)
        (where / "etl.toml").write_text('[settings]\nmodules = ["steps"]\n')
        connection = Redis.from_url(url)
        environment = {**os.environ, "BENCH_REDIS": url, "PYTHONPATH": str(where)}
        names = sorted(set(whose))
        found["rq-etl"] = _ours(url, where, whose, asked.workers)
        for way, worker in (("RQ, default order", "rq.SimpleWorker"), ("RQ, round robin", "round_robin.Worker")):
            connection.flushall()
            line = [sys.executable, "-m", "rq.cli", "worker", "--quiet", "--url", url, "--worker-class", worker, *names]
            queues = {name: Queue(name, connection=connection) for name in names}
            found[way] = _with(
                [line] * asked.workers,
                where,
                environment,
                url,
                whose,
                lambda name, queues=queues: queues[name].enqueue("steps.work", name),  # type: ignore[misc]
            )
        if asked.celery:
            connection.flushall()
            sys.path.insert(0, str(where))
            os.environ["BENCH_REDIS"] = url
            line = [
                asked.celery,
                "-m",
                "celery",
                "-A",
                "fair_celery",
                "worker",
                "-c",
                str(asked.workers),
                "-l",
                "ERROR",
            ]
            sender = [asked.celery, "-c", SENDER]
            found["Celery, one queue"] = _celery(line, sender, where, environment, url, whose)
    report(found, asked)


SENDER = """
import json, sys
from fair_celery import work
for name in json.load(sys.stdin):
    work.delay(name)
"""


def _ours(url: str, where: Path, whose: list[str], workers: int) -> dict[str, list[float]]:
    from jobs import settings
    from jobs.enqueue import enqueue_on

    connection = Redis.from_url(url)
    settings.use(where / "etl.toml")
    os.environ["BENCH_REDIS"] = url
    with servers.workers(url, workers, where):
        connection.set("rq:suspended", 1)
        return measure(
            url,
            whose,
            lambda name: enqueue_on(connection, name, "steps:work", (name,)),
            lambda: connection.delete("rq:suspended"),
        )


def _with(
    commands: list[list[str]], where: Path, environment: dict[str, str], url: str, whose: list[str], enqueue: Enqueue
) -> dict[str, list[float]]:
    connection = Redis.from_url(url)
    with servers.processes(commands, where, environment):
        servers.ready(url, len(commands))
        connection.set("rq:suspended", 1)
        time.sleep(7)  # a stock worker looks for a suspension between its waits, of five seconds here
        return measure(url, whose, enqueue, lambda: connection.delete("rq:suspended"))


def _celery(
    line: list[str], sender: list[str], where: Path, environment: dict[str, str], url: str, whose: list[str]
) -> dict[str, list[float]]:
    subprocess.run(sender, cwd=where, env=environment, input=json.dumps(whose), text=True, check=True)
    with contextlib.ExitStack() as stack:
        return measure(
            url,
            whose,
            lambda name: None,
            lambda: stack.enter_context(servers.processes([line], where, environment)),
        )


def jain(waits: dict[str, list[float]]) -> float:
    """Return Jain's index over what each client had had when the first of them had nothing left to wait for."""
    until = min(max(times) for times in waits.values())
    shares = [sum(moment <= until for moment in times) for times in waits.values()]
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def report(found: dict[str, dict[str, list[float]]], asked: argparse.Namespace) -> None:
    """Print the waits of the small clients, when the last job began, and how even the waits were."""
    base = None
    rows: list[tuple[str, ...]] = [
        ("", "first job, median", "worst", "all jobs, median", "everything", "Jain", "ratio")
    ]
    for way, waits in found.items():
        small = [sorted(times) for name, times in waits.items() if name != "c000"]
        firsts = [times[0] for times in small]
        median = statistics.median(firsts)
        base = base or median
        every = statistics.median(moment for times in small for moment in times)
        end = max(moment for times in waits.values() for moment in times)
        seconds = (f"{value:.2f} s" for value in (median, max(firsts), every, end))
        rows.append((way, *seconds, f"{jain(waits):.2f}", f"{median / base:.1f}×"))
    title = f"{asked.clients} clients, one with {asked.heavy} times the work, {asked.workers} workers"
    servers.report(f"{title}: the small clients' waits", rows)
    print("\nJain is Jain's index over the jobs that each client had begun when the first of them had begun its last,")
    print("so while all were busy: 1 is even, 1/n is all for one.")


if __name__ == "__main__":
    main()

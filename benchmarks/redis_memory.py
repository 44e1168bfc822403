"""What a job costs in Redis: a run of many partitions on a private redis-server, every key counted by MEMORY USAGE.

    python benchmarks/redis_memory.py [--partitions 500] [--limit 6144]

Prints the bytes a job, by kind of key, when the run has been submitted and when it has ended; the exit code is 1 where
either is above the limit.
"""

import argparse
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis import Redis

from etl.config.pipeline import resolve
from jobs import broker, settings
from jobs.process.inprocess import InProcessWorker
from jobs.run.submit import submit_run

CONFIG = """
[settings]
staging = "staging"
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/{client}/claims-*.csv", settle = 0 }
transform = []
load = { target = "warehouse", table = "claims", mode = "append" }
[pipelines.claims.columns]
claim_id = { type = "string", required = true }
amount = { type = "decimal", min = 0 }
[clients.a_client_with_a_long_name]
pipelines = ["claims"]
"""
KINDS = (
    (r"rq:job::.*:dependencies", "dependencies"),
    (r"rq:job:.*:dependents", "dependents"),
    (r"rq:job:.*", "jobs"),
    (r"rq:results:.*", "results"),
    (r"rq:executions?:.*", "executions"),
    (r"rq:.*", "lists of RQ"),
    (r"etl:.*", "ours"),
)


def measure(connection: Redis) -> Counter[str]:
    """Return the bytes of all keys, by kind."""
    found: Counter[str] = Counter()
    for raw in connection.scan_iter(count=1000):
        kind = next(kind for pattern, kind in KINDS if re.fullmatch(pattern, raw.decode()))
        found[kind] += int(connection.memory_usage(raw, samples=0) or 0)
    return found


def show(moment: str, found: Counter[str], jobs: int) -> float:
    """Print a line for each kind of key, and return the bytes a job."""
    print(f"{moment}: {found.total() / jobs:,.0f} bytes a job ({found.total():,} for {jobs:,})")
    for kind, size in found.most_common():
        print(f"  {kind:<13} {size / jobs:>8,.0f}")
    return found.total() / jobs


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=500)
    parser.add_argument("--limit", type=int, default=6 << 10, help="bytes a job")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rq-etl-") as name:
        folder = Path(name)
        (folder / "etl.toml").write_text(CONFIG)
        inbox = folder / "inbox" / "a_client_with_a_long_name"
        inbox.mkdir(parents=True)
        for number in range(options.partitions):
            (inbox / f"claims-{number:05d}.csv").write_text(f"claim_id,amount\nA{number},{number}.50\nB{number},x\n")
        settings.use(folder / "etl.toml")
        private = broker.connect(None, folder)
        try:
            connection = private.connection
            connection.flushall()
            jobs = 3 * options.partitions + 1
            submit_run(connection, resolve(settings.config(), "claims", "a_client_with_a_long_name"))
            most = show("submitted", measure(connection), jobs)
            InProcessWorker(connection).work()
            most = max(most, show("ended", measure(connection), jobs))
        finally:
            private.close()
    return int(most > options.limit)


if __name__ == "__main__":
    sys.exit(main())

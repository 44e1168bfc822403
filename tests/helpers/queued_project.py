"""A project on a Redis whose time can be moved on: a test queues its runs, and has them done in this process."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import Redis

from etl.staging import Staging
from jobs import settings
from jobs.process import cleanup
from jobs.process.inprocess import InProcessWorker
from jobs.run.submit import submit_run
from jobs.store import runs
from tests.helpers.project import Folder, etl_toml

DAY = 86400.0
CONFIG = etl_toml(
    {
        "claims": {
            "extract": {"path": "inbox/{client}/claims-*.csv"},
            "transform": ["steps:same"],
            "load": {"mode": "merge", "key": ["claim_id"]},
            "retries": 1,
            "retry_delays": [0],
            "columns": {
                "claim_id": {"type": "string", "required": True},
                "amount": {"type": "decimal", "min": 0},
            },
        }
    },
    ["acme", "globex", "initech"],
    defaults={"pipelines": ["claims"]},
)
STEPS = "def same(df):\n    return df\n\ndef add(a, b):\n    return a + b\n\ndef fail():\n    raise ValueError('no')\n"
GOOD, BAD = "claim_id,amount\nA1,1\nA2,x\n", "number,amount\nA9,1\n"


class QueuedProject(Folder):
    """A project whose runs are queued on a Redis."""

    def __init__(
        self, root: Path, connection: Redis, config: str = CONFIG, files: Mapping[str, str | bytes] | None = None
    ) -> None:
        super().__init__(root, config, {"steps.py": STEPS, **(files or {})})
        self.connection = connection

    def files(self, client: str, *contents: str) -> None:
        """Write a client's files of claims."""
        for number, content in enumerate(contents, 1):
            self.write(f"inbox/{client}/claims-{number}.csv", content)

    def configure(self, *lines: str) -> None:
        """Write etl.toml with more lines under [settings]."""
        self.config(CONFIG, ("[settings]", "\n".join(["[settings]", *lines])))

    def submit(self, client: str = "acme", pipeline: str = "claims", **options: Any) -> str:
        """Queue a run, of which nothing is done yet."""
        return submit_run(self.connection, self.pipeline(pipeline, client), **options)

    def work(self) -> None:
        """Do all that is queued."""
        InProcessWorker(self.connection).work()

    def run(self, client: str = "acme", **options: Any) -> str:
        """Run a pipeline to its end."""
        run = self.submit(client, **options)
        self.work()
        return run

    def record(self, run: str) -> dict[str, Any]:
        """Return a run as it is."""
        return runs.snapshot(self.connection, [run])[0]

    def state(self, run: str) -> str:
        """Return a run's state."""
        return str(self.record(run)["state"])

    def names(self, run: str, client: str = "acme") -> list[str]:
        """Return what a run has in staging."""
        return Staging(str(self.root / "staging"), client, run).names()

    def sweep(self, later: float = 0.0) -> cleanup.Cleaned:
        """Remove what is too old `later` seconds from now."""
        return cleanup.clean(self.connection, settings.config(), time.time() + later)


def let_pass(connection: Any, seconds: float) -> None:
    """Move time on: what would have expired by then is gone, and every moment in a sorted set is so much longer ago."""
    for key in list(connection.scan_iter()):
        left = connection.pttl(key)
        if 0 <= left <= seconds * 1000:
            connection.delete(key)
        elif left > 0:
            connection.pexpire(key, int(left - seconds * 1000))
        if connection.type(key) == b"zset":
            for member, score in connection.zrange(key, 0, -1, withscores=True):
                connection.zadd(key, {member: score - seconds if score > 0 else score})


def queues(connection: Any) -> list[str]:
    """Return the names of the queues that RQ knows."""
    return [key.decode().removeprefix("rq:queue:") for key in connection.smembers("rq:queues")]

"""A project on a Redis whose time can be moved on, for tests of what is kept and for how long."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from etl.config.pipeline import resolve
from etl.staging import Staging
from jobs import settings as project
from jobs.process import cleanup
from jobs.process.inprocess import InProcessWorker
from jobs.run.submit import submit_run
from jobs.store import runs

DAY = 86400.0
CONFIG = """
[settings]
staging = "staging"
modules = ["steps"]
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/{client}/claims-*.csv", settle = 0 }
transform = ["steps:same"]
load = { target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"] }
retries = 1
retry_delays = [0]
[pipelines.claims.columns]
claim_id = { type = "string", required = true }
amount = { type = "decimal", min = 0 }
[defaults]
pipelines = ["claims"]
[clients.acme]
[clients.globex]
[clients.initech]
"""
STEPS = "def same(df):\n    return df\n\ndef add(a, b):\n    return a + b\n\ndef fail():\n    raise ValueError('no')\n"
GOOD, BAD = "claim_id,amount\nA1,1\nA2,x\n", "number,amount\nA9,1\n"


@dataclass
class House:
    """A project in a folder, on a Redis."""

    root: Path
    connection: Redis

    def files(self, client: str, *contents: str) -> None:
        inbox = self.root / "inbox" / client
        inbox.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(contents, 1):
            (inbox / f"claims-{number}.csv").write_text(content)

    def configure(self, *settings: str) -> None:
        (self.root / "etl.toml").write_text(CONFIG.replace("[settings]", "\n".join(["[settings]", *settings])))
        project.use(self.root / "etl.toml")

    def submit(self, client: str = "acme") -> str:
        return submit_run(self.connection, resolve(project.config(), "claims", client))

    def work(self) -> None:
        InProcessWorker(self.connection).work()

    def run(self, client: str = "acme") -> str:
        run = self.submit(client)
        self.work()
        return run

    def state(self, run: str) -> str:
        return str(runs.snapshot(self.connection, [run])[0]["state"])

    def names(self, run: str, client: str = "acme") -> list[str]:
        return Staging(str(self.root / "staging"), client, run).names()

    def sweep(self, later: float = 0.0) -> cleanup.Cleaned:
        return cleanup.clean(self.connection, project.config(), time.time() + later)


def built(tmp_path: Path, connection: Redis) -> Iterator[House]:
    """Build a project for a test, and leave it."""
    (tmp_path / "steps.py").write_text(STEPS)
    made = House(tmp_path, connection)
    made.configure()
    try:
        yield made
    finally:
        project.use(None)


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
    return [key.decode().removeprefix("rq:queue:") for key in connection.smembers("rq:queues")]

"""A project whose runs wait, each for another reason, and what every view says of it."""

import contextlib
import html
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.utils import utcformat

from jobs import broker
from jobs.api import Run
from jobs.dashboard import create_app
from jobs.process.complete import Outcome, complete
from jobs.queue import dequeue
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.views import history, progress
from tests.helpers.dashboard_pages import LOGIN, PASSWORD
from tests.helpers.project import Project, etl_toml

READS = {
    "extract": {"path": "inbox/{client}/*.csv"},
    "columns": {"id": "string"},
    "retries": 3,
    "retry_delays": ["90s"],
}
TOML = etl_toml(
    {
        "claims": READS,
        "visits": READS,
        "bills": {**READS, "needs": ["visits"]},
        "nightly": READS,
        "slow": {**READS, "extract": {"path": "inbox/{client}/*.csv", "rate": "1/h"}},
    },
    {"acme": {"schedule": {"nightly": "0 2 * * *"}}, "north": {}},
    defaults={"max_active": 1},
)


class Site(Project):
    """A project of two clients, on a Redis that its commands and pages ask."""

    def __init__(self, root: Path, connection: Redis) -> None:
        files = {f"inbox/{client}/a.csv": "id\n1\n" for client in ("acme", "north")}
        super().__init__(root, TOML, {**files, "steps.py": ""})
        self.connection = connection

    def submit(self, pipeline: str = "claims", client: str = "acme", **options: Any) -> str:
        """Enqueue a run."""
        return submit_run(self.connection, self.pipeline(pipeline, client), **options)

    def worker(self, name: str, state: str = "idle", silent: float = 0.0) -> None:
        """Register a worker whose last sign of life was so many seconds ago; with 0 it is alive for a minute."""
        key, beat = f"rq:worker:{name}", datetime.fromtimestamp(time.time() - silent + 60 * (not silent), UTC)
        about = {"hostname": "box", "pid": str(os.getpid()), "state": state, "last_heartbeat": utcformat(beat)}
        self.connection.hset(key, mapping=about)  # type: ignore[arg-type]
        if silent:
            self.connection.pexpire(key, int(1000 * (60 - silent)))
        self.connection.sadd("rq:workers", key)

    def begin(self, worker: str = "w1") -> Any:
        """Lend a worker the next job."""
        found = dequeue(self.connection, worker=worker)
        assert found is not None
        return found

    def end(self, found: Any, outcome: Outcome) -> None:
        """Write how a job has ended."""
        complete(self.connection, found[0], found[1], outcome)

    def said(self, run: str, client: str, pipeline: str) -> dict[str, str]:
        """Return why a run waits, as each view says it."""
        lines = {(line["client"], line["pipeline"]): line for line in self("status --json").json}
        [listed] = [each for each in self("runs --json").json if each["run"] == run]
        session = Session(self.path, self.connection)
        waits, lines_of_wait = progress.Waits(), list[str]()
        with contextlib.suppress(StopIteration):
            found = history.snapshot(session, [run])
            lines_of_wait = waits.changed(found)
            if not lines_of_wait:  # what may pass soon is said after some seconds
                waits._since[run] -= progress.PATIENCE
                lines_of_wait = waits.changed(found)
        pages = create_app(self.connection, password=PASSWORD).test_client()
        shown = re.search(r"^waits: (.*)$", self(f"show {run}").out, re.MULTILINE)
        assert shown is not None
        return {
            "status": lines[client, pipeline]["waiting"],
            "runs": listed["waiting"],
            "show": self(f"show {run} --json").json["waiting"],
            "show, for people": shown[1],
            "run --wait": lines_of_wait[0].partition(" waits: ")[2],
            "Python": Run(session, run).json()["waiting"],
            "the front page": _cell(pages.get("/", headers=LOGIN).text, run),
            "the run's page": _paragraph(pages.get(f"/runs/{run}", headers=LOGIN).text),
        }


def _cell(page: str, run: str) -> str:
    found = re.search(rf'<code>{run}</code>.*?<tr class="why waits"><td></td><td[^>]*>(.*?)</td>', page, re.DOTALL)
    return html.unescape(found[1]) if found else ""


def _paragraph(page: str) -> str:
    found = re.search(r'<p class="waits">waits: (.*?)</p>', page, re.DOTALL)
    return html.unescape(found[1]) if found else ""


@pytest.fixture
def site(tmp_path: Path, connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A project on a fakeredis and on a real Redis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(broker, "connect", lambda *_, **__: broker.given(connection))
    return Site(tmp_path, connection)

"""Runs driven at random by submits, failures, kills, cancels, retries, flushes: docs/state_machine.md always holds."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from etl.config.pipeline import resolve
from etl.errors import AlreadyRunning, EtlError
from jobs import settings as project
from jobs.process.complete import Outcome, complete, perform
from jobs.process.inprocess import InProcessWorker
from jobs.process.maintenance import maintain
from jobs.queue import dequeue
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import runs, scripts
from tests.helpers.project import Folder, etl_toml

PIPELINES = ("visits", "claims", "stock")
QUEUE = "etl-acme"
HOW: dict[str, dict[str, Any]] = {
    "visits": {"mode": "append"},
    "claims": {"mode": "merge", "key": ["id"]},
    "stock": {"mode": "replace"},
}
TOML = etl_toml(
    {
        name: {
            "extract": {"path": f"inbox/{name}/*.csv"},
            "transform": ["steps:work"],
            "load": how,
            "retries": 1,
            "retry_delays": [0],
            "columns": {"id": {"type": "string", "required": True}, "n": "integer"},
        }
        for name, how in HOW.items()
    },
    {"acme": {"pipelines": PIPELINES}},
    defaults={"max_active": 2},
)
STEPS = """
import pathlib

def work(df):
    if (pathlib.Path(__file__).parent / "broken").exists():
        raise ValueError("broken")
    return df
"""
OPEN = ("queued", "started", "deferred", "scheduled")


class Runs(RuleBasedStateMachine):
    """One client with three pipelines, each of three small files, one row dirty; its Redis and its target."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-"))
        self.folder = Folder(self.root, TOML, {"steps.py": STEPS})
        self.want: dict[str, Counter[tuple[str, int]]] = {name: Counter() for name in PIPELINES}
        for name in PIPELINES:
            for file in range(3):
                self.deliver(name, file)
        self.connection = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        self.known: dict[str, str] = {}
        self.endings: dict[tuple[str, str], str] = {}

    def deliver(self, name: str, file: int) -> None:
        rows = [(f"{name}{file}{row}", row) for row in range(3)]
        lines = [f"{id},{n}" for id, n in rows]
        self.folder.write(f"inbox/{name}/{file}.csv", "\n".join(["id,n", *lines, f",{file}"]) + "\n")
        self.want[name].update(rows)

    def teardown(self) -> None:
        try:
            self.finish_everything()
        finally:
            project.use(None)
            shutil.rmtree(self.root, ignore_errors=True)

    # --- what may happen ---

    @initialize(name=st.sampled_from(PIPELINES))
    def first(self, name: str) -> None:
        self.submit(name, queue=False)

    @rule(name=st.sampled_from(PIPELINES), queue=st.booleans())
    def submit(self, name: str, queue: bool) -> None:
        resolved = resolve(project.config(), name, "acme")
        if not queue and (runs.holder(self.connection, "acme", name) or self.held(name)):
            with pytest.raises(AlreadyRunning) as refused:
                submit_run(self.connection, resolved)
            assert self.known[refused.value.run] == name
            return
        self.known[submit_run(self.connection, resolved, queue=queue)] = name

    @rule(jobs=st.integers(1, 4))
    def work(self, jobs: int) -> None:
        worker = InProcessWorker(self.connection, inline=True)
        for _ in range(jobs):
            worker.step()

    @rule()
    def break_functions(self) -> None:
        (self.root / "broken").touch()

    @rule()
    def mend_functions(self) -> None:
        (self.root / "broken").unlink(missing_ok=True)

    @rule(settled=st.booleans(), did=st.booleans())
    def lose_a_worker(self, settled: bool, did: bool) -> None:
        """A horse or a worker dies: before its work or after it, noticed by its worker or by the pass."""
        found = dequeue(self.connection)
        if found is None:
            return
        job, queue = found
        if did:
            perform(job)
        if settled:
            complete(self.connection, job, queue, Outcome("lost"))
            return
        assert job.execution is not None
        entry = job.execution.composite_key
        self.connection.zadd(f"rq:wip:{queue.name}", {entry: time.time() + scripts.SHIFT - 1})
        maintain(self.connection, [QUEUE])
        assert complete(self.connection, job, queue, Outcome("done")) is None, "a stale result was taken"

    @rule(data=st.data())
    @precondition(lambda self: self.known)
    def cancel(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.known)))
        was = self.state(run)
        assert cancel_run(self.connection, run) == (was in ("held", "queued", "running"))

    @rule(data=st.data())
    @precondition(lambda self: self.known)
    def retry(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.known)))
        staging = self.root / "staging" / "acme" / run / "run.json"  # a run that was only held has none
        is_over = self.state(run) in ("failed", "canceled") and staging.exists()
        if is_over and not runs.holder(self.connection, "acme", self.known[run]):
            retry_run(project.config(), self.connection, run)
            assert self.state(run) == "queued"
        else:
            with pytest.raises(EtlError):
                retry_run(project.config(), self.connection, run)

    @rule()
    def flush(self) -> None:
        self.connection.flushall()
        self.known.clear()

    @rule()
    def make_the_pass(self) -> None:
        maintain(self.connection, [QUEUE], all_tasks=True)

    # --- what always holds ---

    @invariant()
    def a_pipeline_has_one_active_run_and_it_holds_the_place(self) -> None:
        active = [run for run in self.known if self.state(run) in ("queued", "running")]
        assert sorted(active) == runs.active(self.connection)
        names = [self.known[run] for run in active]
        assert len(names) == len(set(names))
        for run in active:
            assert runs.holder(self.connection, "acme", self.known[run]) == run
        for name in set(PIPELINES) - set(names):
            assert runs.holder(self.connection, "acme", name) is None

    @invariant()
    def a_run_ends_once(self) -> None:
        for run in self.known:
            if self.state(run) in runs.ENDED:
                record = runs.read(self.connection, run)
                assert record is not None
                ending = f"{record['state']} {record['ended']}"
                assert self.endings.setdefault((run, record.get("attempt", "")), ending) == ending

    @invariant()
    def nothing_is_doubled_and_nothing_is_made_up(self) -> None:
        for name in PIPELINES:
            assert not self.table(name) - self.want[name], name

    @invariant()
    def what_a_run_says_it_loaded_is_there(self) -> None:
        for run, name in self.known.items():
            if self.state(run) == "succeeded":
                found = runs.snapshot(self.connection, [run])[0]["rows"]
                assert self.table(name) == self.want[name]
                assert (found["read"], found["rejected"]) == (12, 3)
                assert found["loaded"] + found["unchanged"] == 9

    @invariant()
    def no_reader_sees_half_a_replace(self) -> None:
        assert self.table("stock") in (Counter(), self.want["stock"])

    # --- how it must be possible to end ---

    def finish_everything(self) -> None:
        """However it went: what is mended and run again ends well, and leaves nothing behind."""
        (self.root / "broken").unlink(missing_ok=True)
        self.drain()
        for name in PIPELINES:
            run = submit_run(self.connection, resolve(project.config(), name, "acme"))
            self.known[run] = name
            self.drain()
            assert self.state(run) == "succeeded", runs.snapshot(self.connection, [run])[0]["error"]
            assert self.table(name) == self.want[name]
        assert runs.active(self.connection) == []
        keys = list(self.connection.scan_iter("rq:job:*-?"))
        left = [key for key in keys if str(self.connection.hget(key, "status"), "ascii") in OPEN]  # type: ignore[arg-type]
        assert not left
        assert not self.connection.zcard(f"rq:wip:{QUEUE}")

    def drain(self) -> None:
        for _ in range(30):
            InProcessWorker(self.connection, inline=True).work()
            self.make_the_pass()
            if not runs.active(self.connection) and not runs.held(self.connection):
                return
        raise AssertionError(f"runs do not end: {runs.active(self.connection)}")

    # --- looking ---

    def state(self, run: str) -> str:
        record = runs.read(self.connection, run)
        return record["state"] if record else "forgotten"

    def held(self, name: str) -> list[str]:
        return [run for run in runs.held(self.connection) if self.known.get(run) == name]

    def table(self, name: str) -> Counter[Any]:
        path = self.root / "warehouse.db"
        with closing(sqlite3.connect(path)) as database:
            try:
                return Counter(database.execute(f"select id, n from {name}").fetchall())
            except sqlite3.OperationalError:
                return Counter()


TestRuns = Runs.TestCase
TestRuns.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "12")),
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestRuns = pytest.mark.slow(TestRuns)

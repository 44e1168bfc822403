"""Whoever can write to Redis decides neither which code workers run nor which files and databases they touch."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis import Redis

from etl.errors import EtlError
from etl.staging import Marker, Staging
from etl.staging.folders import folders
from jobs import settings
from jobs.job import EtlJob
from jobs.process import cleanup
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue
from jobs.run import held
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.stage import CHANGED
from jobs.store import keys, runs
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

TRICKS = ("", ".", "..", "../x", "a/b", "/etc", "a\\b", "..\\x", "a/../../b", "a\0b", "a\n", "x/", "./x")
NO_NAMES = (*TRICKS, "-", "Acme", "a.b", "é", "~", "*", "a b")
CONFIG = etl_toml(
    {
        "claims": {
            "extract": {"path": "inbox/{client}/claims.csv"},
            "transform": ["steps:same"],
            "load": {"mode": "append"},
            "retries": 3,
            "retry_delays": [0],
            "columns": {"claim_id": "string"},
        }
    },
    ["acme", "globex"],
).replace("[pipelines.claims]", '[targets.other]\nurl = "sqlite:///other.db"\n[pipelines.claims]', 1)
STEPS = """
import pathlib

def same(df):
    pathlib.Path(__file__).with_name("ran").touch()
    return df
"""


class Site(QueuedProject):
    """A project that a worker works for, and all that somebody may do to it from outside."""

    def __init__(self, root: Path, connection: Redis) -> None:
        super().__init__(root, connection, CONFIG, {"inbox/acme/claims.csv": "claim_id\nA1\n", "steps.py": STEPS})
        self.inbox = root / "inbox" / "acme"
        # What a path that leads out of staging would reach.
        self.write("precious/00001.extract.rows.0.parquet", "precious")

    def spec(self, run: str) -> Path:
        """Return the file of a run's spec."""
        return self.root / "staging" / "acme" / run / "run.json"

    def is_refused(self, run: str) -> bool:
        """Whether a run has failed, or its record was set aside as malformed."""
        found = runs.snapshot(self.connection, [run])
        return not found or found[0]["state"] == "failed"

    def contents(self) -> dict[str, bytes]:
        """Return all files that are not in staging, compiled code left out."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        outside = [path for path in found if path.parts[0] != "staging" and "__pycache__" not in path.parts]
        return {str(path): (self.root / path).read_bytes() for path in outside}


@pytest.fixture
def site(tmp_path: Path, fake_redis: Redis) -> Site:
    return Site(tmp_path / "site", fake_redis)


def forge(site: Site, run: str, **changes: str) -> None:
    """Change a run's record in Redis."""
    site.connection.hset(keys.run_key(run), mapping=dict[Any, Any](changes))


def rewrite(path: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a spec with something changed in its pipeline."""
    spec = json.loads(path.read_text())
    change(spec["pipeline"])
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(spec))


def evil(site: Site) -> Path:
    """Return a folder in a client's inbox with a module of the same name as the project's."""
    folder = site.inbox / "evil"
    folder.mkdir()
    (folder / "steps.py").write_text(STEPS)
    return folder


# --- forged records and jobs ---


@pytest.mark.parametrize("client", [name for name in NO_NAMES if name and "\0" not in name])
def test_a_forged_client_in_a_run_record_leads_nowhere(site: Site, client: str) -> None:
    run = site.submit()
    forge(site, run, client=client)
    before = site.contents()
    site.work()
    assert site.contents() == before
    assert site.is_refused(run)


def test_a_forged_client_finds_no_spec_in_an_inbox(site: Site) -> None:
    run, folder = site.submit(), evil(site)
    rewrite(site.spec(run), folder / run / "run.json", lambda pipeline: pipeline.update(root=str(folder)))
    forge(site, run, client="../inbox/acme/evil")
    before = site.contents()
    site.work()
    assert site.contents() == before
    assert site.is_refused(run)


@pytest.mark.parametrize("forged", ["../../precious", "..", "../../inbox/acme/evil", "/etc", "a/b"])
def test_a_forged_run_id_in_a_job_leads_nowhere(site: Site, forged: str) -> None:
    run, folder = site.submit(), evil(site)
    rewrite(site.spec(run), folder / "run.json", lambda pipeline: pipeline.update(root=str(folder)))
    record = runs.read(site.connection, run)
    cancel_run(site.connection, run)
    assert record
    forge(site, forged, **{**record, "state": "running", "attempt": "1"})
    queue = FairQueue("etl-acme", connection=site.connection)
    for stage, args in (("extract", (forged, "1")), ("transform", (forged, "1")), ("load", (forged, "1"))):
        queue.enqueue_call(f"jobs.stages.{stage}", args=args, job_id=f"x-1-{stage}-1")
    queue.enqueue_call("jobs.stages.finish", args=(forged,), job_id="x-0-finish-1")
    before = site.contents()
    site.work()
    assert site.contents() == before
    assert site.record(forged)["state"] == "failed"
    assert "is not the id of a run" in site.record(forged)["error"]


@pytest.mark.parametrize("number", ["0", "-1", "2"])
def test_a_job_for_a_partition_that_a_run_has_not_loads_nothing(site: Site, number: str) -> None:
    run = site.submit()
    queue = FairQueue("etl-acme", connection=site.connection)
    runs.begin(site.connection, run)
    job = queue.enqueue_call("jobs.stages.extract", args=(run, number), job_id=f"{run}-9-extract-1", at_front=True)
    InProcessWorker(site.connection).step()
    assert "has no partition" in (EtlJob.fetch(job.id, connection=site.connection).latest_result().exc_string or "")  # type: ignore[union-attr]
    assert not list(site.spec(run).parent.glob("*.parquet"))


def test_a_forged_function_name_writes_no_error_outside_staging(site: Site) -> None:
    run = site.submit()
    queue = FairQueue("etl-acme", connection=site.connection)
    queue.enqueue_call("jobs.stages./../../../../precious/x", args=(run, "1"), at_front=True)
    before = site.contents()
    InProcessWorker(site.connection).step()
    assert site.contents() == before


def test_folders_that_only_redis_names_are_not_looked_at(site: Site) -> None:
    run, folder = site.submit(), evil(site)
    names = ("folder", "root", "config", "staging", "path")
    forge(site, run, **dict.fromkeys(names, str(folder)))
    site.work()
    assert site.record(run)["state"] == "succeeded"
    assert (site.root / "ran").exists()
    assert not (folder / "ran").exists()


# --- forged specs ---


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "modules": lambda pipeline: pipeline.update(modules=["steps", "shutil"]),
    "staging": lambda pipeline: pipeline.update(staging="/etc"),
    "target name": lambda pipeline: pipeline["target"].update(name="evil"),
    "target url": lambda pipeline: pipeline["target"].update(url="sqlite:///evil.db"),
    "another target's url": lambda pipeline: pipeline["target"].update(url="sqlite:///other.db"),
    "client": lambda pipeline: pipeline.update(client="globex"),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_spec_that_is_not_of_the_workers_configuration_fails_the_run(site: Site, what: str) -> None:
    run = site.submit()
    rewrite(site.spec(run), site.spec(run), FORGED[what])
    before = site.contents()
    site.work()
    assert site.contents() == before  # so that no code ran and no database was made
    failed = site.record(run)
    assert (failed["state"], failed["error"]) == ("failed", CHANGED)
    assert CHANGED == "configuration changed since submit; retry"
    job = EtlJob.fetch(f"{run}-1-extract-1", connection=site.connection)
    assert job.get_status() == "failed"
    assert job.retries_left == 0


@pytest.mark.parametrize(("old", "new"), [('["steps"]', '["steps", "json"]'), ("warehouse.db", "moved.db")])
def test_so_does_a_configuration_that_has_changed_and_a_retry_cures_it(site: Site, old: str, new: str) -> None:
    run = site.submit()
    site.change((old, new))
    site.work()
    assert (site.record(run)["state"], site.record(run)["error"]) == ("failed", CHANGED)
    assert not (site.root / "ran").exists()
    retry_run(settings.config(), site.connection, run)
    site.work()
    assert site.record(run)["state"] == "succeeded"


def test_code_and_databases_are_those_of_the_workers_folder_whatever_folder_a_spec_names(site: Site) -> None:
    run, folder = site.submit(), evil(site)
    rewrite(site.spec(run), site.spec(run), lambda pipeline: pipeline.update(root=str(folder)))
    site.work()
    assert site.record(run)["state"] == "succeeded"
    assert sorted(path.name for path in folder.iterdir()) == ["steps.py"]
    if True:
        assert site.rows("select claim_id from claims") == [("A1",)]


# --- what starts and removes ---


def test_a_held_run_with_a_forged_id_or_client_is_not_planned(site: Site) -> None:
    options = json.dumps(dict.fromkeys(("start", "end", "due", "max_rejects")) | {"full_refresh": False})
    for run, client in (("../../precious", "acme"), ("held", "../acme")):
        about = runs.about(client, "claims", {}, None, None)
        waits = {"options": options, "after": "[]", "needs": "[]"}
        held.hold(site.connection, run, {**about, **waits}, was=None)
        # As RQ takes no id with a / for a job, whoever forges one names it otherwise.
        FairQueue("etl-acme", connection=site.connection).enqueue_call("jobs.stages.start", args=(run,))
        site.connection.zrem(keys.HELD, run)
    before = site.contents()
    site.work()
    assert site.contents() == before
    assert [site.is_refused(run) for run in ("../../precious", "held")] == [True, True]
    assert not (site.root / "staging").exists()


def test_a_schedule_entry_with_a_forged_client_starts_nothing(site: Site) -> None:
    queue = FairQueue("etl-acme", connection=site.connection)
    queue.enqueue_call("jobs.stages.start_due", args=("../../precious", "claims"))
    before = site.contents()
    site.work()
    assert site.contents() == before
    assert not (site.root / "staging").exists()


def test_cleaning_removes_nothing_that_only_redis_or_a_stray_folder_names(site: Site) -> None:
    run = site.submit()
    stray = site.root / "staging" / "Not a client" / "x"
    stray.mkdir(parents=True)
    (stray / "kept").write_text("kept")
    for forged in ("../../precious", "..", "/etc"):
        record = {**(runs.read(site.connection, run) or {}), "client": "../inbox", "state": "failed"}
        forge(site, forged, **record)
        site.connection.sadd(keys.ACTIVE, forged)
    site.connection.delete(keys.run_key(run))
    site.connection.srem(keys.ACTIVE, run)
    before = site.contents()
    cleanup.clean(site.connection, settings.config(), site.spec(run).stat().st_mtime + 400 * 86400)
    assert site.contents() == before
    assert not site.spec(run).exists()
    assert (stray / "kept").exists()


# --- every path of staging ---


@pytest.fixture(params=["folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "staging") if request.param == "folder" else f"memory://{uuid4().hex}"


@pytest.mark.parametrize("name", NO_NAMES)
def test_clients_and_runs_have_names_and_nothing_else(url: str, name: str) -> None:
    for client, run in ((name, "r1"), ("acme", name)):
        with pytest.raises(EtlError, match=r"is not the (name of a client|id of a run)") as caught:
            Staging(url, client, run)
        assert not caught.value.retryable


def _write(staging: Staging, name: str) -> None:
    with staging.writer("extract", 1, name) as rows:
        rows.write(pa.table({"n": [1]}))


ACTS: dict[str, Callable[[Staging, str], object]] = {
    "path": lambda staging, name: staging.path(name),
    "write_bytes": lambda staging, name: staging.write_bytes(name, b"x"),
    "write_bytes once": lambda staging, name: staging.write_bytes(name, b"x", exclusive=True),
    "read_bytes": lambda staging, name: staging.read_bytes(name),
    "write_json": lambda staging, name: staging.write_json(name, {}),
    "read_json": lambda staging, name: staging.read_json(name),
    "chunks": lambda staging, name: list(staging.chunks([name])),
    "remove_files": lambda staging, name: staging.remove_files([name]),
    "keep_private": lambda staging, name: staging.keep_private(name, "x"),
}
STAGES: dict[str, Callable[[Staging, str], object]] = {
    "marker": lambda staging, name: staging.marker(name, 1),
    "publish": lambda staging, name: staging.publish(name, 1, Marker()),
    "withdraw": lambda staging, name: staging.withdraw(name, 1),
    "writer": _write,
}
LEADING = tuple(name for name in TRICKS if "/" in name or "\\" in name or "\0" in name or "\n" in name)
CASES = [(act, name) for acts, names in ((ACTS, TRICKS), (STAGES, LEADING)) for act in acts for name in names]


@pytest.mark.parametrize(("act", "name"), CASES)
def test_no_method_takes_a_name_that_leads_out_of_the_runs_folder(
    url: str, act: str, name: str, tmp_path: Path
) -> None:
    staging = Staging(url, "acme", "r1")
    staging.write_json("run.json", {})
    (tmp_path / "x").write_text("outside")
    with pytest.raises(EtlError, match="is not the name of a file of a run"):
        {**ACTS, **STAGES}[act](staging, name)
    assert staging.names() == ["run.json"]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and "staging" not in path.parts] == ["x"]


@pytest.mark.parametrize("name", ["../x", "/etc", "run.json/../x"])
def test_what_a_marker_or_a_list_of_rejects_names_is_checked_too(url: str, name: str) -> None:
    staging = Staging(url, "acme", "r1")
    staging.publish("extract", 1, Marker(data=(name,), rejects=(name,)))
    marker = staging.marker("extract", 1)
    assert marker
    with pytest.raises(EtlError, match="is not the name of a file of a run"):
        list(staging.chunks(marker.data))
    staging.remove_strays()
    staging.remove(keep=[name])
    assert staging.names() == []


@given(st.text(), st.text(), st.text())
@example("..", "..", "x")
@example("acme", "r1", "..")
def test_every_path_is_in_the_folder_of_its_run(client: str, run: str, name: str) -> None:
    with suppress(EtlError):
        path = Path(Staging("/shop/staging", client, run).path(name))
        assert path.parts == ("/", "shop", "staging", client, run, name)


def test_a_folder_without_a_runs_name_is_no_runs(tmp_path: Path) -> None:
    for place in ("acme/r1", "acme/R 1", ".check/r1", "Acme/r1", "acme/.r1"):
        (tmp_path / place).mkdir(parents=True)
    assert [(folder.client, folder.run) for folder in folders(str(tmp_path))] == [("acme", "r1")]

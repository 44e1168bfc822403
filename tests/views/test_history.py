"""History that outlives Redis: every run that its workers have ended stands in the target's `_etl_runs`."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.config import code
from etl.config.pipeline import resolve
from etl.errors import TargetUnreachable
from etl.load import Record, history, remember
from jobs import settings
from jobs.process import cleanup
from jobs.process.inprocess import InProcessWorker
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.store import keys, runs
from jobs.store.run_json import iso
from jobs.views import history as forgotten
from tests.helpers.deliveries import pipeline, query
from tests.helpers.project import Project, etl_toml
from tests.helpers.queued_project import QueuedProject

STEPS = "def same(df):\n    return df\n"
GOOD, BAD = "claim_id,amount\nA1,1\nA2,2\n,3\n", "number,amount\nA9,1\n"
ONE = Record(
    run="r1", client="acme", pipeline="claims", table_name="claims_acme", state="succeeded", attempt=1,
    submitted=None, started=None, finished=datetime(2026, 11, 22, tzinfo=UTC), rows={"read": 3},
    partitions={"total": 1}, params={"region": "north"},
)  # fmt: skip

Case = Callable[..., dict[str, Any]]


def told(url: str, **wanted: Any) -> list[Record]:
    """Return what the target remembers."""
    return history.read(url, "warehouse", **wanted)


class House(QueuedProject):
    """A project on a Redis, into a target."""

    def __init__(self, root: Path, url: str, connection: Redis) -> None:
        self.url = url
        super().__init__(root, connection, self.text(), {"steps.py": STEPS})

    def text(self, mode: str = "merge") -> str:
        """Return an etl.toml that loads so."""
        pipeline = {
            "extract": {"path": "inbox/{client}/claims-*.csv"},
            "transform": ["steps:same"],
            "load": {"mode": mode} | ({"key": ["claim_id"]} if mode == "merge" else {}),
            "retries": 0,
            "columns": {"claim_id": {"type": "string", "required": True}, "amount": {"type": "decimal", "min": 0}},
        }
        acme = {"params": {"region": "north"}, "pipelines": ["claims"]}
        return etl_toml({"claims": pipeline}, {"acme": acme}, url=self.url)


@pytest.fixture
def house(tmp_path: Path, target_url: str, connection: Redis) -> House:
    return House(tmp_path, target_url, connection)


# --- what is written, and when ---


@pytest.mark.parametrize("mode", ["merge", "append", "replace"])
@pytest.mark.parametrize("files", [1, 3])
def test_a_run_is_remembered_by_its_target(house: House, mode: str, files: int) -> None:
    house.config(house.text(mode))
    house.files("acme", *[GOOD.replace("A", f"{'ABC'[number]}") for number in range(files)])
    start = datetime(2026, 11, 1, tzinfo=UTC)
    run = house.run(start=start, end=start + timedelta(days=1))
    [record] = told(house.url)
    [known] = runs.snapshot(house.connection, [run])
    assert (record.run, record.client, record.pipeline, record.table_name) == (run, "acme", "claims", "claims")
    assert (record.state, record.attempt, record.error) == ("succeeded", 1, None)
    assert record.rows == known["rows"] == {
        "read": 3 * files, "added": 0, "rejected": files, "dropped": 0, "superseded": 0, "loaded": 2 * files,
        "unchanged": 0,
    }  # fmt: skip
    assert record.partitions == known["partitions"] == {"total": files, "done": files, "failed": 0, "blocked": 0}
    assert record.params == {"region": "north"}
    assert (record.window_start, record.window_end) == ("2026-11-01T00:00:00+00:00", "2026-11-02T00:00:00+00:00")
    resolved = resolve(settings.config(), "claims", "acme")
    assert (record.fingerprint, record.code) == (resolved.fingerprint, code.fingerprint(resolved))
    assert datetime.min.replace(tzinfo=UTC) < (record.submitted or record.finished) <= record.finished
    assert iso(record.started.timestamp() if record.started else None) == known["started"]


def test_a_failed_run_that_loaded_some_partitions_is_remembered_as_failed(house: House) -> None:
    house.files("acme", GOOD, BAD)
    house.run()
    [record] = told(house.url)
    assert (record.state, record.rows["loaded"]) == ("failed", 2)
    assert record.partitions == {"total": 2, "done": 1, "failed": 1, "blocked": 0}
    assert "no column claim_id" in str(record.error)


def test_a_run_that_its_target_refused_is_remembered(house: House) -> None:
    house.config(house.text("append") + "\n[clients.acme.override.claims]\nmax_rejects = 0\n")
    house.files("acme", GOOD)
    house.run()
    [record] = told(house.url)
    assert (record.state, record.rows["loaded"], record.rows["read"]) == ("failed", 0, 3)


def test_a_run_that_failed_before_it_reached_its_target_is_remembered(house: House) -> None:
    house.files("acme", BAD)
    house.run()
    [record] = told(house.url)
    assert (record.state, record.rows["loaded"], record.partitions["failed"]) == ("failed", 0, 1)
    assert "no column claim_id" in str(record.error)


def test_a_retried_run_keeps_its_row(house: House) -> None:
    house.files("acme", GOOD, BAD)
    run = house.run()
    house.config(house.text() + '[clients.acme.rename.claims]\nnumber = "claim_id"\n')
    retry_run(settings.config(), house.connection, run)
    house.work()
    [record] = told(house.url)
    assert (record.run, record.state, record.attempt, record.error) == (run, "succeeded", 2, None)
    assert record.rows["loaded"] == 3


def test_an_older_attempt_that_comes_late_changes_nothing(target_url: str) -> None:
    from dataclasses import replace

    remember(pipeline(), replace(ONE, attempt=2), target_url)
    remember(pipeline(), replace(ONE, attempt=1, state="failed"), target_url)
    assert [(record.state, record.attempt) for record in told(target_url)] == [("succeeded", 2)]


def test_it_stands_in_the_schema_of_the_pipelines_table(pg_url: str) -> None:
    query(pg_url, "CREATE SCHEMA north")
    remember(pipeline(table="north.claims"), ONE, pg_url)
    assert query(pg_url, "SELECT run FROM north._etl_runs") == [("r1",)]
    assert told(pg_url) == []
    assert told(pg_url, schemas=["north", None]) == [ONE]


def test_a_target_is_asked_without_making_or_locking_anything(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    assert told(url) == []
    assert list(tmp_path.iterdir()) == []
    remember(pipeline(), ONE, url)
    import sqlite3

    with sqlite3.connect(tmp_path / "none.db", isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert told(url) == [ONE]


def test_what_is_asked_for_is_answered(target_url: str) -> None:
    from dataclasses import replace

    hour = timedelta(hours=1)
    for number, (client, state) in enumerate([("acme", "succeeded"), ("acme", "failed"), ("globex", "failed")]):
        remember(pipeline(), replace(ONE, run=f"r{number}", client=client, state=state, finished=ONE.finished + number * hour), target_url)  # fmt: skip  # noqa: E501
    remember(pipeline(), replace(ONE, run="x1", finished=ONE.finished - hour), target_url)
    assert [record.run for record in told(target_url)] == ["r2", "r1", "r0", "x1"]
    assert [record.run for record in told(target_url, limit=1)] == ["r2"]
    assert [record.run for record in told(target_url, client="acme")] == ["r1", "r0", "x1"]
    assert [record.run for record in told(target_url, run="x")] == ["x1"]
    assert [record.run for record in told(target_url, since=ONE.finished + hour)] == ["r2", "r1"]
    assert [record.run for record in told(target_url, latest=True)] == ["r2", "r1", "r0"]


def test_an_unreachable_target_is_reported(tmp_path: Path) -> None:
    with pytest.raises(TargetUnreachable):
        told(f"postgresql://nobody@/none?host={tmp_path}")


# --- the fingerprint of code ---


def test_the_code_of_another_day_is_another(house: House) -> None:
    resolved = resolve(settings.config(), "claims", "acme")
    before = code.fingerprint(resolved)
    assert len(before) == 64
    (house.root / "steps.py").write_text(STEPS + "# changed\n")
    assert code.fingerprint(resolved) != before
    (house.root / "steps.py").write_text(STEPS)
    assert code.fingerprint(resolved) == before


def test_a_pipeline_without_functions_has_no_code(house: House) -> None:
    assert code.fingerprint(resolve(settings.config(), "claims", "acme").model_copy(update={"transform": ()})) == ""


def test_all_files_of_a_package_are_its_code(tmp_path: Path) -> None:
    package = tmp_path / "ours" / "inner"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "deep.py"):
        file.write_text("")
    asked = pipeline(transform=["ours.inner.deep:f"]).model_copy(update={"root": str(tmp_path), "modules": ("ours",)})
    before = code.fingerprint(asked)
    (package / "deep.py").write_text("x = 1")
    assert code.fingerprint(asked) != before


def lines(asked: Any, root: Path, files: dict[str, str]) -> str:
    """Write files of code, and return the fingerprint."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return code.fingerprint(asked)


@pytest.mark.parametrize(
    ("module", "files"),
    [
        ("pk.steps", {"pk/steps.py": "from .h import K\n", "pk/h.py": "K = 1\n"}),
        ("pk.steps", {"pk/steps.py": "from . import h\n", "pk/h.py": "K = 1\n"}),
        ("pk.deep.steps", {"pk/deep/steps.py": "from ..h import K\n", "pk/h.py": "K = 1\n"}),
        ("pk.steps", {"pk/steps.py": "\n", "pk/__init__.py": "K = 1\n"}),
        ("m", {"m.py": "def f(df):\n    import h2\n    return df\n", "h2.py": "K = 1\n"}),
        ("m", {"m.py": "import pk.deep.h\n", "pk/deep/h.py": "K = 1\n"}),
        ("m", {"m.py": "import one\n", "one.py": "from two import K\n", "two.py": "import m\nK = 1\n"}),
        ("m", {"m.py": "from pk import K\n", "pk/__init__.py": "from .h import K\n", "pk/h.py": "K = 1\n"}),
        ("pk", {"pk/__init__.py": "from h2 import K\n", "h2.py": "K = 1\n"}),
    ],
    ids=str,
)
def test_what_a_module_imports_from_the_folder_is_its_code(tmp_path: Path, module: str, files: dict[str, str]) -> None:
    asked = pipeline(transform=[f"{module}:f"]).model_copy(update={"root": str(tmp_path), "modules": (module,)})
    before = lines(asked, tmp_path, files)
    helper = list(files)[-1]
    assert lines(asked, tmp_path, {helper: files[helper] + "K = 2\n"}) != before
    assert lines(asked, tmp_path, files) == before


def test_a_module_without_helpers_has_the_fingerprint_of_earlier_releases(tmp_path: Path) -> None:
    """Else an upgrade would read every file again."""
    asked = pipeline(transform=["pk.m:f"]).model_copy(update={"root": str(tmp_path), "modules": ("pk.m",)})
    text = "import json\nimport broken\n"
    found = lines(asked, tmp_path, {"pk/__init__.py": "", "pk/m.py": text, "other.py": "K = 1\n"})
    assert found == hashlib.sha256(f"m.py {len(text)}\n{text}".encode()).hexdigest()


# --- runs that ended where nobody could tell the target ---


def test_a_canceled_run_that_loaded_something_is_reported_by_the_cleanup(house: House) -> None:
    house.files("acme", GOOD, GOOD.replace("A", "B"))
    run = house.submit()
    worker = InProcessWorker(house.connection)
    while ("load", "done") not in {
        (stage, record.state) for (_, stage), record in runs.stage_records(house.connection, run).items()
    }:
        assert worker.step()
    cancel_run(house.connection, run)
    assert cleanup.clean(house.connection, settings.config()).remembered == 1
    assert [(record.run, record.state) for record in told(house.url)] == [(run, "canceled")]
    assert cleanup.clean(house.connection, settings.config()).remembered == 0


def test_so_is_a_run_that_redis_forgot_half_way(house: House) -> None:
    house.files("acme", GOOD, GOOD.replace("A", "B"))
    run = house.submit()
    worker = InProcessWorker(house.connection)
    while not any(stage == "load" for _, stage in runs.stage_records(house.connection, run)):
        assert worker.step()
    house.connection.flushall()
    assert cleanup.clean(house.connection, settings.config()).remembered == 1
    [record] = told(house.url)
    assert (record.run, record.state) == (run, "failed")
    assert "Redis has forgotten" in str(record.error)


# --- commands, when Redis has forgotten ---


@pytest.fixture
def flushed(etl: Project, connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose runs Redis has forgotten; commands ask that Redis."""
    from jobs import broker

    monkeypatch.setattr(broker, "connect", lambda *_, **__: broker.given(connection))
    etl.config()
    etl.write("inbox/globex/claims-1.csv", "claim_id,amount\nB1,x\nB2,2\n")
    return etl


def test_runs_status_show_and_rejects_know_what_redis_has_forgotten(flushed: Project) -> None:
    good, partly = flushed.run(), flushed.run(client="globex")
    assert [run["run"] for run in flushed("runs --json").json] == [partly["run"], good["run"]]
    shown = flushed(f"show {good['run'][:6]} --json").json
    roughly = dict.fromkeys(("finished", "seconds", "stages", "lost"))  # the load ends a little before the run
    assert {**shown, **roughly} == {**good, **roughly}
    assert flushed("show acme/claims --json").json["run"] == good["run"]
    lines = {line["client"]: line for line in flushed("status --json").json}
    assert (lines["acme"]["run"], lines["acme"]["state"], lines["acme"]["rows"]) == (good["run"], "succeeded", 2)
    rejects = flushed("rejects globex/claims --rows --json").json
    assert [(row["row"], row["column"]) for row in rejects] == [(2, "amount")]


def test_of_a_run_that_both_know_redis_is_right(flushed: Project, connection: Redis) -> None:
    run = flushed.run()["run"]
    record: dict[Any, Any] = {
        "client": "acme",
        "pipeline": "claims",
        "state": "running",
        "created": "1.0",
        "partitions": "1",
    }
    connection.hset(keys.run_key(run), mapping=record)
    connection.zadd(keys.INDEX, {run: 1.0})
    assert [(each["run"], each["state"]) for each in flushed("runs --json").json] == [(run, "running")]
    assert flushed("runs --state succeeded --json").json == []


def test_a_missing_secret_is_a_warning_and_no_failure(flushed: Project) -> None:
    flushed.run()
    flushed.config(flushed.root.joinpath("etl.toml").read_text(), ("sqlite:///warehouse.db", "sqlite:///${NOT_SET}.db"))
    for command in ("runs --json", "status --json"):
        said = flushed(command)
        assert said.code == 0
        assert said.err.startswith("rq-etl: warning: targets.warehouse.url: NOT_SET is not in the environment")
        assert said.err.count("\n") == 1
    assert flushed("show acme/claims").code == 2


def test_an_unreachable_target_is_a_warning_and_no_failure(flushed: Project) -> None:
    flushed.config(
        flushed.root.joinpath("etl.toml").read_text(),
        ("sqlite:///warehouse.db", "postgresql://nobody@/none?host=/nowhere"),
    )
    said = flushed("runs --json")
    assert (said.code, said.json) == (0, [])
    assert said.err.startswith("rq-etl: warning: target warehouse can't be reached")


def test_a_span_that_redis_knows_whole_asks_no_target(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    from jobs.session import Session

    began = time.time()
    house.files("acme", GOOD)
    run = house.run()
    session = Session(house.root / "etl.toml", house.connection)
    asked: list[int] = []

    def remembered(*_: Any, **__: Any) -> list[dict[str, Any]]:
        asked.append(1)
        return []

    monkeypatch.setattr(forgotten, "remembered", remembered)
    since = float(str(house.connection.get(keys.SINCE).decode()))  # type: ignore[union-attr]
    assert [each["run"] for each in forgotten.recent(session, since=since)] == [run]
    assert asked == []
    forgotten.recent(session, since=began - 60)
    assert asked == [1]
    session.close()

"""What filters looks at all runs there are: a failure is found however many runs came after it."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.config.pipeline import resolve
from etl.load import history as target_history
from jobs import broker, settings
from jobs.process.inprocess import InProcessWorker
from jobs.run.submit import submit_run
from jobs.store import keys, runs
from tests.helpers.dashboard_pages import Pages, pages
from tests.helpers.project import Project

MANY = 2300  # a night and a half of 800 clients
__all__ = ["pages"]


def others(connection: Redis, count: int = MANY, client: str = "globex", state: str = "succeeded") -> None:
    """Write runs that have ended later than all others."""
    now, pipe = time.time(), connection.pipeline()
    for number in range(count):
        run, moment = f"other{number}", now + number / 1000
        fields: dict[Any, Any] = {
            "client": client,
            "pipeline": "claims",
            "state": state,
            "params": "{}",
            "attempt": "1",
            "exit": "0",
        }
        pipe.hset(keys.run_key(run), mapping={**fields, "created": repr(moment), "ended": repr(moment)})
        pipe.zadd(keys.INDEX, {run: moment})
    pipe.execute()


@pytest.fixture
def crowd(etl: Project, connection: Redis, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one failed run, and two thousand and more that succeeded after it."""
    monkeypatch.setattr(broker, "connect", lambda *_, **__: broker.given(connection))
    etl.config()
    etl.write("inbox/acme/claims-1.csv", "number\n1\n")
    settings.use(etl.path)
    submit_run(connection, resolve(settings.config(), "claims", "acme"))
    InProcessWorker(connection, inline=True).work()
    [failed] = runs.recent(connection)
    assert failed["state"] == "failed"
    others(connection)
    return etl


def test_a_failed_run_is_listed_and_retried_however_many_runs_came_after_it(crowd: Project, connection: Redis) -> None:
    [failed] = crowd("runs --state failed --json").json
    assert failed["client"] == "acme"
    for options in ("--client acme", "--client acme --state failed --since 1h", "--state failed --since 1h"):
        assert [run["run"] for run in crowd(f"runs {options} --json").json] == [failed["run"]]
    assert crowd("show acme/claims --json").json["run"] == failed["run"]
    lines = {line["client"]: line for line in crowd("status --json").json}
    assert (lines["acme"]["run"], lines["acme"]["state"]) == (failed["run"], "failed")
    assert failed["run"] in crowd("retry --failed").out
    assert runs.snapshot(connection, [failed["run"]])[0]["attempt"] == 2


def test_a_list_that_ends_before_the_last_run_says_so(crowd: Project) -> None:
    said = crowd("runs --json")
    assert len(said.json) == 1000
    assert "more runs than the newest 1,000" in said.err
    assert "--state" in said.err
    assert crowd("runs --state failed --json").err == ""


def test_the_dashboard_finds_a_failed_run_among_thousands_and_says_how_far_it_looks(
    pages: Pages, connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    others(connection, 1, client="acme", state="failed")
    now = time.time()
    for number in range(300):
        run = f"later{number}"
        connection.hset(keys.run_key(run), mapping={"client": "globex", "pipeline": "claims", "state": "succeeded"})
        connection.zadd(keys.INDEX, {run: now + 1 + number})
    assert "other0" in pages.get("/?state=failed")
    assert "The newest 200 are shown." in pages.get("/?client=globex")
    monkeypatch.setattr("jobs.dashboard.SEARCHED", 250)
    page = pages.get("/?state=failed")
    assert "Only the newest 250 runs of all were looked at" in page


def test_a_target_remembers_a_failure_however_many_runs_came_after_it(tmp_path: Path, target_url: str) -> None:
    etl = Project(tmp_path)
    etl.config()
    pipeline = etl.pipeline()
    now = datetime.now(UTC)
    record = target_history.Record("failed1", "acme", "claims", "claims", "failed", 1, now, now, now, {}, {})
    target_history.remember(pipeline, record, target_url)
    book = target_history._table(None)
    from etl.load.targets.connect import transaction

    with transaction(target_url, "warehouse") as session:
        row = session.execute(book.select()).one()._asdict()
        later = [
            {
                **row,
                "run": f"r{number}",
                "state": "succeeded",
                "finished": row["finished"] + timedelta(seconds=number + 1),
            }
            for number in range(1200)
        ]
        session.execute(book.insert(), later)
    [found] = target_history.read(target_url, "warehouse", state="failed")
    assert found.run == "failed1"
    assert len(target_history.read(target_url, "warehouse", limit=None)) == 1201


def test_canceling_by_client_and_pipeline_takes_the_run_that_has_not_ended(crowd: Project, connection: Redis) -> None:
    crowd.write("inbox/acme/claims-1.csv", "claim_id,amount\nA1,1\n")
    pipeline = resolve(settings.config(), "claims", "acme")
    running = submit_run(connection, pipeline)
    held = submit_run(connection, pipeline, queue=True)
    others(connection, 3, client="acme")  # which have ended, and were submitted later
    assert crowd("cancel acme/claims").code == 0
    assert runs.snapshot(connection, [running])[0]["state"] == "canceled"
    assert crowd("cancel acme/claims").code == 0
    assert runs.snapshot(connection, [held])[0]["state"] == "canceled"
    assert {run["state"] for run in runs.recent(connection, client="acme", state="succeeded")} == {"succeeded"}

"""A run of --inline that failed is known when its process has ended: shown, explained and retried like any other."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from jobs.process.inprocess import InProcessWorker
from tests.helpers.project import Project, etl_toml

COLUMNS = {"claim_id": {"type": "string", "required": True}, "amount": {"type": "decimal", "min": 0}}
GOOD, BAD = "claim_id,amount\nA1,1\nA2,-2\n", "number,amount\nA9,1\n"
STEPS = """
import os, signal

def same(df):
    if os.path.exists("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.path.exists("stop"):
        raise KeyboardInterrupt
    return df
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    pipeline = {"transform": ["steps:same"], "retries": 0, "columns": COLUMNS}
    config = etl_toml({"claims": pipeline, "late": {**pipeline, "needs": ["claims"]}}, ["acme", "globex"])
    return Project(tmp_path, config, {"steps.py": STEPS, "inbox/acme/1.csv": GOOD})


@pytest.fixture
def failed(project: Project) -> dict[str, Any]:
    """A run of which one file was loaded and one was not."""
    project.write("inbox/acme/2.csv", BAD)
    run: dict[str, Any] = project.run()
    assert run["state"] == "failed"
    return run


@pytest.fixture(params=["--inline", "by queue"])
def elsewhere(request: pytest.FixtureRequest, project: Project) -> Any:
    """Options of a command that retries, here or by a Redis, and the work that follows there."""
    if request.param == "--inline":
        return "--inline", lambda: None
    connection: Redis = request.getfixturevalue("real_redis")
    url = request.getfixturevalue("redis_server").url
    return f"--redis {url}", InProcessWorker(connection).work


def left(project: Project) -> list[str]:
    return [path.name for path in (project.root / "staging" / "acme").glob("*/ended.json")]


def test_it_is_shown_as_its_process_knew_it(project: Project, failed: dict[str, Any]) -> None:
    for text in (failed["run"], failed["run"][:6], "acme/claims"):
        shown = project(f"show {text} --json").json
        stages = shown.pop("stages")
        assert shown.pop("lost") == []
        assert shown == failed
    assert [(line["partition"], line["stage"], line["state"]) for line in stages][:3] == [
        (1, "extract", "done"), (1, "transform", "done"), (1, "load", "done"),
    ]  # fmt: skip
    assert "claim_id" in next(line["error"] for line in stages if line["state"] == "failed")
    said = project(f"logs {failed['run']}").out
    assert all(words in said for words in ("load 1: done", "transform 2: failed", "claim_id"))
    [reject] = project(f"rejects {failed['run']} --rows --json").json
    assert (reject["row"], reject["column"]) == (3, "amount")


def test_its_retry_loads_what_is_missing(project: Project, failed: dict[str, Any], elsewhere: Any) -> None:
    options, work = elsewhere
    project.write("inbox/acme/2.csv", "claim_id,amount\nA9,9\n")
    assert project(f"retry {failed['run'][:7]} {options}").code == 0
    work()
    assert project.rows("select claim_id from claims order by 1") == [("A1",), ("A9",)]
    assert project.rows("select state, attempt from _etl_runs") == [("succeeded", 2)]
    assert left(project) == []


def test_retry_failed_finds_it(project: Project, failed: dict[str, Any], elsewhere: Any) -> None:
    options, work = elsewhere
    project.write("inbox/acme/2.csv", "claim_id,amount\nA9,9\n")
    assert project(f"retry --failed --since 1h {options}").code == 0
    work()
    assert project.rows("select state, attempt from _etl_runs") == [("succeeded", 2)]
    assert project(f"retry --failed {options}").out == "nothing is retried\n"


def test_retry_finds_it_by_its_client_and_pipeline_and_runs_lists_it(project: Project, elsewhere: Any) -> None:
    """Also one that found no file, which no target remembers."""
    options, work = elsewhere
    run = project.run(client="globex")
    for command in ("runs", "runs --state failed --client globex --since 1h"):
        assert [each["run"] for each in project(f"{command} --json").json] == [run["run"]]
    assert project("runs --state succeeded --json").json == project("runs --client acme --json").json == []
    project.write("inbox/globex/1.csv", GOOD)
    assert project(f"retry globex/claims {options}").code == 0
    work()
    assert project.rows("select _client, claim_id from claims") == [("globex", "A1")]
    assert [each["state"] for each in project("runs --json").json] == ["succeeded"]


def test_a_retry_that_fails_again_is_known_again(project: Project, failed: dict[str, Any]) -> None:
    said = project(f"retry {failed['run']} --inline --json")
    [again] = said.json
    assert (said.code, again["state"], again["attempt"]) == (1, "failed", 2)
    assert project(f"show {failed['run']} --json").json["attempt"] == 2
    project.write("inbox/acme/2.csv", "claim_id,amount\nA9,9\n")
    [fine] = project(f"retry {failed['run']} --inline --json").json
    assert (fine["state"], fine["attempt"], fine["rows"]["loaded"]) == ("succeeded", 3, 2)


def test_one_that_could_not_be_planned_is_known_by_its_staging_alone(project: Project, elsewhere: Any) -> None:
    options, work = elsewhere
    run = project.run(client="globex")
    assert (run["state"], run["partitions"]["total"]) == ("failed", 0)
    shown = project(f"show {run['run']} {options.replace('--inline', '')} --json").json
    assert (shown["state"], shown["error"]) == ("failed", run["error"])
    assert project(f"logs {run['run']} {options.replace('--inline', '')}").code == 0
    project.write("inbox/globex/1.csv", GOOD)
    assert project(f"retry {run['run']} {options}").code == 0
    work()
    assert project.rows("select _client, claim_id from claims") == [("globex", "A1")]


def test_one_that_waited_in_vain_is_retried(project: Project, elsewhere: Any) -> None:
    options, work = elsewhere
    project.write("inbox/acme/1.csv", BAD)
    said = project("run claims late --client acme --inline --json")
    first, second = said.json
    assert (first["state"], second["state"]) == ("failed", "failed")
    project.write("inbox/acme/1.csv", GOOD)
    assert project(f"retry {first['run']} {second['run']} {options}").code == 0
    work()
    assert project.rows("select count(*) from late") == [(1,)]


def test_one_whose_process_was_stopped_is_known(project: Project, elsewhere: Any) -> None:
    options, work = elsewhere
    stop = project.write("stop", "")
    assert project("run claims --client acme --inline").code == 130
    shown = project("show acme/claims --json").json
    assert (shown["state"], shown["error"]) == ("failed", "its process was stopped before it had ended")
    stop.unlink()
    assert project(f"retry {shown['run']} {options}").code == 0
    work()
    assert project.rows("select claim_id from claims") == [("A1",)]


def test_one_whose_process_was_killed_is_known_by_its_id(project: Project) -> None:
    die = project.write("die", "")
    command = [sys.executable, "-m", "cli", "run", "claims", "--client", "acme", "--inline"]
    environment = {key: value for key, value in os.environ.items() if key != "REDIS_URL"}
    assert subprocess.run(command, cwd=project.root, env=environment, check=False).returncode == -signal.SIGKILL
    die.unlink()
    [folder] = (project.root / "staging" / "acme").iterdir()
    shown = project(f"show {folder.name} --json").json
    assert (shown["client"], shown["pipeline"], shown["state"]) == ("acme", "claims", "failed")
    assert "how it ended is not known" in shown["error"]
    assert project(f"retry {folder.name} --inline").code == 0
    assert project.rows("select claim_id from claims") == [("A1",)]


def test_one_that_succeeded_is_not_retried(project: Project) -> None:
    run = project.run()["run"]
    said = project(f"retry {run} --inline")
    assert said.code == 1
    assert f"run {run} is succeeded; only failed and canceled runs are retried" in said.err
    assert left(project) == []


@pytest.mark.parametrize("text", ["*", "../x", "acme/*", "a*", "", "zzzz"])
def test_what_names_no_run_is_looked_for_nowhere(project: Project, failed: dict[str, Any], text: str) -> None:
    said = project("show", text)
    assert said.code in (1, 2)
    assert "no run" in said.err


def test_waiting_for_it_and_canceling_it_say_how_it_ended(project: Project, failed: dict[str, Any]) -> None:
    for text in (failed["run"], "acme/claims"):
        waited = project(f"wait {text} --json")
        assert (waited.code, [run["state"] for run in waited.json]) == (1, ["failed"])
        assert project(f"cancel {text}").out == f"{failed['run']} failed\n"
    assert project("wait nosuch").code == project("cancel nosuch").code == 2

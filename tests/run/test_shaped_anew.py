"""Rows are shaped by the lookups of their time: a retry reads them anew, and what they were is written down."""

from pathlib import Path

import pytest
from redis import Redis

from etl.transform import lookups
from jobs import settings
from jobs.process.inprocess import InProcessWorker
from jobs.run.retry import retry_run
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

STEPS = """
def name(df, names):
    known = dict(zip(names["id"], names["name"]))
    df["name"] = [known[id] for id in df["id"]]
    return df
"""


@pytest.fixture
def project(tmp_path: Path, fake_redis: Redis) -> QueuedProject:
    pipeline = {
        "extract": {"path": "inbox/*.csv"},
        "transform": ["steps:name"],
        "lookups": {"names": {"type": "csv", "path": "names.csv", "settle": 0}},
        "load": {"mode": "merge", "key": ["id"]},
        "retries": 0,
        "columns": {"id": "integer", "name": {"computed": True}},
    }
    files = {"inbox/a.csv": "id\n1\n", "inbox/b.csv": "id\n2\n", "steps.py": STEPS}
    return QueuedProject(tmp_path, fake_redis, etl_toml({"claims": pipeline}), files)


def test_a_retry_reads_the_lookups_anew(project: QueuedProject) -> None:
    project.write("names.csv", "id,name\n1,one\n")
    run = project.run()
    assert project.state(run) == "failed"
    project.write("names.csv", "id,name\n1,one\n2,two\n")
    retry_run(settings.config(), project.connection, run)
    project.work()
    assert project.state(run) == "succeeded"
    assert project.rows("SELECT id, name FROM claims ORDER BY id") == [(1, "one"), (2, "two")]


def test_a_lookup_that_changes_while_a_file_is_being_skipped_is_seen_by_the_next_run(project: QueuedProject) -> None:
    (project.root / "inbox/b.csv").unlink()
    project.write("names.csv", "id,name\n1,one\n")
    project.run()
    run = project.submit()
    assert InProcessWorker(project.connection).step()  # the file is left out, as nothing has changed
    project.write("names.csv", "id,name\n1,uno\n")
    lookups._read.clear()  # as in another worker's process
    project.work()
    assert project.record(run)["rows"]["unchanged"] == 1
    project.run()
    assert project.rows("SELECT id, name FROM claims") == [(1, "uno")]

"""Guards: an empty, odd or stale delivery, or none at all, is reported or refused."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.errors import ConfigError
from tests.helpers.project import Folder, etl_toml
from tests.helpers.queued_project import QueuedProject


def text(expect: str) -> str:
    """Return an etl.toml that expects so."""
    pipeline = {"extract": {"path": "claims*.csv", "missing": "ok"}, "columns": {"id": {"required": True}}}
    return etl_toml({"claims": {"expect": "EXPECT", **pipeline}}).replace('"EXPECT"', expect)


@pytest.fixture
def run(tmp_path: Path, fake_redis: Redis) -> Any:
    project = QueuedProject(tmp_path, fake_redis, "")

    def execute(expect: str, *files: tuple[int, float]) -> dict[str, Any]:
        project.config(text(expect))
        for number, (rows, age) in enumerate(files):
            path = tmp_path / f"claims-{number}.csv"
            path.write_text("id\n" + "".join(f"{number}-{row}\n" for row in range(rows)))
            os.utime(path, (time.time() - age, time.time() - age))
        return project.record(project.run())

    return execute


def loaded(folder: Path) -> int:
    project = Folder(folder)
    return int(project.rows("SELECT count(*) FROM claims")[0][0]) if "claims" in project.tables() else 0


@pytest.mark.parametrize("files", [((3, 0),), ((2, 0), (1, 0))])
def test_an_odd_delivery_is_loaded_with_a_warning(run: Any, tmp_path: Path, files: Any) -> None:
    found = run("{ rows = [10, 100] }", *files)
    assert found["state"] == "succeeded"
    assert found["warnings"] == ["3 rows were delivered, 10 to 100 were expected"]
    assert loaded(tmp_path) == 3


@pytest.mark.parametrize("files", [((3, 0),), ((2, 0), (1, 0))])
def test_an_odd_delivery_is_refused_whole_where_the_pipeline_says_so(run: Any, tmp_path: Path, files: Any) -> None:
    found = run('{ rows = [10, 100], otherwise = "fail" }', *files)
    assert found["state"] == "failed"
    assert "3 rows were delivered, 10 to 100 were expected" in found["error"]
    assert found["warnings"] == []  # told once
    assert loaded(tmp_path) == 0


def test_a_delivery_as_expected_is_not_reported(run: Any, tmp_path: Path) -> None:
    found = run('{ rows = [1, 10], fresh = "1h", otherwise = "fail" }', (5, 60))
    assert (found["state"], found["warnings"]) == ("succeeded", [])
    assert loaded(tmp_path) == 5


def test_a_stale_delivery_is_reported_by_its_newest_file(run: Any) -> None:
    found = run('{ fresh = "26h" }', (1, 100 * 3600), (1, 30 * 3600))
    assert found["warnings"] == ["the newest file is 30.0 hours old, at most 26.0 hours was expected"]


def test_no_delivery_at_all_is_reported(run: Any) -> None:
    found = run('{ rows = [1, 10], fresh = "26h" }')
    assert found["state"] == "succeeded"
    assert len(found["warnings"]) == 2
    found = run('{ rows = [1, 10], otherwise = "fail" }')
    assert (found["state"], found["exit"]) == ("failed", 1)


@pytest.mark.parametrize(
    "expect", ["{ rows = [5, 1] }", "{}", "{ rows = [1] }", '{ fresh = "soon" }', "{ row = [1, 2] }"]
)
def test_an_expectation_without_sense_is_a_mistake(tmp_path: Path, expect: str) -> None:
    with pytest.raises(ConfigError, match=r"pipelines\.claims\.expect"):
        Folder(tmp_path, text(expect)).loaded()

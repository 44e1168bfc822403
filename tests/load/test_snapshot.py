"""A database that an earlier release has loaded goes on; how the snapshots were made is in their README."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from etl.load import drop_leftovers, history
from tests.helpers.deliveries import query, values

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = Path(__file__).parent / "snapshot"


def restore(url: str) -> None:
    """Load a snapshot into an empty database."""
    scheme = url.partition(":")[0]
    text = (SNAPSHOT / f"{scheme}.sql").read_text()
    if scheme == "sqlite":
        with closing(sqlite3.connect(url.partition("///")[2])) as file:
            file.executescript(text)
    else:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(text.encode())


@pytest.fixture
def run(target_url: str, tmp_path: Path) -> Callable[..., list[Any]]:
    """The project on its second night, over the database of its first."""
    restore(target_url)
    shutil.copy(SNAPSHOT / "etl.toml", tmp_path)
    for night in ("night1", "night2"):
        shutil.copytree(SNAPSHOT / night, tmp_path / "inbox", dirs_exist_ok=True)

    def run(*words: str) -> list[Any]:
        command = [sys.executable, "-m", "cli", *words, "--json"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SNAPSHOT_URL": target_url}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        found: list[Any] = json.loads(result.stdout)
        return found

    return run


def rows(runs: list[Any]) -> dict[str, tuple[int, ...]]:
    """Return read, rejected, superseded, loaded and unchanged by client and pipeline."""
    kinds = ("read", "rejected", "superseded", "loaded", "unchanged")
    return {f"{run['client']}/{run['pipeline']}": tuple(run["rows"][kind] for kind in kinds) for run in runs}


@pytest.mark.slow
def test_the_next_night_goes_on_where_the_last_ended(target_url: str, run: Callable[..., list[Any]]) -> None:
    counts = rows(run("run", "--all-clients", "--inline"))
    for client, first in (("acme", 0), ("zenith", 100)):
        # C1 and C4 are new, C3 is older; C2 is there, and the three rows of the first file, which is not read again
        assert counts[f"{client}/claims"] == (7, 0, 1, 2, 4)
        assert counts[f"{client}/visits"] == (5, 1, 0, 1, 3)  # the first file is appended once
        assert counts[f"{client}/prices"] == (2, 0, 0, 2, 0)
        assert counts[f"{client}/payments"] == (5, 0, 0, 2, 3)  # from the cursor on
        visits = values(target_url, "visit", f"visits_{client}")
        assert visits == [(first + visit,) for visit in (1, 2, 4, 5)]
        orders = values(target_url, "id, what", f"orders_{client}")
        assert orders == [(first + 1, "paper"), (first + 2, "ink"), (first + 3, "glue")]
    assert counts["acme/orders"] == (3, 0, 0, 3, 0)
    assert counts["zenith/orders"] == (3, 0, 0, 0, 3)
    claims = query(target_url, "SELECT claim_id, amount FROM claims WHERE _client = 'acme' ORDER BY claim_id")
    assert [(claim, float(amount)) for claim, amount in claims] == [
        ("C1", 11.0),
        ("C2", 20.0),
        ("C3", 30.000000001),
        ("C4", 40.0),
    ]
    assert query(target_url, "SELECT client, value FROM _etl_cursors ORDER BY 1") == [("acme", "5"), ("zenith", "5")]


def test_history_lists_the_runs_of_before(target_url: str, run: Callable[..., list[Any]]) -> None:
    found = history.read(target_url, "warehouse", [None])
    assert len(found) == 10
    assert [(each.client, each.pipeline) for each in found if each.state == "failed"] == [("acme", "orders")]
    assert all(each.finished.tzinfo and each.rows["read"] for each in found)


def test_what_an_unfinished_run_has_staged_is_known_and_cleaned(target_url: str, run: Callable[..., list[Any]]) -> None:
    (failed,) = [each.run for each in history.read(target_url, "warehouse", [None]) if each.state == "failed"]
    assert query(target_url, f"SELECT count(*) FROM _etl_shadow_{failed}") == [(2,)]
    before = history.read(target_url, "warehouse", [None])[0].finished.replace(year=2100)
    assert drop_leftovers(target_url, "warehouse", [None], spare=(), before=before) == [failed]
    assert query(target_url, f"SELECT count(*) FROM _etl_loads WHERE run = '{failed}'") == [(0,)]

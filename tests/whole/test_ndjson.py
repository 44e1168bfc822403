"""NDJSON from file to table: without and with declared columns, and what becomes of lines that are no rows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl.errors import ConfigError
from jobs.api import Run
from jobs.pytest_plugin import Harness
from jobs.views import rejects

TOML = """
[targets.warehouse]
url = "sqlite:///warehouse.db"

[pipelines.events]
extract = {{ type = "ndjson", path = "inbox/{{client}}/*.ndjson", settle = 0 }}
load = {{ target = "warehouse", table = "events", mode = "merge", key = ["id"] }}
{columns}

[clients.acme]
pipelines = ["events"]
"""
COLUMNS = """
[pipelines.events.columns]
id = { type = "integer", required = true }
amount = { type = "decimal" }
"""


@pytest.fixture
def harness(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Harness]:
    (tmp_path / "etl.toml").write_text(TOML.format(columns=getattr(request, "param", "")))
    (tmp_path / "inbox/acme").mkdir(parents=True)
    made = Harness(tmp_path, tmp_path / "etl.toml")
    yield made
    made.close()


def deliver(harness: Harness, *lines: str) -> None:
    (harness.folder / "inbox/acme/events.ndjson").write_text("\n".join(lines))


def test_objects_become_rows_with_types_that_were_found(harness: Harness) -> None:
    deliver(harness, '{"id": 1, "amount": 1.5, "tags": ["a"]}', "no json", '{"id": 2, "at": "2026-01-31", "ok": true}')
    run = harness.run("events", client="acme")
    assert (run.state, run.rows.loaded, run.rows.rejected) == ("succeeded", 2, 1)
    table = harness.table("events")
    assert table[["id", "amount", "tags", "at", "ok"]].astype(object).where(table.notna(), None).values.tolist() == [
        [1, 1.5, '["a"]', None, None],
        [2, None, None, "2026-01-31", 1],
    ]
    assert [(each.file, each.row, each.reason) for each in run.rejects()] == [
        ("inbox/acme/events.ndjson", 2, "is no JSON: expecting value")
    ]


@pytest.mark.parametrize("harness", ["", COLUMNS], indirect=True)
@pytest.mark.parametrize("lines", [[], ["", " "], ["no json"]])
def test_a_file_without_an_object_loads_nothing(harness: Harness, lines: list[str]) -> None:
    deliver(harness, *lines)
    run = harness.run("events", client="acme")
    assert (run.state, run.rows.loaded, run.error) == ("succeeded", 0, None)


@pytest.mark.parametrize("harness", [COLUMNS], indirect=True)
def test_rejected_rows_are_fixed_as_csv_and_loaded_and_lines_that_are_none_are_rejected_again(
    harness: Harness, tmp_path: Path
) -> None:
    deliver(harness, '{"id": 1, "amount": "x"}', "no json", '{"id": 2, "amount": 0.1}')
    run = harness.run("events", client="acme")
    assert (run.rows.loaded, run.rows.rejected) == (1, 2)
    session, file = harness._session, tmp_path / "mend.csv"
    assert rejects.export(session, run.id, file) == 2
    file.write_text(file.read_text().replace(",1,x", ",1,7.25"))
    again = Run(session, rejects.load(session, run.id, file)).wait()
    assert (again.rows.loaded, again.rows.rejected) == (1, 1)
    assert sorted(harness.table("events")[["id", "amount"]].astype(str).values.tolist()) == [
        ["1", "7.25"],
        ["2", "0.1"],
    ]


def test_lines_that_are_no_rows_can_not_be_loaded_as_rows(harness: Harness, tmp_path: Path) -> None:
    deliver(harness, "no json", "[1]", json.dumps({"id": 1}))
    run = harness.run("events", client="acme")
    rejects.export(harness._session, run.id, tmp_path / "mend.csv")
    with pytest.raises(ConfigError, match="no column of the source"):
        rejects.load(harness._session, run.id, tmp_path / "mend.csv")

"""The main job on real-shaped data: health records of 51 organizations through three real workers, cell by cell.

The files are in `../shared/data/synthea`, beside the project; where they aren't, these tests are skipped.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from jobs.api import Run, submit, wait
from tests.helpers.processes import ROOT
from tests.helpers.project import Folder, etl_toml
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

DATA = ROOT.parent / "shared" / "data" / "synthea"
KEYS = {"claims": "Id", "claims_transactions": "ID", "encounters": "Id", "patients": "Id"}
PATIENCE = 120.0

# Every other column is text, whatever it looks like: codes, ZIP, SSN, identifiers.
TYPES = {
    "claims": {
        "timestamp": ["CURRENTILLNESSDATE", "SERVICEDATE", "LASTBILLEDDATE1", "LASTBILLEDDATE2", "LASTBILLEDDATEP"],
        "decimal": ["OUTSTANDING1", "OUTSTANDING2", "OUTSTANDINGP"],
    },
    "claims_transactions": {
        "timestamp": ["FROMDATE", "TODATE"],
        "decimal": ["AMOUNT", "UNITAMOUNT", "PAYMENTS", "TRANSFERS", "OUTSTANDING"],
        "integer": ["CHARGEID", "UNITS"],
    },
    "encounters": {
        "timestamp": ["START", "STOP"],
        "decimal": ["BASE_ENCOUNTER_COST", "TOTAL_CLAIM_COST", "PAYER_COVERAGE"],
    },
    "patients": {
        "date": ["BIRTHDATE", "DEATHDATE"],
        "number": ["LAT", "LON", "HEALTHCARE_EXPENSES", "HEALTHCARE_COVERAGE"],
    },
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data/synthea beside the project"),
]


def source(name: str) -> pd.DataFrame:
    """Return a file as pandas reads it straight, every cell as its text."""
    return pd.read_csv(DATA / f"{name}.csv", dtype=str, keep_default_na=False)


def type_of(pipeline: str, column: str) -> str:
    return next((kind for kind, columns in TYPES[pipeline].items() if column in columns), "string")


def write_project(folder: Path, url: str, *, declared: bool) -> list[tuple[str, str]]:
    """Write etl.toml and each client's files; returns the (pipeline, client) pairs there are to run."""
    by_organization: dict[str, list[str]] = defaultdict(list)
    header, *lines = (DATA / "encounters.csv").read_text().splitlines()
    at = header.split(",").index("ORGANIZATION")
    for line in lines:
        by_organization["org_" + line.split(",")[at].split("-")[0]].append(line)
    for client, mine in by_organization.items():
        deliver(folder, client, "encounters", "\n".join([header, *mine, ""]))
    for name in KEYS.keys() - {"encounters"}:
        deliver(folder, "synthea", name, (DATA / f"{name}.csv").read_text())
    pipelines: dict[str, dict[str, Any]] = {}
    for name, key in KEYS.items():
        pipelines[name] = {
            "extract": {"path": f"inbox/{{client}}/{name}.csv"},
            "transform": [],
            "load": {"mode": "merge", "key": [key]},
        }
        if declared:
            pipelines[name]["columns"] = {column: type_of(name, column) for column in source(name).columns}
    own = {"synthea": {"pipelines": ["claims", "claims_transactions", "patients"]}}
    clients = own | {client: {} for client in by_organization}
    Folder(folder, etl_toml(pipelines, clients, url=url, defaults={"pipelines": ["encounters"]}))
    return [(name, "synthea") for name in KEYS if name != "encounters"] + [
        ("encounters", org) for org in by_organization
    ]


def deliver(folder: Path, client: str, name: str, text: str) -> None:
    file = folder / "inbox" / client / f"{name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def run_all(pairs: Sequence[tuple[str, str]], folder: Path, redis: str) -> list[Run]:
    """Run every pipeline for its clients, all at once, and return the runs when all have ended."""
    runs = [submit(pipeline, client, config=folder / "etl.toml", redis=redis) for pipeline, client in pairs]
    ended = list(wait(runs, PATIENCE))
    assert [(run.client, run.error) for run in ended if run.state != "succeeded"] == []
    return ended


@pytest.fixture
def engine(target_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(target_url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def rows(engine: sa.Engine, table: str) -> list[dict[str, Any]]:
    """Return a table's rows as the driver gives them, by key."""
    with engine.connect() as connection:
        return [
            dict(row)
            for row in connection.execute(sa.text(f'SELECT * FROM {table} ORDER BY "{KEYS[table]}"')).mappings()
        ]


def differing(kind: str, texts: Sequence[str], values: Sequence[Any]) -> list[int]:
    """Return where cells of the table are not what stands in the file."""
    if kind in ("date", "timestamp"):  # all at once: pandas takes 0.1 ms for each by itself
        wants, found = (
            pd.to_datetime(pd.Series([str(each) if each not in ("", None) else None for each in some]), utc=True)
            for some in (texts, values)
        )
        return [int(at) for at in ((wants != found) & ~(wants.isna() & found.isna())).to_numpy().nonzero()[0]]
    exact = float if kind in ("decimal", "number") else str
    wanted = [exact(text) if text != "" else None for text in texts]
    there = [exact(value) if value is not None else None for value in values]
    return [at for at, pair in enumerate(zip(wanted, there, strict=True)) if pair[0] != pair[1]]


def test_every_cell_arrives_and_a_second_run_changes_none(
    target_url: str, engine: sa.Engine, redis_server: RedisServer, workers: StartWorkers, tmp_path: Path
) -> None:
    """With columns declared on SQLite, where types are loose, and without on PostgreSQL, where each must be right."""
    pairs = write_project(tmp_path, target_url, declared=target_url.startswith("sqlite"))
    assert len(pairs) == 3 + source("encounters").ORGANIZATION.nunique()
    workers(3)
    first = run_all(pairs, tmp_path, redis_server.url)

    tables = {name: rows(engine, name) for name in KEYS}
    for name, found in tables.items():
        wanted = source(name).sort_values(KEYS[name], kind="stable")
        assert len(found) == len(wanted)
        for column in wanted.columns:
            wrong = differing(type_of(name, column), list(wanted[column]), [row[column] for row in found])
            assert [(name, column, found[at][KEYS[name]]) for at in wrong] == []
        for column in [*TYPES[name].get("decimal", ()), *TYPES[name].get("number", ())]:
            straight = pd.to_numeric(source(name)[column]).sum()
            loaded = math.fsum(float(row[column]) for row in found if row[column] is not None)
            assert math.isclose(loaded, straight, rel_tol=1e-12), (name, column)
    assert {row["_client"] for row in tables["encounters"]} == {
        client for name, client in pairs if name == "encounters"
    }
    assert sum(run.rows.loaded for run in first) == sum(map(len, tables.values()))

    second = run_all(pairs, tmp_path, redis_server.url)
    assert {name: rows(engine, name) for name in KEYS} == tables
    assert sum(run.rows.loaded for run in second) == 0
    assert sum(run.rows.unchanged for run in second) == sum(map(len, tables.values()))


def test_zip_codes_keep_their_zeros_and_blanks_without_any_column_declared(
    target_url: str, engine: sa.Engine, redis_server: RedisServer, workers: StartWorkers, tmp_path: Path
) -> None:
    write_project(tmp_path, target_url, declared=False)
    workers(1)
    run_all([("patients", "synthea")], tmp_path, redis_server.url)
    zips = {row["Id"]: row["ZIP"] for row in rows(engine, "patients")}
    straight = source("patients").set_index("Id").ZIP
    assert zips == {id: zip or None for id, zip in straight.items()}
    assert any(str(zip).startswith("0") for zip in zips.values())
    assert None in zips.values()

"""Values as people spell them, from etl.toml to the table, out of every kind of source."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import pytest

from tests.helpers.project import Project, etl_toml

COLUMNS = {
    "id": "integer",
    "amount": {"type": "decimal", "decimal": ",", "negative": "parentheses"},
    "share": {"type": "number", "percent": True, "decimal": ","},
    "paid": "boolean",
    "day": "date",
    "note": {"type": "string", "required": True},
}
SPELLED = {"null": ["N/A", "-", "\\N"], "thousands": ".", "currency": ["€"], "true": ["ja"], "false": ["nein"]}
ROWS = [
    ["1", "(1.234,50 €)", "12,5 %", "ja", "2026-01-01", "a"],
    ["+2", "N/A", "-", "nein", "\\N", "-x"],
    ["3", "1.23,4", "1", "ja", "2026-01-01", "c"],
    ["4", "1", "1", "N/A", "2026-01-01", "N/A"],
    ["5", "1", "1", "ja", "2026-01-01", "\u00a0 "],
]


def delivered(etl: Project, source: str) -> dict[str, Any]:
    """Put the rows where a source of that kind finds them; returns its extract."""
    names = list(COLUMNS)
    if source == "csv":
        etl.write("in/a.csv", "\n".join(";".join(f'"{cell}"' for cell in row) for row in [names, *ROWS]))
        return {"type": "csv", "path": "in/*.csv", "settle": 0, "delimiter": ";"}
    if source == "ndjson":
        etl.write("in/a.ndjson", "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in ROWS))
        return {"type": "ndjson", "path": "in/*.ndjson", "settle": 0}
    if source == "function":
        etl.write("steps.py", f"import pandas as pd\ndef rows(): return pd.DataFrame({ROWS!r}, columns={names!r})\n")
        return {"type": "function", "function": "steps:rows"}
    with closing(sqlite3.connect(etl.root / "source.db")) as connection, connection:
        connection.execute(f"create table t ({', '.join(f'{name} text' for name in names)})")
        connection.executemany("insert into t values (?, ?, ?, ?, ?, ?)", ROWS)
    return {"type": "sql", "url": "sqlite:///source.db", "table": "t"}


@pytest.mark.parametrize("source", ["csv", "ndjson", "function", "sql"])
def test_every_source_is_read_as_its_extract_spells(etl: Project, source: str) -> None:
    extract = delivered(etl, source)
    etl.config(etl_toml({"sales": {"extract": {**extract, **SPELLED}, "retries": 0, "columns": COLUMNS}}))
    run = etl.run(pipeline="sales")
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 2, 3)
    assert etl.rows("select id, amount, share, paid, day, note from sales order by id") == [
        (1, -1234.5, 0.125, 1, "2026-01-01", "a"),
        (2, None, None, 0, None, "-x"),
    ]


CASES: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], str, list[tuple[Any, ...]]]] = {
    "missing markers": (
        {"null": ["N/A", "NULL", "-", "\\N"]},
        {"id": "integer", "amount": "decimal", "taken": "date"},
        "id,amount,taken\n1,N/A,2026-01-01\n2,5,NULL\n3,-,\\N\n",
        [(1, None, "2026-01-01"), (2, 5, None), (3, None, None)],
    ),
    "thousands": (
        {"delimiter": ";"},
        {"id": "integer", "amount": {"type": "decimal", "decimal": ",", "thousands": "."}},
        "id;amount\n1;1.234,50\n2;99,90\n",
        [(1, 1234.5), (2, 99.9)],
    ),
    "nothing declared": (
        {"null": ["NA"], "thousands": ",", "true": ["ja"], "false": ["nein"], "delimiter": ";"},
        {},
        'id;amount;paid;note\n1;"1,234.50";ja;NA\n2;NA;nein;x\n',
        [(1, 1234.5, 1, None), (2, None, 0, "x")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_files_as_people_send_them_load_whole(etl: Project, case: str) -> None:
    extract, columns, file, rows = CASES[case]
    pipeline = {"extract": extract, "retries": 0, **({"columns": columns} if columns else {})}
    (etl.root / "inbox/acme/claims-1.csv").unlink()
    etl.config(etl_toml({"t": pipeline}))
    etl.write("inbox/acme/a.csv", file)
    assert etl.run(pipeline="t")["rows"]["rejected"] == 0
    names = file.split("\n", 1)[0].replace(";", ",")
    assert etl.rows(f"select {names} from t order by id") == rows

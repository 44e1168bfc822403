"""Columns of types that a database has for itself: a text that they would cut, round or refuse is a reject."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.deliveries import query
from tests.helpers.project import Project, etl_toml

OWN = "_client text, _run text, _file text"
UUID = "6f2c1f5e-3a7e-4c0e-9c8b-111111111111"
POSTGRESQL: dict[str, tuple[str, list[str], list[str]]] = {  # type: texts that come back, texts that are rejected
    "tenth": ("z", ["1.2", "-9999.9"], ["1.25", "10000", "0.05"]),
    "domain over a domain": ("zz", ["1.2"], ["1.25"]),
    "hundreds": ("hundreds", ["1200"], ["1250", "0.5"]),
    "text": ("code", ["abc", "a "], ["abcd"]),
    "padded": ("padded", ["abc"], ["abcd", '"a "']),
    "seconds": ("secs", ["2026-01-01 10:00:00"], ["2026-01-01 10:00:00.6"]),
    "char": ('"char"', ["a"], ["abc", "é"]),
    "name": ("name", ["a" * 63], ["a" * 64, "é" * 32]),
    "domain of name": ("title", ["a" * 63], ["a" * 64]),
    "uuid": ("uuid", [UUID, UUID.upper(), f"{{{UUID}}}", UUID.replace("-", "")], ["x", UUID[:-1], f"{{{UUID}"]),
    "domain of uuid": ("number", [UUID], ["x"]),
    "enum": ("mood", ["ok", "sad"], ["cheerful", "OK"]),
    "json": ("json", ["1", '"{""a"": [1e999, null]}"'], ["{a}", "NaN", "[1"]),
    "jsonb": ("jsonb", ["true"], ["tru"]),
    "inet": ("inet", ["10.0.0.1", "10.0.0.0/8", "::1", "fe80::1/64", "::ffff:1.2.3.4"], ["host", "300.1.1.1"]),
    "cidr": ("cidr", ["10.0.0.0/8", "10.1", "2001:db8::/32"], ["here", "10.0.0.256"]),
    "bits": ("bit varying(8)", ["0101"], ["0102"]),
    "time": ("time", ["10:00:00.123456", "10:00:00.1234560"], ["10:00:00.1234567"]),
}
DUCKDB: dict[str, tuple[str, list[str], list[str]]] = {
    "time": ("TIME", ["10:00:00.123456"], ["10:00:00.1234567"]),
    "uuid": ("UUID", [UUID], ["x"]),
    "enum": ("ENUM('it''s', 'sad')", ["it's", "sad"], ["its"]),
}
DOMAINS = (
    "create domain z as numeric(5,1)", "create domain zz as z", "create domain hundreds as numeric(3,-2)",
    "create domain code as varchar(3)", "create domain padded as char(3)", "create domain secs as timestamp(0)",
    "create domain title as name", "create domain number as uuid", "create type mood as enum ('ok', 'sad')",
)  # fmt: skip


@pytest.fixture(autouse=True)
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(root: Path, url: str, cases: dict[str, tuple[str, list[str], list[str]]], word: str | None) -> None:
    """Load each type's texts into a table of its own, and look at what became rejects."""
    typed = {"z": "decimal", "zz": "decimal", "hundreds": "decimal", "secs": "timestamp"}
    pipelines: dict[str, Any] = {}
    for number, (type, _, _) in enumerate(cases.values()):
        query(url, f"create table t{number} (id int, v {type}, {OWN})")
        columns = {"id": "integer", **({"v": typed.get(type, word)} if word else {})}
        pipelines[f"t{number}"] = {"retries": 0, "columns": columns, "extract": {"path": f"in/{number}.csv"}}
    made = Project(root, etl_toml(pipelines, ["acme"], url=url))
    for number, (name, (_, good, bad)) in enumerate(cases.items()):
        lines = [f"{line},{text}\n" for line, text in enumerate([*good, *bad])]
        made.write(f"in/{number}.csv", "id,v\n" + "".join(lines))
        run = made.run(pipeline=f"t{number}")
        found = (run["state"], run["rows"]["loaded"], run["rows"]["rejected"])
        assert found == ("succeeded", len(good), len(bad)), (name, run["error"])
        assert query(url, f"select id from t{number} order by id") == [(line,) for line in range(len(good))], name


@pytest.mark.parametrize("word", ["string", None])
def test_what_a_column_of_postgresql_would_change_or_refuse_is_rejected(
    tmp_path: Path, pg_url: str, word: str | None
) -> None:
    for statement in DOMAINS:
        query(pg_url, statement)
    some = POSTGRESQL if word else {name: POSTGRESQL[name] for name in ("text", "char", "uuid", "enum")}
    loaded(tmp_path, pg_url, some, word)


@pytest.mark.parametrize("type", ["real[]", "name[]", "z[]", "pair", "pair[]", "brief"])
def test_a_type_that_would_change_what_is_within_a_text_is_refused_by_its_name(
    tmp_path: Path, pg_url: str, type: str
) -> None:
    query(pg_url, "create domain z as numeric(5,1)")
    query(pg_url, "create type pair as (a numeric(5,1), b text)")
    query(pg_url, "create domain brief as time(0)")
    query(pg_url, f"create table claims (id int, v {type}, {OWN})")
    columns = {"id": "integer", "v": "string"}
    made = Project(tmp_path, etl_toml({"claims": {"retries": 0, "columns": columns}}, ["acme"], url=pg_url))
    made.write("inbox/acme/1.csv", "id,v\n1,x\n")
    run = made.run()
    assert run["state"] == "failed"
    assert f"column v: the table has {type}" in run["error"].lower()
    assert query(pg_url, "select * from claims") == []


def test_what_a_column_of_duckdb_would_cut_or_refuse_is_rejected(tmp_path: Path) -> None:
    loaded(tmp_path, "duckdb:///t.duckdb", DUCKDB, "string")


@pytest.mark.parametrize("type", ["FLOAT", "TIMESTAMP_S", "VARCHAR COLLATE nocase"])
def test_a_type_of_duckdb_that_takes_no_rows_is_named(tmp_path: Path, type: str) -> None:
    url = "duckdb:///t.duckdb"
    query(url, f"create table claims (id int, v {type}, {OWN})")
    made = Project(tmp_path, etl_toml({"claims": {"retries": 0, "columns": {"id": "integer"}}}, ["acme"], url=url))
    made.write("inbox/acme/1.csv", "id,v\n1,1.5\n")
    assert f"column v: the table has {type}, the pipeline" in made.run()["error"]

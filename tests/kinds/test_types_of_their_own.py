"""Columns of types that a database has for itself: a text that they would cut, round or refuse is a reject."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.deliveries import query
from tests.helpers.project import Project, etl_toml

pytestmark = pytest.mark.slow

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
    "jsonb": (
        "jsonb",
        ["true", '"{""a"": {""b"": 1, ""c"": [1, ""\\u00e9""]}}"', r'"""\\u0000"""'],
        ["tru", '"{""a"": 1, ""a"": 2}"', '"[{""a"": {""b"": 1, ""\\u0062"": 1}}]"', r'"""\u0000"""', r'"""\ud800"""'],
    ),
    "inet": ("inet", ["10.0.0.1", "10.0.0.0/8", "::1", "fe80::1/64", "::ffff:1.2.3.4"], ["host", "300.1.1.1"]),
    "cidr": ("cidr", ["10.0.0.0/8", "10.1", "2001:db8::/32"], ["here", "10.0.0.256"]),
    "bits": ("bit varying(8)", ["0101"], ["0102"]),
    "time": (
        "time",
        ["10:00:00.123456", "10:00:00.1234560", "24:00:00", "040506", "4:05 pm", " 10:00"],
        ["10:00:00.1234567", "10:00:60", "10:00:00+02", "2026-01-01 10:00:00", "now"],
    ),
    "time with a zone": (
        "timetz",
        ["10:00:00+02", "10:00:00.123456-0330", "10:00Z", "10:00 PM -03:00"],
        ["10:00:60+02", "10:00:00", "10:00:00.1234567+02", "10:00:00 Europe/Berlin"],
    ),
    "domain of time": ("hour", ["10:00"], ["10:00:60"]),
    "span": (
        "interval",
        ["1 year 2 mons", "P1Y2M", "1.5 days", "10:00:00.5", "PT1.5M", "0.25 seconds"],
        ["0.01 years", "1.5 months", "P1.5Y", "P0.5M", "10:00:00.1234567"],
    ),
    "hardware": ("macaddr8", ["08:00:2b:01:02:03:04:05", "08002b0102030405"], ["08:00:2b:01:02:03", "x"]),
    "texts": ("text[]", ['"{a,b}"', '"{""b c"",NULL}"'], []),
    "whole numbers": ("integer[]", ['"{1,2}"'], []),
    "ids": ("uuid[]", [f"{{{UUID}}}"], []),
    "range": ("int4range", ['"[1,3]"', "empty"], []),
    "ranges": ("nummultirange", ['"{[1.5,2.5)}"'], []),
    "composite": ("mixed", ['"(1,a,ok)"'], []),
    "domain of an array": ("moods", ['"{ok,sad}"'], []),
}
DUCKDB: dict[str, tuple[str, list[str], list[str]]] = {
    "time": (
        "TIME",
        ["10:00:00.123456", "10:00", "24:00:00"],
        ["10:00:00.1234567", "10:00:00+02", "2026-01-01 10:00:00", "040506", "10:00:60"],
    ),
    "time with a zone": ("TIMETZ", ["10:00:00+02"], ["10:00:00"]),
    "span": ("INTERVAL", ["1 year", "10:00:00.5"], ["0.01 years", "10:00:00.1234567"]),
    "texts": ("VARCHAR[]", ['"[a, b]"'], []),
    "whole numbers": ("INTEGER[]", ['"[1, NULL, -2]"'], ['"[1.5]"', '"[1e3]"', '"[0x1F]"', '"[x]"']),
    "lists of them": ("BIGINT[][]", ['"[[1], [2, 3]]"'], ['"[[1.5]]"']),
    "struct": ("STRUCT(a VARCHAR, \"b c\" UUID[], d ENUM('x', 'y'))", ["\"{'a': 1}\""], []),
    "uuid": ("UUID", [UUID], ["x"]),
    "enum": ("ENUM('it''s', 'sad')", ["it's", "sad"], ["its"]),
}
DOMAINS = (
    "create domain z as numeric(5,1)", "create domain zz as z", "create domain hundreds as numeric(3,-2)",
    "create domain code as varchar(3)", "create domain padded as char(3)", "create domain secs as timestamp(0)",
    "create domain title as name", "create domain number as uuid", "create type mood as enum ('ok', 'sad')",
    "create domain hour as time", "create type mixed as (a int, b text, c mood)", "create domain moods as mood[]",
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


ODD = [
    "real[]", "name[]", "z[]", "pair", "pair[]", "brief", "date[]", "timestamp without time zone[]", "interval[]",
    "timestamp with time zone[]", "time without time zone[]", "double precision[]", "jsonb[]", "daterange", "tsrange",
    "tstzmultirange", "character varying(3)[]",
    "point", "polygon", "money", "tsvector", "xid", "regclass", "dated", "dates", "floats",
]  # fmt: skip


def refused_and_cured(root: Path, url: str, types: list[str]) -> None:
    """Load texts into columns that might change them, and do what the error says."""
    names = [f"v{number}" for number in range(len(types))]
    there = ", ".join(f"{name} {type}" for name, type in zip(names, types, strict=True))
    query(url, f"create table claims (id int, {there}, {OWN})")
    columns = {"id": "integer", **dict.fromkeys(names, "string")}
    made = Project(root, etl_toml({"claims": {"retries": 0, "columns": columns}}, ["acme"], url=url))
    made.write("inbox/acme/1.csv", f"id,{','.join(names)}\n1{',x' * len(names)}\n")
    run = made.run()
    assert run["state"] == "failed"
    for name, type in zip(names, types, strict=True):
        assert f"column {name}: the table has {type}, the pipeline string" in run["error"].replace("MONEY", "money")
    assert query(url, "select * from claims") == []
    for statement in run["error"].partition("alter the table: ")[2].split("; "):
        query(url, statement)
    assert made.run()["state"] == "succeeded"
    assert query(url, f"select {', '.join(names)} from claims") == [("x",) * len(names)]


def test_types_that_would_change_what_is_within_a_text_are_refused_by_name_and_the_cure_cures(
    tmp_path: Path, pg_url: str
) -> None:
    query(pg_url, "create domain z as numeric(5,1)")
    query(pg_url, "create type pair as (a numeric(5,1), b text)")
    query(pg_url, "create domain brief as time(0)")
    query(pg_url, "create type dated as (a int, b date)")
    query(pg_url, "create domain dates as date[]")
    query(pg_url, "create type floats as range (subtype = float8)")
    refused_and_cured(tmp_path, pg_url, ODD)


def test_what_a_column_of_duckdb_would_cut_or_refuse_is_rejected(tmp_path: Path) -> None:
    loaded(tmp_path, "duckdb:///t.duckdb", DUCKDB, "string")


DUCKDB_ODD = [
    "DATE[]", "DECIMAL(5,1)[]", "DOUBLE[3]", "STRUCT(a INTEGER)", "MAP(VARCHAR, DOUBLE)",
    "STRUCT(a VARCHAR, b TIME[])", "UNION(a VARCHAR, b DATE)",
]  # fmt: skip


def test_types_of_duckdb_that_would_change_what_is_within_a_text_are_refused_and_the_cure_cures(tmp_path: Path) -> None:
    refused_and_cured(tmp_path, "duckdb:///t.duckdb", DUCKDB_ODD)


@pytest.mark.parametrize("type", ["TIMESTAMP_S", "VARCHAR COLLATE nocase"])
def test_a_type_of_duckdb_that_takes_no_rows_is_named(tmp_path: Path, type: str) -> None:
    url = "duckdb:///t.duckdb"
    query(url, f"create table claims (id int, v {type}, {OWN})")
    made = Project(tmp_path, etl_toml({"claims": {"retries": 0, "columns": {"id": "integer"}}}, ["acme"], url=url))
    made.write("inbox/acme/1.csv", "id,v\n1,1.5\n")
    assert f"column v: the table has {type}, the pipeline" in made.run()["error"]

"""Projects whose tables were there before, or have names that a database keeps for itself: what runs make of them."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.deliveries import query
from tests.helpers.project import Project, etl_toml

INT = {"type": "integer"}
OWN = "_client text, _run text, _file text"


def project(
    root: Path, monkeypatch: pytest.MonkeyPatch, url: str, csv: str, load: dict[str, Any], columns: dict[str, Any]
) -> Project:
    """Return a project with one pipeline `rates` of client oak into a table of this name."""
    monkeypatch.chdir(root)
    made = {"rates": {"extract": {"path": "in/*.csv"}, "load": load, "columns": columns, "retries": 0}}
    return Project(root, etl_toml(made, ["oak"], url=url), {"in/rates.csv": csv})


def run(made: Project) -> Any:
    return made.run(pipeline="rates", client="oak")


def test_columns_that_differ_in_case_only_are_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg_url: str
) -> None:
    query(pg_url, f'create table rates ("Id" int, "Amount" int, {OWN})')
    query(pg_url, "insert into rates values (9, 90, 'oak', 'old', 'old.csv')")
    made = project(tmp_path, monkeypatch, pg_url, "id,amount\n1,10\n", {}, {"id": INT, "amount": INT})
    assert run(made)["state"] == "succeeded"
    assert query(pg_url, 'select "Id", "Amount" from rates order by 1') == [(1, 10), (9, 90)]
    made.write("in/more.csv", "ID,AMOUNT\n2,20\n")
    assert run(made)["state"] == "succeeded"
    assert query(pg_url, 'select * from rates where "Id" = 2')[0][:2] == (2, 20)


@pytest.mark.parametrize("word", ["returning", "nothing", "lateral", "false"])
def test_a_keyword_is_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_url: str, word: str) -> None:
    made = project(tmp_path, monkeypatch, target_url, f"id,{word}\n1,yes\n2,no\n", {}, {})
    found = run(made)
    assert (found["state"], found["rows"]["loaded"]) == ("succeeded", 2)


def test_a_replace_of_rows_that_others_refer_to_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg_url: str
) -> None:
    query(pg_url, f"create table rates (id int primary key, name text, {OWN})")
    query(pg_url, "create table vans (depot int references rates(id))")
    made = project(tmp_path, monkeypatch, pg_url, "id,name\n1,north\n2,south\n", {"mode": "replace"}, {"id": INT})
    assert run(made)["state"] == "succeeded"
    query(pg_url, "insert into vans values (1)")
    made.write("in/rates.csv", "id,name\n1,west\n2,south\n")
    found = run(made)
    assert found["state"] == "failed"
    assert "rows of vans refer to rows which replace takes away" in found["error"]
    assert 'mode = "merge"' in found["error"]


def test_a_row_without_a_partition_is_said_to_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg_url: str
) -> None:
    query(pg_url, f"create table rates (id int, d date, {OWN}, primary key (id, d)) partition by range (d)")
    query(pg_url, "create table jan partition of rates for values from ('2026-01-01') to ('2026-02-01')")
    load = {"mode": "merge", "key": ["id", "d"]}
    csv = "id,d\n1,2026-01-05\n2,2026-02-05\n"
    made = project(tmp_path, monkeypatch, pg_url, csv, load, {"id": INT, "d": {"type": "date"}})
    found = run(made)
    assert found["state"] == "failed"
    assert "table rates has no partition for a row" in found["error"]


@pytest.mark.parametrize("declared", [True, False])
def test_strings_go_into_uuid_and_enum_columns_and_a_bad_one_is_a_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg_url: str, declared: bool
) -> None:
    query(pg_url, "create type mood as enum ('ok', 'sad')")
    query(pg_url, f"create table rates (id uuid primary key, mood mood, note jsonb, {OWN})")
    columns = {name: {"type": "string"} for name in ("id", "mood", "note")} if declared else {}
    one = "6f2c1f5e-3a7e-4c0e-9c8b-111111111111"
    load = {"mode": "merge", "key": ["id"]}
    made = project(tmp_path, monkeypatch, pg_url, f"id,mood,note\n{one},ok,1\n", load, columns)
    assert run(made)["state"] == "succeeded"
    assert query(pg_url, "select id::text, mood::text, note from rates") == [(one, "ok", 1)]
    made.write("in/rates.csv", f"id,mood,note\n{one.upper()},ok,1\n")
    assert run(made)["rows"]["unchanged"] == 1
    made.write("in/rates.csv", f"id,mood,note\n{one},cheerful,1\n{one},sad,1\n")
    found = run(made)
    assert (found["state"], found["rows"]["rejected"], found["rows"]["loaded"]) == ("succeeded", 1, 1)
    assert query(pg_url, "select mood::text from rates") == [("sad",)]
    said = made(f"rejects {found['run']} --json").json
    assert [(entry["column"], entry["reason"]) for entry in said] == [("mood", "does not fit the table's mood")]
    assert "cheerful" not in str(found)


def test_a_text_that_only_the_server_can_refuse_is_said_by_its_column_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg_url: str
) -> None:
    query(pg_url, f"create table rates (id int, net cidr, {OWN})")
    made = project(tmp_path, monkeypatch, pg_url, "id,net\n1,10.0.0.1/8\n", {}, {"id": INT, "net": "string"})
    error = run(made)["error"]
    assert "column net: a text that is no value of the column's type" in error
    assert "say pattern or allowed for the column in [columns]" in error
    assert "10.0.0.1" not in error


def test_two_clients_with_one_key_in_a_table_whose_key_lacks_the_client_are_said_to_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    query(target_url, f"create table rates (id int primary key, v int, {OWN})")
    columns = {"id": "integer", "v": "integer"}
    given = {"load": {"mode": "merge", "key": ["id"]}, "columns": columns, "retries": 0}
    made = Project(tmp_path, etl_toml({"rates": given}, ["oak", "elm"], url=target_url))
    for client in ("oak", "elm"):
        made.write(f"inbox/{client}/1.csv", "id,v\n1,10\n")
    assert run(made)["state"] == "succeeded"
    error = made.run(pipeline="rates", client="elm")["error"]
    assert "make its key (_client, id), put {client} in load.table" in error
    assert 'mode = "merge"' not in error


def test_texts_into_a_boolean_column_of_the_users_own_are_first_to_be_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target_url: str
) -> None:
    query(target_url, f"create table rates (id int, b boolean, {OWN})")
    made = project(tmp_path, monkeypatch, target_url, "id,b\n1,yes\n2,no\n", {}, {"id": INT})
    cure = run(made)["error"].splitlines()[1].strip()
    assert cure.startswith('declare columns.b.type = "boolean" where the texts mean yes and no, or alter the table: ')
    columns = {"id": INT, "b": {"type": "boolean"}}
    made = project(tmp_path, monkeypatch, target_url, "id,b\n1,yes\n2,no\n", {}, columns)
    assert run(made)["rows"]["rejected"] == 0


def test_an_integer_into_a_boolean_column_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "sqlite:///warehouse.db"
    monkeypatch.chdir(tmp_path)
    query(url, f"create table rates (id int, b boolean, {OWN})")
    made = project(tmp_path, monkeypatch, url, "id,b\n1,2\n", {}, {"id": INT, "b": INT})
    assert "column b: the table has BOOLEAN, the pipeline integer (as declared, and only text" in run(made)["error"]


@pytest.mark.parametrize("table", ["rates", "rates_{client}"])
@pytest.mark.parametrize("made", ["pg_url", "sqlite:///t.db", "duckdb:///t.duckdb"])
def test_a_unique_key_of_other_columns_than_the_merges_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, made: str, table: str
) -> None:
    url = request.getfixturevalue(made) if made == "pg_url" else made
    load = {"mode": "merge", "key": ["id"], "table": table}
    found = project(tmp_path, monkeypatch, url, "id,s\n1,1\n2,1\n3,2\n", load, {"id": INT, "s": INT})
    unique = "unique (_client, id)" if table == "rates" else "unique (id)"
    query(url, f"create table {table.format(client='oak')} (id bigint, s bigint unique, {OWN}, {unique})")
    error = run(found)["error"]
    assert "has a row with the same unique values" in error
    said = "rows with different keys have the same s: correct them, name s in load.key, or drop that key"
    if "duckdb" in url:  # it names no columns for rows of one statement
        said = "else correct the rows" if table == "rates" else "name that constraint's columns in load.key"
    assert said in error


def test_a_trigger_that_says_unique_is_not_taken_for_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg_url: str
) -> None:
    load = {"mode": "merge", "key": ["id"]}
    found = project(tmp_path, monkeypatch, pg_url, "id\n1\n", load, {"id": INT})
    query(pg_url, f"create table rates (id bigint, {OWN}, unique (_client, id))")
    query(pg_url, """
        create function f() returns trigger language plpgsql as $$ begin
        raise unique_violation using detail = 'Key (Jane)=(1)'; end $$;
        create trigger t before insert on rates for each row execute function f()
    """)  # fmt: skip
    assert "Jane" not in run(found)["error"]

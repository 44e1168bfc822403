"""What a cursor passes by and what it waits for: rejects, rows of the future, and text of a database."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project import Project, etl_toml
from tests.types.test_cursor import ask, tell

pytestmark = pytest.mark.slow


@pytest.fixture
def etl_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project in the working directory."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def prepared(etl_: Project, url: str, kind: str, columns: dict[str, Any], *, load: Any = None, **extract: Any) -> None:
    """Make a table t of ids and values v, and a project that loads it by a cursor on v into `loaded`."""
    tell(url, f"CREATE TABLE t (id integer, v {kind})")
    load = {"table": "loaded", **(load or {"mode": "merge", "key": ["id"]})}
    given = {"extract": {"type": "sql", "url": url, "table": "t", "cursor": "v"} | extract}
    pipeline = {**given, "load": load, "retries": 0, **({"columns": columns} if columns else {})}
    etl_.config(etl_toml({"claims": pipeline}, url=url))


def night(etl_: Project, url: str, *rows: tuple[int, Any]) -> Any:
    """Put rows into the source and run."""
    for id, value in rows:
        tell(url, f"INSERT INTO t VALUES ({id}, {'NULL' if value is None else repr(value)})")
    return etl_.run()


def ids(url: str) -> list[int]:
    return [id for (id,) in ask(url, "SELECT id FROM loaded ORDER BY id")]


STAMPED = {"id": "integer", "v": "timestamp"}
APPENDED = {"id": "integer", "v": {"type": "timestamp", "unique": True}}


def test_a_rejected_row_does_not_move_the_cursor(etl_: Project, target_url: str) -> None:
    columns = {"id": "integer", "v": {"type": "timestamp", "max": "2025-12-31T00:00:00"}}
    prepared(etl_, target_url, "timestamp", columns)
    run = night(etl_, target_url, (1, "2024-01-01 00:00:00"), (2, "2026-01-02 00:00:00"))
    assert (run["rows"]["loaded"], run["rows"]["rejected"]) == (1, 1)
    run = night(etl_, target_url, (3, "2024-02-01 00:00:00"))
    assert (run["rows"]["loaded"], run["rows"]["rejected"]) == (1, 1)
    assert ids(target_url) == [1, 3]


@pytest.mark.parametrize("declared", [True, False])
def test_a_merge_loads_rows_of_the_future_and_its_cursor_stays_back(
    etl_: Project, target_url: str, declared: bool
) -> None:
    prepared(etl_, target_url, "timestamp", STAMPED if declared else {})
    run = night(etl_, target_url, (1, "2026-01-01 10:00:00"), (2, "2099-12-31 00:00:00"))
    assert run["state"] == "succeeded"
    said = "sql:t: 1 row is in the future by cursor column v: the cursor stays before it"
    assert run["warnings"] == [said]
    assert "2026-01-01" in etl_("cursor get claims --client acme --json").json["value"]
    seen = ["acme/claims: 1 row in the future by cursor column v, when the source was last read"]
    assert etl_("status --json").json[0]["warnings"] == seen
    assert seen[0] in etl_("status").out.replace("\n", " ")
    assert [line["what"] for line in etl_("doctor --json").json if line["check"] == "cursor"] == seen
    assert night(etl_, target_url, (3, "2026-01-02 10:00:00"))["warnings"] == [said]
    tell(target_url, "UPDATE t SET v = '2026-01-03 00:00:00' WHERE id = 2")
    assert etl_.run()["warnings"] == []
    assert etl_("status --json").json[0]["warnings"] == []
    assert ids(target_url) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_an_append_holds_rows_of_the_future_back_until_their_time_has_come(
    etl_: Project, target_url: str, kind: str
) -> None:
    columns = {"id": "integer", "v": {"type": kind, "unique": True}}
    prepared(etl_, target_url, kind, columns, load={"mode": "append"})
    run = night(etl_, target_url, (1, "2026-01-01"), (2, "2099-12-31"), (4, "2099-12-30"))
    assert (run["state"], run["rows"]["read"], run["rows"]["loaded"]) == ("succeeded", 1, 1)
    assert run["warnings"] == [
        "sql:t: 2 rows are in the future by cursor column v: held back until their time has come"
    ]
    tell(target_url, "UPDATE t SET v = '2026-02-01' WHERE id = 2")  # as if its time had come
    assert night(etl_, target_url, (3, "2026-01-02"))["rows"]["loaded"] == 2
    assert ids(target_url) == [1, 2, 3]


def test_where_all_rows_are_of_the_future_the_cursor_is_nowhere(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url, "timestamp", APPENDED, load={"mode": "append"})
    run = night(etl_, target_url, (1, "2099-01-01 00:00:00"))
    assert (run["state"], run["rows"]["read"]) == ("succeeded", 0)
    assert etl_("cursor get claims --client acme --json").json["value"] is None


def test_a_cursor_that_stands_in_the_future_is_said_by_runs_and_the_doctor(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url, "timestamp", STAMPED)
    night(etl_, target_url, (1, "2026-01-01 10:00:00"))
    etl_("cursor set claims --client acme", "2099-01-01T00:00:00")
    said = "the cursor of acme/claims (column v) stands in the future"
    assert any(said in warning for warning in etl_.run()["warnings"])
    findings = [line for line in etl_("doctor --json").json if line["check"] == "cursor"]
    assert [said in line["what"] for line in findings] == [True]
    assert "2099" not in str(findings)


def test_rows_of_files_are_held_back_too(etl_: Project) -> None:
    columns = {"id": "integer", "v": {"type": "date", "format": ["%d.%m.%Y"], "unique": True}}
    etl_.config(etl_toml({"claims": {"extract": {"cursor": "v"}, "columns": columns}}))
    etl_.write("inbox/acme/a.csv", "id,v\n1,01.01.2026\n2,31.12.2099\n")
    run = etl_.run()
    assert (run["rows"]["loaded"], len(run["warnings"])) == (1, 1)
    etl_.write("inbox/acme/b.csv", "id,v\n3,02.01.2026\n")
    assert etl_.run()["rows"]["loaded"] == 1


NUMBERS = {"id": "integer", "v": {"type": "integer", "required": True}}


@pytest.mark.parametrize(
    ("columns", "first", "then"),
    [
        (NUMBERS, "9", "10"),
        ({"id": "integer", "v": "decimal"}, "9.5", "10.25"),
        ({"id": "integer", "v": "number"}, "9.5", "10"),
        ({"id": "integer", "v": "date"}, "2025-12-31", "2026-01-02"),
        ({"id": "integer", "v": "timestamp"}, "2026-01-01 10:00:00", "2026-01-01T10:00:01"),
        ({"id": "integer", "v": "timestamp"}, "2026-01-01T10:00:00+05:00", "2026-01-01T06:00:00Z"),
        ({"id": "integer", "v": {"type": "date", "format": ["%Y-%m-%d"]}}, "2025-12-31", "2026-01-02"),
    ],
)
@pytest.mark.parametrize("parts", [{}, {"partition": "id", "rows": 1}])
def test_text_is_compared_as_what_the_pipeline_declares(
    etl_: Project, target_url: str, columns: dict[str, Any], first: str, then: str, parts: dict[str, Any]
) -> None:
    prepared(etl_, target_url, "text", columns, **parts)
    assert night(etl_, target_url, (1, first))["rows"]["loaded"] == 1
    run = night(etl_, target_url, (2, then))
    assert (run["state"], run["rows"]["loaded"]) == ("succeeded", 1), run["error"]
    run = night(etl_, target_url, (3, "junk"))  # which no order knows: it is read, and rejected
    assert (run["rows"]["loaded"], run["rows"]["rejected"]) == (0, 1), run["error"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ({"type": "date", "format": ["%m/%d/%Y"]}, "12/31/2025"),
        ({"type": "decimal", "decimal": ","}, "9,5"),
        ({"type": "integer", "thousands": "."}, "1.234"),
    ],
)
def test_text_that_no_database_can_compare_is_refused_with_the_cure(
    etl_: Project, target_url: str, column: dict[str, Any], value: str
) -> None:
    prepared(etl_, target_url, "text", {"id": "integer", "v": column})
    run = night(etl_, target_url, (1, value))
    assert run["state"] == "failed"
    assert "cursor column v is text in the source and a" in run["error"]
    assert "in a query that says" in run["error"]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ({"type": "integer", "thousands": ","}, ("999", "1,000")),
        ({"type": "decimal", "percent": True, "decimal": ","}, ("9,5%", "10%")),
        ({"type": "number", "currency": ["€"], "thousands": "'"}, ("€9", "€1'000.5")),
    ],
)
def test_the_cure_of_numbers_as_text_works(
    etl_: Project, target_url: str, column: dict[str, Any], values: tuple[str, str]
) -> None:
    prepared(etl_, target_url, "text", {"id": "integer", "v": column})
    first, then = (value.replace("'", "''") for value in values)
    if target_url.startswith("postgresql"):
        first, then = (value.replace("%", "%%") for value in (first, then))  # of the driver's parameters
    tell(target_url, f"INSERT INTO t VALUES (1, '{first}')")
    said = etl_.run()["error"]
    assert f" {'an integer' if column['type'] == 'integer' else 'a ' + column['type']} in the pipeline" in said
    number = said.partition("select ")[2].partition(" as v in a query")[0]
    etl_.change(('table = "t"', f'query = "select id, {number} as v from t where {number} >= :since"'))
    assert etl_.run()["rows"]["loaded"] == 1
    tell(target_url, f"INSERT INTO t VALUES (2, '{then}')")
    assert etl_.run()["rows"]["loaded"] == 1


@pytest.mark.parametrize("parts", [{}, {"partition": "id", "rows": 1}])
def test_numbers_that_come_as_text_are_refused_as_a_cursor(etl_: Project, pg_url: str, parts: dict[str, Any]) -> None:
    columns = {"id": "integer", "v": {"unique": True}}
    prepared(etl_, pg_url, "numeric", columns, load={"mode": "append"}, **parts)
    assert night(etl_, pg_url, (1, "8"), (2, "8.5"))["rows"]["loaded"] == 2
    failed = night(etl_, pg_url, (3, "9.1234567891"))["failures"]
    assert "cursor column v has values that are kept as text" in failed[0]["error"]
    number = "select id, round(v, 9) as v from t where round(v, 9) >= :since"
    etl_.change(('table = "t"', f'query = "{number}"'))
    assert etl_.run()["rows"]["loaded"] == 1
    assert night(etl_, pg_url, (4, "10.1234567891"))["rows"]["loaded"] == 1


def test_large_integers_beside_floats_are_a_cursor_that_knows_each_of_their_digits(etl_: Project) -> None:
    url = "sqlite:///warehouse.db"
    prepared(etl_, url, "blob", {"id": "integer", "v": {"unique": True}}, load={"mode": "append"})
    for rows in (((1, 2**53 + 1), (2, 1.5)), ((3, 2**53 + 2), (4, 2**53)), (), ((5, 2**53 + 3),)):
        run = night(etl_, url, *rows)
        assert run["rows"]["loaded"] == len([v for _, v in rows if v != 2**53]), run
    assert ids(url) == [1, 2, 3, 5]


def test_the_cure_of_dates_as_text_works(etl_: Project, target_url: str) -> None:
    prepared(etl_, target_url, "text", {"id": "integer", "v": {"type": "date", "format": ["%m/%d/%Y"]}})
    run = night(etl_, target_url, (1, "12/31/2025"))
    is_postgres = target_url.startswith("postgresql")
    iso = "to_date(v, 'MM/DD/YYYY')" if is_postgres else "substr(v,7)||'-'||substr(v,1,2)||'-'||substr(v,4,2)"
    assert ("select to_date(v, " if is_postgres else "select v as an ISO date") in run["error"]
    query = f'query = "select id, {iso} as v from t where {iso} >= :since"'
    etl_.change(('table = "t"', query), (', format = ["%m/%d/%Y"]', ""))
    assert etl_.run()["rows"]["loaded"] == 1
    assert night(etl_, target_url, (2, "01/02/2026"))["rows"]["loaded"] == 1


def test_a_query_that_compares_text_is_refused_but_for_dates_of_sqlite(etl_: Project, target_url: str) -> None:
    query = {"table": "", "query": "SELECT * FROM t WHERE v >= :since"}
    prepared(etl_, target_url, "text", NUMBERS, **query)
    assert "which the query compares as text" in night(etl_, target_url, (1, "9"))["error"]
    etl_.change(("SELECT *", "SELECT id, cast(v as numeric) as v"), ("WHERE v", "WHERE cast(v as numeric)"))
    assert etl_.run()["state"] == "succeeded"
    assert night(etl_, target_url, (2, "10"))["rows"]["loaded"] == 1


def test_a_query_is_given_the_text_that_sqlite_holds(etl_: Project) -> None:
    url = "sqlite:///warehouse.db"
    prepared(etl_, url, "text", STAMPED, table="", query="SELECT * FROM t WHERE v >= :since")
    night(etl_, url, (1, "2026-01-01 10:00:00"))
    assert night(etl_, url, (2, "2026-01-01 10:00:01"))["rows"]["read"] == 2


def test_a_night_without_rows_is_quiet_whatever_the_columns_are(etl_: Project, target_url: str) -> None:
    source = "sqlite:///source.db"
    tell(source, "CREATE TABLE t (id integer, v timestamp, amount numeric, paid boolean, f real, d date, s text)")
    extract = {"type": "sql", "url": source, "table": "t", "cursor": "v"}
    load = {"table": "loaded", "mode": "merge", "key": ["id"]}
    etl_.config(etl_toml({"claims": {"extract": extract, "load": load, "columns": {"id": "integer"}}}, url=target_url))
    tell(source, "INSERT INTO t VALUES (1, '2026-01-01 00:00:00', 1.5, 1, 2.5, '2026-01-01', 'x')")
    assert etl_.run()["rows"]["loaded"] == 1
    tell(source, "UPDATE t SET v = '2026-01-02 00:00:00', amount = NULL, paid = NULL, f = NULL")
    assert etl_.run()["state"] == "succeeded"
    tell(source, "DELETE FROM t")
    run = etl_.run()
    assert (run["state"], run["rows"]["read"]) == ("succeeded", 0), run["error"]


@pytest.mark.parametrize("kind", ["double precision", "numeric"])
@pytest.mark.parametrize("parts", [{}, {"partition": "id", "rows": 1}])
def test_no_cursor_stands_at_nan(etl_: Project, pg_url: str, kind: str, parts: dict[str, Any]) -> None:
    columns = {"id": "integer", "v": {"type": "number", "unique": True}}
    prepared(etl_, pg_url, kind, columns, load={"mode": "append"}, **parts)
    assert night(etl_, pg_url, (1, 1.5), (2, "NaN"), (3, 2.5))["rows"]["loaded"] == 2
    assert night(etl_, pg_url, (4, 3.5))["rows"]["loaded"] == 1
    assert etl_("cursor get claims --client acme --json").json["value"] == "3.5"


@pytest.mark.parametrize("parts", [{}, {"partition": "id", "rows": 1}])
@pytest.mark.parametrize("name", ["V", "at"])
def test_a_cursor_may_go_by_another_name_than_in_the_source(
    etl_: Project, target_url: str, name: str, parts: dict[str, Any]
) -> None:
    columns = {"id": "integer", name: {"type": "integer", "from": ["v"]}}
    prepared(etl_, target_url, "integer", columns, cursor=name, **parts)
    night(etl_, target_url, (1, 1), (2, 2))
    assert night(etl_, target_url, (3, 3))["rows"]["loaded"] == 1
    assert etl_.run()["rows"]["read"] == 1
    etl_.change((f'cursor = "{name}"', 'cursor = "w"'))
    assert "no column w, which is the cursor\n  it has id, v" in etl_.run()["failures"][0]["error"]

"""Times that a change of clocks leaves out are rejects on every path; one that it repeats is the first of the two."""

import sqlite3
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from etl.config.models import Column
from etl.types.casts import cast
from tests.helpers.project import Project, etl_toml

GAP = "2026-03-29 02:30:00"
WHY = "does not exist in Europe/Berlin"
TIMES = ["2026-03-29 01:30:00", GAP, "2026-10-25 02:30:00"]
INSTANTS = ["2026-03-29 00:30:00", "2026-10-25 00:30:00"]
HEAD = "import datetime as dt\nimport pandas as pd\n"
RECORDS = [f"{{'v': dt.datetime.fromisoformat('{text}')}}" for text in TIMES]


def run(etl: Project, extract: dict[str, Any], **keys: Any) -> Any:
    """Run a pipeline of a client in Berlin."""
    berlin = {"acme": {"timezone": "Europe/Berlin"}}
    etl.config(etl_toml({"t": {"extract": extract, "retries": 0, **keys}}, berlin))
    made = etl.run(pipeline="t")
    assert made["state"] == "succeeded", made["error"]
    return made


def rejected(etl: Project, extract: dict[str, Any], **keys: Any) -> None:
    """Check that of the times the one that there never was is a reject, and that the others are loaded."""
    made = run(etl, extract, **keys)
    [reject] = etl(f"rejects {made['run']} --rows --json").json
    assert (reject["column"], reject["reason"]) == ("v", WHY)
    assert [v for (v,) in etl.rows("SELECT v FROM t ORDER BY v")] == INSTANTS


@pytest.mark.parametrize(
    "columns", [{}, {"v": "timestamp"}, {"v": {"type": "timestamp", "format": "%Y-%m-%d %H:%M:%S"}}]
)
def test_texts_of_a_csv_file(etl: Project, columns: dict[str, Any]) -> None:
    etl.write("in.csv", "\n".join(["id,v", *(f"{number},{text}" for number, text in enumerate(TIMES)), ""]))
    rejected(etl, {"path": "in.csv"}, columns=columns)


def test_texts_of_an_ndjson_file_are_rejects_where_they_are_declared_and_else_text(etl: Project) -> None:
    etl.write("in.ndjson", "".join(f'{{"v": "{text}"}}\n' for text in TIMES))
    rejected(etl, {"type": "ndjson", "path": "in.ndjson"}, columns={"v": "timestamp"})
    run(etl, {"type": "ndjson", "path": "in.ndjson"}, load={"table": "undeclared"})
    assert [v for (v,) in etl.rows("SELECT v FROM undeclared")] == TIMES


def test_texts_of_a_database(etl: Project) -> None:
    with closing(sqlite3.connect(etl.root / "source.db")) as base, base:
        base.execute("CREATE TABLE given (v TEXT)")
        base.executemany("INSERT INTO given VALUES (?)", [(text,) for text in TIMES])
    extract = {"type": "sql", "url": "sqlite:///source.db", "table": "given"}
    rejected(etl, extract, columns={"v": "timestamp"})


@pytest.mark.parametrize("columns", [{}, {"v": "timestamp"}])
@pytest.mark.parametrize(
    "code",
    [
        f"return [{', '.join(RECORDS)}]",
        f"return pd.DataFrame({{'v': pd.to_datetime({TIMES})}})",
        f"""yield pd.DataFrame({{'v': pd.to_datetime({TIMES[:2]})}})
    yield pd.DataFrame({{'v': [dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC)]}})""",
    ],
    ids=["records", "a frame", "frames with and without a zone"],
)
def test_datetimes_of_a_function(etl: Project, code: str, columns: dict[str, Any]) -> None:
    etl.write("steps.py", f"{HEAD}def rows():\n    {code}\n")
    rejected(etl, {"type": "function", "function": "steps:rows"}, columns=columns)


@pytest.mark.parametrize(
    "columns", [{"id": "integer"}, {"id": "integer", "v": {"type": "timestamp", "computed": True}}]
)
def test_datetimes_that_a_function_computes(etl: Project, columns: dict[str, Any]) -> None:
    code = f"def change(df):\n    df['v'] = pd.to_datetime({TIMES})\n    return df\n"
    etl.write("steps.py", f"{HEAD}{code}")
    etl.write("in.csv", "id\n1\n2\n3\n")
    rejected(etl, {"path": "in.csv"}, columns=columns, transform=["steps:change"])


def test_datetimes_with_and_without_a_zone_in_one_column_are_not_moved(etl: Project) -> None:
    aware = "dt.datetime(2026, 10, 25, 0, 30, tzinfo=dt.UTC)"
    code = ", ".join([*RECORDS[:2], f"{{'v': {aware}}}"])
    etl.write("steps.py", f"{HEAD}def rows():\n    return [{code}]\n")
    rejected(etl, {"type": "function", "function": "steps:rows"}, columns={"v": "timestamp"})


@pytest.mark.parametrize("form", [(), ("%Y-%m-%d",)])
def test_a_date_begins_with_its_first_moment_where_it_has_no_midnight(form: tuple[str, ...]) -> None:
    """A text with a time says midnight, which there was not."""
    zone, column = "America/Sao_Paulo", Column(type="timestamp", format=form)
    found, failed = cast(pa.chunked_array([["2018-11-04"]]), column, zone)
    assert (found[0].as_py().isoformat(), failed) == ("2018-11-04T03:00:00+00:00", [])
    days = pa.chunked_array([["2018-11-04"]]).cast(pa.date32())
    assert cast(days, Column(type="timestamp"), zone)[0].equals(found)
    _, [(_, why)] = cast(pa.chunked_array([["2018-11-04 00:00:00"]]), Column(type="timestamp"), zone)
    assert why == f"does not exist in {zone}"


def test_a_million_times_that_there_never_were_are_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.types.times.ZoneInfo", None)  # which is asked value by value
    values = pa.chunked_array([pa.array([GAP]).take(pa.array([0] * 1_000_000))])
    found, [(_, why)] = cast(values, Column(type="timestamp"), "Europe/Berlin")
    assert (found.null_count, why) == (1_000_000, WHY)

"""Odd but legal: what real files and real companies look like, through the command line into both kinds of target."""

import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.helpers.project import CLAIMS, ETL_TOML, Project

MERGE = 'mode = "merge", key = ["claim_id"]'
COLUMNS = ETL_TOML[ETL_TOML.index("[pipelines.claims.columns]") : ETL_TOML.index("[clients.acme]")]


def columns(etl: Project, text: str, *changes: tuple[str, str]) -> None:
    etl.config(ETL_TOML, (COLUMNS, f"[pipelines.claims.columns]\n{text}\n" if text else ""), *changes)


def load(etl: Project, content: str | bytes, loaded: int, rejected: int = 0) -> Any:
    """Load one file and expect so many rows."""
    etl.write("inbox/acme/claims-1.csv", content)
    run = etl.run()
    assert run["state"] == "succeeded", run["error"]
    assert (run["rows"]["loaded"], run["rows"]["rejected"]) == (loaded, rejected)
    return run


# --- files ---


@pytest.mark.parametrize(
    "content",
    [
        CLAIMS.replace("\n", "\r\n"),
        "﻿" + CLAIMS,
        CLAIMS.replace("\n", "\r"),
        CLAIMS.rstrip("\n"),
        "\n\n" + CLAIMS.replace("\n", "\n\n"),
        CLAIMS.replace("claim_id", '"claim_id"').replace("A1", '"A1"'),
        CLAIMS.replace("claim_id,amount", " Claim_ID , AMOUNT "),
        CLAIMS + "\x0a",
    ],
    ids=[
        "CRLF",
        "BOM",
        "CR",
        "no last line end",
        "blank lines",
        "quotes",
        "blanks and case in the header",
        "blank end",
    ],
)
def test_one_table_in_many_spellings(etl: Project, content: str) -> None:
    load(etl, content, 2)
    assert etl.rows("select claim_id, amount from claims order by 1") == [("A1", 10.5), ("A2", 20)]


def test_quoted_newlines_delimiters_and_quotes(etl: Project) -> None:
    load(etl, 'claim_id,amount,note\nA1,1,"a\nb, ""c"""\r\n"A\n2",2,"d\r\ne"\n', 2)
    assert etl.rows("select claim_id, note from claims order by amount") == [("A1", 'a\nb, "c"'), ("A\n2", "d\r\ne")]


def test_the_line_of_a_reject_is_the_line_in_the_file(etl: Project) -> None:
    text = 'claim_id,amount,note\nA1,1,"a\nb"\n\nA2,x,\nA3\nA4,1,2,3\nA5,5,"un"quoted\nA6,6,six\n'
    run = load(etl, text, 2, rejected=4)
    assert etl.rows("select claim_id, note from claims order by 1") == [("A1", "a\nb"), ("A6", "six")]
    assert run["rows"]["read"] == 6


def test_names_of_files_with_blanks_and_letters(etl: Project) -> None:
    etl.write("inbox/acme/claims-März 2024 (neu), [1] #.csv", "claim_id,amount\nM1,1\n")
    assert etl.run()["rows"]["loaded"] == 3
    [(file,)] = etl.rows("select _file from claims where claim_id = 'M1'")
    assert file == "inbox/acme/claims-März 2024 (neu), [1] #.csv"


def test_a_name_that_is_not_utf_8(etl: Project) -> None:
    path = os.fsencode(etl.root / "inbox/acme") + b"/claims-\xe4.csv"
    Path(os.fsdecode(path)).write_bytes(b"claim_id,amount\nL1,1\nL2,x\n")
    etl.config(ETL_TOML, ('.csv" }', '.csv", settle = 0 }'))
    run = etl.run()
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 3, 1)
    assert etl.rows("select _file from claims where claim_id = 'L1'") == [("inbox/acme/claims-\\xe4.csv",)]


def test_what_functions_print_is_not_in_the_document(etl: Project) -> None:
    etl.write("steps.py", "print('imported')\ndef f(df):\n    print('called')\n    return df\n")
    etl.config(ETL_TOML, ("transform = []", 'transform = ["steps:f"]'))
    said = etl("run claims claims --client acme --client acme --inline --json")
    assert (said.code, len(said.json)) == (0, 1)
    assert "called" in said.err
    assert etl("validate --json").json["valid"]
    assert etl("plan claims --client acme --rows 2 --json").json["rows"][0]["claim_id"] == "A1"
    assert "called" in etl("run claims --client acme --inline --full-refresh").out


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row(etl: Project, rows: int) -> None:
    load(etl, "claim_id,amount\n" + "A1,1\n" * rows, rows)


def test_all_rows_are_rejected(etl: Project) -> None:
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount\n,1\nA2,-1\n")
    run = etl.run()
    assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("failed", 0, 2)
    etl.config(ETL_TOML, ("retries = 0", 'retries = 0\nall_rejected = "warn"'))
    load(etl, "claim_id,amount\n,1\nA2,-1\n", 0, rejected=2)


def test_parameters_in_the_path(etl: Project) -> None:
    etl.config(ETL_TOML, ("{client}/claims-*", "{client}/{region}-*"))
    etl.write("inbox/acme/north-1.csv", CLAIMS)
    assert etl("run claims --client acme --inline").code == 2
    assert etl.run("--param", "region=north")["rows"]["loaded"] == 2
    assert "no file matches inbox/acme/*-" in etl.run("--param", "region=*")["error"]
    said = etl("run claims --client acme --inline --param region=../north")
    assert said.code in (1, 2)
    assert "leads to another folder" in said.err + said.out


# --- values ---


def test_a_decimal_comma(etl: Project) -> None:
    columns(etl, 'claim_id = {}\namount = { type = "decimal", decimal = "," }', ('.csv" }', '.csv", delimiter = ";" }'))
    load(etl, "claim_id;amount\nA1;1,5\nA2;-0,25\nA3;1.5\nA4;1.234,5\n", 2, rejected=2)
    assert etl.rows("select amount from claims order by 1") == [(-0.25,), (1.5,)]


def test_dates_in_several_formats(etl: Project) -> None:
    columns(etl, 'claim_id = {}\nday = { type = "date", format = ["%Y-%m-%d", "%m/%d/%Y", "%d.%m.%y"] }')
    load(etl, "claim_id,day\nA1,2024-01-31\nA2,01/31/2024\nA3,31.01.24\nA4,31/01/2024\nA5,\n", 4, rejected=1)
    assert etl.rows("select distinct day from claims order by 1") == [(None,), ("2024-01-31",)]


def test_times_without_a_zone_are_the_clients(etl: Project) -> None:
    columns(
        etl,
        'claim_id = {}\nat = { type = "timestamp" }',
        ("[clients.acme]", '[clients.acme]\ntimezone = "America/Chicago"'),
    )
    load(
        etl,
        "claim_id,at\nA1,2024-07-01 08:00:00\nA2,2024-07-01T08:00:00Z\nA3,2024-07-01T08:00:00+02:00\nA4,2024-01-01\n",
        4,
    )
    assert [at for (at,) in etl.rows("select at from claims order by claim_id")] == [
        "2024-07-01 13:00:00", "2024-07-01 08:00:00", "2024-07-01 06:00:00", "2024-01-01 06:00:00"
    ]  # fmt: skip


def test_text_that_looks_like_numbers_is_unharmed(etl: Project) -> None:
    values = ["066", "1e5", "NA", "null", "None", "nan", "1.0", " x ", "'", "TRUE", "-", "=1+1", "007,5"]
    columns(etl, "claim_id = {}\ncode = {}")
    load(etl, "claim_id,code\n" + "".join(f'{n},"{value}"\n' for n, value in enumerate(values, 10)), len(values))
    assert [code for (code,) in etl.rows("select code from claims order by claim_id")] == values


def test_integers_are_whole_and_as_large_as_they_are(etl: Project) -> None:
    columns(etl, 'claim_id = {}\nn = { type = "integer" }')
    load(etl, "claim_id,n\nA1,9007199254740993\nA2,-5\nA3,1.5\nA4,99999999999999999999\nA5,\n", 3, rejected=2)
    assert etl.rows("select n from claims where n > 0") == [(9007199254740993,)]


def test_checks_of_every_kind(etl: Project) -> None:
    columns(
        etl,
        'claim_id = { required = true, pattern = "^[A-Z][0-9]+$" }\n'
        'n = { type = "integer", min = 1, max = 9 }\nkind = { allowed = ["a", "b"] }\n'
        'ok = { type = "boolean" }\nday = { type = "date", min = 2024-01-01 }',
    )
    rows = ["A1,1,a,yes,2024-01-01", "a1,1,a,yes,", "A2,0,a,yes,", "A3,10,a,no,", "A4,,c,no,", "A5,,,maybe,"]
    rows += ["A6,,,,2023-12-31", ",1,a,yes,", "A7,,,,"]
    load(etl, "claim_id,n,kind,ok,day\n" + "\n".join(rows), 2, rejected=7)
    assert etl.rows("select claim_id, ok from claims order by 1") == [("A1", 1), ("A7", None)]


def test_a_computed_column_is_checked_after_the_functions(etl: Project) -> None:
    etl.write("steps.py", "def f(df, factor=2):\n    return df.assign(margin=df.amount.astype(float) * factor)\n")
    columns(
        etl,
        'claim_id = {}\namount = { type = "decimal" }\nmargin = { type = "number", computed = true, max = 30 }',
        ("transform = []", 'transform = [{ function = "steps:f", args = { factor = 2 } }]'),
    )
    load(etl, CLAIMS, 1, rejected=1)
    assert etl.rows("select claim_id, margin from claims") == [("A1", 21.0)]


# --- names ---

NAMES = [
    "order",
    "select",
    'with "quotes"',
    "it's",
    "Ä ö",
    "a.b",
    "%s",
    ":name",
    "{x}",
    "user",
    "_client_",
    "1st",
    "[x]",
    "a;b",
    "table",
]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_columns_may_be_called_anything(etl: Project, kind: str, request: pytest.FixtureRequest) -> None:
    header = ",".join('"' + name.replace('"', '""') + '"' for name in NAMES)
    changes = []
    if kind == "postgresql":
        changes = [("sqlite:///warehouse.db", request.getfixturevalue("pg_url").replace("\\", "/"))]
    columns(etl, 'claim_id = {}\norder = { type = "integer" }', *changes)
    values = ",".join(["1", *(f"v{n}" for n in range(1, len(NAMES)))])
    load(etl, f"claim_id,{header}\nA1,{values}\n", 1)
    load(etl, f"claim_id,{header}\nA1,{values.replace('v3', 'w3')}\n", 1)
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in NAMES)
    query = f"select {quoted} from claims"
    if kind == "sqlite":
        [row] = etl.rows(query)
    else:
        with psycopg.connect(changes[0][1]) as connection:
            [row] = connection.execute(query.encode()).fetchall()
    assert row == (1, *(f"v{n}".replace("v3", "w3") for n in range(1, len(NAMES))))


def ask(etl: Project, query: str, url: str | None) -> list[tuple[Any, ...]]:
    """Ask a PostgreSQL target, or the SQLite one where there is no URL."""
    if url is None:
        return etl.rows(query)
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where the target is, if it is not the project's own SQLite file."""
    return request.getfixturevalue("pg_url") if request.param == "postgresql" else None


def test_what_says_which_row_is_newest_is_found_in_any_case_though_it_is_not_declared(
    etl: Project, url: str | None
) -> None:
    changes = [("sqlite:///warehouse.db", url)] if url else []
    etl.config(ETL_TOML, (MERGE, f'{MERGE}, newest = "updated_at"'), (", unique = true", ""), *changes)
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount,Updated_At\nA1,1,2024-02-01\n")
    etl.write("inbox/acme/claims-2.csv", "claim_id,amount, UPDATED_AT \nA1,2,2024-01-01\n")
    run = etl.run()
    assert (run["state"], run["warnings"], run["rows"]["superseded"]) == ("succeeded", [], 1)
    assert ask(etl, "select amount, updated_at from claims", url) == [(1, "2024-02-01")]


def test_a_column_that_nobody_declared_is_one_however_files_and_nights_spell_it(etl: Project, url: str | None) -> None:
    etl.config(ETL_TOML, (COLUMNS, ""), (MERGE, 'mode = "append"'), *([("sqlite:///warehouse.db", url)] if url else []))
    etl.write("inbox/acme/claims-1.csv", "Claim,Amount\nA1,1\n")
    etl.write("inbox/acme/claims-2.csv", "AMOUNT,claim \n2.5,A2\n")
    run = etl.run()
    assert (run["state"], run["rows"]["loaded"]) == ("succeeded", 2), run["failures"]
    etl.write("inbox/acme/claims-3.csv", "CLAIM,amount\nA3,3\n")
    assert etl.run()["rows"]["loaded"] == 1
    rows = ask(etl, 'select "Claim", "Amount" from claims order by 1', url)
    assert rows == [("A1", 1.0), ("A2", 2.5), ("A3", 3.0)]


@pytest.mark.parametrize("name", ["_row", "_client", "_run", "_file"])
def test_a_column_of_the_files_with_a_name_of_ours_is_reported(etl: Project, name: str) -> None:
    etl.write("inbox/acme/claims-1.csv", f"claim_id,{name}\nA1,1\n")
    run = etl.run()
    assert run["state"] == "failed"
    assert name in run["error"]
    assert "rename" in run["error"]
    etl.config(ETL_TOML, ("amount = {", f'amount = {{ from = ["{name}"],'))
    if name != "_row":
        assert etl.run()["rows"]["loaded"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_fifteen_hundred_columns(etl: Project, kind: str, request: pytest.FixtureRequest) -> None:
    names = [f"c{n}" for n in range(1500)]
    change = ("sqlite:///warehouse.db", request.getfixturevalue("pg_url")) if kind == "postgresql" else ("", "")
    etl.config(ETL_TOML, *([change] if change[0] else []))
    load(etl, f"claim_id,{','.join(names)}\nA1,{','.join(names)}\nA2,{','.join(names)}\n", 2)
    etl.write("inbox/acme/claims-2.csv", f"claim_id,{','.join(names)}\nA1,{','.join(names)}\nA3,{','.join(names)}\n")
    rows = etl.run()["rows"]
    assert (rows["loaded"], rows["rejected"], rows["unchanged"]) == (1, 1, 2)


def test_values_are_exact_in_postgresql(etl: Project, pg_url: str) -> None:
    columns(
        etl,
        'claim_id = {}\namount = { type = "decimal" }\nday = { type = "date" }\nok = { type = "boolean" }\ncode = {}',
        ("sqlite:///warehouse.db", pg_url),
    )
    load(etl, 'claim_id,amount,day,ok,code\n"A\\1",12345678901234567890.12,2024-02-29,t,"a\tb\\N"\nA2,,,,\n', 2)
    with psycopg.connect(pg_url) as connection:
        rows = connection.execute(
            "select claim_id, amount, day, ok, code from claims order by claim_id desc"
        ).fetchall()
    assert rows == [
        ("A\\1", Decimal("12345678901234567890.12"), date(2024, 2, 29), True, "a\tb\\N"),
        ("A2", None, None, None, None),
    ]
    etl.write(
        "inbox/acme/claims-1.csv",
        'claim_id,amount,day,ok,code\n"A\\1",12345678901234567890.120,2024-02-29,yes,"a\tb\\N"\n',
    )
    assert etl.run()["rows"]["unchanged"] == 1

"""What a run leaves in the target: modes, shared tables, new columns, splits, a company's own functions."""

import gzip
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.project import CLAIMS, ETL_TOML, Project

MERGE = 'mode = "merge", key = ["claim_id"]'
BARE = ETL_TOML[: ETL_TOML.index("[pipelines.claims.columns]")] + "[clients.acme]\n[clients.globex]\n"
BARE = BARE.replace(MERGE, 'mode = "append"')


def mode(etl: Project, text: str, *changes: tuple[str, str]) -> None:
    etl.config(ETL_TOML, (MERGE, text), *changes)


# --- modes ---


def test_an_append_loads_a_file_once(etl: Project) -> None:
    mode(etl, 'mode = "append"')
    assert etl.run()["rows"]["loaded"] == 2
    assert etl.run()["rows"]["unchanged"] == 2
    etl.write("inbox/acme/claims-2.csv", "claim_id,amount\nA3,3\n")
    rows = etl.run()["rows"]
    assert (rows["loaded"], rows["unchanged"]) == (1, 2)
    assert etl.rows("select count(*) from claims") == [(3,)]


def test_an_append_of_a_changed_file_is_refused(etl: Project) -> None:
    mode(etl, 'mode = "append"')
    first = etl.run()["run"]
    etl.write("inbox/acme/claims-1.csv", CLAIMS + "A3,3\n")
    run = etl.run()
    assert run["state"] == "failed"
    assert f"inbox/acme/claims-1.csv has changed since run {first} appended it" in run["error"]
    assert 'by = ["_file"]' in run["error"]
    assert etl.rows("select count(*) from claims") == [(2,)]
    mode(etl, 'mode = "replace", by = ["_file"]')
    assert etl.run()["rows"]["loaded"] == 3
    assert etl.rows("select count(*) from claims") == [(3,)]


def test_a_replace_is_this_clients_rows_and_never_empties_a_table(etl: Project) -> None:
    mode(etl, 'mode = "replace"', ('.csv" }', '.csv", missing = "ok" }'))
    etl.write("inbox/globex/claims-1.csv", CLAIMS)
    etl.run()
    etl.run(client="globex")
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount\nB1,1\n")
    assert etl.run()["rows"]["loaded"] == 1
    found = "select _client, claim_id from claims order by 1, 2"
    assert etl.rows(found) == [("acme", "B1"), ("globex", "A1"), ("globex", "A2")]
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount\n")
    assert etl.run()["state"] == "succeeded"
    (etl.root / "inbox/acme/claims-1.csv").unlink()
    assert etl.run()["state"] == "succeeded"
    assert len(etl.rows(found)) == 3


def test_a_replace_by_a_column(etl: Project) -> None:
    mode(etl, 'mode = "replace", by = ["month"]', ("amount = {", "month = {}\namount = {"))
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount,month\nA1,1,jan\nA2,2,feb\n")
    etl.run()
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount,month\nB1,1,feb\n")
    etl.write("inbox/acme/claims-2.csv", "claim_id,amount,month\nB2,1,mar\n")
    etl.run()
    assert etl.rows("select month, claim_id from claims order by 1") == [("feb", "B1"), ("jan", "A1"), ("mar", "B2")]


def test_a_merge_lets_the_newer_row_win_whatever_the_order_of_files(etl: Project) -> None:
    mode(etl, f'{MERGE}, newest = "at"', ("unique = true", "unique = false"))
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount,at\nA1,1,2024-02-02\nA2,1,2024-02-01\n")
    etl.write("inbox/acme/claims-2.csv", "claim_id,amount,at\nA1,2,2024-02-01\nA2,2,2024-02-02\nA2,3,2024-02-02\n")
    run = etl.run()
    assert run["rows"] | {"loaded": 2, "superseded": 3} == run["rows"]
    assert etl.rows("select claim_id, amount from claims order by 1") == [("A1", 1), ("A2", 3)]


def test_without_newest_the_later_file_wins(etl: Project) -> None:
    mode(etl, MERGE, ("unique = true", "unique = false"))
    etl.write("inbox/acme/claims-0.csv", "claim_id,amount\nA1,99\n")
    etl.run()
    assert etl.rows("select amount from claims where claim_id = 'A1'") == [(99,)]


def test_duplicates_across_files_of_a_unique_column_are_rejects(etl: Project) -> None:
    etl.write("inbox/acme/claims-2.csv", "claim_id,amount\nA2,99\nA3,1\n")
    run = etl.run()
    assert run["error"] is None
    assert run["rows"] | {"read": 4, "loaded": 3, "rejected": 1} == run["rows"]
    assert etl.rows("select claim_id, amount from claims order by 1") == [("A1", 10.5), ("A2", 20), ("A3", 1)]
    [listed] = (etl.root / "staging/acme" / run["run"]).glob("00000.finish.rejects.*")
    [reject] = pq.read_table(listed).to_pylist()
    assert reject == {
        "file": "inbox/acme/claims-2.csv", "row": 2, "column": "claim_id", "value": "A2", "reason": "not unique",
        "raw": '{"claim_id": "A2", "amount": "99"}',
    }  # fmt: skip


def test_all_or_nothing(etl: Project) -> None:
    mode(etl, 'mode = "append", atomic = true')
    etl.write("inbox/acme/claims-2.csv", "wrong\n1\n")
    run = etl.run()
    assert (run["state"], run["rows"]["loaded"]) == ("failed", 0)
    assert "claims" not in etl.tables() or etl.rows("select * from claims") == []


# --- tables ---


def test_two_clients_share_a_table(etl: Project) -> None:
    etl.write("inbox/globex/claims-1.csv", CLAIMS)
    said = etl("run --all-clients --inline --json")
    assert [run["client"] for run in said.json] == ["acme", "globex"]
    found = "select _client, claim_id from claims order by 1, 2"
    assert etl.rows(found) == [(client, id) for client in ("acme", "globex") for id in ("A1", "A2")]


@pytest.mark.parametrize("place", ["table", "url"])
def test_a_table_for_each_client(etl: Project, place: str) -> None:
    etl.write("inbox/globex/claims-1.csv", CLAIMS)
    change = (
        ('table = "claims"', 'table = "{client}_claims"') if place == "table" else ("house.db", "house-{client}.db")
    )
    etl.config(ETL_TOML, change)
    assert etl("run --all-clients --inline").code == 0
    if place == "table":
        assert etl.tables() == ["acme_claims", "globex_claims"]
        database, table = "warehouse.db", "acme_claims"
    else:
        database, table = "warehouse-acme.db", "claims"
    columns = [name for _, name, *_ in etl.rows(f"pragma table_info({table})", database)]
    assert columns == ["claim_id", "amount", "_run", "_file"]


def test_new_columns(etl: Project) -> None:
    etl.run()
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount,new\nA1,10.50,x\n")
    etl.config(ETL_TOML, ("retries = 0", 'retries = 0\nnew_columns = "fail"'))
    run = etl.run()
    assert run["state"] == "failed"
    assert "table claims has no column new, and new_columns is fail" in run["error"]
    etl.config(ETL_TOML, ("retries = 0", 'retries = 0\nnew_columns = "ignore"'))
    assert etl.run()["rows"]["unchanged"] == 1
    etl.config(ETL_TOML)
    assert etl.run()["rows"]["loaded"] == 1
    assert etl.rows("select claim_id, new from claims order by 1") == [("A1", "x"), ("A2", None)]


def test_max_rejects_as_a_number(etl: Project) -> None:
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount\nA1,1\nA2,x\nA3,y\n")
    etl.config(ETL_TOML, ("retries = 0", "retries = 0\nmax_rejects = 1"))
    run = etl.run()
    assert (run["state"], run["rows"]["rejected"], run["rows"]["loaded"]) == ("failed", 2, 0)
    assert "2 of 3 rows were rejected, max_rejects allows 1" in run["error"]
    assert etl.run("--max-rejects", "2")["rows"]["loaded"] == 1


# --- functions ---

COUNTS = """
import pandas as pd
from rq_etl import reject

def f(df):
    return df.assign(rows=len(df), files=df.index.nunique())

def drop(df):
    return df[df.claim_id != "A1"]

def double(df):
    return pd.concat([df, df.assign(claim_id=df.claim_id + "x")])

def refuse(df, region="south"):
    return reject(df, df.claim_id == "A2", reason="not ours", column="claim_id")
"""


@pytest.mark.parametrize(("split", "counts"), [("file", [(2,), (2,), (3,)]), ("none", [(7,), (7,), (7,)])])
def test_what_a_function_is_called_with(etl: Project, split: str, counts: list[tuple[int]]) -> None:
    etl.write("steps.py", COUNTS)
    etl.write("inbox/acme/claims-2.csv", "claim_id,amount\nB1,1\nB2,1\n")
    etl.write("inbox/acme/claims-3.csv", "amount,claim_id\n1,C1\n1,C2\n1,C3\n")
    etl.config(ETL_TOML, ("transform = []", 'transform = ["steps:f"]'), ('.csv" }', f'.csv", split = "{split}" }}'))
    run = etl.run()
    assert run["partitions"]["total"] == (1 if split == "none" else 3)
    assert etl.rows("select max(rows) from claims group by substr(claim_id, 1, 1) order by 1") == counts
    assert etl.rows("select _file from claims where claim_id = 'C2'") == [("inbox/acme/claims-3.csv",)]


def test_functions_may_drop_add_and_reject(etl: Project) -> None:
    etl.write("steps.py", COUNTS)
    etl.config(ETL_TOML, ("transform = []", 'transform = ["steps:refuse", "steps:drop", "steps:double"]'))
    etl.write("inbox/acme/claims-1.csv", CLAIMS + "A3,3\n")
    run = etl.run()
    assert run["state"] == "succeeded", run["error"]
    assert run["rows"] == {
        "read": 3, "added": 1, "rejected": 1, "dropped": 1, "superseded": 0, "loaded": 2, "unchanged": 0
    }  # fmt: skip


LEGACY = """
import pandas as pd

def extract_x(client_id, params, start=None):
    yield pd.DataFrame({"claim_id": [client_id + "1"], "amount": ["1.5"]})
    yield [{"claim_id": client_id + "2", "amount": 2}]

def load_x(df, connection):
    df[["claim_id"]].to_sql("legacy", connection, if_exists="append", index=False)

def load_window(df, connection, client, start):
    df[["claim_id"]].assign(window=f"{client} {start:%Y-%m-%d}").to_sql("windows", connection, if_exists="append")

def commits(df, connection):
    load_x(df, connection)
    connection.commit()
"""


def test_a_companys_own_extract_and_load_stay_as_they_are(etl: Project) -> None:
    etl.write("steps.py", LEGACY)
    extract = 'extract = { type = "function", function = "steps:extract_x", args = { client_id = "{client}" } }'
    source = ('extract = { type = "csv", path = "inbox/{client}/claims-*.csv" }', extract)
    etl.config(ETL_TOML, source)
    run = etl.run()
    assert (run["state"], run["error"]) == ("succeeded", None)
    assert etl.rows("select claim_id, amount from claims order by 1") == [("acme1", 1.5), ("acme2", 2)]
    etl.config(ETL_TOML, source, (MERGE, 'function = "steps:load_x"'))
    assert etl.run()["rows"]["loaded"] == 2
    assert etl.rows("select claim_id from legacy order by 1") == [("acme1",), ("acme2",)]
    etl.config(ETL_TOML, source, (MERGE, 'function = "steps:commits"'))
    run = etl.run()
    assert run["state"] == "failed"
    assert "commit" in run["error"]
    assert etl.rows("select count(*) from legacy") == [(2,)]


def test_a_load_function_is_given_the_window_it_asks_for(etl: Project) -> None:
    etl.write("steps.py", LEGACY)
    extract = 'extract = { type = "function", function = "steps:extract_x", args = { client_id = "{client}" } }'
    source = ('extract = { type = "csv", path = "inbox/{client}/claims-*.csv" }', extract)
    etl.config(ETL_TOML, source, (MERGE, 'function = "steps:load_window"'))
    said = etl("backfill claims --client acme --start 2024-01-05 --end 2024-01-06 --inline --json")
    assert said.code == 0, said.err
    assert etl.rows("select distinct window from windows") == [("acme 2024-01-05",)]


# --- without columns ---


def test_types_are_inferred_the_same_whatever_the_split(etl: Project, tmp_path: Path) -> None:
    etl.config(BARE)
    lines = ["1,066,NA,1.5,2024-01-31,x", "2,007,,2,2024-02-01,", "3,1e5,Naples,3,,true", "4,,null,,2024-02-03,0"]
    seen = set()
    for files in ([[0, 1, 2, 3]], [[3], [2], [1], [0]], [[1, 0], [3, 2]], [[], [0, 1], [2, 3]]):
        for old in (etl.root / "inbox/acme").iterdir():
            old.unlink()
        (etl.root / "warehouse.db").unlink(missing_ok=True)
        for number, part in enumerate(files):
            text = "\n".join(["n,code,city,x,day,odd", *(lines[line] for line in part)])
            etl.write(f"inbox/acme/claims-{number}.csv", text)
        run = etl.run()
        assert (run["state"], run["rows"]["loaded"], run["rows"]["rejected"]) == ("succeeded", 4, 0)
        types = tuple((name, type) for _, name, type, *_ in etl.rows("pragma table_info(claims)"))
        seen.add((types, tuple(etl.rows("select n, code, city, x, day, odd from claims order by n"))))
    [(types, rows)] = seen
    assert dict(types)["code"] == "TEXT"
    assert rows[0] == (1, "066", "NA", 1.5, "2024-01-31", "x")
    assert [row[2] for row in rows] == ["NA", None, "Naples", "null"]


def test_gzip_is_read_as_it_is(etl: Project) -> None:
    etl.config(ETL_TOML, ("claims-*.csv", "claims-*"))
    etl.write("inbox/acme/claims-2.csv.gz", gzip.compress(b"claim_id,amount\nG1,1\n"))
    assert etl.run()["rows"]["loaded"] == 3
    assert etl.rows("select _file from claims where claim_id = 'G1'") == [("inbox/acme/claims-2.csv.gz",)]


def test_a_url_from_the_environment(etl: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    etl.config(ETL_TOML, ("sqlite:///warehouse.db", "${WAREHOUSE}"))
    run = etl.run()
    assert "WAREHOUSE is not in the environment" in run["error"]
    monkeypatch.setenv("WAREHOUSE", "sqlite:///other.db")
    assert etl.run()["state"] == "succeeded"
    assert etl.rows("select count(*) from claims", "other.db") == [(2,)]

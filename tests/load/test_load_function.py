"""A user's own load function works inside the ledger's transaction, and can't leave it."""

from pathlib import Path
from typing import Any

import pytest

from etl.errors import FunctionFailed
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, values

LEGACY = """
import pandas as pd

def insert(df, connection):
    df.to_sql("mine", connection, if_exists="append", index=False)

def sized(df, connection):
    insert(pd.DataFrame({"id": [len(df)]}), connection)

def commits(df, connection):
    insert(df, connection)
    connection.commit()

def commits_in_sql(df, connection):
    insert(df, connection)
    connection.exec_driver_sql("commit")

def commits_by_driver(df, connection):
    insert(df, connection)
    connection.connection.driver_connection.commit()

def commits_by_cursor(df, connection):
    insert(df, connection)
    connection.connection.driver_connection.cursor().execute("COMMIT")

def hides_its_commit(df, connection):
    insert(df, connection)
    try:
        connection.connection.driver_connection.cursor().execute("COMMIT")
    except Exception:
        pass

def rolls_back(df, connection):
    connection.rollback()
    insert(df, connection)

def rolls_back_by_cursor(df, connection):
    connection.connection.driver_connection.cursor().execute("ROLLBACK")
    insert(df, connection)

def closes(df, connection):
    insert(df, connection)
    connection.close()

def saves(df, connection):
    with connection.begin_nested():
        insert(df, connection)

def signs(df, connection, client, params, *, run):
    insert(df.assign(signed=f"{client} {run} {params['region']}"), connection)

def fails(df, connection):
    insert(df, connection)
    raise ValueError("Jane Roe")
"""


def made(folder: Path, function: str, **more: Any) -> Any:
    (folder / "legacy.py").write_text(LEGACY)
    return pipeline(root=str(folder), modules=("legacy",), function=f"legacy:{function}", **more)


ROWS = [{"id": 1, "name": "a"}, {"id": None, "name": None}]


@pytest.mark.parametrize("function", ["insert", "saves"])
def test_a_function_loads_once(target_url: str, tmp_path: Path, function: str) -> None:
    for _ in range(2):
        counts = deliver(target_url, made(tmp_path, function), chunk(ROWS))
        assert (counts.loaded, counts.final) == (2, True)
    assert values(target_url, "id, name", "mine") == [(1, "a"), (None, None)]


def test_a_function_gets_by_name_what_else_it_asks_for(target_url: str, tmp_path: Path) -> None:
    deliver(target_url, made(tmp_path, "signs", params={"region": "north"}), chunk(ROWS[:1]))
    assert values(target_url, "signed", "mine") == [("acme r1 north",)]


def test_partitions_loaded_by_a_function_are_final_one_by_one(target_url: str, tmp_path: Path) -> None:
    pipe, parts = made(tmp_path, "insert", mode="merge", key="id"), [partition(1), partition(2)]
    for part in parts:
        assert deliver(target_url, pipe, chunk(ROWS[:1]), of=part, partitions=2).final
    assert finished(target_url, pipe, parts).loaded == 2


@pytest.mark.parametrize(("split", "calls"), [("rows", [(1,), (2,)]), ("file", [(3,)])])
def test_a_function_gets_any_piece_or_the_whole(
    target_url: str, tmp_path: Path, split: str, calls: list[tuple[int]]
) -> None:
    deliver(target_url, made(tmp_path, "sized", split=split), chunk(ROWS), chunk(ROWS[:1]))
    assert values(target_url, "id", "mine") == calls


ENDING = [
    "commits",
    "commits_in_sql",
    "commits_by_driver",
    "commits_by_cursor",
    "hides_its_commit",
    "rolls_back",
    "rolls_back_by_cursor",
    "closes",
]


@pytest.mark.parametrize("function", ENDING)
def test_a_function_that_ends_the_transaction_fails_and_nothing_stays(
    target_url: str, tmp_path: Path, function: str
) -> None:
    deliver(target_url, made(tmp_path, "insert"), chunk([{"id": 0, "name": "before"}]), run="r0")
    if (target_url.startswith("sqlite"), function) == (True, "hides_its_commit"):
        assert deliver(target_url, made(tmp_path, function), chunk(ROWS)).loaded == 2  # the commit did not happen
        return
    with pytest.raises(FunctionFailed, match=rf"legacy:{function} ends the transaction of its load"):
        deliver(target_url, made(tmp_path, function), chunk(ROWS))
    assert values(target_url, "id", "mine") == [(0,)]
    assert query(target_url, "SELECT run FROM _etl_loads") == [("r0",)]


def test_a_function_that_raises_is_blamed_without_its_values(target_url: str, tmp_path: Path) -> None:
    with pytest.raises(FunctionFailed, match="legacy:fails raised ValueError") as told:
        deliver(target_url, made(tmp_path, "fails"), chunk(ROWS))
    assert "Jane" not in str(told.value)
    assert deliver(target_url, made(tmp_path, "insert"), chunk(ROWS)).loaded == 2
    assert len(values(target_url, "id", "mine")) == 2

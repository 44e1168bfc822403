"""A database that gives its rows in another order has not changed; one with other rows has."""

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.sources.unordered import Unordered
from tests.helpers.deliveries import query
from tests.helpers.examples import examples
from tests.helpers.project import Project, etl_toml

_row = st.tuples(st.text('ab,"\n0', max_size=4), st.text('a\n"', max_size=3))


def hashed(rows: list[tuple[str, str]], cut: int = 0) -> str:
    made = Unordered()
    for some in (rows[:cut], rows[cut:]):
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(some)
        made.update(text.getvalue().encode(), len(some))
    return made.hexdigest()


@settings(max_examples=examples(100))
@given(rows=st.lists(_row, max_size=6), other=st.lists(_row, max_size=6), data=st.data())
def test_equal_are_the_same_rows_in_any_order_and_no_others(
    rows: list[tuple[str, str]], other: list[tuple[str, str]], data: Any
) -> None:
    moved = data.draw(st.permutations(rows))
    assert hashed(rows) == hashed(moved, data.draw(st.integers(0, len(rows))))
    assert (hashed(rows) == hashed(other)) == (sorted(rows) == sorted(other))


def test_rows_that_swap_lines_of_their_values_are_others() -> None:
    assert hashed([("a", "1\n2"), ("b", "1\n3")]) != hashed([("a", "1\n3"), ("b", "1\n2")])


@pytest.fixture
def etl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    extract = {"type": "sql", "url": "sqlite:///source.db", "table": "t"}
    return Project(tmp_path, etl_toml({"claims": {"extract": extract, "retries": 0}}))


def source(etl: Project, *rows: tuple[int, str]) -> None:
    with closing(sqlite3.connect(etl.root / "source.db")) as file:
        file.executescript("DROP TABLE IF EXISTS t; CREATE TABLE t (id INTEGER, name TEXT)")
        file.executemany("INSERT INTO t VALUES (?, ?)", rows)
        file.commit()


def test_the_same_rows_in_another_order_are_not_appended_again(etl: Project) -> None:
    source(etl, (1, "a"), (2, "b"), (2, "b"))
    assert etl.run()["rows"]["loaded"] == 3
    source(etl, (2, "b"), (1, "a"), (2, "b"))
    assert etl.run()["rows"]["unchanged"] == 3
    for rows in ([(2, "b"), (1, "a")], [(1, "b"), (2, "a"), (2, "b")], [(1, "a"), (1, "a"), (2, "b")]):
        source(etl, *rows)
        assert "has other rows now" in etl.run()["error"]


def test_what_an_earlier_release_has_appended_is_compared_as_it_was(etl: Project) -> None:
    source(etl, (1, "a"), (2, "b"))
    etl.run()
    [(content,)] = etl.rows("SELECT content FROM _etl_loads")
    ordered = content.split()[1]  # an earlier release knew no other
    query(f"sqlite:///{etl.root}/warehouse.db", f"UPDATE _etl_loads SET content = '{ordered}', version = 'whole'")
    assert etl.run()["rows"]["unchanged"] == 2
    source(etl, (1, "a"), (2, "c"))
    assert "has other rows now" in etl.run()["error"]

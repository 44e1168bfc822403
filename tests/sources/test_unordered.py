"""A database that gives its rows in another order has not changed; one with other rows has."""

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

_line = st.text('ab,"\n0', max_size=4)


def hashed(lines: list[str], cut: int = 0) -> str:
    made = Unordered()
    for some in (lines[:cut], lines[cut:]):
        made.update("".join(f"{line}\n" for line in some).encode())
    return made.hexdigest()


@settings(max_examples=examples(100))
@given(lines=st.lists(_line, max_size=6), other=st.lists(_line, max_size=6), data=st.data())
def test_equal_are_the_same_rows_in_any_order_and_no_others(lines: list[str], other: list[str], data: Any) -> None:
    moved = data.draw(st.permutations(lines))
    assert hashed(lines) == hashed(moved, data.draw(st.integers(0, len(lines))))
    text, others = ("".join(f"{line}\n" for line in some).split("\n") for some in (lines, other))
    assert (hashed(lines) == hashed(other)) == (sorted(text) == sorted(others))


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

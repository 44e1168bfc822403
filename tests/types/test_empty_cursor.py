"""Rows whose cursor is empty, however that is written: an append can't place them, a merge reads them each time."""

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.config.models import Column
from etl.errors import BadSource
from etl.types.casts import cast
from etl.types.cursor import Cursor, Span, later
from etl.types.newer import Narrowed, Reached
from tests.helpers import raw_rows
from tests.helpers.project import Project, etl_toml
from tests.types.test_cursor import tell
from tests.types.test_newer import etl_, ids, night, prepared

pytestmark = pytest.mark.slow

__all__ = ["etl_"]

BLANK, WORD = " ", "n/a"
TYPES = [("integer", "1", "2"), ("date", "2026-01-01", "2026-01-02"), ("string", "a", "b")]
SAID = "cursor column v is empty in 1 rows: an append can't place them"


def pipeline(kind: str, extract: dict[str, Any]) -> str:
    columns = {"id": "string", "v": {"type": kind, "unique": True, "null": [WORD]}}
    return etl_toml({"claims": {"extract": {"cursor": "v", **extract}, "columns": columns, "retries": 0}})


@pytest.mark.parametrize("empty", ["", BLANK, WORD])
@pytest.mark.parametrize(("kind", "first", "_"), TYPES)
def test_an_append_refuses_empty_text_of_a_file(etl_: Project, kind: str, first: str, _: str, empty: str) -> None:
    etl_.config(pipeline(kind, {}))
    etl_.write("inbox/acme/a.csv", f'id,v\n1,{first}\n2,"{empty}"\n')
    assert SAID in etl_.run()["error"]


@pytest.mark.parametrize("empty", [BLANK, WORD])
def test_an_append_refuses_empty_text_of_a_function(etl_: Project, empty: str | None) -> None:
    etl_.write("steps.py", f"def rows():\n    return [dict(id='1', v='1'), dict(id='2', v={empty!r})]\n")
    etl_.config(pipeline("integer", {"type": "function", "function": "steps:rows"}))
    assert SAID in etl_.run()["error"]


@pytest.mark.parametrize(("kind", "first", "then"), TYPES)
def test_an_append_refuses_empty_text_of_a_database_on_any_night(
    etl_: Project, target_url: str, kind: str, first: str, then: str
) -> None:
    columns = {"id": "integer", "v": {"type": kind, "unique": True, "null": [WORD]}}
    prepared(etl_, target_url, "text", columns, load={"mode": "append"})
    assert night(etl_, target_url, (1, first))["rows"]["loaded"] == 1
    tell(target_url, f"INSERT INTO t VALUES (3, '{then}')")
    for empty in (BLANK, WORD):
        assert SAID in night(etl_, target_url, (2, empty))["error"]
        tell(target_url, "DELETE FROM t WHERE id = 2")
    assert night(etl_, target_url)["rows"]["loaded"] == 1
    assert night(etl_, target_url)["rows"]["loaded"] == 0
    assert ids(target_url) == [1, 3]


@pytest.mark.parametrize("parts", [{}, {"partition": "id", "rows": 1}])
@pytest.mark.parametrize(("kind", "first", "then"), [TYPES[2], ("", "2026-01-01", "2026-01-02")])
def test_a_merge_reads_rows_without_a_cursor_each_time(
    etl_: Project, target_url: str, kind: str, first: str, then: str, parts: dict[str, Any]
) -> None:
    columns = {"id": "integer", "v": kind} if kind else {}
    prepared(etl_, target_url, "text", columns, null=[WORD], **parts)
    assert night(etl_, target_url, (1, first), (2, ""))["rows"]["loaded"] == 2
    run = night(etl_, target_url, (3, then), (4, ""), (5, BLANK), (6, WORD), (7, None))
    assert (run["state"], run["rows"]["loaded"]) == ("succeeded", 5), run["error"]
    assert night(etl_, target_url)["rows"]["read"] == 6  # those without one, and the latest


@pytest.mark.parametrize("parts", [{}, {"partition": "id", "rows": 1}])
def test_dates_in_a_format_of_their_own_are_appended_once(
    etl_: Project, target_url: str, parts: dict[str, Any]
) -> None:
    columns = {"id": "integer", "v": {"type": "date", "unique": True, "format": ["%Y-%m-%d %H:%M:%S"]}}
    prepared(etl_, target_url, "text", columns, load={"mode": "append"}, **parts)
    assert night(etl_, target_url, (1, "2026-01-01 10:00:00"))["rows"]["loaded"] == 1
    run = night(etl_, target_url, (2, "2026-01-02 09:00:00"))
    assert (run["rows"]["loaded"], run["error"]) == (1, None)
    assert night(etl_, target_url)["rows"]["loaded"] == 0


TEXTS = st.one_of(
    st.dates(date(2025, 12, 1), date(2026, 2, 1)).flatmap(
        lambda day: st.sampled_from([f"{day}", f" {day}", f"{day.year}-{day.month}-{day.day}", f"{day} 10:00:00"])
    ),
    st.sampled_from(["", BLANK, WORD, "junk"]),
)


@given(st.lists(st.lists(TEXTS, max_size=4), max_size=5))
def test_no_text_of_a_date_is_appended_twice(nights: list[list[str]]) -> None:
    keys = {"type": "date", "unique": True, "null": [WORD], "format": ["%Y-%m-%d", "%Y-%m-%d %H:%M:%S"]}
    extract = {"type": "sql", "url": "sqlite:///s.db", "table": "t", "cursor": "v"}
    claims = raw_rows.pipeline({"v": keys}, extract=extract)
    column = Column.model_validate(keys)
    source: list[str] = []
    since: Cursor | None = None
    seen: set[int] = set()
    for texts in nights:
        source += texts
        rows = pa.table({"v": pa.array(source, pa.string()), "_row": pa.array(range(len(source)), pa.int64())})
        span = Span(since, now=4e9)
        try:
            rows = Narrowed(claims, span, "t")(rows)
        except BadSource:
            source = [text for text in source if text.strip() not in ("", WORD)]
            seen = set()
            since = None
            continue
        rejected = {
            row for mask, _ in cast(rows["v"], column, "UTC")[1] for row in rows.filter(mask)["_row"].to_pylist()
        }
        new = set(rows["_row"].to_pylist()) - rejected
        assert not seen & new
        seen |= new
        reached = Reached(claims, span, "t")
        reached(rows, rejected)
        since = later(since, reached.latest)

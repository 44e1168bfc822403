"""A cursor whose column nobody declared: what is in order by itself, and what is refused."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.types.ordered import common_form
from tests.helpers.examples import examples
from tests.helpers.project import Project, etl_toml
from tests.types.test_cursor import tell
from tests.types.test_newer import etl_, ids, night, prepared

__all__ = ["etl_"]


IN_ORDER = [
    ("2026-01-01", "2026-01-02"),
    ("2026-01-01T10:00:00", "2026-01-01T10:00:00.5"),
    ("2026-01-01 10:00:00+02:00", "2026-01-01 11:00:00+02:00"),
    ("2026-01-01T10:00:00-0500", "2026-01-01T10:00:00.25-0500"),
    ("2026-01-01T10:00:00.500Z", "2026-01-01T10:00:01.000Z"),
    ("2026-01-01 10:00", "2026-01-01 10:01"),
    ("20251231", "20260101"),
    ("20251231T235959", "20260101T000000"),
]
IN_NONE = [
    ("8", "10"),
    ("2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00+00:00"),
    ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00.5Z"),
    ("2026-01-01 10:00:00", "2026-01-01T09:00:00"),
    ("2026-01-01", "2026-01-01 10:00:00"),
    ("12/31/2025", "01/02/2026"),
    ("31122025", "02012026"),
    ("2026-01-01", ""),
    ("2026-01-01", "1"),
    ("2026-01-01", "2026-01-02\n"),
]


@pytest.mark.parametrize(("texts", "ordered"), [*((t, True) for t in IN_ORDER), *((t, False) for t in IN_NONE)])
def test_texts_of_one_form_are_dates_or_times_in_order(texts: tuple[str, str], ordered: bool) -> None:
    for one in (texts, texts[::-1]):
        assert (common_form(pa.chunked_array([pa.array(one)])) is not None) == ordered


@settings(max_examples=examples(100))
@given(
    st.lists(st.datetimes(datetime(1000, 1, 1)), min_size=2, max_size=2),
    st.integers(-840, 840) | st.none(),
    st.sampled_from(["T", " "]),
    st.sampled_from(["auto", "seconds", "milliseconds"]),
    st.booleans(),
)
def test_a_form_that_is_taken_orders_texts_as_their_times(
    times: list[datetime], offset: int | None, between: str, spec: str, zulu: bool
) -> None:
    zone = None if offset is None else timezone(timedelta(minutes=offset))
    texts = [time.replace(tzinfo=zone).isoformat(between, spec) for time in times]
    if zulu:
        texts = [text.replace("+00:00", "Z") for text in texts]
    if common_form(pa.chunked_array([pa.array(texts)])) is not None:
        one, other = map(datetime.fromisoformat, texts)
        assert (texts[0] < texts[1]) == (one < other)


@pytest.mark.parametrize("at", [1, 2, 4, 6])
def test_text_that_nobody_declared_may_be_dates_or_times_of_one_form(etl_: Project, target_url: str, at: int) -> None:
    prepared(etl_, target_url, "text", {})
    assert night(etl_, target_url, (1, IN_ORDER[at][0]))["rows"]["loaded"] == 1
    run = night(etl_, target_url, (2, IN_ORDER[at][1]))
    assert (run["state"], ids(target_url)) == ("succeeded", [1, 2]), run["error"]


@pytest.mark.parametrize("at", [0, 1, 8])
@pytest.mark.parametrize("kind", ["text", 'text COLLATE "en-x-icu"'])
def test_other_text_is_refused_until_it_is_declared(etl_: Project, target_url: str, at: int, kind: str) -> None:
    if kind != "text" and target_url.startswith("sqlite"):
        kind = "text COLLATE NOCASE"
    prepared(etl_, target_url, kind, {})
    night(etl_, target_url, (1, IN_NONE[at][0]))
    run = night(etl_, target_url, (2, IN_NONE[at][1]))
    assert run["state"] == "failed"
    assert "cursor column v holds text that is not declared" in run["error"]
    assert "declare columns.v" in run["error"]


def test_a_cursor_of_numbers_never_becomes_text(etl_: Project) -> None:
    url = "sqlite:///warehouse.db"
    prepared(etl_, url, "integer", {})
    assert night(etl_, url, (1, 8), (2, 9))["rows"]["loaded"] == 2
    run = night(etl_, url, (3, 10), (4, 11), (5, "n/a"))
    assert (run["state"], "declare columns.v" in run["error"]) == ("failed", True)
    columns = '\n[pipelines.claims.columns]\nid = { type = "integer" }\nv = { type = "integer" }\n[clients.acme]'
    etl_.change(("\n[clients.acme]", columns))
    run = etl_.run()
    assert (run["rows"]["rejected"], ids(url)) == (1, [1, 2, 3, 4])
    etl_("cursor set claims --client acme", "12")
    tell(url, "UPDATE _etl_cursors SET type = 'string', value = 'n/a'")  # as earlier versions did
    assert "the cursor of claims is no " in night(etl_, url, (6, 13))["error"]


def test_numbers_beside_text_are_refused_where_they_are_declared_as_text(etl_: Project) -> None:
    url = "sqlite:///warehouse.db"
    prepared(etl_, url, "blob", {"id": "integer", "v": "string"})
    run = night(etl_, url, (1, "a"), (2, 9))
    assert (run["state"], "select cast(v as text)" in run["error"]) == ("failed", True)


@pytest.mark.parametrize("values", [["8", "9"], [8, "n/a"], ["2026-01-01", "01/02/2026"]])
def test_a_function_that_gives_text_must_have_its_cursor_declared(etl_: Project, values: list[Any]) -> None:
    frames = f"import pandas as pd\n\ndef rows():\n    yield from (pd.DataFrame([dict(id=1, v=v)]) for v in {values})\n"
    etl_.write("steps.py", frames)
    extract = {"type": "function", "function": "steps:rows", "cursor": "v"}
    load = {"table": "loaded", "mode": "merge", "key": ["id"]}
    etl_.config(etl_toml({"claims": {"extract": extract, "load": load, "retries": 0}}))
    assert "cursor column v holds text that is not declared" in etl_.run()["error"]


@pytest.mark.parametrize(
    ("first", "then", "loaded", "unchanged"),
    [
        (["9.5", "100.0"], ["100", "101", "99"], 2, 1),
        (["decimal.Decimal('100.5')"], ["101", "100"], 1, 1),
        (["datetime.datetime(2024, 1, 2, 8)"], ["datetime.date(2024, 1, 3)", "datetime.date(2024, 1, 1)"], 1, 1),
    ],
)
def test_a_cursor_of_one_type_is_compared_with_values_of_another(
    etl_: Project, first: list[str], then: list[str], loaded: int, unchanged: int
) -> None:
    extract = {"type": "function", "function": "steps:rows", "cursor": "v"}
    load = {"mode": "merge", "key": ["id"]}
    etl_.config(etl_toml({"claims": {"extract": extract, "load": load, "retries": 0}}))
    for number, values in enumerate((first, then), 1):
        rows = ", ".join(f"dict(id={number}{place}, v={value})" for place, value in enumerate(values))
        etl_.write("steps.py", f"import datetime, decimal\n\ndef rows():\n    return [{rows}]\n")
        run = etl_.run()
        assert (run["state"], run["error"]) == ("succeeded", None)
    assert (run["rows"]["loaded"], run["rows"]["unchanged"]) == (loaded, unchanged)


def test_a_night_is_quiet_although_a_number_is_written_as_an_integer_alone(etl_: Project) -> None:
    url = "sqlite:///warehouse.db"
    prepared(etl_, url, "numeric", {})
    night(etl_, url, (1, 9.5), (2, 100))
    run = etl_.run()
    assert (run["error"], run["rows"]["unchanged"]) == (None, 1)

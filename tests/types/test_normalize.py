"""Spellings: what a source writes otherwise is read exactly, and what is written wrong is a reject."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.config.models import Column
from etl.config.spellings import BLANKS, Spellings, spelled
from etl.types.casts import cast
from etl.types.infer import candidates, take
from tests.helpers.examples import examples


def read(values: list[str | None], **keys: Any) -> list[Any]:
    """Return what a column reads; "reject" for what it refuses."""
    array = pa.chunked_array([pa.array(values, pa.string())])
    made, failures = cast(array, Column.model_validate(keys), "UTC")
    bad = {place for mask, _ in failures for place, failed in enumerate(mask.to_pylist()) if failed}
    return ["reject" if place in bad else value for place, value in enumerate(made.to_pylist())]


GERMAN = {"type": "decimal", "decimal": ",", "thousands": "."}


@pytest.mark.parametrize(
    ("text", "keys", "value"),
    [
        ("1.234,50", GERMAN, Decimal("1234.5")),
        ("1234567,5", GERMAN, Decimal("1234567.5")),
        ("-1.234.567", GERMAN, -1234567),
        ("1.23,4", GERMAN, "reject"),
        ("1234.567", GERMAN, "reject"),
        ("12.5", GERMAN, "reject"),
        ("0.123", GERMAN, "reject"),  # no group begins with 0: it is a fraction of another country
        ("1..234", GERMAN, "reject"),
        ("1.234,567.8", GERMAN, "reject"),
        ("1,234.5", {"type": "number", "thousands": ","}, 1234.5),
        ("1 234,50", {**GERMAN, "thousands": " "}, Decimal("1234.5")),
        ("1\u202f234,50", {**GERMAN, "thousands": " "}, Decimal("1234.5")),
        ("1 234", {"type": "integer", "thousands": "\u00a0"}, 1234),
        ("1'234", {"type": "integer", "thousands": "'"}, 1234),
        ("1,234", {"type": "integer"}, "reject"),
        ("€ 5", {"type": "integer", "currency": ["€"]}, 5),
        ("-€5", {"type": "integer", "currency": ["€"]}, -5),
        ("5EUR", {"type": "integer", "currency": ["€", "EUR"]}, 5),
        ("5 USD", {"type": "integer", "currency": ["€", "EUR"]}, "reject"),
        ("€5€", {"type": "integer", "currency": ["€"]}, "reject"),
        ("€", {"type": "decimal", "currency": ["€"]}, "reject"),
        ("Rs.500", {"type": "decimal", "currency": ["Rs"]}, "reject"),  # and not 0.5
        ("Rs.500", {"type": "decimal", "currency": ["Rs", "Rs."]}, 500),
        ("$.50", {"type": "decimal", "currency": ["$"]}, Decimal("0.5")),
        ("5 %", {"type": "decimal", "percent": True}, Decimal("0.05")),
        ("-0,1%", {"type": "decimal", "percent": True, "decimal": ","}, Decimal("-0.001")),
        ("7 %", {"type": "number", "percent": True}, 0.07),
        ("7", {"type": "number", "percent": True}, 7),
        ("%", {"type": "number", "percent": True}, "reject"),
        ("5 %", {"type": "number"}, "reject"),
        ("0.00000001 %", {"type": "decimal", "percent": True}, "reject"),  # ten places
        ("(12.50)", {"type": "decimal", "negative": "parentheses"}, Decimal("-12.5")),
        ("(12.50", {"type": "decimal", "negative": "parentheses"}, "reject"),
        ("(-12.50)", {"type": "decimal", "negative": "parentheses"}, "reject"),
        ("-12.50", {"type": "decimal", "negative": "parentheses"}, Decimal("-12.5")),
        ("12.50-", {"type": "decimal", "negative": "trailing"}, Decimal("-12.5")),
        ("-12.50-", {"type": "decimal", "negative": "trailing"}, "reject"),
        ("12.50-", {"type": "decimal"}, "reject"),
        ("(1.234,50 €)", {**GERMAN, "currency": ["€"], "negative": "parentheses"}, Decimal("-1234.5")),
        ("€ (1.234,50)", {**GERMAN, "currency": ["€"], "negative": "parentheses"}, Decimal("-1234.5")),
        ("1e3", {"type": "number", "thousands": ","}, 1000),
        ("+5", {"type": "integer"}, 5),
        ("++5", {"type": "integer"}, "reject"),
        ("+", {"type": "integer"}, "reject"),
        ("+9223372036854775808", {"type": "integer"}, "reject"),
        ("JA", {"type": "boolean", "true": ["ja"]}, True),
        ("yes", {"type": "boolean", "true": ["ja"]}, True),
        ("Não", {"type": "boolean", "false": ["NÃO"]}, False),
        ("t", {"type": "boolean", "false": ["t"]}, False),  # a word that is given wins over the usual ones
        ("N/A", {"type": "date", "null": ["N/A"]}, None),
        (" N/A ", {"type": "string", "null": ["N/A"]}, None),
        ("n/a", {"type": "string", "null": ["N/A"]}, "n/a"),
        ("  ", {"type": "string", "null": [""]}, None),
        ("-", {"type": "decimal", "null": ["-"], "negative": "trailing"}, None),
    ],
)  # fmt: skip
def test_what_is_spelled_so_is_read_so(text: str, keys: dict[str, Any], value: Any) -> None:
    assert read([text, None], **keys) == [value, None]


def test_a_typed_value_is_nothing_where_null_spells_it() -> None:
    values = pa.chunked_array([pa.array([1, -999, None])])
    made, failures = cast(values, Column.model_validate({"type": "integer", "null": ["-999"]}), "UTC")
    assert (made.to_pylist(), failures) == ([1, None, None], [])


def test_a_column_wins_over_the_extract_and_takes_of_it_what_is_for_its_type() -> None:
    extract = Spellings(null=("NA",), thousands=".", percent=True, true=("ja",))
    column = Column.model_validate({"type": "decimal", "decimal": ",", "null": ["-"], "percent": False})
    whole = spelled(column, "decimal", extract)
    assert (whole.null, whole.thousands, whole.percent, whole.true) == (("-",), ".", False, None)
    assert spelled(Column(), "string", extract).thousands is None


def test_columns_nobody_declared_are_found_by_the_extracts_spellings() -> None:
    spellings = Spellings(
        null=("NA",),
        thousands=",",
        currency=("$",),
        percent=True,
        negative="parentheses",
        true=("ja",),
        false=("nein",),
    )
    columns = {
        "n": ["1,234", "NA", "(5)"],
        "share": ["5 %", "NA", "$1.5"],
        "paid": ["ja", "NA", "nein"],
        "day": ["2026-01-01", "NA", None],
        "word": ["NA", "x", "1,23"],
    }
    kinds = {name: fitting[0] for name, fitting in candidates(pa.table(columns), spellings).items()}
    assert kinds == {"n": "integer", "share": "number", "paid": "boolean", "day": "date", "word": "string"}
    made = {}
    for name, values in columns.items():
        made[name], failures = take(pa.chunked_array([values]), kinds[name], "UTC", spellings)
        assert not failures
    assert made["n"].to_pylist() == [1234, None, -5]
    assert made["share"].to_pylist() == [0.05, None, 1.5]
    assert made["word"].to_pylist() == [None, "x", "1,23"]


_SEPARATORS = st.sampled_from([(".", ""), (".", ","), (".", " "), (".", "'"), (",", "."), (",", " "), (",", "\u00a0")])
_MONEY = [("€",), ("€", "EUR"), ("Fr.", "Fr"), ("R$", "$"), ("kr",)]


@st.composite
def spelled_numbers(draw: st.DrawFn) -> tuple[dict[str, Any], list[tuple[str, Decimal]]]:
    """Return a column's keys, and numbers with a text for each that is spelled so."""
    point, group = draw(_SEPARATORS)
    keys: dict[str, Any] = {
        "type": draw(st.sampled_from(["decimal", "number", "integer"])),
        "thousands": group,
        "currency": draw(st.sampled_from([(), *_MONEY])),
        "negative": draw(st.sampled_from([None, "parentheses", "trailing"])),
    }
    whole_only = keys["type"] == "integer"
    keys |= {} if whole_only else {"decimal": point, "percent": draw(st.booleans())}
    places = st.just(0) if whole_only else st.integers(0, 6)
    blank = st.sampled_from(["", *BLANKS]) if keys["currency"] or keys.get("percent") else st.just("")
    mark = st.sampled_from(alike(group))
    found = []
    for _ in range(draw(st.integers(1, 20))):
        digits, after = draw(st.integers(0, 10**14)), draw(places)
        value = Decimal(digits).scaleb(-after)
        text = f"{value:,f}" if group and draw(st.booleans()) else f"{value:f}"
        text = text.replace(",", "_").replace(".", point).replace("_", draw(mark))
        minus, money = draw(st.booleans()), draw(st.sampled_from([*keys["currency"], ""]))
        is_percent = bool(keys.get("percent")) and not money and draw(st.booleans())
        between = draw(blank)
        if money:
            text = f"{money}{between}{text}" if draw(st.booleans()) else f"{text}{between}{money}"
        if is_percent:
            text, value = f"{text}{between}%", value.scaleb(-2)
        if minus:
            text = {"parentheses": f"({text})", "trailing": f"{text}-", None: f"-{text}"}[keys["negative"]]
        found.append((text, -value if minus else value))
    return keys, found


def alike(group: str) -> tuple[str, ...]:
    return BLANKS if group in BLANKS else (group,)


@settings(max_examples=examples(500), deadline=None)
@given(spelled_numbers())
def test_a_number_spelled_in_any_way_is_read_back_equal(case: tuple[dict[str, Any], list[tuple[str, Decimal]]]) -> None:
    keys, numbers = case
    wanted = [float(value) if keys["type"] == "number" else value for _, value in numbers]
    assert read([text for text, _ in numbers], **keys) == wanted


@settings(max_examples=examples(500), deadline=None)
@given(
    st.lists(st.text("0123456789", min_size=1, max_size=5), min_size=2, max_size=5),
    st.sampled_from([(".", ","), (".", " "), (",", "."), (".", "'")]),
    st.sampled_from(["decimal", "number", "integer"]),
)
def test_groups_of_another_size_are_rejects(groups: list[str], separators: tuple[str, str], kind: str) -> None:
    point, group = separators
    keys = {"type": kind, "thousands": group} | ({} if kind == "integer" else {"decimal": point})
    right = all(len(each) == 3 for each in groups[1:]) and len(groups[0]) <= 3 and groups[0][0] != "0"
    [value] = read([group.join(groups)], **keys)
    assert value == (
        float("".join(groups)) if right and kind == "number" else int("".join(groups)) if right else "reject"
    )

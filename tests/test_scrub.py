"""What is written of an exception: type and place, and no word of it."""

import json

import pytest

from etl.errors import BadSource
from etl.safe_message import safe_message


def caught(body: object) -> BaseException:
    try:
        body()  # type: ignore[operator]
    except BaseException as exc:
        return exc
    raise AssertionError


def user_function() -> None:
    json.loads("Jane Roe")


def chained() -> None:
    try:
        user_function()
    except ValueError as exc:
        raise KeyError("Jane Roe") from exc


def test_the_place_in_the_users_module_is_reported_rather_than_one_in_a_library() -> None:
    text = safe_message(caught(user_function), ["test_scrub"])
    assert text.startswith("json.decoder.JSONDecodeError at test_scrub:user_function:")
    assert safe_message(caught(user_function)).startswith("json.decoder.JSONDecodeError at json.decoder:raw_decode:")


def test_causes_are_not_reported_either() -> None:
    assert safe_message(caught(chained), ["test_scrub"]).startswith("KeyError at test_scrub:chained:")


@pytest.mark.parametrize("exc", [ValueError("Jane Roe"), SystemExit("Jane Roe")])
def test_an_exception_without_a_place_is_reported_by_its_type(exc: BaseException) -> None:
    assert safe_message(exc) == type(exc).__name__


def test_our_own_errors_hold_no_values_and_are_reported_whole() -> None:
    assert (
        safe_message(BadSource("a.csv: line 3: quote never closed", "close it"))
        == "a.csv: line 3: quote never closed\n  close it"
    )

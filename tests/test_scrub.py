"""What is written of an exception: type and place, and no word of it."""

import json

import pytest

from etl.errors import BadSource
from etl.safe_message import raised_at, safe_message


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


VALUE = "Mary" + "Major"  # which is nowhere in this file


def made_class() -> None:
    raise type(VALUE, (ValueError,), {})("Jane Roe")


def class_of_a_made_module() -> None:
    raise type(VALUE, (ValueError,), {"__module__": ["Jane Roe"]})


def made_function() -> None:
    names = {"__name__": VALUE}
    exec(compile(f"def {VALUE}():\n    raise ValueError\n", f"{VALUE}.py", "exec"), names)
    names[VALUE]()  # type: ignore[operator]


def function_renamed() -> None:
    def inner() -> None:
        raise ValueError

    inner.__code__ = inner.__code__.replace(co_name=VALUE)
    inner()


@pytest.mark.parametrize("body", [made_class, class_of_a_made_module, made_function, function_renamed])
def test_names_that_were_made_of_values_are_not_reported(body: object) -> None:
    exc = caught(body)
    texts = [safe_message(exc), safe_message(exc, [VALUE]), raised_at(exc, lambda file: True, but="")]
    assert [text for text in texts if VALUE in text or not text.startswith("ValueError")] == []


def test_our_own_errors_hold_no_values_and_are_reported_whole() -> None:
    assert (
        safe_message(BadSource("a.csv: line 3: quote never closed", "close it"))
        == "a.csv: line 3: quote never closed\n  close it"
    )

"""Items made ahead come in order, and what goes wrong while one is made is raised where it is used."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.prefetch import prefetch


@given(st.lists(st.one_of(st.integers(), st.none())))
def test_items_come_in_their_order(items: list[int | None]) -> None:
    assert list(prefetch(items)) == items


def test_what_is_raised_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    made = prefetch(items())
    assert next(made) == 1
    with pytest.raises(ValueError, match="broken"):
        next(made)


def test_at_most_one_item_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    source = prefetch(items())
    assert next(source) == 0
    source.close()  # type: ignore[attr-defined]
    assert made == [0, 1]

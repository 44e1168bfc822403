"""How a source spells what its columns hold: words for nothing, groups of digits, currencies, percents, minus signs."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from pydantic import StrictBool

from etl.config.base import Model, Problem, Strings

NUMERIC = ("integer", "number", "decimal")
BLANKS = (" ", "\u00a0", "\u202f")  # people and programs write one for the other
APOSTROPHES = ("'", "\u2019")
_GROUPS = (".", ",", *BLANKS, *APOSTROPHES)

# The types that a key is for.
_SUITS: dict[str, tuple[str, ...]] = {
    "thousands": NUMERIC,
    "currency": NUMERIC,
    "percent": ("number", "decimal"),
    "negative": NUMERIC,
    "true": ("boolean",),
    "false": ("boolean",),
    "truncate": ("date", "timestamp"),
}
Spelled = TypeVar("Spelled", bound="Spellings")


class Spellings(Model):
    """The keys of an extract, and of a column, where they win over the extract's; None is what nobody gave."""

    null: Strings | None = None
    thousands: str | None = None
    currency: Strings | None = None
    percent: StrictBool | None = None
    negative: Literal["parentheses", "trailing"] | None = None
    true: Strings | None = None
    false: Strings | None = None
    truncate: StrictBool | None = None

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        if self.thousands and self.thousands not in _GROUPS:
            yield ("thousands",), 'must be one of . , \' or a blank, or "" for none'
        for word in self.currency or ():
            if not word.strip() or word in _GROUPS or re.search(r"[\d+()%-]", word):
                yield ("currency",), 'must be signs or words without digits, + - ( ) or %, such as ["€", "EUR"]'
                break
        yes, no, nothing = (_words(given) for given in (self.true, self.false, self.null))
        if "" in yes | no:
            yield ("true" if "" in yes else "false",), "holds blank text, which is a missing value"
        if both := sorted(yes & no - {""}):
            yield ("false",), f'"{both[0]}" is in true too; let it be one of the two'
        for key, words in (("true", yes), ("false", no)):
            if both := sorted(words & nothing - {""}):
                yield (key,), f'"{both[0]}" is in null too; let it be one of the two'

    def numeric(self) -> bool:
        """Whether numbers are spelled otherwise than usual."""
        return bool(self.thousands or self.currency or self.percent or self.negative)


def suits(key: str, kind: str) -> bool:
    """Whether a key is for columns of a type."""
    return kind in _SUITS.get(key, (kind,))


def misplaced(column: Spellings, kind: str) -> Iterable[Problem]:
    """What of a column's own keys is for other types."""
    for key, kinds in _SUITS.items():
        if getattr(column, key) and kind not in kinds:
            yield (key,), f"is for {' and '.join(kinds)} columns, this one is {kind}"


def spelled(column: Spelled, kind: str, extract: Spellings) -> Spelled:
    """Return a column with the extract's keys where it has none of its own and they are for its type."""
    found = {
        key: value
        for key in Spellings.model_fields
        if getattr(column, key) is None and (value := getattr(extract, key)) is not None and suits(key, kind)
    }
    return column.model_copy(update=found) if found else column


def clashes(extract: Spellings, columns: Mapping[str, Any]) -> Iterable[Problem]:
    """What is wrong between an extract's keys and its columns'."""
    for name, column in columns.items():
        whole = spelled(column, column.type, extract)
        points = ("number", "decimal")
        if whole.thousands and whole.thousands == column.decimal and column.type in points:
            key = "thousands" if column.thousands else "decimal"
            other = "," if column.decimal == "." else "."
            yield (
                ("columns", name, key),
                f'the column\'s decimal and thousands are both "{column.decimal}"; '
                f'say decimal = "{other}", or another thousands',
            )
        given = {key for key in Spellings.model_fields if getattr(column, key) is not None}
        own = set(column.problems()) if given else set()
        yield from ((("columns", name, *where), what) for where, what in whole.problems() if (where, what) not in own)
    if not columns and extract.thousands == ".":
        yield ("extract", "thousands"), 'is the decimal point of columns that are not declared; declare decimal = ","'


def _words(given: Iterable[str] | None) -> set[str]:
    return {word.strip().casefold() for word in given or ()}

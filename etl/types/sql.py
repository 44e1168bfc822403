"""The table of types for databases: what a column is made with, which columns hold its values, and its word.

Also the names and texts inside SQL that no parameter can carry.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from etl.types.words import TYPES as WORDS

# The type that a column is made with in a database that has the standard's types; a target's module has its exceptions.
TYPES: dict[str, TypeEngine[Any]] = {
    "string": sa.TEXT(),
    "integer": sa.BIGINT(),
    "number": sa.DOUBLE_PRECISION(),
    "decimal": sa.NUMERIC(),
    "boolean": sa.BOOLEAN(),
    "date": sa.DATE(),
    "timestamp": sa.TIMESTAMP(timezone=True),
}
# Column's word in the pipeline → words of a table's column that holds each of its values unchanged.
FITS: dict[str, frozenset[str]] = {word: type.stored | {word} for word, type in WORDS.items()}

# In this order, since SQLAlchemy's Float is a Numeric.
_CLASSES: tuple[tuple[type[TypeEngine[Any]], str], ...] = (
    (sa.Boolean, "boolean"),
    (sa.Integer, "integer"),
    (sa.Float, "number"),
    (sa.Numeric, "decimal"),
    (sa.DateTime, "timestamp"),
    (sa.Date, "date"),
    (sa.String, "string"),
)


class CastText(sa.types.UserDefinedType[str]):
    """A type that the database casts text to, such as uuid, json or an enum: to the pipeline it is a string.

    Args:
        text: As the database writes it.
        base: What a domain is made of; else the type itself.
        labels: Of an enum.
    """

    cache_ok = True

    def __init__(self, text: str, base: str = "", labels: tuple[str, ...] = ()) -> None:
        self.text, self.base, self.labels = text, base or text, labels

    def get_col_spec(self, **_: Any) -> str:
        """Return it as it is written in a statement."""
        return self.text


class OddType(sa.types.UserDefinedType[str]):
    """A type that no rows go into, as the database writes it: it would change or cut them, or has no word."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **_: Any) -> str:
        """Return it as it is written in a statement."""
        return self.text


def word_of_column(type: TypeEngine[Any]) -> str:
    """Return the word for a table's column: "any" where the column holds anything, "" where it has no word."""
    if isinstance(type, sa.types.NullType):
        return "any"
    if isinstance(type, CastText):
        return "string"
    if isinstance(type, sa.Enum):  # it holds the texts of a list only
        return ""
    return next((word for sql, word in _CLASSES if isinstance(type, sql)), "")


def quoted(name: str) -> str:
    """Return an identifier in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Return a text in quotes."""
    return "'" + value.replace("'", "''") + "'"


def zone_of(zones: Mapping[str, str] | None, zone: str) -> str:
    """Return the expression of a row's time zone: its client's, else `zone`.

    Args:
        zones: By client, where rows of several are in the table.
    """
    if not zones:
        return literal(zone)
    each = " ".join(f"WHEN {literal(client)} THEN {literal(name)}" for client, name in sorted(zones.items()))
    return f'CASE "_client" {each} ELSE {literal(zone)} END'

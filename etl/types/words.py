"""The one table of types: each word of the configuration with its Arrow type, its pandas dtype, and how it is written.

Whoever needs to know of what type something is asks here; no other file tests an Arrow type. What databases call the
types is in `etl.types.sql`, which needs SQLAlchemy.
"""

from typing import Any, NamedTuple

import pyarrow as pa

from etl.types.times import INSTANT, ISO_DATE, ISO_ZONE


class Type(NamedTuple):
    """One type of the configuration.

    Args:
        arrow: Its Arrow type in chunks, staging and loads.
        wider: Words that hold each of its values too, nearest first; text holds them all.
        stored: Other words of a table's column that holds each of its values in any database.
        pandas: The name of its dtype in frames, where that is not the one that Arrow chooses.
        reads: Text that a declared column of it accepts (digits only).
        infers: Text from which it is inferred: narrower, since such text must come back as it was.
    """

    arrow: pa.DataType
    wider: tuple[str, ...] = ()
    stored: frozenset[str] = frozenset()
    pandas: str = ""
    reads: str = ""
    infers: str = ""


_DIGITS = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
TYPES: dict[str, Type] = {
    "string": Type(pa.string()),
    "integer": Type(
        pa.int64(),
        ("number", "decimal"),
        frozenset({"number", "decimal"}),
        "Int64",
        "^[+-]?[0-9]+$",
        "^(?:0|-?[1-9][0-9]{0,17})$",
    ),
    "number": Type(
        pa.float64(),
        stored=frozenset({"decimal"}),
        reads=f"^{_DIGITS}(?:[eE][+-]?[0-9]+)?$",
        infers=r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,14})?$",
    ),
    "decimal": Type(pa.decimal128(38, 9), reads=f"^{_DIGITS}$"),
    "boolean": Type(pa.bool_(), pandas="boolean", infers="^(?:true|false)$"),
    "date": Type(pa.date32(), ("timestamp",), infers=f"^{ISO_DATE}$"),
    "timestamp": Type(
        INSTANT,
        infers=rf"^{ISO_DATE}(?:[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,6}})?)?{ISO_ZONE}?)?$",
    ),
}
WORDS = (*(word for word in TYPES if word != "string"), "string")  # inference takes the first that fits all values
PLACES = 9  # digits after the point of a decimal
WHOLE_DIGITS = 29  # digits before it

_DTYPES = {type.arrow: type.pandas for type in TYPES.values() if type.pandas}
_TESTS = {
    "null": pa.types.is_null,
    "string": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind),
    "integer": pa.types.is_integer,
    "number": pa.types.is_floating,
    "decimal": pa.types.is_decimal,
    "boolean": pa.types.is_boolean,
    "date": pa.types.is_date,
    "timestamp": pa.types.is_timestamp,
}


def word_of(kind: pa.DataType) -> str | None:
    """Return the word nearest to an Arrow type, "null" for one without values, or None where there is none.

    A dictionary's word is that of its values.
    """
    if is_dictionary(kind):
        return word_of(kind.value_type)
    return next((word for word, test in _TESTS.items() if test(kind)), None)


def natural_word(kind: pa.DataType) -> str:
    """Return the word nearest to an Arrow type; "string" for what has none."""
    word = word_of(kind)
    return word if word in TYPES else "string"


def arrow_of(word: str) -> pa.DataType:
    """Return the Arrow type of a word."""
    return TYPES[word].arrow


def pandas_dtype(kind: pa.DataType) -> Any:
    """Return the pandas dtype of an Arrow type in frames, or None for the one that Arrow chooses."""
    import pandas as pd

    return pd.api.types.pandas_dtype(_DTYPES[kind]) if kind in _DTYPES else None


def is_dictionary(kind: pa.DataType) -> bool:
    """Whether values are stored as numbers of a list of distinct ones."""
    return bool(pa.types.is_dictionary(kind))


def is_spelled_by_python(kind: pa.DataType) -> bool:
    """Whether Arrow can't write the values as text as people do: bytes, spans of time and nested values."""
    bytes_ = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(pa.types.is_nested(kind) or bytes_ or pa.types.is_duration(kind))

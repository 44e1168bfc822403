"""Texts that a database reads as a type of its own, such as uuid or json: which ones it would refuse, or cut."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

_UUID = "(?:[0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}"
_BYTE = "0*(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_INET = rf"^(?:{_BYTE}(?:\.{_BYTE}){{0,3}}|[0-9a-fA-F:]*:[0-9a-fA-F:]*(?:\.?{_BYTE}){{0,4}})(?:/[0-9]{{1,3}})?$"
# By PostgreSQL's name, or by DuckDB's: each takes at least what the database does.
_SHAPES = {
    "uuid": rf"^(?:{_UUID}|\{{{_UUID}\}})$",
    "UUID": r"^\{?(?:-*[0-9a-fA-F]){32}-*\}?$",
    "inet": _INET,
    "cidr": _INET,
    "bit": "^(?:[bB]?[01]*|[xX][0-9a-fA-F]*)$",
    "varbit": "^(?:[bB]?[01]*|[xX][0-9a-fA-F]*)$",
}
_TIMES = ("time", "timetz", "interval", "TIME", "TIME WITH TIME ZONE", "INTERVAL")
_CUT = r"\.[0-9]{6}[0-9]*[1-9]"  # both databases keep a millionth of a second
_BYTES = {"name": 63, "char": 1}  # longer texts are cut
_JSON = ("json", "jsonb")  # DuckDB takes more than JSON


def unreadable(values: pa.ChunkedArray, type: str, labels: Iterable[str] = ()) -> pa.ChunkedArray | None:
    """Return which texts a database would refuse, or cut, as a type of its own; None where that is not known.

    Args:
        labels: Of an enum, which has no other values.
    """
    if labels := list(labels):
        return pc.invert(pc.is_in(values, value_set=pa.array(labels, pa.string())))
    if type in _SHAPES:
        return pc.invert(pc.match_substring_regex(values, _SHAPES[type]))
    if type in _TIMES:
        return pc.match_substring_regex(values, _CUT)
    if type in _BYTES:
        return pc.greater(pc.binary_length(values), _BYTES[type])
    return _those(values, _is_no_json) if type in _JSON else None


def _those(values: pa.ChunkedArray, test: Callable[[str], bool]) -> pa.ChunkedArray:
    some = pc.unique(values.drop_null())
    return pc.is_in(values, value_set=pa.array([each for each in some.to_pylist() if test(each)], pa.string()))


def _is_no_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except ValueError:
        return True
    except RecursionError:
        return False  # the database has a limit of its own
    return False


def _refuse(_: Any) -> NoReturn:
    raise ValueError


def labels_of(type: str) -> tuple[str, ...]:
    """Return the labels of an enum as DuckDB writes its type: ENUM('a', 'b')."""
    found = re.findall("'((?:[^']|'')*)'", type) if type.startswith("ENUM(") and type.endswith(")") else []
    return tuple(label.replace("''", "'") for label in found)

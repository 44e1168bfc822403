"""Texts that a database reads as a type of its own, such as uuid or json: which ones it would refuse, cut or change."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

_UUID = "(?:[0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}"
_BYTE = "0*(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_INET = rf"^(?:{_BYTE}(?:\.{_BYTE}){{0,3}}|[0-9a-fA-F:]*:[0-9a-fA-F:]*(?:\.?{_BYTE}){{0,4}})(?:/[0-9]{{1,3}})?$"
_HOUR, _MINUTES = "(?:[01]?[0-9]|2[0-3])", r":[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6}0*)?)?"
_TIME = rf"{_HOUR}{_MINUTES}|24:00(?::00(?:\.0+)?)?"
_TIMES = (  # PostgreSQL reads 040506 and 4 pm as well
    rf"{_TIME}|(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9](?:\.[0-9]{{1,6}}0*)?)?"
    rf"|(?:0?[1-9]|1[0-2]){_MINUTES} ?[aApP][mM]"
)
_OFFSET = "(?:[zZ]|[+-](?:0?[0-9]|1[0-5])(?::?[0-5][0-9](?::?[0-5][0-9])?)?)"
# By PostgreSQL's name, or by DuckDB's: each takes at least what the database does; of times what comes back as it is.
_SHAPES = {
    "uuid": rf"^(?:{_UUID}|\{{{_UUID}\}})$",
    "UUID": r"^\{?(?:-*[0-9a-fA-F]){32}-*\}?$",
    "inet": _INET,
    "cidr": _INET,
    "bit": "^(?:[bB]?[01]*|[xX][0-9a-fA-F]*)$",
    "varbit": "^(?:[bB]?[01]*|[xX][0-9a-fA-F]*)$",
    "macaddr8": "^(?:[0-9a-fA-F]{2}[:.-]?){7}[0-9a-fA-F]{2}$",  # in six bytes it puts two more
    "time": rf"^\s*(?:{_TIMES})\s*$",
    "timetz": rf"^\s*(?:{_TIMES}) ?{_OFFSET}\s*$",
    "TIME": rf"^\s*(?:{_TIME})\s*$",
    "TIME WITH TIME ZONE": rf"^\s*(?:{_TIME}) ?{_OFFSET}\s*$",
}
_SPANS = ("interval", "INTERVAL")
# Both databases keep a millionth of a second, and whole months.
_CUT = r"(?i)\.[0-9]{6}[0-9]*[1-9]|\.[0-9]*[1-9][0-9]*\s*(?:y|mon|mil|c|dec)|^\s*-?P[^T]*[.,][0-9]+[YM]"
_FIELD = r'(?:(?:"(?:[^"]|"")*"|\w+) )?VARCHAR'
_NESTED = re.compile(rf"VARCHAR\[\d*\]|(?:STRUCT|MAP|UNION)\({_FIELD}(?:, {_FIELD})*\)")
_WHOLE = re.compile(r"(?:U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER)(?:\[\d*\])+")  # lists of whole numbers
_BYTES = {"name": 63, "char": 1}  # longer texts are cut


def unreadable(values: pa.ChunkedArray, type: str, labels: Iterable[str] = ()) -> pa.ChunkedArray | None:
    """Return which texts a database would refuse, or cut, as a type of its own; None where that is not known.

    Args:
        labels: Of an enum, which has no other values.
    """
    if labels := list(labels):
        return pc.invert(pc.is_in(values, value_set=pa.array(labels, pa.string())))
    if type in _SHAPES:
        return pc.invert(pc.match_substring_regex(values, _SHAPES[type]))
    if type in _SPANS:
        return pc.match_substring_regex(values, _CUT)
    if type in _BYTES:
        return pc.greater(pc.binary_length(values), _BYTES[type])
    if _WHOLE.fullmatch(type):  # DuckDB would round 1.5
        return pc.invert(pc.match_substring_regex(values, r"^(?i:[\s\[\],0-9+-]|null)*$"))
    if type == "jsonb":
        return those(values, _is_no_jsonb)
    return those(values, _is_no_json) if type == "json" else None


def those(
    values: pa.ChunkedArray, test: Callable[[str], bool], doubtful: pa.ChunkedArray | None = None
) -> pa.ChunkedArray:
    """Return which texts pass a test of Python's, which looks at each different one once.

    Args:
        doubtful: Which it has to look at; others do not pass.
    """
    some = pc.unique(values.drop_null() if doubtful is None else values.filter(pc.fill_null(doubtful, False)))
    return pc.is_in(values, value_set=pa.array([each for each in some.to_pylist() if test(each)], pa.string()))


def _is_no_json(text: str) -> bool:  # DuckDB takes more than JSON
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except ValueError:
        return True
    except RecursionError:
        return False  # the database has a limit of its own
    return False


def _is_no_jsonb(text: str) -> bool:
    """Whether it is no JSON, or has a key twice, of which one would go, or a character that no text has."""
    try:
        found = json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse, object_pairs_hook=_once)
        if "\\u" in text:
            written = json.dumps(found, ensure_ascii=False)
            written.encode()  # not half a pair of surrogates
            return "\\u0000" in written.replace("\\\\", "")
    except ValueError:
        return True
    except RecursionError:
        return False
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _refuse(_: Any) -> NoReturn:
    raise ValueError


def labels_of(type: str) -> tuple[str, ...]:
    """Return the labels of an enum as DuckDB writes its type: ENUM('a', 'b')."""
    found = re.findall("'((?:[^']|'')*)'", type) if type.startswith("ENUM(") and type.endswith(")") else []
    return tuple(label.replace("''", "'") for label in found)


def keeps_texts(type: str) -> bool:
    """Whether DuckDB changes nothing in a text that `unreadable` lets pass as it reads it as a list, struct or map."""
    if _WHOLE.fullmatch(type):
        return True
    before, now = "", re.sub(r"ENUM\((?:'(?:[^']|'')*'(?:, )?)+\)", "VARCHAR", type)
    now = re.sub(r"\b(?:UUID|BOOLEAN)\b", "VARCHAR", now)
    while now != before:
        before, now = now, _NESTED.sub("VARCHAR", now)
    return now == "VARCHAR"

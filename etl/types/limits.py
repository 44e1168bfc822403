"""What a table's column can keep: which values would not come back from it as they are."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Context, Decimal
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from etl.types.spelling import as_text
from etl.types.words import PLACES, WHOLE_DIGITS, word_of

Mask = npt.NDArray[np.bool_]
_EXACT = Context(prec=500)  # Python's own has 28 digits


class Limit(NamedTuple):
    """What a column keeps.

    Args:
        type: What the database calls it, for reasons.
        word: The pipeline's word for it.
        size: Bits of an integer or a float, digits before the point of a decimal, characters of a string; None: any.
        places: Digits behind the point of a decimal, or of a second; None: any.
        other: Whether it keeps a decimal as a float, pads a string with blanks, or has no negative numbers.
        reads: The database's own type that it reads a text as.
        labels: Of an enum.
    """

    type: str
    word: str
    size: int | None = None
    places: int | None = None
    other: bool = False
    reads: str = ""
    labels: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Of the rejects whose values it can't keep."""
        return f"does not fit the table's {self.type}"


class Limits(NamedTuple):
    """What a table's columns keep.

    Args:
        columns: Those that it has, by name; None where one keeps every value of its type.
        new: What a declared column that is yet to be made keeps, by its word.
    """

    columns: Mapping[str, Limit | None] = {}
    new: Mapping[str, Limit] = {}

    def of(self, name: str, kind: pa.DataType, declared: Collection[str]) -> Limit | None:
        """Return what the column keeps that a column of rows goes into; the table may spell it in another case."""
        if name in self.columns:
            return self.columns[name]
        folded = [each for each in self.columns if each.casefold() == name.casefold()]
        if len(folded) == 1:
            return self.columns[folded[0]]
        return self.new.get(word_of(kind) or "") if name in declared else None

    def failures(self, rows: pa.Table, declared: Collection[str] = ()) -> dict[str, tuple[Mask, str]]:
        """Return for each column with values that it can't keep the rows that hold them, and why.

        Args:
            declared: The pipeline's columns; others get a type of their own.
        """
        found = {}
        for name in rows.column_names:
            limit = self.of(name, rows[name].type, declared)
            if limit is not None and (mask := misfits(rows[name], limit)) is not None and mask.any():
                found[name] = mask, limit.reason
        return found


def misfits(values: pa.ChunkedArray, limit: Limit) -> Mask | None:
    """Return which values would not come back as they are; None where all do, or the types don't meet."""
    check = _CHECKS.get((word_of(values.type) or "", limit.word))
    if check is None or (lost := check(values, limit)) is None:
        return None
    return np.array(pc.fill_null(lost, False).to_numpy(zero_copy_only=False), dtype=bool)


def _integers(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    if limit.other:
        below = pc.less(values, 0)
        if limit.size is None or limit.size >= 63:
            return below
        return pc.or_(below, pc.greater(values, 2**limit.size - 1))
    if limit.size is None or limit.size >= 64:
        return None
    highest = 2 ** (limit.size - 1) - 1
    return pc.or_(pc.greater(values, highest), pc.less(values, -highest - 1))


def _integers_as_floats(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray:
    whole = values.fill_null(0).to_numpy()
    if limit.size == 32:
        floats = _read_from_32_bits(pa.chunked_array([pa.array(whole.astype(np.float64))])).to_numpy()
    else:
        floats = whole.astype(np.float64)
    inside = floats < 2.0**63
    lost = ~inside | (np.where(inside, floats, 0).astype(np.int64) != whole)
    return pa.chunked_array([pa.array(lost)])


def _integers_as_decimals(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    if limit.size is None or limit.size >= 19:
        return None
    beyond = 10**limit.size
    return pc.or_(pc.greater_equal(values, beyond), pc.less_equal(values, -beyond))


def _floats(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    if limit.size != 32:
        return None
    return pc.not_equal(_read_from_32_bits(values), values)


def _read_from_32_bits(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return floats as they are read from 32 bits: by the shortest digits that mean them, so 0.1 is 0.1 again.

    One just between two floats of 32 bits becomes NaN: databases differ in which of them its digits mean.
    """
    narrow = values.cast(pa.float32(), safe=False)
    given, near = values.to_numpy(), narrow.to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        both = [np.nextafter(near, np.float32(end)).astype(np.float64) for end in (-np.inf, np.inf)]
        is_between = np.logical_or(*(given == (near + next) / 2 for next in both))
    return pc.if_else(
        pa.chunked_array([pa.array(is_between)]), float("nan"), narrow.cast(pa.string()).cast(pa.float64())
    )


def _floats_as_decimals(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    return None if limit.other else _lost_digits(as_text(values), limit)


def _decimals(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    text = values.cast(pa.string())
    if not limit.other:
        if limit.places is not None and limit.places >= PLACES and (limit.size or 0) >= WHOLE_DIGITS:
            return None
        return _lost_digits(text, limit)
    if values.type.scale > 0:
        text = pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")
    many = pc.match_substring_regex(text, r"[1-9](?:\.?[0-9]){15}")  # a float keeps any 15 digits
    lost = those(text, _changes_as_float, many)
    few = None if limit.places is None else _lost_digits(text, limit._replace(size=None))
    return lost if few is None else pc.or_(lost, few)


def _changes_as_float(digits: str) -> bool:
    """Whether a number is another once SQLite has kept it: whole floats beyond 2**53 come back as exact integers."""
    value, kept = Decimal(digits), float(digits)
    return Decimal(repr(kept)) != value or (abs(kept) >= 2.0**53 and Decimal(int(kept)) != value)


def _lost_digits(text: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    """Return which numbers have more digits before or behind the point than a decimal column."""
    if limit.places is None:
        return None
    shapes = [rf"\.[0-9]{{{max(limit.places, 0)}}}[0-9]*[1-9]", "[eE]", *([r"[1-9]"] if limit.places < 0 else [])]
    if limit.size is not None:
        shapes.append(rf"^-?0*[1-9][0-9]{{{limit.size}}}")
    places = Decimal(1).scaleb(-limit.places)

    def is_lost(digits: str) -> bool:
        value = Decimal(digits)
        too_large = limit.size is not None and value != 0 and value.adjusted() >= limit.size
        return too_large or _EXACT.remainder(value, places) != 0 if value.adjusted() < 100 else True

    return those(text, is_lost, pc.match_substring_regex(text, "|".join(shapes)))


def _texts(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    if limit.reads:
        return unreadable(values, limit.reads, limit.labels)
    if limit.size is None:
        return None
    length = pc.utf8_length(values)
    lost = pc.greater(length, limit.size)
    if not limit.other:
        return lost
    # Blanks behind the text of a padded column are nobody's.
    return pc.or_(lost, pc.and_(pc.less(length, limit.size), pc.ends_with(values, " ")))


def _moments(values: pa.ChunkedArray, limit: Limit) -> pa.ChunkedArray | None:
    if limit.places is None or limit.places >= 6:
        return None
    micros = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())
    step = 10 ** (6 - limit.places)
    return pc.not_equal(pc.multiply(pc.divide(micros, step), step), micros)


_CHECKS: dict[tuple[str, str], Callable[[Any, Limit], Any]] = {
    ("integer", "integer"): _integers,
    ("integer", "number"): _integers_as_floats,
    ("integer", "decimal"): _integers_as_decimals,
    ("number", "number"): _floats,
    ("number", "decimal"): _floats_as_decimals,
    ("decimal", "decimal"): _decimals,
    ("string", "string"): _texts,
    ("timestamp", "timestamp"): _moments,
}


# Texts that a database reads as a type of its own, such as uuid or json.
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

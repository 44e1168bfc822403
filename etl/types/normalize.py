"""Text as a source spells it, into text as casts read it: what stands for nothing, numbers, true and false."""

import re
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.models import Column
from etl.config.spellings import APOSTROPHES, BLANKS, Spellings
from etl.types.spelling import as_text

_TRUE, _FALSE = ("true", "1", "yes", "y", "t"), ("false", "0", "no", "n", "f")
BLANK_TEXT = r"^[\s\pZ\p{Cf}\x1c-\x1f\x{85}\x{115f}\x{1160}\x{2800}\x{3164}\x{ffa0}]*$"  # what shows nothing
_BLANK = r"[\s\pZ]*"  # of RE2, as blanks within a number are written
_GLUED = r"^\D*\pL[.,]"


def without_nothing(values: pa.ChunkedArray, spellings: Spellings) -> pa.ChunkedArray:
    """Return values, null where they are spelled as `null` says; blanks around it don't count."""
    if not spellings.null:
        return values
    words = pa.array([word.strip() for word in spellings.null], pa.string())
    text = pc.utf8_trim_whitespace(as_text(values))
    return pc.if_else(pc.fill_null(pc.is_in(text, value_set=words), False), pa.scalar(None, values.type), values)


def is_blank(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say which texts are missing, or hold nothing but blanks of any kind."""
    return pc.fill_null(pc.match_substring_regex(text, BLANK_TEXT), True)


def words_of(column: Column) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a boolean column takes for true and for false, in small letters: its own words, then the usual."""
    yes, no = (tuple(word.strip().lower() for word in given or ()) for given in (column.true, column.false))
    return (
        (*yes, *(word for word in _TRUE if word not in no)),
        (*no, *(word for word in _FALSE if word not in yes)),
    )


def usual(text: pa.ChunkedArray, column: Column) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Return text as it would be without the column's spellings, as far as it can be, and where it can't."""
    if column.numeric():
        return digits(pc.utf8_trim_whitespace(text), column)
    if column.true or column.false:
        lowered = pc.utf8_lower(text)
        for words, word in ((column.true, "true"), (column.false, "false")):
            known = pa.array([each.strip().lower() for each in words or ()], pa.string())
            text = pc.if_else(pc.is_in(lowered, value_set=known), word, text)
    return text, None


def digits(text: pa.ChunkedArray, column: Column) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return numbers with a point and no more than a minus before them, and which values are not spelled as declared.

    Those are null in what is returned. A percent sign moves the point by two digits, so nothing is rounded.

    Args:
        text: Trimmed.
    """
    found = pc.extract_regex(text, _shape(column))
    part = {field.name: pc.struct_field(found, field.name) for field in found.type}
    here = {name: pc.not_equal(value, "") for name, value in part.items()}
    signs = _count(here, "s1", "s2", "t1", "t2")
    fits = pc.and_(pc.less_equal(_count(here, "c1", "c2", "c3", "c4"), 1), pc.less_equal(_count(here, "p1", "p2"), 1))
    fits = pc.and_(fits, pc.less_equal(pc.add(signs, _count(here, "open")), 1))
    fits = pc.and_(fits, pc.equal(here["open"], here["close"]))
    is_percent = pc.greater(_count(here, "p1", "p2"), 0)
    fits = pc.and_(fits, pc.invert(pc.and_(is_percent, pc.or_(here["exponent"], _any(here, "c1", "c2", "c3", "c4")))))
    fits = pc.and_(
        fits, pc.match_substring_regex(pc.binary_join_element_wise(part["whole"], part["fraction"], ""), "[0-9]")
    )
    # "Rs.500" with the currency "Rs" is no half rupee.
    fits = pc.and_(fits, pc.invert(pc.and_(pc.equal(part["whole"], ""), pc.match_substring_regex(text, _GLUED))))
    minus = pc.or_(_any(here, "open", "t1", "t2"), pc.or_(pc.equal(part["s1"], "-"), pc.equal(part["s2"], "-")))
    whole = pc.replace_substring_regex(part["whole"], "[^0-9]+", "")
    fraction = pc.replace_substring_regex(part["fraction"], "[^0-9]+", "")
    padded = pc.binary_join_element_wise("00", whole, "")
    shifted = pc.binary_join_element_wise(pc.utf8_slice_codeunits(padded, -2), fraction, "")
    whole = pc.if_else(is_percent, pc.utf8_slice_codeunits(padded, 0, -2), whole)
    fraction = pc.if_else(is_percent, shifted, fraction)
    point = pc.if_else(pc.equal(fraction, ""), "", ".")
    whole = pc.if_else(pc.equal(whole, ""), "0", whole)
    made = pc.binary_join_element_wise(pc.if_else(minus, "-", ""), whole, point, fraction, part["exponent"], "")
    fits = pc.fill_null(fits, False)
    return pc.if_else(fits, made, pa.scalar(None, pa.string())), pc.and_(pc.is_valid(text), pc.invert(fits))


@lru_cache
def _shape(column: Column) -> str:
    """Return what a number of the column looks like; what may come once but at several places is counted later."""
    point, exponent = re.escape(column.decimal), "(?:[eE][+-]?[0-9]+)?" if column.type == "number" else ""
    if column.type == "integer":
        number = f"(?P<whole>{_whole(column)})(?P<fraction>)"
    else:
        number = f"(?P<whole>(?:{_whole(column)})?)(?P<fraction>(?:{point}[0-9]*)?)"
    number += f"(?P<exponent>{exponent})"
    words = sorted((word.strip() for word in column.currency or ()), key=len, reverse=True)
    sign, money = "[+-]?", f"(?:{'|'.join(map(re.escape, words))})?" if words else ""
    percent = "%?" if column.percent else ""
    opens, closes = (r"\(?", r"\)?") if column.negative == "parentheses" else ("", "")
    trailing = "-?" if column.negative == "trailing" else ""
    around = _BLANK if words else ""
    before = f"(?P<s1>{sign}){around}(?P<c1>{money}){around}(?P<s2>{sign}){around}(?P<open>{opens})"
    inside = _BLANK if opens else ""
    after = _BLANK if opens or words or percent or trailing else ""
    return (
        f"^{before}{inside}(?P<c2>{money}){around}{number}{after}(?P<t1>{trailing}){after}(?P<p1>{percent})"
        f"(?P<c3>{money}){after}(?P<close>{closes}){after}(?P<p2>{percent})(?P<c4>{money}){after}(?P<t2>{trailing})$"
    )


def _whole(column: Column) -> str:
    if not column.thousands:
        return "[0-9]+"
    alike = next((many for many in (BLANKS, APOSTROPHES) if column.thousands in many), (column.thousands,))
    between = f"[{''.join(map(re.escape, alike))}]"
    return f"[1-9][0-9]{{0,2}}(?:{between}[0-9]{{3}})+|[0-9]+"


def _any(here: dict[str, pa.ChunkedArray], *names: str) -> pa.ChunkedArray:
    return pc.greater(_count(here, *names), 0)


def _count(here: dict[str, pa.ChunkedArray], *names: str) -> pa.ChunkedArray:
    first, *others = (pc.cast(here[name], pa.int8()) for name in names)
    for other in others:
        first = pc.add(first, other)
    return first

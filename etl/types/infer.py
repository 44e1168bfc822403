"""Types of columns that nobody declared: the same for the same values, in whatever order or pieces they come."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.columns import ROW, named
from etl.config.models import Column
from etl.config.pipeline import Pipeline
from etl.config.spellings import Spellings, spelled
from etl.types.casts import Failures, cast
from etl.types.lattice import DOUBLE, EMPTY, KINDS, merge_candidates
from etl.types.normalize import usual, without_nothing
from etl.types.spelling import as_text, plain
from etl.types.words import TYPES, arrow_of, natural_word, word_of

_WHOLE = 2**53  # up to here every whole number is a float

_NUMERIC = r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|[1-9](?:\.[0-9]+)?e[+-][0-9]{1,3})$"
_ID = r"^-?[0-9]{19,}$"  # whole, and longer than any quantity: a number of an account, a device, a parcel
_MANY_DIGITS = r"^-?(?:[0-9]\.?){16}|e"  # more than any float keeps
_MANY_PLACES = r"\.[0-9]{9}[0-9]*[1-9]"


def candidates(rows: pa.Table, spellings: Spellings | None = None, *, guess: bool = True) -> dict[str, list[str]]:
    """Return for each column of a chunk the types that hold every value of it; all of them where there is no value.

    Args:
        spellings: The extract's, which its values are read by.
        guess: Whether text means what it looks like. Where the source has types, its text is text: a string comes
            first then, and the others count only for a table that has the column already.
    """
    given = spellings or Spellings()
    columns = {name: without_nothing(plain(rows[name]), given) for name in rows.column_names if name != ROW}
    return {name: _fitting(values, given, guess) for name, values in columns.items()}


def named_candidates(
    many: Iterable[Mapping[str, list[str]]], pipeline: Pipeline, existing: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Return the types that fit in every partition, by the pipeline's names of the columns.

    A column that partitions spell otherwise is one: as the target spells it, else as the first of them does.

    Args:
        existing: Columns that the target has already.
    """
    spelled, found = list(existing), []
    for each in many:
        names = named(each, pipeline, spelled)
        spelled += names.values()
        found.append({names[header]: kinds for header, kinds in each.items()})
    return merge_candidates(found)


def take(
    values: pa.ChunkedArray, word: str, zone: str, spellings: Spellings | None = None
) -> tuple[pa.ChunkedArray, Failures]:
    """Return values in a type that is one of their candidates, and what did not fit it after all.

    Args:
        zone: Time zone of what carries none.
        spellings: The extract's, which its values are read by.
    """
    if word == EMPTY:
        word = "string"
    values = plain(values)
    if word_of(values.type) != "string":
        spellings = None  # they are of texts
    if word_of(values.type) == "number":
        values = values.cast(pa.float64())  # a float32 has digits of its own, which a column of floats forgets
    if word == "decimal":
        if word_of(values.type) == "number":
            values = as_text(values)  # Arrow's own cast has digits that the float's shortest spelling has not
        if word_of(values.type) == "string":
            values = _without_exponents(values)
    return cast(values, spelled(Column.model_validate({"type": word}), word, spellings or Spellings()), zone)


def _fitting(values: pa.ChunkedArray, spellings: Spellings, guess: bool) -> list[str]:
    if values.null_count == len(values):
        return list(KINDS)
    if values.type != pa.string():
        return _fitting_typed(values)
    distinct = pc.unique(values).drop_null()
    distinct = distinct.filter(pc.not_equal(distinct, ""))
    if not len(distinct):
        return list(KINDS)
    found = _fitting_text(pa.chunked_array([distinct]), spellings)
    return found if guess else ["string", *(kind for kind in found if kind != "string")]


def _fitting_text(text: pa.ChunkedArray, spellings: Spellings) -> list[str]:
    # Where thousands have points, 1.234 has two meanings, and nobody has said which.
    numbers = None if spellings.thousands == "." else _read(text, "number", spellings)
    if numbers is not None and _all(numbers, _NUMERIC):
        whole = _read(text, "integer", spellings)
        return _numeric(numbers, whole is not None and _all(whole, TYPES["integer"].infers))
    return [kind for kind in ("boolean", "date", "timestamp") if _fits(text, kind, spellings)] + ["string"]


def _read(text: pa.ChunkedArray, kind: str, spellings: Spellings) -> pa.ChunkedArray | None:
    """Return text as it would be without an extract's spellings for a type, or None where some is none of it."""
    text, wrong = usual(text, spelled(Column.model_validate({"type": kind}), kind, spellings))
    return None if wrong is not None and pc.any(wrong).as_py() else text


def _numeric(text: pa.ChunkedArray, is_whole: bool) -> list[str]:
    if _any(text, _ID):
        return ["string"]
    is_double = _is_double(text)
    found = ["integer"] if is_whole else []
    found += ["number"] if is_double else []
    found += ["decimal"] if _is_decimal(text) else []
    return [*found, "string", DOUBLE] if is_double else [*found, "string"]


def _is_decimal(text: pa.ChunkedArray) -> bool:
    if not _any(text, _MANY_DIGITS) and not _any(text, _MANY_PLACES):
        return True
    return not cast(_without_exponents(text), Column(type="decimal"), "UTC")[1]


def _is_double(text: pa.ChunkedArray) -> bool:
    """Whether the nearest float of each number is, in its shortest spelling, the same number."""
    long = text.filter(pc.match_substring_regex(text, _MANY_DIGITS))
    if not len(long):
        return True
    whole = pc.match_substring_regex(long, "^-?[0-9]+$")
    if any(abs(int(digits)) > _WHOLE for digits in long.filter(whole).to_pylist()):
        return False
    asked = long.filter(pc.invert(whole))
    floats = asked.cast(pa.float64())
    if pc.all(pc.is_finite(floats)).as_py() is False:
        return False
    other = pc.not_equal(floats.cast(pa.string()), asked)
    pairs = zip(asked.filter(other).to_pylist(), floats.filter(other).to_pylist(), strict=True)
    return all(Decimal(repr(number)) == Decimal(digits) for digits, number in pairs)


def _without_exponents(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers digit by digit: 0.00001 for 1e-05."""
    powers = pc.fill_null(pc.match_substring_regex(text, r"^-?[0-9.]+e[+-]?[0-9]{1,3}$"), False)
    if not pc.any(powers).as_py():
        return text
    plain = [
        format(Decimal(value), "f") if power else value
        for value, power in zip(text.to_pylist(), powers.to_pylist(), strict=True)
    ]
    return pa.chunked_array([pa.array(plain, pa.string())])


def _fits(values: pa.ChunkedArray, kind: str, spellings: Spellings) -> bool:
    text = _read(values, kind, spellings)
    if text is None or not _all(text, TYPES[kind].infers):
        return False
    # The client's zone isn't known here: a moment must stay within the calendar in all of them.
    zones = {"date": ["UTC"], "timestamp": ["Etc/GMT+12", "Etc/GMT-14"]}.get(kind, [])
    return not any(cast(text, Column.model_validate({"type": kind}), zone)[1] for zone in zones)


def _fitting_typed(values: pa.ChunkedArray) -> list[str]:
    nearest = natural_word(values.type)
    if nearest == "number":
        # What is no number (NaN, Infinity) changes no column's type: it is for the cast to keep or to reject it.
        finite = pc.unique(values.filter(pc.fill_null(pc.is_finite(values), False)))
        text = as_text(pa.chunked_array([finite.cast(pa.float64())]))
        return ["number", *(["decimal"] if _is_decimal(text) else []), "string", DOUBLE]
    kinds = [*dict.fromkeys((nearest, *TYPES[nearest].wider, "string"))]
    found = [kind for kind in kinds if not cast(values, Column.model_validate({"type": kind}), "UTC")[1]]
    if nearest == "integer":
        ends = pc.min_max(values)
        if max(-ends["min"].as_py(), ends["max"].as_py()) > _WHOLE:
            return [kind for kind in found if kind != "number"]
        return [*found, DOUBLE]
    if nearest == "decimal" and "decimal" in found:
        decimals = values.cast(arrow_of("decimal"))
        floats = decimals.cast(pa.string()).cast(pa.float64())
        same = pc.less(pc.abs(floats), 1e15)
        if pc.all(same).as_py() and pc.all(pc.equal(floats.cast(arrow_of("decimal")), decimals)).as_py():
            found.append(DOUBLE)
    return found


def _all(text: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, pattern)).as_py())


def _any(text: pa.ChunkedArray, pattern: str) -> bool:
    return bool(pc.any(pc.match_substring_regex(text, pattern)).as_py())

"""Dates and timestamps out of text: ISO 8601, or the formats a column declares, never a guess."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

INSTANT = pa.timestamp("us", tz="UTC")
WALL = pa.timestamp("us")

_MONTH, _DAY, _HOUR, _MINUTE = (
    r"(?:0[1-9]|1[0-2])",
    r"(?:0[1-9]|[12][0-9]|3[01])",
    r"(?:[01][0-9]|2[0-3])",
    r"[0-5][0-9]",
)
ISO_DATE = rf"[0-9]{{4}}-{_MONTH}-{_DAY}"
ISO_ZONE = rf"(?:Z|[+-]{_HOUR}(?::?{_MINUTE})?)"
ISO_TIMESTAMP = rf"{ISO_DATE}(?:[T ]{_HOUR}:{_MINUTE}(?::{_MINUTE}(?:\.[0-9]{{1,9}})?)?{ISO_ZONE}?)?"

# What arrow's strptime reads fast. `?` after a digit's class means that people leave the leading zero out.
_SHAPES = {
    "Y": "[0-9]{4}",
    "y": "[0-9]{2}",
    "m": "(?:1[0-2]|0?[1-9])",
    "d": "(?P<day>3[01]|[12][0-9]|0?[1-9])",
    "H": "(?:2[0-3]|[01]?[0-9])",
    "I": "(?:1[0-2]|0?[1-9])",
    "M": "[0-5]?[0-9]",
    "S": "[0-5]?[0-9]",
    "p": "[AaPp][Mm]",
}
_PANDAS = np.array(["0001-01-03", "9999-12-29"], "datetime64[us]")  # the days that its tz_localize can do
_EARLIEST, _LATEST = pa.scalar(datetime.min, WALL), pa.scalar(datetime.max, WALL)


def read_dates(text: pa.ChunkedArray, formats: tuple[str, ...]) -> pa.ChunkedArray:
    """Return text as date32, null where it is no date in any of the formats; of a time only the date is kept."""
    if not formats:
        shape = pc.match_substring_regex(text, f"^{ISO_DATE}$")
        return _in_calendar(pc.cast(cast_fitting(_where(shape, text), pa.date32()), WALL)).cast(pa.date32())
    result = None
    for form in formats:
        result, text = _first(result, text, pc.cast(_strptime(text, form, "")[0], pa.date32(), safe=False))
    return result


def read_timestamps(text: pa.ChunkedArray, formats: tuple[str, ...], zone: str) -> pa.ChunkedArray:
    """Return text as UTC instants, null where it fits none of the formats.

    Args:
        zone: Name of the time zone of times that carry none.
    """
    if not formats:
        return _in_calendar(_iso(text, zone))
    result = None
    for form in formats:
        parsed, zoned = _strptime(text, form, "%z")
        result, text = _first(result, text, pc.cast(parsed, INSTANT) if zoned else localize(parsed, zone))
    return _in_calendar(result)


def localize(walls: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Return wall clock times of a zone as UTC instants.

    A time that a change of clocks repeats is the first of the two; one that it leaves out is read by the clock before
    the change, as Python and PostgreSQL do. One that is outside the calendar in UTC is null.
    """
    walls = _in_calendar(walls.cast(WALL))
    if zone == "UTC":
        return walls.cast(INSTANT)
    values = walls.to_numpy().astype("datetime64[us]")
    usual = np.where((values > _PANDAS[0]) & (values < _PANDAS[1]), values, np.datetime64("NaT"))
    index = pd.DatetimeIndex(usual).tz_localize(zone, ambiguous=np.ones(len(usual), dtype=bool), nonexistent="NaT")
    instants = np.array(index.tz_convert("UTC").tz_localize(None).as_unit("us").to_numpy())
    for place in np.flatnonzero(np.isnat(instants) & ~np.isnat(values)):
        with suppress(OverflowError):  # 9999-12-31 in America is in the year 10000
            moment = values[place].item().replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
            instants[place] = np.datetime64(moment.replace(tzinfo=None), "us")
    return pa.chunked_array([pa.array(instants, WALL).cast(INSTANT)])


def cast_fitting(values: pa.ChunkedArray, target: pa.DataType, hopeless: str = "") -> pa.ChunkedArray:
    """Cast what arrow can cast exactly; null where it can't.

    Args:
        hopeless: What text looks like that surely can't be cast: it is found at once, other text one by one.
    """
    if hopeless and (pc.max(pc.binary_length(values)).as_py() or 0) >= 30:
        values = _where(pc.invert(pc.match_substring_regex(values, hopeless)), values)
    try:
        return pc.cast(values, target)
    except pa.ArrowInvalid:
        if hopeless:
            values = _where(pc.invert(pc.match_substring_regex(values, hopeless)), values)
        bad = pa.array(_misfits(pc.unique(values), target), values.type)
        return pc.cast(_where(pc.invert(pc.is_in(values, value_set=bad)), values), target)


def _misfits(distinct: pa.Array, target: pa.DataType) -> list[object]:
    """Find the few values that fail by halving: arrow says only that one does."""
    try:
        pc.cast(distinct, target)
        return []
    except pa.ArrowInvalid:
        if len(distinct) == 1:
            return distinct.to_pylist()  # type: ignore[no-any-return]
        half = len(distinct) // 2
        return [*_misfits(distinct[:half], target), *_misfits(distinct[half:], target)]


def _iso(text: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    text = _where(pc.match_substring_regex(text, f"^{ISO_TIMESTAMP}$"), text)
    if pc.any(pc.match_substring_regex(text, r"\.[0-9]{7}")).as_py():  # as SQL Server writes them
        text = pc.replace_substring_regex(text, r"(\.[0-9]{6})[0-9]+", r"\1")
    zoned = pc.match_substring_regex(text, f":[0-9.]+{ISO_ZONE}$")
    if not pc.any(zoned).as_py():
        return localize(cast_fitting(text, WALL), zone)
    walls = localize(cast_fitting(_where(pc.invert(zoned), text), WALL), zone)
    return pc.coalesce(cast_fitting(_where(zoned, text), INSTANT), walls)


def _strptime(text: pa.ChunkedArray, form: str, zone: str) -> tuple[pa.ChunkedArray, bool]:
    """Return text read by one format, and whether it is in UTC, as it is if the format holds the directive `zone`."""
    if (cut := _around_fraction(form)) is not None:
        return _strptime_fraction(text, form, *cut), False
    shape = _shape(form)
    if shape is None:
        return _strptime_slow(text, form, bool(zone) and zone in form)
    # Arrow's strptime turns the 30th of February into a day of March, so the day is compared with what was written.
    day = pc.struct_field(pc.extract_regex(text, shape), "day")
    parsed = pc.strptime(_where(pc.is_valid(day), text), format=form, unit="us", error_is_null=True)
    return _in_calendar(_where(pc.equal(pc.day(parsed), cast_fitting(day, pa.int64())), parsed)), False


def _strptime_fraction(text: pa.ChunkedArray, form: str, rest: str, shape: str, loose: str) -> pa.ChunkedArray:
    """Return text read by a format with %f, which arrow's strptime has not.

    Args:
        rest: The format without it.
        shape: What text looks like, with the groups head, fraction and tail.
        loose: What text looks like that only Python reads, with more blanks or in another case.
    """
    found = pc.extract_regex(text, shape)
    head, fraction, tail = (pc.struct_field(found, name) for name in ("head", "fraction", "tail"))
    parsed, _ = _strptime(pc.binary_join_element_wise(head, tail, ""), rest, "")
    micros = pc.cast(pc.cast(pc.utf8_rpad(fraction, 6, "0"), pa.int64()), pa.duration("us"))
    odd = _where(pc.and_(pc.is_null(head), pc.match_substring_regex(text, loose)), text)
    return pc.coalesce(pc.add(parsed, micros), _strptime_slow(odd, form, False)[0])


def _strptime_slow(text: pa.ChunkedArray, form: str, zoned: bool) -> tuple[pa.ChunkedArray, bool]:
    distinct = pc.unique(text)
    moments = [None if value is None else _read(value, form, zoned) for value in distinct.to_pylist()]
    return pc.take(pa.array(moments, WALL), pc.index_in(text, value_set=distinct)), zoned


def _read(value: str, form: str, zoned: bool) -> datetime | None:
    try:
        moment = datetime.strptime(value, form)
        return (moment.astimezone(UTC) if zoned else moment).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


@lru_cache
def _shape(form: str) -> str | None:
    """Return what text of a format looks like, or None for a format that arrow doesn't read as Python does."""
    parts = _parts(form)
    directives = [part[1] for part in parts if part[0] == "%"]
    if directives.count("d") != 1 or not set(directives) <= set(_SHAPES) or len(directives) > len(set(directives)):
        return None
    return f"^{_pattern(parts)}$"


@lru_cache
def _around_fraction(form: str) -> tuple[str, str, str] | None:
    """Return what `_strptime_fraction` needs, or None for a format without %f, or where digits follow on others."""
    parts = _parts(form)
    if parts.count("%f") != 1:
        return None
    head, tail = parts[: parts.index("%f")], parts[parts.index("%f") + 1 :]
    rest = "".join([*head, *tail])
    if any(part[0] == "%" for part in (*head[-1:], *tail[:1])) or _shape(rest) is None:
        return None
    shape = f"^(?P<head>{_pattern(head)})(?P<fraction>[0-9]{{1,6}})(?P<tail>{_pattern(tail)})$"
    loose = "".join(
        ".+" if part[0] == "%" else r"[\s\pZ\x1c-\x1f\x{85}]+".join(map(re.escape, re.split(r"\s+", part)))
        for part in parts
    )
    return rest, shape, f"(?is)^{loose}$"


def _parts(form: str) -> list[str]:
    return re.findall("%.|[^%]+", form)


def _pattern(parts: list[str]) -> str:
    shape = ""
    for before, part, after in zip(["", *parts], parts, [*parts[1:], ""], strict=False):
        if part[0] != "%":
            shape += re.escape(part)
        elif before[:1] == "%" or after[:1] == "%":  # without a separator every digit must be there
            shape += _SHAPES[part[1]].replace("]?", "]").replace("0?", "0")
        else:
            shape += _SHAPES[part[1]]
    return shape


def _first(
    result: pa.ChunkedArray | None, text: pa.ChunkedArray, parsed: pa.ChunkedArray
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    rest = _where(pc.is_null(parsed), text)
    return parsed if result is None else pc.coalesce(result, parsed), rest


def _in_calendar(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Null what lies outside the years 1 to 9999, which neither Python nor PostgreSQL's clients can hold."""
    low, high = _EARLIEST.cast(values.type), _LATEST.cast(values.type)
    span = pc.min_max(values)
    if not span["min"].is_valid or (span["min"].value >= low.value and span["max"].value <= high.value):
        return values
    return _where(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)), values)


def _where(mask: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keep values where the mask is true, null elsewhere."""
    return pc.if_else(mask, values, pa.scalar(None, values.type))

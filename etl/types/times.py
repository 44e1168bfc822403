"""Dates and timestamps out of text: ISO 8601, or the formats a column declares, never a guess."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

INSTANT = pa.timestamp("us", tz="UTC")
WALL = pa.timestamp("us")

MONTH, DAY, _HOUR, _MINUTE = (
    r"(?:0[1-9]|1[0-2])",
    r"(?:0[1-9]|[12][0-9]|3[01])",
    r"(?:[01][0-9]|2[0-3])",
    r"[0-5][0-9]",
)
ISO_DATE = rf"[0-9]{{4}}-{MONTH}-{DAY}"
ISO_ZONE = rf"(?:Z|[+-]{_HOUR}(?::?{_MINUTE})?)"
_TIME = rf"{_HOUR}:{_MINUTE}(?::{_MINUTE}(?:\.[0-9]{{1,9}})?)?"
ISO_TIMESTAMP = rf"{ISO_DATE}(?:[T ]{_HOUR}:{_MINUTE}(?::{_MINUTE}(?:\.[0-9]{{1,6}})?)?{ISO_ZONE}?)?"

_UTC = ("UTC", "GMT", "Z")
_SECONDS = r":[0-9]{2}[.,][0-9]{6}"

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
_EARLY, _LATE = (pa.scalar(day.item(), WALL) for day in _PANDAS)
_OF_DAY = {f"%{directive}" for directive in "HIMSpfcX"}
_EARLIEST, _LATEST = pa.scalar(datetime.min, WALL), pa.scalar(datetime.max, WALL)


def read_dates(
    text: pa.ChunkedArray, formats: tuple[str, ...], zone: str = "UTC", *, truncate: bool = False
) -> pa.ChunkedArray:
    """Return text as date32, null where it is no date in any of the formats; of a time only the date is kept.

    Args:
        zone: Name of the time zone whose date it is at a time that says its own.
        truncate: Whether an ISO time of day behind a date is cut.
    """
    dates = _dates(text, formats)
    if not truncate or dates.null_count == text.null_count:
        return dates
    found = pc.extract_regex(_where(pc.is_null(dates), text), f"^(?P<day>.+)[T ](?P<time>{_TIME}{ISO_ZONE}?)$")
    days, times = _dates(pc.struct_field(found, "day"), formats), pc.struct_field(found, "time")
    zoned = pc.match_substring_regex(times, f"{ISO_ZONE}$")
    moments = _iso(_micros(pc.binary_join_element_wise(_where(zoned, days).cast(pa.string()), times, "T"), True), "UTC")
    return pc.coalesce(dates, pc.if_else(zoned, walls(moments, zone).cast(pa.date32(), safe=False), days))


def _dates(text: pa.ChunkedArray, formats: tuple[str, ...]) -> pa.ChunkedArray:
    if not formats:
        shape = pc.match_substring_regex(text, f"^{ISO_DATE}$")
        return in_calendar(cast_fitting(_where(shape, text), pa.date32()))
    result = None
    for form, _ in _zones_named(formats):
        result, text = _first(result, text, pc.cast(_strptime(text, form), pa.date32(), safe=False))
    return result


def read_timestamps(
    text: pa.ChunkedArray, formats: tuple[str, ...], zone: str, *, truncate: bool = False
) -> pa.ChunkedArray:
    """Return text as UTC instants, null where it fits none of the formats, or is no time in the zone.

    Args:
        zone: Name of the time zone of times that carry none.
        truncate: Whether a seventh digit of a second, and what follows it, is cut where it isn't 0.
    """
    if not formats:
        return in_calendar(_iso(_micros(text, truncate), zone))
    if any("%f" in form for form in formats):
        text = _micros(text, truncate)
    result = None
    for form, zoned in _zones_named(formats):
        parsed, is_day = _strptime(text, form, zoned), not _OF_DAY & {*_parts(form)}
        result, text = _first(result, text, pc.cast(parsed, INSTANT) if zoned else localize(parsed, zone, days=is_day))
    return in_calendar(result)


def is_finer(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return which texts have more digits of a second than six, behind which only zeros are left out."""
    return pc.match_substring_regex(text, f"{_SECONDS}[0-9]*[1-9]")


def micros(values: pa.ChunkedArray, *, truncate: bool = False) -> pa.ChunkedArray:
    """Return timestamps of any unit in microseconds, null what lies outside the calendar.

    Args:
        truncate: Whether nanoseconds are cut; else what has some is null.
    """
    kind = values.type
    if kind.unit == "ns":
        fine = values
        values = pc.floor_temporal(fine, unit="microsecond").cast(pa.timestamp("us", kind.tz))
        if not truncate:
            values = _where(pc.equal(values.cast(kind), fine), values)
    # In seconds and milliseconds a number may be too large for microseconds: then it is out of the calendar too.
    return in_calendar(values).cast(pa.timestamp("us", kind.tz))


def _micros(text: pa.ChunkedArray, truncate: bool) -> pa.ChunkedArray:
    """Return times with six digits of a second where they have more, as SQL Server writes them."""
    if not pc.any(pc.match_substring_regex(text, f"{_SECONDS}[0-9]")).as_py():
        return text
    rest = "[0-9]" if truncate else "0"
    return pc.replace_substring_regex(text, f"({_SECONDS}){rest}{{1,3}}($|[^0-9])", r"\1\2")


@lru_cache
def _zones_named(formats: tuple[str, ...]) -> list[tuple[str, bool]]:
    """Return the formats, and whether each says a zone.

    %Z is each name that means UTC, and no other: CST is a zone in America, another in China, and Python reads none.
    """
    forms = []
    for form in formats:
        parts = _parts(form)
        named = "%Z" in parts
        spelled = [[name if part == "%Z" else part for part in parts] for name in (_UTC if named else ("",))]
        forms += [("".join(each), named or "%z" in parts) for each in spelled]
    return forms


def localize(walls: pa.ChunkedArray, zone: str, *, days: bool | pa.ChunkedArray = False) -> pa.ChunkedArray:
    """Return wall clock times of a zone as UTC instants.

    A time that a change of clocks repeats is the first of the two; one that it leaves out is null, and so is one that
    is outside the calendar in UTC.

    Args:
        days: Which are dates: they begin with their first moment, where there is no midnight.
    """
    walls = in_calendar(walls.cast(WALL))
    if zone == "UTC":
        return walls.cast(INSTANT)
    values = walls.to_numpy().astype("datetime64[us]")
    usual = np.where((values > _PANDAS[0]) & (values < _PANDAS[1]), values, np.datetime64("NaT"))
    instants = _placed(usual, zone, "NaT")
    if days is not False and (lost := np.isnat(instants) & ~np.isnat(usual)).any():
        lost &= True if days is True else np.array(pc.fill_null(days, False).to_numpy(), dtype=bool)
        instants[lost] = _placed(usual[lost], zone, "shift_forward")
    for place in np.flatnonzero(np.isnat(usual) & ~np.isnat(values)):
        with suppress(OverflowError):  # 9999-12-31 in America is in the year 10000
            moment = values[place].item().replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
            instants[place] = np.datetime64(moment.replace(tzinfo=None), "us")
    return pa.chunked_array([pa.array(instants, WALL).cast(INSTANT)])


def _placed(walls: "np.ndarray[Any, Any]", zone: str, missing: Any) -> "np.ndarray[Any, Any]":
    index = pd.DatetimeIndex(walls).tz_localize(zone, ambiguous=np.ones(len(walls), dtype=bool), nonexistent=missing)
    return np.array(index.tz_convert("UTC").tz_localize(None).as_unit("us").to_numpy())


def walls(instants: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Return the wall clock times of a zone at UTC instants."""
    index = pd.DatetimeIndex(instants.to_numpy().astype("M8[us]"))
    there = index.tz_localize("UTC").tz_convert(zone).tz_localize(None).to_numpy()
    return pa.chunked_array([pa.array(np.asarray(there, "M8[us]"), WALL)])


def left_out(values: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    """Return which wall clock times, or instants of UTC's wall clock, a change of the zone's clocks leaves out."""
    there = micros(values, truncate=True).cast(WALL)
    # What lies outside the calendar in UTC is null too, but is within two days of the calendar's ends.
    inside = pc.and_(pc.greater(there, _EARLY), pc.less(there, _LATE))
    return pc.fill_null(pc.and_(inside, pc.is_null(localize(there, zone))), False)


def missing(zone: str) -> str:
    """Return the reason of the rejects whose time a change of clocks leaves out."""
    return f"does not exist in {zone}"


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
    zoned = pc.match_substring_regex(text, f":[0-9.]+{ISO_ZONE}$")
    days = pc.equal(pc.binary_length(text), len("2026-01-31"))
    if not pc.any(zoned).as_py():
        return localize(cast_fitting(text, WALL), zone, days=days)
    local = localize(cast_fitting(_where(pc.invert(zoned), text), WALL), zone, days=days)
    return pc.coalesce(cast_fitting(_where(zoned, text), INSTANT), local)


def _strptime(text: pa.ChunkedArray, form: str, zoned: bool = False) -> pa.ChunkedArray:
    """Return text read by one format, in UTC where that is wanted and the format has %z."""
    if (cut := _around_fraction(form)) is not None:
        return _strptime_fraction(text, form, *cut)
    shape = _shape(form)
    if shape is None:
        return _strptime_slow(text, form, zoned)
    # Arrow's strptime turns the 30th of February into a day of March, so the day is compared with what was written.
    day = pc.struct_field(pc.extract_regex(text, shape), "day")
    parsed = pc.strptime(_where(pc.is_valid(day), text), format=form, unit="us", error_is_null=True)
    return in_calendar(_where(pc.equal(pc.day(parsed), cast_fitting(day, pa.int64())), parsed))


def _strptime_fraction(text: pa.ChunkedArray, form: str, rest: str, shape: str, loose: str) -> pa.ChunkedArray:
    """Return text read by a format with %f, which arrow's strptime has not.

    Args:
        rest: The format without it.
        shape: What text looks like, with the groups head, fraction and tail.
        loose: What text looks like that only Python reads, with more blanks or in another case.
    """
    found = pc.extract_regex(text, shape)
    head, fraction, tail = (pc.struct_field(found, name) for name in ("head", "fraction", "tail"))
    parsed = _strptime(pc.binary_join_element_wise(head, tail, ""), rest)
    beyond = pc.cast(pc.cast(pc.utf8_rpad(fraction, 6, "0"), pa.int64()), pa.duration("us"))
    odd = _where(pc.and_(pc.is_null(head), pc.match_substring_regex(text, loose)), text)
    return pc.coalesce(pc.add(parsed, beyond), _strptime_slow(odd, form, False))


def _strptime_slow(text: pa.ChunkedArray, form: str, zoned: bool) -> pa.ChunkedArray:
    distinct = pc.unique(text)
    moments = [None if value is None else _read(value, form, zoned) for value in distinct.to_pylist()]
    return pc.take(pa.array(moments, WALL), pc.index_in(text, value_set=distinct))


def _read(value: str, form: str, zoned: bool) -> datetime | None:
    try:
        moment = datetime.strptime(value, form)
        return (moment.astimezone(UTC) if zoned and moment.tzinfo else moment).replace(tzinfo=None)
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


def in_calendar(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Null what lies outside the years 1 to 9999, which neither Python nor PostgreSQL's clients can hold."""
    low, high = _EARLIEST.cast(values.type), _LATEST.cast(values.type, safe=False)
    span = pc.min_max(values)
    if not span["min"].is_valid or (span["min"].value >= low.value and span["max"].value <= high.value):
        return values
    return _where(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high)), values)


def _where(mask: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keep values where the mask is true, null elsewhere."""
    return pc.if_else(mask, values, pa.scalar(None, values.type))

"""NDJSON files: one JSON object a line, read by Python's own parser; numbers that no float holds exactly are text."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

from etl.config.pipeline import Pipeline
from etl.errors import BadSource, ForeignFile
from etl.partition import Chunk, Piece
from etl.sources.feed import LIMIT, Feed
from etl.sources.files import Cut, FileConfig
from etl.sources.formats.strict import LONG, RAW

_BLANKS = " \t\r"  # what JSON allows around a value, within a line
_KINDS = {list: "an array", str: "a text", bool: "true or false", int: "a number", bytes: "a number"}
_DEEP = "is nested too deep"
_SAMPLE = 1 << 16  # bytes
LINES = 1_000  # parsed at once: their objects are still in the processor's cache when they become columns


Objects = list[dict[str, Any]]  # whose floats are bytes: the digits as they are written


class Config(FileConfig):
    """Rows come from files of one JSON object a line."""

    FACTS: ClassVar = replace(FileConfig.FACTS, text=False)

    type: Literal["ndjson"] = "ndjson"


def head(piece: Piece, pipeline: Pipeline, config: Config) -> None:
    """Return None: only all lines together show which columns there are."""


def cut(feed: Feed, pipeline: Pipeline, config: Config, size: int) -> Cut:
    """Cut a file at the ends of lines."""
    from etl.sources.formats import records

    return records.cut(feed.piece.path, feed.bom, b"", b"", size)


def chunks(feed: Feed, pipeline: Pipeline, config: Config, head: None) -> Iterator[Chunk]:
    """Yield a piece's lines, a block at a time: rows of the objects, and rejects of what is none.

    Raises:
        BadSource: A line is not in the file's encoding, the file changed while it was read, or it is no NDJSON.
    """
    from etl.sources.feed import count_lines
    from etl.sources.formats import records

    if feed.piece.start == 0:
        _refuse_others(feed)
    while end := records.whole_records(feed, b""):
        first = feed.line
        if end < 0:
            bad = _Bad(0, LONG, feed.buffer[:RAW].decode(errors="ignore"))
            feed.drop_line()
            yield _chunk([], [], [bad], feed, first, pipeline)
            continue
        block = feed.take(end, count_lines(feed.buffer[:end]))
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            raise feed.undecodable(first, block[: error.start]) from None
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines = text.removesuffix("\n").split("\n")
        careful = len(text) > LIMIT or "\\u0000" in text
        for at in range(0, len(lines), LINES):
            some = lines[at : at + LINES]
            try:
                chunk = _chunk(*(_parsed_each if careful else _parsed)(some), feed, first + at, pipeline)
            except (RecursionError, ValueError):  # an object can't be kept as it is: which, is asked line by line
                chunk = _chunk(*_parsed_each(some), feed, first + at, pipeline)
            yield chunk


def _refuse_others(feed: Feed) -> None:
    """Refuse what is no NDJSON, as its first lines show."""
    from etl.sources.formats.other import is_object, other

    while len(feed.buffer) < _SAMPLE and feed.fill():
        pass
    is_whole = feed.eof and len(feed.buffer) <= _SAMPLE
    text = feed.buffer[:_SAMPLE].decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = [line for line in (text if is_whole else text.rpartition("\n")[0]).split("\n") if line.strip(_BLANKS)]
    if lines and (_parse_line(lines[0]) == _DEEP or is_object(lines[0])):
        return  # though it may be one that can't be kept: that is a reject
    cure = 'have it written as NDJSON (jq -c ".[]" does so for an array), or look at type and encoding'
    if what := other(text, is_whole):
        raise ForeignFile(feed.piece.file, what.rstrip(","), "one JSON object a line", cure)
    if len(lines) > 1 and all(_is_other(line) for line in lines):
        what = f"no NDJSON: none of its first {len(lines):,} lines is a JSON object"
        raise BadSource(f"{feed.piece.file} is {what}", cure)


def _is_other(line: str) -> bool:
    found = _parse_line(line)
    return isinstance(found, str) and found != _DEEP


class _Bad(NamedTuple):
    line: int  # of the block, from 0
    reason: str
    text: str


def _refuse(token: str) -> None:
    raise ValueError(f"is no JSON: {token} is no number")  # NaN or an infinity


# `str.encode` keeps the digits, and tells a number from a text.
_digits: Any = json.JSONDecoder(parse_float=str.encode, parse_constant=_refuse)
_all_digits: Any = json.JSONDecoder(parse_float=str.encode, parse_int=str.encode, parse_constant=_refuse)
_scan, _scan_any = _digits.scan_once, _all_digits.scan_once


def _parsed(lines: list[str]) -> tuple[Objects, list[int], list[_Bad]]:
    """Return the objects on lines, their places among them, and the lines that are none; blank ones are neither."""
    objects: Objects = []
    try:
        for line in lines:
            value, end = _scan(line, 0)
            if end != len(line) or type(value) is not dict:
                break
            objects.append(value)
    except (ValueError, StopIteration, RecursionError):
        pass
    return (objects, list(range(len(lines))), []) if len(objects) == len(lines) else _parsed_each(lines)


def _parsed_each(lines: list[str]) -> tuple[Objects, list[int], list[_Bad]]:
    """Do the work of `_parsed` line by line."""
    from etl.sources.objects import wrong_keys

    objects: Objects = []
    numbers: list[int] = []
    bad: list[_Bad] = []
    for number, line in enumerate(lines):
        found = _parse_line(line)
        if isinstance(found, dict):
            found = wrong_keys(tuple(found)) or _wrong_text(line, found) or found
        if isinstance(found, dict):
            objects.append(found)
            numbers.append(number)
        elif found is not None:
            bad.append(_Bad(number, found, line))
    return objects, numbers, bad


def _parse_line(line: str) -> dict[str, Any] | str | None:
    """Return the object on a line, or why it is none; None for a blank line."""
    text = line.strip(_BLANKS)
    if not text:
        return None
    try:
        try:
            value, end = _scan(text, 0)
        except ValueError:  # no JSON, or a number of more digits than Python reads
            value, end = _scan_any(text, 0)
    except StopIteration:
        return "is no JSON: expecting value"
    except RecursionError:
        return _DEEP
    except json.JSONDecodeError as error:
        reason = error.msg.partition(":")[0]
        return f"is no JSON: {reason[:1].lower()}{reason[1:]}"
    except ValueError as error:
        return str(error)
    if end != len(text):
        return "is no JSON: extra data"
    if not isinstance(value, dict):
        return f"is {_KINDS.get(type(value), 'null')}, not an object"
    return _DEEP if _is_deep(text, value) else value


def _is_deep(text: str, value: dict[str, Any]) -> bool:
    from etl.sources.objects import DEEPEST

    if text.count("[") + text.count("{") <= DEEPEST:
        return False
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        nested = [each for each in level if isinstance(each, dict | list)]
        level = [item for each in nested for item in (each.values() if isinstance(each, dict) else each)]
    return bool(level)


def _wrong_text(line: str, value: Any) -> str:
    """Return why what is read from a line can't be kept, or nothing."""
    if len(line) > LIMIT:
        return LONG
    text = "".join(_texts(value))
    if "\0" in text:
        return "NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half a surrogate pair"
    return ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(item)


def _chunk(objects: Objects, lines: list[int], bad: list[_Bad], feed: Feed, first: int, pipeline: Pipeline) -> Chunk:
    import pyarrow as pa

    from etl import rejects
    from etl.sources.objects import columns_of

    row = feed.base + first
    arrays = columns_of(objects, pipeline)
    arrays["_row"] = pa.array([row + line for line in lines], pa.int64())
    entries = (
        {
            "file": feed.piece.file,
            "row": row + each.line,
            "reason": each.reason,
            "raw": rejects.raw_json([], [each.text[:RAW]]),
        }
        for each in bad
    )
    return Chunk(pa.table(arrays), rejects.table(entries))

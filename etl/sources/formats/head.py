"""A CSV file's first lines: its delimiter and its header."""

import csv
from collections.abc import Sequence
from typing import NamedTuple

from etl.errors import BadSource
from etl.sources.feed import Feed
from etl.sources.formats.strict import StrictReader, csv_format

_SAMPLE = 1 << 16
_DELIMITERS = ",;\t|"


class Head(NamedTuple):
    """What a file's first lines say.

    Args:
        names: Column names, trimmed; the last may be "" where every line ends with a delimiter.
        delimiter: The delimiter, found or given.
        begin: Where the first record begins, in bytes of the file.
    """

    names: tuple[str, ...]
    delimiter: str
    begin: int


def read_head(feed: Feed, delimiter: str, quote: str, header: bool | Sequence[str], skip: int) -> Head:
    """Take what is before the first record.

    Args:
        delimiter, quote, header, skip: As in etl.toml; the delimiter may be "auto".

    Raises:
        BadSource: There is no header, or one without or with twice the same name.
    """
    while len(feed.buffer) < _SAMPLE and feed.fill():
        pass
    taken = 0
    for _ in range(skip):
        if not feed.buffer and not feed.fill():
            break
        if (end := feed.line_end(0)) < 0:
            raise BadSource(f"{feed.piece.file} line {feed.line} is longer than 16 MB", "check delimiter and skip")
        taken += _length(feed, feed.take(end, 1))
    if delimiter == "auto":
        delimiter = _sniff(feed, quote)
    if not isinstance(header, bool):
        return Head(_checked(feed, feed.line, header), delimiter, feed.bom + taken)

    reader = StrictReader(feed, delimiter, quote)
    while feed.buffer or feed.fill():
        record = reader.peek(0, feed.line)
        if record.reason:
            what = f"{feed.piece.file} line {record.line}, the header: {record.reason}"
            raise BadSource(what, "fix the line, or check delimiter, quote and skip")
        if record.fields and not header:
            names = tuple(f"column{number}" for number in range(1, len(record.fields) + 1))
            return Head(names, delimiter, feed.bom + taken)
        line = feed.line
        taken += _length(feed, feed.take(record.end, record.lines))
        if record.fields:
            return Head(_checked(feed, line, record.fields), delimiter, feed.bom + taken)
    raise BadSource(f"{feed.piece.file} is empty: not even a header", "check what wrote it")


def _length(feed: Feed, text: bytes) -> int:
    return len(text) if feed.encoding == "utf-8" else len(text.decode().encode(feed.encoding))


def _sniff(feed: Feed, quote: str) -> str:
    """Return the delimiter that gives the first records the most fields, as many in each as in the first."""
    sample = feed.buffer[:_SAMPLE].decode(errors="replace")
    lines = sample.splitlines(keepends=True)
    if len(lines) > 1 and len(sample) >= _SAMPLE:
        lines.pop()
    best, delimiter = (0.0, 1), ","
    for candidate in _DELIMITERS:
        records = csv.reader(lines, **{**csv_format(candidate, quote), "strict": False})
        counts = [len(record) for record, _ in zip(filter(None, records), range(30), strict=False)]
        if counts and counts[0] > 1 and (score := (counts.count(counts[0]) / len(counts), counts[0])) > best:
            best, delimiter = score, candidate
    return delimiter


def _checked(feed: Feed, line: int, header: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in header)
    where = f"{feed.piece.file} line {line}"
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names, 1):
        places.setdefault(name.casefold(), []).append(number)
    empty = [number for number in places.pop("", []) if number < len(names) or len(names) == 1]
    if empty:
        cure = "give it one, or name all columns with header = [...] and skip = 1"
        raise BadSource(f"{where}: column {empty[0]} has no name in the header", cure)
    if "_row" in places:
        raise BadSource(f"{where}: no column may be called _row", "rename it in the file, or use header = [...]")
    # The names aren't quoted: of a file without a header they are a row's values.
    twice = [" and ".join(map(str, at)) for at in places.values() if len(at) > 1]
    if twice:
        cure = "name all columns with header = [...], and skip = 1 where there is a header"
        raise BadSource(f"{where}: columns have the same name in the header: {'; '.join(twice)}", cure)
    return names

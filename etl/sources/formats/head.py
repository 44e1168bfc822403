"""A CSV file's first lines: its delimiter, its header, and how the rows' fields go with it."""

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from etl.config.values import header_key, trimmed
from etl.errors import BadSource, ForeignFile
from etl.sources.feed import NO_TEXT, Feed
from etl.sources.formats.other import other
from etl.sources.formats.strict import BLANKS, NUL, Dialect, Record, StrictReader, csv_format

_SAMPLE = 1 << 16
_DELIMITERS = {",": ",", ";": ";", "\t": "\\t", "|": "|"}  # that "auto" finds, and how etl.toml writes them
_SEP = re.compile(r'\s*("?)sep ?=(?: (?=\S))?(\\t|.)\2*\1\2*[ \t]*', re.IGNORECASE)


class Head(NamedTuple):
    """What a file's first lines say.

    Args:
        names: Column names, trimmed; the last may be "" where every line ends with a delimiter.
        dialect: How fields are written; the delimiter is found or given.
        begin: Where the first record begins, in bytes of the file.
        warnings: What the user should know.
        better: How etl.toml writes the delimiter that would give more columns than one, or "".
    """

    names: tuple[str, ...]
    dialect: Dialect
    begin: int
    warnings: tuple[str, ...] = ()
    better: str = ""


def read_head(
    feed: Feed,
    dialect: Dialect,
    header: bool | Sequence[str],
    skip: int,
    places: Collection[str] = (),
    *,
    declared: bool = False,
) -> Head:
    """Take what is before the first record.

    Args:
        header, skip: As in etl.toml.
        places: Names of columns by their place, such as "#3", that are used in place of those in the header.
        declared: Whether columns are declared, so that a wrong delimiter is found by their names.

    Raises:
        BadSource: It is no CSV; or there is no header, or one without or with twice the same name.
    """
    while len(feed.buffer) < _SAMPLE and feed.fill():
        pass
    taken = 0
    warnings: list[str] = []
    separator = _separator(feed, dialect)
    for _ in range(skip or int(separator is not None)):
        if not feed.buffer and not feed.fill():
            break
        if (end := feed.line_end(0)) < 0:
            raise BadSource(f"{feed.piece.file} line {feed.line} is longer than 16 MB", "check delimiter and skip")
        taken += _length(feed, feed.take(end, 1))
    if isinstance(header, bool) or len(header) > 1:  # else each line may be a text of any kind
        _refuse_others(feed)
    dialect = _with_delimiter(feed, dialect, separator, skip, warnings)
    reader = StrictReader(feed, dialect)
    record = None
    if isinstance(header, bool):
        record, taken = _first_record(feed, reader, taken, stay=not header)
        if record.reason == BLANKS and header:
            what = f"{feed.piece.file} line {record.line}, the header: {BLANKS}, which are kept as part of a name"
            warnings.append(f"{what}; skip_initial_space = true passes over them")
    if record is not None and not header:
        names = tuple(_placed([f"column{number}" for number in range(1, len(record.fields) + 1)], places))
    else:
        fields, line = (record.fields, record.line) if record else (header, feed.line)
        assert not isinstance(fields, bool)
        names = _checked(feed, line, fields, places, _following(feed, reader, 20))
        names = _as_rows_end(feed, reader, names)
    better = _better(feed, dialect, record) if len(names) == 1 else ""
    if better and not declared and not warnings:
        what = f"{feed.piece.file} has one column with delimiter = {_written(dialect.delimiter)}"
        warnings.append(f"{what}; delimiter = {better} would give more")
    return Head(names, dialect, feed.bom + taken, tuple(warnings), better)


def named_delimiter(text: str) -> str | None:
    """Return the delimiter that a first line such as "sep=;" names, as Excel writes and reads it; or None."""
    found = _SEP.fullmatch(re.split(r"\r|\n", text, maxsplit=1)[0])
    return found[2].replace("\\t", "\t") if found else None


def _separator(feed: Feed, dialect: Dialect) -> str | None:
    end = feed.line_end(0) if feed.line == 1 else -1
    named = named_delimiter(feed.buffer[:end].decode(errors="replace")) if 0 < end < 100 else None
    return None if named in (dialect.quote, "\0", "\ufeff") or (named == " " and dialect.skip_blanks) else named


def _better(feed: Feed, dialect: Dialect, first: Record | None = None) -> str:
    """Return how etl.toml writes the delimiter that gives most records as many fields as the header, or ""."""
    better = _sniff(feed, dialect, first, least=0.5)
    return _written(better) if better not in (None, dialect.delimiter) else ""


def _with_delimiter(feed: Feed, dialect: Dialect, separator: str | None, skip: int, warnings: list[str]) -> Dialect:
    if dialect.delimiter == "auto":
        found = separator or _sniff(feed, dialect)
        if found is None:
            tried = " ".join(_DELIMITERS.values())
            warnings.append(f"{feed.piece.file}: no delimiter was found (of {tried}), so it has one column")
        return dialect._replace(delimiter=found or ",")
    if separator not in (None, dialect.delimiter) and not skip:
        what = f"{feed.piece.file} line 1 says that the delimiter is {_written(separator)}"
        cure = f'it is {_written(dialect.delimiter)} in the pipeline\'s extract: set delimiter = "auto", or skip = 1'
        raise BadSource(what, f"{cure} to pass over that line")
    return dialect


def _written(delimiter: str | None) -> str:
    return f'"{_DELIMITERS.get(delimiter or "", delimiter)}"'


def _refuse_others(feed: Feed) -> None:
    text = feed.buffer[:_SAMPLE].decode(errors="replace")
    if what := other(text, is_whole=feed.eof and len(feed.buffer) <= _SAMPLE):
        cure = 'set type = "ndjson"' if "object" in what else "have it exported as CSV"
        raise ForeignFile(feed.piece.file, what.rstrip(","), "CSV", cure)


def _first_record(feed: Feed, reader: StrictReader, taken: int, *, stay: bool) -> tuple[Record, int]:
    """Take the first record that is no blank line, or have it `stay`; return it, and the bytes taken in all."""
    while feed.buffer or feed.fill():
        record = reader.peek(0, feed.line)
        if record.reason and record.reason != BLANKS:
            what = f"{feed.piece.file} line {record.line}, the header: {record.reason}"
            better = _better(feed, reader.dialect)
            split = f"; delimiter = {better} would split it" if better else ""
            cure = f"fix the line, or check delimiter, quote and skip{split}"
            raise BadSource(what, NO_TEXT if record.reason == NUL else cure)
        if record.fields and stay:
            return record, taken
        taken += _length(feed, feed.take(record.end, record.lines))
        if record.fields:
            return record, taken
    raise BadSource(f"{feed.piece.file} is empty: not even a header", "check what wrote it")


def _length(feed: Feed, text: bytes) -> int:
    return len(text) if feed.encoding == "utf-8" else len(text.decode().encode(feed.encoding))


def _following(feed: Feed, reader: StrictReader, most: int = _SAMPLE) -> Iterator[Record]:
    """Yield what begins in the sample after what was taken, blank lines left out, and take nothing."""
    at, line = 0, feed.line
    while at < min(len(feed.buffer), _SAMPLE) and most:
        record = reader.peek(at, line)
        if record.fields or record.reason:
            yield record
            most -= 1
        if record.end < 0:
            return
        at, line = record.end, line + record.lines


def _as_rows_end(feed: Feed, reader: StrictReader, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names with or without a nameless last one, where header or rows alone end with a delimiter.

    Most rows decide; one with a value there is none that ends with a delimiter, and then nobody knows what is meant.
    """
    if not names[-1]:
        widths = {-1 if record.reason else len(record.fields) for record in _following(feed, reader)}
        return names[:-1] if widths == {len(names) - 1} and names[:-1] else names
    longer = others = 0
    for record in _following(feed, reader):
        is_longer = not record.reason and len(record.fields) == len(names) + 1
        if is_longer and record.fields[-1].strip():
            return names
        longer, others = longer + is_longer, others + (not is_longer)
    return (*names, "") if longer > others else names


def _sniff(feed: Feed, dialect: Dialect, first: Record | None = None, least: float = 0.0) -> str | None:
    """Return the delimiter that gives the first records the most fields, as many in each as in the first.

    Args:
        first: A record that has been taken already.
        least: The share of the records above which they must have as many as the first, an empty last one aside.
    """
    sample = feed.buffer[:_SAMPLE].decode(errors="replace")
    lines = sample.splitlines(keepends=True)
    if len(lines) > 1 and len(sample) >= _SAMPLE:
        lines.pop()
    if first is not None and feed.line > first.line:
        lines.insert(0, first.fields[0] + "\n")
    best, delimiter = (least, 1), None
    for candidate in _DELIMITERS:
        if candidate == dialect.quote:
            continue
        form = csv_format(dialect._replace(delimiter=candidate)) | {"strict": False}
        rows: list[list[str]] = []
        with suppress(csv.Error):
            rows.extend(islice(filter(None, csv.reader(lines, **form)), 30))
        if rows and (width := len(rows[0])) > 1:
            alike = sum(len(row) == width or (len(row) == width + 1 and not row[-1]) for row in rows)
            if (score := (alike / len(rows), width)) > best:
                best, delimiter = score, candidate
    return delimiter


def _checked(
    feed: Feed, line: int, header: Sequence[str], places: Collection[str], following: Iterable[Record]
) -> tuple[str, ...]:
    """Return a header's names.

    Args:
        places: See `read_head`.
        following: The first records after it.
    """
    names = _placed([trimmed(name) for name in header], places)
    where = f"{feed.piece.file} line {line}"
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names, 1):
        numbers.setdefault(header_key(name), []).append(number)
    empty = [number for number in numbers.pop("", []) if number < len(names) or len(names) == 1]
    if empty:
        lines = _lines_above(names, following, line)
        cure = f"set skip = {lines} if the header stands lower, after {lines} line{'' if lines == 1 else 's'}"
        cure += f'; else name it by its place, columns.NAME.from = ["#{empty[0]}"] or the client\'s rename'
        cure += ", or all columns by header = [...]"
        raise BadSource(f"{where}: column {empty[0]} has no name in the header", cure)
    if "_row" in numbers:
        raise BadSource(f"{where}: no column may be called _row", "rename it in the file, or use header = [...]")
    # The names aren't quoted: of a file without a header they are a row's values.
    twice = [" and ".join(map(str, at)) for at in numbers.values() if len(at) > 1]
    if twice:
        cure = f'name one by its place, from = ["#{next(at[1] for at in numbers.values() if len(at) > 1)}"], or name '
        cure += "all columns with header = [...], and skip = 1 where there is a header"
        raise BadSource(f"{where}: columns have the same name in the header: {'; '.join(twice)}", cure)
    return tuple(names)


def _placed(names: Sequence[str], places: Collection[str]) -> list[str]:
    """Return names, where one is asked for by its place that place."""
    asked = [f"#{number}" for number in range(1, len(names) + 1)]
    return [place if place in places and place not in names else name for place, name in zip(asked, names, strict=True)]


def _lines_above(names: Sequence[str], following: Iterable[Record], line: int) -> int | str:
    """Return how many lines stand above what looks like the header, or "N"."""
    if 2 * sum(map(bool, names)) > len(names):
        return "N"
    for record in following:
        fields = [field.strip() for field in record.fields]
        if not record.reason and len(fields) > 1 and all(fields) and len(set(fields)) == len(fields):
            return record.line - 1
    return "N"

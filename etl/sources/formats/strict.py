"""The exact, slow reader of CSV: finds every fault with its physical line, and goes on after it."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from etl.sources.feed import LIMIT, Feed

LONG = "line longer than 16 MB"
BLANKS = "blanks before a quote"
NUL = "NUL byte"
RAW = 1 << 16  # characters of a rejected row that are kept

csv.field_size_limit(max(csv.field_size_limit(), 2 * LIMIT))


class Record(NamedTuple):
    """One record, or a line that is none.

    Args:
        line: Physical line it begins on.
        fields: Its fields; none for a blank line.
        reason: Why it is no row, or ""; it has fields too where they could be read.
        raw: The beginning of its text if it is no row.
        end: Where it ends in the feed's buffer.
        lines: Physical lines it covers.
    """

    line: int
    fields: list[str]
    reason: str
    raw: str
    end: int
    lines: int


class Dialect(NamedTuple):
    """How fields are written.

    Args:
        delimiter: One character, or "auto" as long as it has not been found.
        quote: One character, or "" for none.
        skip_blanks: Whether blanks before a field are no part of it.
    """

    delimiter: str
    quote: str
    skip_blanks: bool = False

    @property
    def is_ascii(self) -> bool:
        """Whether it can be found by looking at bytes."""
        return (self.delimiter + self.quote).isascii()


def csv_format(dialect: Dialect) -> dict[str, Any]:
    """Return the arguments of `csv.reader` that make it exact; no quote character if `quote` is empty."""
    delimiter, quote, skip_blanks = dialect
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return {
        "delimiter": delimiter, "quotechar": quote or None, "quoting": quoting, "strict": True,
        "skipinitialspace": skip_blanks,
    }  # fmt: skip


class StrictReader:
    """Reads a feed record by record.

    A quote that is never closed, or is closed in the middle of a field, spoils only the line it opens on: the next
    line is read as a record again.
    """

    def __init__(self, feed: Feed, dialect: Dialect) -> None:
        self._feed, self.dialect = feed, dialect
        self._format = csv_format(dialect)
        # No record that is still open at the beginning of a line up to here ends well; not looking again keeps
        # a file of such lines from being read once for each of them.
        self._hopeless = -1

    @property
    def line(self) -> int:
        """Physical line number of what comes next."""
        return self._feed.line

    def take(self, length: int) -> Iterator[Record]:
        """Take records that begin in the buffer's first `length` bytes, blank lines left out."""
        feed, at, line = self._feed, 0, self._feed.line
        while at < length:
            record = self.peek(at, line)
            if record.end < 0:
                feed.take(at, line - feed.line)
                length, at = length - at, 0
                length -= feed.drop_line()
                line = feed.line
            else:
                at, line = record.end, line + record.lines
            if record.fields or record.reason:
                yield record
        feed.take(at, line - feed.line)

    def peek(self, at: int, line: int) -> Record:
        """Return the record that begins at `at` in the buffer; its `end` is -1 if its first line is over `LIMIT`.

        Raises:
            BadSource: It is not in the encoding.
        """
        ends: list[int] = []
        texts: list[str] = []

        def lines() -> Iterator[str]:
            begin = at
            while begin < len(self._feed.buffer) or self._feed.fill():
                if ends and self._feed.position + begin <= self._hopeless:
                    raise csv.Error
                end = self._feed.line_end(begin)
                if end < 0 or end - at > LIMIT:
                    raise csv.Error
                text = self._text(begin, end, line + len(ends))
                ends.append(end)
                texts.append(text)
                yield text
                begin = end

        reader = csv.reader(lines(), **self._format)
        try:
            fields = next(reader)
        except csv.Error as exc:
            if not ends:
                raw = self._feed.buffer[at : at + RAW].decode(errors="replace")
                return Record(line, [], LONG, raw, -1, 1)
            if len(ends) > 1:
                self._hopeless = max(self._hopeless, self._feed.position + ends[-2])
            reason = "text after a closing quote" if len(ends) == 1 and "after" in str(exc) else "quote never closed"
            return Record(line, [], reason, self._raw(at, ends[0]), ends[0], 1)
        if any("\0" in text for text in texts):
            return Record(line, [], NUL, self._raw(at, ends[-1]), ends[-1], len(ends))
        return Record(line, fields, BLANKS if self._has_blanks(fields, texts) else "", "", ends[-1], len(ends))

    def _has_blanks(self, fields: Sequence[str], texts: Iterable[str]) -> bool:
        """Whether a field that isn't quoted is blanks and then a quote: its writer meant a quoted field."""
        quote = self._format["quotechar"]
        if not quote or self._format["skipinitialspace"]:
            return False
        doubtful = [n for n, field in enumerate(fields) if field[:1] == " " and field.lstrip(" ").startswith(quote)]
        if not doubtful:
            return False
        try:
            others = next(csv.reader(texts, **(self._format | {"skipinitialspace": True})))
        except csv.Error:
            return True
        return others[doubtful[0]] != fields[doubtful[0]]  # else it is a quoted field that begins so

    def _text(self, begin: int, end: int, line: int) -> str:
        try:
            return self._feed.buffer[begin:end].decode()
        except UnicodeDecodeError as exc:
            raise self._feed.undecodable(line, self._feed.buffer[begin : begin + exc.start]) from None

    def _raw(self, begin: int, end: int) -> str:
        return self._feed.buffer[begin : min(end, begin + RAW)].decode(errors="ignore").rstrip("\r\n")

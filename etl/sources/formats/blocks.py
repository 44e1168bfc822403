"""CSV files: blocks of whole records by pyarrow; what it doesn't take, by the strict reader.

Both give the same rows. An empty field is null, quoted or not; nothing else is changed or guessed.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from etl import rejects
from etl.errors import BadSource
from etl.partition import Chunk
from etl.sources.feed import BLOCK, Feed
from etl.sources.formats import records
from etl.sources.formats.head import Head
from etl.sources.formats.strict import BLANKS, RAW, Record, StrictReader, csv_format

Lines = npt.NDArray[np.int64]


def read_blocks(feed: Feed, head: Head) -> Iterator[Chunk]:
    """Yield a feed's records, a block at a time.

    Raises:
        BadSource: The file is not in its encoding, changed while it was read, or has no row that fits its header, as
            all have the same other number of fields.
    """
    widths = _Widths()
    blanks: list[int] = []
    for line, parsed in _blocks(feed, head):
        rows = parsed.rows.append_column("_row", pa.array(parsed.lines + (feed.base + line), pa.int64()))
        bad = [_reject(feed.piece.file, feed.base + line, head.names, record) for record in parsed.bad]
        if head.names and not head.names[-1]:
            rows = _without_nameless(rows, feed.piece.file, head.names, bad)
        blanks += [line + record.line for record in parsed.bad if record.reason == BLANKS]
        widths.add(parsed)
        yield Chunk(rows, rejects.table(bad))
    _refuse_other_width(feed, head, widths)
    warnings = head.warnings if feed.piece.start == 0 else ()
    if blanks:
        rows_have, are = ("1 row has", "is") if len(blanks) == 1 else (f"{len(blanks):,} rows have", "are")
        what = f"{feed.piece.file}: {rows_have} {BLANKS} (first on line {blanks[0]}) and {are} rejected"
        warnings = (*warnings, f"{what}; skip_initial_space = true passes over them")
    if warnings:
        yield Chunk(pa.table({"_row": pa.array([], pa.int64())}), rejects.SCHEMA.empty_table(), warnings)


def _blocks(feed: Feed, head: Head) -> Iterator[tuple[int, "_Parsed"]]:
    """Yield the records of a block, and the line that it begins on."""
    reader = StrictReader(feed, head.dialect)
    quote = head.dialect.quote.encode()
    while end := records.whole_records(feed, quote if len(quote) == 1 else b""):
        line = feed.line
        parsed = _parse(feed.buffer[:end], head) if end > 0 else None
        if parsed:
            feed.take(end, parsed.line_ends)
        else:
            parsed = _strictly(reader, min(max(end, 1), BLOCK), head.names)
        yield line, parsed


class _Widths:
    """How many fields records have, as long as none fits its header."""

    def __init__(self) -> None:
        self.records, self.found = 0, set[int]()
        self.is_fit = False

    def add(self, parsed: "_Parsed") -> None:
        """Count the records of a block."""
        self.records += len(parsed.bad)
        self.found |= {len(record.fields) for record in parsed.bad}
        self.is_fit |= parsed.rows.num_rows > 0 or any(record.reason for record in parsed.bad)

    def all_differ(self) -> bool:
        """Whether all records so far have the same number of fields, and it is not the header's."""
        return not self.is_fit and len(self.found) <= 1


def _refuse_other_width(feed: Feed, head: Head, widths: _Widths) -> None:
    """Refuse a file whose rows all differ from its header in the same way; of one row nobody knows which is right."""
    piece = feed.piece
    if piece.start or piece.lines or not widths.all_differ():
        return  # fixed rows that fit no better than before are rejects again
    if piece.end is not None:
        rest = piece.model_copy(update={"start": piece.end, "end": None})
        with closing(Feed(rest, feed.encoding)) as more:
            for _, parsed in _blocks(more, head):
                widths.add(parsed)
                if not widths.all_differ():
                    return
    if widths.records > 1:
        [width] = widths.found
        fields = "1 field" if width == 1 else f"{width} fields"
        what = f"{piece.file}: all rows have {fields}, the header has {len(head.names)}"
        cure = f"; delimiter = {head.better} would give more columns" if head.better else ", or have the file fixed"
        raise BadSource(what, f"look at the extract's delimiter, quote, skip and header{cure}")


class _Parsed(NamedTuple):
    """Records of a block.

    Args:
        rows: Those with as many fields as the header.
        lines: On which line of the block each row begins, from 0.
        bad: The others.
        line_ends: Line ends in the block.
    """

    rows: pa.Table
    lines: Lines
    bad: list[Record]
    line_ends: int


def _parse(block: bytes, head: Head) -> _Parsed | None:
    """Parse whole records all at once, or return None if only the strict reader can tell what they are."""
    delimiter, quote, skip_blanks = head.dialect
    if not head.dialect.is_ascii or b"\0" in block or block.startswith(codecs.BOM_UTF8):
        return None
    if not block.isascii() and not _is_utf8(block):
        return None
    quoted = bool(quote) and quote.encode() in block
    if quoted and skip_blanks:
        return None
    data = np.frombuffer(block, np.uint8)
    if b"\r" in block and records.lone_returns(data):
        if quoted or b"\n" in block:
            return None
        block = block.replace(b"\r", b"\n")
        data = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(data == ord(quote)) if quoted else np.zeros(0, np.int64)
    if quoted and not records.sound(data, quotes, delimiter.encode(), quote.encode()):
        return None
    ragged: list[pyarrow.csv.InvalidRow] = []
    try:
        rows = _arrow(block, head, quote if quoted else "", ragged)
    except pa.ArrowInvalid:
        return None
    if not head.names[-1] and any(row.actual_columns == row.expected_columns - 1 for row in ragged):
        return None  # it lacks the delimiter that others end with
    line_ends = int(np.count_nonzero(data == ord("\n")))
    count = rows.num_rows + len(ragged)
    simple = count == line_ends + (not block.endswith(b"\n"))  # else some lines are blank, or inside of quotes
    lines = np.arange(count) if simple else records.starts(data, quotes)
    if len(lines) != count:
        return None
    bad = []
    for row in ragged:
        [fields] = csv.reader([row.text], **csv_format(head.dialect))
        bad.append(Record(int(lines[row.number - 1]), fields, "", row.text, 0, 0))
    if skip_blanks:
        rows = _without_blanks(rows)
    return _Parsed(rows, np.delete(lines, [row.number - 1 for row in ragged]), bad, line_ends)


def _without_blanks(rows: pa.Table) -> pa.Table:
    columns = [pc.utf8_ltrim(column, characters=" ") for column in rows.columns]
    kept = [pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column) for column in columns]
    return pa.table(kept, names=rows.column_names)


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _arrow(block: bytes, head: Head, quote: str, ragged: list["pyarrow.csv.InvalidRow"]) -> pa.Table:
    def skip(row: "pyarrow.csv.InvalidRow") -> str:
        ragged.append(row)
        return "skip"

    return pyarrow.csv.read_csv(
        pa.BufferReader(block),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=list(head.names)),
        pyarrow.csv.ParseOptions(
            delimiter=head.dialect.delimiter,
            quote_char=quote or False,
            newlines_in_values=bool(quote),
            invalid_row_handler=skip,
        ),
        pyarrow.csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(head.names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,  # the strict reader can't tell "" from nothing, so neither does this one
        ),
    )


def _strictly(reader: StrictReader, length: int, names: Sequence[str]) -> _Parsed:
    """Read the records that begin in the feed's first `length` bytes, and take them."""
    first = reader.line
    good: list[list[str]] = []
    lines: list[int] = []
    bad: list[Record] = []
    for record in reader.take(length):
        line, fields = record.line - first, record.fields
        if len(fields) == len(names) - 1 and not names[-1]:
            fields = [*fields, ""]
        if record.reason or len(fields) != len(names):
            bad.append(record._replace(line=line))
        else:
            good.append(fields)
            lines.append(line)
    columns = zip(*good, strict=True) if good else [()] * len(names)
    rows = pa.table(
        [pa.array([value or None for value in column], pa.string()) for column in columns], names=list(names)
    )
    return _Parsed(rows, np.array(lines, np.int64), bad, 0)


def _reject(file: str, base: int, names: Sequence[str], record: Record) -> dict[str, object]:
    reason, fields = record.reason, record.fields
    if not reason:
        noun = "field" if len(fields) == 1 else "fields"
        reason = f"has {len(fields)} {noun}, header has {len(names)}"
    if fields and sum(map(len, fields)) <= RAW:
        raw = rejects.raw_json(names, fields)
    else:
        raw = rejects.raw_json(names, [], (record.raw or "".join(fields))[:RAW])
    return {"file": file, "row": base + record.line, "reason": reason, "raw": raw}


def _without_nameless(rows: pa.Table, file: str, names: Sequence[str], bad: list[dict[str, object]]) -> pa.Table:
    """Drop the last column, which has no name; add the rows that have something in it to `bad`."""
    filled = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(rows.column(len(names) - 1)), ""), False)
    for row in rows.filter(filled).to_pylist() if pc.any(filled).as_py() else []:
        line = row.pop("_row")
        fields = [value or "" for value in row.values()]
        reason = "has a value in a column without a name"
        bad.append({"file": file, "row": line, "reason": reason, "raw": rejects.raw_json(names[:-1], fields)})
    return rows.filter(pc.invert(filled)).remove_column(len(names) - 1)

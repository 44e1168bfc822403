"""CSV files: blocks of whole records by pyarrow; what it doesn't take, by the strict reader.

Both give the same rows. An empty field is null, quoted or not; nothing else is changed or guessed.
"""

import codecs
import csv
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from etl import rejects
from etl.partition import Chunk
from etl.sources.feed import BLOCK, Feed
from etl.sources.formats import records
from etl.sources.formats.head import Head
from etl.sources.formats.strict import RAW, Record, StrictReader, csv_format

Lines = npt.NDArray[np.int64]


def read_blocks(feed: Feed, head: Head, quote: str) -> Iterator[Chunk]:
    """Yield a feed's records, a block at a time.

    Raises:
        BadSource: The file is not in its encoding, or changed while it was read.
    """
    reader = StrictReader(feed, head.delimiter, quote)
    while end := records.whole_records(feed, quote.encode()):
        line = feed.line
        parsed = _parse(feed.buffer[:end], head, quote) if end > 0 else None
        if parsed:
            feed.take(end, parsed.line_ends)
        else:
            parsed = _strictly(reader, min(max(end, 1), BLOCK), head.names)
        rows = parsed.rows.append_column("_row", pa.array(parsed.lines + (feed.base + line), pa.int64()))
        bad = [_reject(feed.piece.file, feed.base + line, head.names, record) for record in parsed.bad]
        if head.names and not head.names[-1]:
            rows = _without_nameless(rows, feed.piece.file, head.names, bad)
        yield Chunk(rows, rejects.table(bad))


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


def _parse(block: bytes, head: Head, quote: str) -> _Parsed | None:
    """Parse whole records all at once, or return None if only the strict reader can tell what they are."""
    if not (head.delimiter + quote).isascii() or b"\0" in block or block.startswith(codecs.BOM_UTF8):
        return None
    if not block.isascii() and not _is_utf8(block):
        return None
    quoted = bool(quote) and quote.encode() in block
    data = np.frombuffer(block, np.uint8)
    if b"\r" in block and records.lone_returns(data):
        if quoted or b"\n" in block:
            return None
        block = block.replace(b"\r", b"\n")
        data = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(data == ord(quote)) if quoted else np.zeros(0, np.int64)
    if quoted and not records.sound(data, quotes, head.delimiter.encode(), quote.encode()):
        return None
    ragged: list[pyarrow.csv.InvalidRow] = []
    try:
        rows = _arrow(block, head, quote if quoted else "", ragged)
    except pa.ArrowInvalid:
        return None
    line_ends = int(np.count_nonzero(data == ord("\n")))
    count = rows.num_rows + len(ragged)
    simple = count == line_ends + (not block.endswith(b"\n"))  # else some lines are blank, or inside of quotes
    lines = np.arange(count) if simple else records.starts(data, quotes)
    if len(lines) != count:
        return None
    bad = []
    for row in ragged:
        [fields] = csv.reader([row.text], **csv_format(head.delimiter, quote))
        bad.append(Record(int(lines[row.number - 1]), fields, "", row.text, 0, 0))
    return _Parsed(rows, np.delete(lines, [row.number - 1 for row in ragged]), bad, line_ends)


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
            delimiter=head.delimiter,
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
        line = record.line - first
        if record.reason or len(record.fields) != len(names):
            bad.append(record._replace(line=line))
        else:
            good.append(record.fields)
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
    filled = rows.column(len(names) - 1).is_valid()
    for row in rows.filter(filled).to_pylist() if pc.any(filled).as_py() else []:
        line = row.pop("_row")
        fields = [value or "" for value in row.values()]
        reason = "has a value in a column without a name"
        bad.append({"file": file, "row": line, "reason": reason, "raw": rejects.raw_json(names[:-1], fields)})
    return rows.filter(pc.invert(filled)).remove_column(len(names) - 1)

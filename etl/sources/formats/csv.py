"""CSV files: blocks of whole records by pyarrow; what it doesn't take, by the strict reader.

Both give the same rows. An empty field is null, quoted or not; nothing else is changed or guessed.
"""

import codecs
import csv
import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from etl import rejects
from etl.config.models import CsvExtract
from etl.partition import CHUNK_BYTES, CHUNK_ROWS, ROW_BITS, Chunk, Partition, Piece
from etl.sources.feed import BLOCK, LIMIT, Feed
from etl.sources.formats import records
from etl.sources.formats.head import Head, read_head
from etl.sources.formats.strict import RAW, Record, StrictReader, csv_format

Lines = npt.NDArray[np.int64]


def extract_csv(config: CsvExtract, partition: Partition, pace: Callable[[], None]) -> Generator[Chunk, None, str]:
    """Yield the chunks of a partition of CSV; return the sha256 of the bytes read.

    Files read together are joined by column name; a column that a file lacks is null in its rows.

    Args:
        pace: Called before each file is opened.

    Raises:
        SourceMissing: A file is gone.
        BadSource: A file is not in its encoding, has no usable header, or changed while it was read.
    """
    digest = hashlib.sha256()
    heads = []
    for piece in partition.pieces:
        pace()
        heads.append(_head(piece, config))
    names: dict[str, str] = {}
    for head in heads:
        for name in head.names:
            names.setdefault(name.casefold(), name)
    names.pop("", None)
    gathered = _Gathered(list(names.values()))
    for index, (piece, head) in enumerate(zip(partition.pieces, heads, strict=True)):
        with closing(Feed(piece, config.encoding, digest)) as feed:
            if piece.start == 0:
                read_head(feed, config)
            for _ in _records(feed, head, config.quote, index << ROW_BITS, gathered):
                yield from gathered.full()
    yield gathered.rest()
    return digest.hexdigest()


def _head(piece: Piece, config: CsvExtract) -> Head:
    with closing(Feed(piece, config.encoding, whole=True)) as feed:
        return read_head(feed, config)


class _Gathered:
    """Rows and rejects on their way to the next chunk."""

    def __init__(self, names: Sequence[str]) -> None:
        self.schema = pa.schema([(name, pa.string()) for name in names] + [("_row", pa.int64())])
        self._tables: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._rejects: list[dict[str, object]] = []
        self._yielded = False

    def add(self, table: pa.Table) -> None:
        """Add rows; their columns are put into the partition's order."""
        if not table.num_rows:
            return
        columns = {name.casefold(): column for name, column in zip(table.column_names, table.columns, strict=True)}
        missing = pa.nulls(table.num_rows, pa.string())
        aligned = [columns.get(name.casefold(), missing) for name in self.schema.names]
        self._tables.append(pa.table(aligned, schema=self.schema))
        self._rows += table.num_rows
        self._bytes += table.nbytes

    def reject(self, file: str, row: int, reason: str, raw: str) -> None:
        """Add a reject."""
        self._rejects.append({"file": file, "row": row, "reason": reason, "raw": raw})
        self._bytes += len(raw) + 64

    def full(self) -> Iterator[Chunk]:
        """Yield chunks while there is enough for one."""
        while self._rows > CHUNK_ROWS or len(self._rejects) > CHUNK_ROWS or self._bytes > CHUNK_BYTES:
            rows = self._table()
            self._tables = [rows.slice(CHUNK_ROWS)] if self._rows > CHUNK_ROWS else []
            self._rows = sum(table.num_rows for table in self._tables)
            self._bytes = sum(table.nbytes for table in self._tables)
            yield Chunk(rows.slice(0, CHUNK_ROWS), self._take_rejects())

    def rest(self) -> Chunk:
        """Return what is left, as the last chunk."""
        return Chunk(self._table(), self._take_rejects())

    def _table(self) -> pa.Table:
        return pa.concat_tables(self._tables) if self._tables else self.schema.empty_table()

    def _take_rejects(self) -> pa.Table:
        taken, self._rejects = self._rejects, []
        return rejects.table(taken)


def _records(feed: Feed, head: Head, quote: str, base: int, gathered: _Gathered) -> Iterator[None]:
    """Gather a feed's records, step by step; `base` is added to every line number."""
    reader = StrictReader(feed, head.delimiter, quote)
    while end := _whole_records(feed, quote.encode()):
        line = feed.line
        parsed = _parse(feed.buffer[:end], head, quote) if end > 0 else None
        if parsed:
            feed.take(end, parsed.line_ends)
        else:
            parsed = _strictly(reader, min(max(end, 1), BLOCK), head.names)
        rows = parsed.rows.append_column("_row", pa.array(parsed.lines + (base + line), pa.int64()))
        for record in parsed.bad:
            _reject(gathered, feed.piece.file, base + line, head.names, record)
        if head.names and not head.names[-1]:
            rows = _without_nameless(rows, feed.piece.file, head.names, gathered)
        gathered.add(rows)
        yield


def _whole_records(feed: Feed, mark: bytes) -> int:
    """Read on and return how many bytes of the buffer are whole records; 0 at the end, -1 if that can't be told."""
    window = BLOCK
    while True:
        while len(feed.buffer) < window and feed.fill():
            pass
        final = feed.eof and len(feed.buffer) <= window
        if end := records.last_end(feed.buffer[:window], mark, final=final):
            return end
        if final or window > LIMIT:
            return -1 if feed.buffer else 0
        window *= 2


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


def _reject(gathered: _Gathered, file: str, base: int, names: Sequence[str], record: Record) -> None:
    reason, fields = record.reason, record.fields
    if not reason:
        noun = "field" if len(fields) == 1 else "fields"
        reason = f"has {len(fields)} {noun}, header has {len(names)}"
    if fields and sum(map(len, fields)) <= RAW:
        raw = rejects.raw_json(names, fields)
    else:
        raw = rejects.raw_json(names, [], (record.raw or "".join(fields))[:RAW])
    gathered.reject(file, base + record.line, reason, raw)


def _without_nameless(rows: pa.Table, file: str, names: Sequence[str], gathered: _Gathered) -> pa.Table:
    """Drop the last column, which has no name, and reject the rows that have something in it."""
    filled = rows.column(len(names) - 1).is_valid()
    for row in rows.filter(filled).to_pylist() if pc.any(filled).as_py() else []:
        line = row.pop("_row")
        fields = [value or "" for value in row.values()]
        gathered.reject(file, line, "has a value in a column without a name", rejects.raw_json(names[:-1], fields))
    return rows.filter(pc.invert(filled)).remove_column(len(names) - 1)

"""What a run reads, cut into independent slices: a plan of partitions, each of pieces of files or ranges of keys."""

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

from pydantic import BaseModel, ConfigDict

CHUNK_ROWS = 100_000
CHUNK_BYTES = 32 << 20


class Chunk(NamedTuple):
    """A piece of a partition small enough for memory.

    Args:
        rows: All source columns and, last, `_row` (int64), which says where each row comes from.
        rejects: What is no row, in the shape of `etl.rejects.SCHEMA`.
        warnings: Sentences for the run's warnings, without a row's values.
    """

    rows: "pa.Table"
    rejects: "pa.Table"
    warnings: tuple[str, ...] = ()


ROW_BITS = 40  # `_row` = piece index << ROW_BITS | physical line


class Piece(BaseModel):
    """One file, or a range of its bytes; of an SQL source, a range of its keys.

    Args:
        file: Its name as users see it: relative to etl.toml's folder where it lies inside, or "module:name".
        path: Where to open it.
        start, end: Range in bytes; `end` None means to the end. A range from 0 holds the header.
        line: Physical line number of the byte `start`; the file's first line is 1.
        size: Bytes in the range.
        modified: Modification time of the file, seconds since the epoch.
        version: sha256 of the whole file where planning had to read it, else "". Of an SQL source, the run's window.
        keys: Of an SQL source, the range of keys, from the first up to but without the second; None is open.
        lines: Of fixed rows, the lines that they begin on, each with the line of `file` that the row came from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    path: str
    start: int = 0
    end: int | None = None
    line: int = 1
    size: int = 0
    modified: float = 0.0
    version: str = ""
    keys: tuple[int | None, int | None] = (None, None)
    lines: tuple[tuple[int, int], ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it is a file from its beginning to its end."""
        return self.start == 0 and self.end is None


class Partition(BaseModel):
    """One independent slice of a run's input.

    Args:
        number: 1 for the first partition of the run.
        pieces: What it is read from; more than one with `split = "none"`.
        order: Rank from 0 by modification time, name, then place in the file: later rows win a merge.
        fixed: Where its rows are rejects that were fixed, what the ledger calls it; its pieces have the names of the
            files that they came from.
        replaced: Of fixed rows, whether they are out of date once the table has no other row of their files' version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    pieces: tuple[Piece, ...]
    order: int
    fixed: str = ""
    replaced: bool = False

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(piece.size for piece in self.pieces)


class Plan(BaseModel):
    """What a run will read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partitions: tuple[Partition, ...] = ()
    warnings: tuple[str, ...] = ()


def plain(path: str, flags: int) -> int:
    """Open a source's file, as an `opener`; raises OSError where it is no plain file.

    A FIFO would have its reader wait for ever, a device do anything, and a link lead elsewhere.
    """
    opened = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is no file")
    return opened


def line_of(partition: Partition, row: int) -> tuple[str, int]:
    """Return the file and the physical line that an encoded `_row` means."""
    return partition.pieces[row >> ROW_BITS].file, row & ((1 << ROW_BITS) - 1)

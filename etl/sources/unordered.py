"""A hash of rows that does not depend on their order: a database may give the same rows in another each time."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np


class Unordered:
    """The sum of the sha256 of all rows, as four words: not their XOR, in which rows that come twice would cancel."""

    def __init__(self) -> None:
        self._sums = np.zeros(4, np.uint64)
        self._lines = 0

    def update(self, text: bytes, rows: int) -> None:
        """Add rows of CSV, each with its newline.

        Args:
            rows: How many there are; more lines than that have newlines within values.
        """
        lines: Sequence[bytes] = text.split(b"\n")[:-1]
        if len(lines) != rows:
            lines = list(_joined(lines))
        sha256 = hashlib.sha256
        digests = b"".join([sha256(line).digest() for line in lines])
        self._sums += np.frombuffer(digests, "<u8").reshape(-1, 4).sum(axis=0, dtype=np.uint64)
        self._lines += len(lines)

    def hexdigest(self) -> str:
        """Return the hash of all rows so far."""
        return "".join(f"{int(word):016x}" for word in self._sums) + f"{self._lines:x}"


def _joined(lines: Sequence[bytes]) -> Iterator[bytes]:
    """Yield rows whose values have newlines within quotes: else rows that swap such lines would be the same."""
    row: list[bytes] = []
    open_ = False
    for line in lines:
        row.append(line)
        open_ ^= line.count(b'"') % 2 == 1
        if not open_:
            yield b"\n".join(row)
            row.clear()

"""A hash of rows that does not depend on their order: a database may give the same rows in another each time."""

import hashlib

import numpy as np


class Unordered:
    """The sum of the sha256 of all lines, as four words: not their XOR, in which lines that come twice would cancel."""

    def __init__(self) -> None:
        self._sums = np.zeros(4, np.uint64)
        self._lines = 0

    def update(self, text: bytes) -> None:
        """Add lines, each with its newline."""
        lines = text.split(b"\n")
        lines.pop()
        sha256 = hashlib.sha256
        digests = b"".join([sha256(line).digest() for line in lines])
        self._sums += np.frombuffer(digests, "<u8").reshape(-1, 4).sum(axis=0, dtype=np.uint64)
        self._lines += len(lines)

    def hexdigest(self) -> str:
        """Return the hash of all lines so far."""
        return "".join(f"{int(word):016x}" for word in self._sums) + f"{self._lines:x}"

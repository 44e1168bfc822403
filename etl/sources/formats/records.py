"""Where records end, found by looking at the quotes of a whole block at once."""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from etl.partition import plain
from etl.sources.feed import BLOCK, LIMIT, Feed, Uncuttable

Bytes = npt.NDArray[np.uint8]

_NEWLINE, _RETURN = ord("\n"), ord("\r")


def whole_records(feed: Feed, quote: bytes) -> int:
    """Read on and return how many bytes of the buffer are whole records; 0 at the end, -1 if that can't be known."""
    window = BLOCK
    while True:
        while len(feed.buffer) < window and feed.fill():
            pass
        final = feed.eof and len(feed.buffer) <= window
        if end := last_end(feed.buffer[:window], quote, final=final):
            return end
        if final or window > LIMIT:
            return -1 if feed.buffer else 0
        window *= 2


def last_end(data: bytes, quote: bytes, *, final: bool) -> int:
    """Return where the last whole record of `data` ends, 0 if there is none.

    Args:
        data: Text that begins where a record begins, its quotes sound (see `sound`).
        quote: The quote character, one byte, or b"".
        final: Whether nothing follows.
    """
    newline = b"\n" if b"\n" in data else b"\r"
    odd = np.count_nonzero(np.frombuffer(data, np.uint8) == quote[0]) % 2 if quote and quote in data else 0
    if final and not odd:
        return len(data)
    seen = len(data)
    stop = seen if final or newline == b"\n" else seen - 1  # a \r at the very end may be half of \r\n
    while end := data.rfind(newline, 0, stop) + 1:
        if quote:
            odd ^= data.count(quote, end, seen) % 2
        if not odd:
            return end
        seen, stop = end, data.rfind(quote, 0, end)  # inside a field: look before the quote that opens it
        if stop < 0:
            break
    return 0


def sound(data: Bytes, quotes: npt.NDArray[np.int64], delimiter: bytes, quote: bytes) -> bool:
    """Return whether every quote of these whole records opens, closes or doubles as CSV says.

    Then, and only then, a line end after an even number of quotes ends a record.
    """
    if len(quotes) % 2:
        return False
    allowed = np.zeros(256, dtype=bool)
    allowed[[_NEWLINE, _RETURN, delimiter[0], quote[0]]] = True
    opens, closes = quotes[0::2], quotes[1::2]
    before = allowed[data[opens - 1]] | (opens == 0)
    after = allowed[data[(closes + 1) % len(data)]] | (closes == len(data) - 1)
    return bool(before.all() and after.all())


def line_count(data: Bytes) -> int:
    r"""Return the number of line ends: `\n`, `\r\n` and a lone `\r`."""
    return int(np.count_nonzero(data == _NEWLINE)) + lone_returns(data)


def lone_returns(data: Bytes) -> int:
    r"""Return the number of `\r` that no `\n` follows."""
    returns = data == _RETURN
    found = int(np.count_nonzero(returns))
    return found - int(np.count_nonzero(returns[:-1] & (data[1:] == _NEWLINE))) if found else 0


def starts(data: Bytes, quotes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    r"""Return, for every record that is not a blank line, on which line of `data` it begins, from 0.

    Args:
        data: Whole records, their quotes sound, without a lone `\r`.
        quotes: Where quotes stand.
    """
    ends = np.flatnonzero(data == _NEWLINE)
    if not len(ends) or ends[-1] != len(data) - 1:
        ends = np.append(ends, len(data))
    last = np.flatnonzero(np.searchsorted(quotes, ends) % 2 == 0)  # lines that end a record
    first = np.append(0, last[:-1] + 1)
    begin = np.append(0, ends[last][:-1] + 1)
    length = ends[last] - begin
    blank = (length == 0) | ((length == 1) & (data[np.minimum(begin, len(data) - 1)] == _RETURN))
    lines: npt.NDArray[np.int64] = first[~blank]
    return lines


def cut(path: str, begin: int, delimiter: bytes, quote: bytes, size: int) -> tuple[list[tuple[int, int]], str]:
    """Cut a file's bytes where records end.

    Args:
        path: The file: plain, in an encoding whose ASCII bytes stand for themselves.
        begin: Where its first record begins, in bytes; what stands before stays in the first range.
        size: Bytes a range should hold; it may hold one block more.

    Returns:
        The start of each range with the number of line ends before it, and the sha256 of the file.

    Raises:
        Uncuttable: A quote stands where CSV has none, or is never closed.
    """
    digest = hashlib.sha256()
    ranges = [(0, 0)]
    with open(path, "rb", opener=plain) as file:
        head = file.read(begin)
        digest.update(head)
        position, lines = begin, line_count(np.frombuffer(head, np.uint8))
        for block in _records(file, quote, min(BLOCK, size), digest):
            if position > begin and position - ranges[-1][0] >= size:
                ranges.append((position, lines))
            data = np.frombuffer(block, np.uint8)
            if quote and quote in block and not sound(data, np.flatnonzero(data == quote[0]), delimiter, quote):
                raise Uncuttable
            position += len(block)
            lines += line_count(data)
    return ranges, digest.hexdigest()


def _records(file: BinaryIO, quote: bytes, size: int, digest: "hashlib._Hash") -> Iterator[bytes]:
    rest = b""
    final = False
    while not final:
        block = file.read(max(size, len(rest)))
        digest.update(block)
        rest += block
        final = not block
        end = last_end(rest, quote, final=final)
        if (final and end < len(rest)) or (not end and len(rest) > LIMIT):
            raise Uncuttable
        if end:
            yield rest[:end]
            rest = rest[end:]

"""The bytes of a piece as UTF-8, in a buffer of bounded size that records are taken from."""

import codecs
import contextlib
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from etl.errors import BadSource, EtlError, ForeignFile, SourceMissing
from etl.partition import Piece, plain
from etl.sources.formats.encodings import ascii_compatible, decoding, encoding_of, is_mostly_utf8
from etl.sources.formats.other import foreign, other

BLOCK = 1 << 20  # bytes read at once: still in the processor's cache when it is looked at a second time
LIMIT = 16 << 20  # bytes of the longest line, and of the longest record, that is kept in memory
NO_TEXT = "it may be no text at all: have it exported as CSV"
MOST_UNPACKED = 1 << 30  # bytes; what unpacks to less is never refused
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Uncuttable(Exception):
    """Only a reader of the whole file knows where its records end."""


class _Undecodable(Exception):
    """The bytes after those given so far are not in the encoding."""


class Feed:
    """A piece's text, read a block at a time.

    Args:
        piece: What to read.
        encoding: The configured encoding; a byte order mark wins over it.
        digest: A hash that is given the bytes as they stand in the file.
        whole: Read the file from its beginning, whatever the piece's range.
        base: What is added to a line's number to make its `_row`.
        most: How many times its size a gzip file of over 1 GB may unpack to.

    Attributes:
        buffer: UTF-8 read and not yet taken.
        line: Physical line number of the buffer's first byte.
        position: Bytes of UTF-8 taken so far.
        eof: Whether the buffer holds all that is left.
        compressed: Whether the file is gzip.
        encoding: The encoding found.
        bom: Length of the byte order mark in bytes.

    Raises:
        SourceMissing: The file is gone.
        BadSource: It can't be read, or is not what the pipeline says it is.
    """

    def __init__(
        self,
        piece: Piece,
        encoding: str,
        digest: "hashlib._Hash | None" = None,
        *,
        whole: bool = False,
        base: int = 0,
        most: int = 100,
    ) -> None:
        self.piece, self.base, self._most = piece, base, most
        self.start, self.end, self.line = (0, None, 1) if whole else (piece.start, piece.end, piece.line)
        self.buffer = b""
        self.position = 0
        self.eof = False
        self._digest = digest
        try:
            self._file: BinaryIO = open(piece.path, "rb", opener=plain)  # noqa: SIM115
        except FileNotFoundError:
            raise SourceMissing(f"{piece.file} is gone since the run was planned", "put it back and retry") from None
        except OSError as exc:
            raise BadSource(f"{piece.file} can't be opened: {exc.strerror}", "check who may read it") from None
        self._opened = _state(self._file)
        try:
            self.compressed, self.encoding, self.bom = self._look(encoding)
        except BaseException:
            self.close()
            raise
        self._blocks = self._decoded()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def fill(self) -> bool:
        """Read one more block into the buffer; False at the end.

        Raises:
            BadSource: The next bytes are not in the encoding, or the file changed or broke under the reader.
        """
        try:
            block = next(self._blocks, None)
        except _Undecodable:
            raise self.undecodable(self.line, self.buffer) from None
        except (zlib.error, EOFError):
            cure = "copy it here again"
            raise BadSource(f"{self.piece.file} is not a complete gzip file", cure) from None
        except OSError as exc:
            raise BadSource(f"{self.piece.file} can't be read: {exc.strerror}") from None
        if block is None:
            if not self.eof and _state(self._file) != self._opened:
                raise self._changed("while it was read")
            self.eof = True
            return False
        self.buffer += block
        return True

    def take(self, length: int, lines: int) -> bytes:
        """Take the buffer's first `length` bytes, which hold `lines` line ends."""
        taken, self.buffer = self.buffer[:length], self.buffer[length:]
        self.position += length
        self.line += lines
        return taken

    def line_end(self, at: int) -> int:
        """Return where the physical line that begins at `at` ends, its line end included; -1 if it is over `LIMIT`."""
        searched = at
        while True:
            found = _LINE_END.search(self.buffer, searched)
            if found and (found.end() < len(self.buffer) or found.group() != b"\r" or self.eof):
                return found.end() if found.end() - at <= LIMIT else -1
            if len(self.buffer) - at > LIMIT:
                return -1
            searched = found.start() if found else len(self.buffer)
            if not self.fill():
                found = _LINE_END.search(self.buffer, searched)
                return found.end() if found else len(self.buffer)

    def drop_line(self) -> int:
        """Drop the physical line at the beginning of the buffer, however long; return how much of the buffer it was."""
        dropped = 0
        while True:
            found = _LINE_END.search(self.buffer)
            half = self.buffer.endswith(b"\r") and not self.eof  # may be half of \r\n
            if found and not (half and found.end() == len(self.buffer)):
                break
            gone = len(self.buffer) - half
            dropped += gone
            self.take(gone, 0)
            if not self.fill() and not self.buffer:
                break
        end = found.end() if found else 0
        self.take(end, 1)
        return dropped + end

    def undecodable(self, line: int, before: bytes) -> BadSource:
        """Return the error for a byte that is not in the encoding.

        Args:
            line: Where `before` begins.
            before: The text before the byte, as UTF-8, from the beginning of a line.
        """
        line += count_lines(before)
        rest = re.split(rb"[\r\n]", before)[-1].decode(errors="replace").encode(self.encoding, "replace")
        what = f"{self.piece.file} line {line} is not {self.encoding}: byte {len(rest) + 1} of the line"
        if self.bom:
            return BadSource(
                what, "its byte order mark says that it is, and wins over `encoding`: have it written again"
            )
        if ascii_compatible(self.encoding) and b"\0" in next(self._whole(), b"")[:4096]:
            return BadSource(what, NO_TEXT)
        likely = decoding(self._whole, self.encoding)
        decodes = "decodes the whole file" + (", as it does any" if likely == "latin-1" else "")
        if self.encoding == "utf-8" and is_mostly_utf8(self._whole()):
            cure = f'have the byte fixed, most of it is utf-8: encoding = "{likely}" {decodes}, but to other letters'
            return BadSource(what, cure)
        cure = f'set encoding = "{likely}" in the pipeline\'s extract: it {decodes}'
        return BadSource(what, cure if likely == "utf-8" else f"{cure}; look whether letters are right")

    def _whole(self) -> Iterator[bytes]:
        """Yield the file's bytes from its beginning, unpacked, as far as they can be."""
        with contextlib.suppress(OSError, zlib.error, EOFError, BadSource), self._again() as file:
            yield from self._unpacked(iter(lambda: file.read(BLOCK), b""))

    def _again(self) -> BinaryIO:
        return open(self.piece.path, "rb", opener=plain)

    def _look(self, encoding: str) -> tuple[bool, str, int]:
        # What is modified in the future is planned with the time since which it is here.
        times = self._opened[0], os.fstat(self._file.fileno()).st_ctime
        if self.piece.version and self.piece.modified not in times:
            raise self._changed("since the run was planned")
        head = packed = self._file.read(4096)
        compressed = head.startswith(b"\x1f\x8b")
        if compressed:
            with contextlib.suppress(zlib.error, EOFError):  # reading it says what is wrong
                head = b""
                for block in _members([packed]):
                    head = (head + block)[:4096]
        twice = "a gzip file" if head is not packed and head.startswith(b"\x1f\x8b") else None
        if what := foreign(head) or twice:
            what += " inside gzip" if compressed else ""
            raise ForeignFile(self.piece.file, what, "text", "unpack it, or export it as CSV")
        return compressed, *encoding_of(self.piece.file, head, encoding)

    def _changed(self, when: str) -> BadSource:
        return BadSource(f"{self.piece.file} changed {when}", "run it again once the file is complete")

    def _raw(self) -> Iterator[bytes]:
        self._file.seek(self.start)
        left = -1 if self.end is None else self.end - self.start
        while block := self._file.read(BLOCK if left < 0 else min(BLOCK, left)):
            left -= len(block) if left > 0 else 0
            if self._digest is not None:
                self._digest.update(block)
            yield block

    def _unpacked(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        if not self.compressed:
            yield from blocks
            return
        size, most = 0, max(MOST_UNPACKED, self._most * self._opened[1])
        for block in _members(blocks):
            size += len(block)
            if size > most:
                what = f"{self.piece.file} unpacks to over {most >> 20:,} MB and {self._most} times its size"
                raise BadSource(what, "ask who sent it; if that is right, set a higher max_unpacked in [settings]")
            yield block

    def _decoded(self) -> Iterator[bytes]:
        blocks = self._unpacked(self._raw())
        skip = self.bom if self.start == 0 else 0
        if self.encoding == "utf-8":
            for block in blocks:
                yield block[skip:]
                skip = max(0, skip - len(block))
            return
        decoder = codecs.getincrementaldecoder(self.encoding)()
        plain = ascii_compatible(self.encoding)
        final = False
        while not final:
            block = next(blocks, b"")
            final = not block
            if plain and block.isascii():
                yield block
                continue
            try:
                text = decoder.decode(block[skip:], final)
            except UnicodeDecodeError as exc:
                yield bytes(exc.object[: exc.start]).decode(self.encoding).encode()
                raise _Undecodable from None
            skip = max(0, skip - len(block))
            yield text.encode()


def kind_of_file(path: str) -> str | None:
    """Return what a file is that is no table in text, such as "an HTML page"; None where it may be one, or is gone.

    It is looked at as a run of any kind of file source would, which refuses it; NDJSON is a table in text.
    """
    try:
        with contextlib.closing(Feed(Piece(file=path, path=path), "utf-8")) as feed:
            feed.fill()
            text = feed.buffer[: 64 << 10].decode(errors="replace")
            what = other(text, is_whole=len(feed.buffer) <= 64 << 10)
    except ForeignFile as exc:
        return exc.kind
    except EtlError:
        return None
    return None if what is None or what.startswith("NDJSON") else what


def _members(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack the members of a gzip file.

    Raises:
        EOFError, zlib.error: It ends too soon, or is none.
    """
    member = None
    for block in blocks:
        while block:
            if member is None:
                if not block.strip(b"\0"):
                    break  # padding after the last member
                member = zlib.decompressobj(wbits=31)
            # At most one block at a time comes out, however well a client's zeros compress.
            if out := member.decompress(block, BLOCK):
                yield out
            while not member.eof and len(out) == BLOCK:
                if out := member.decompress(member.unconsumed_tail, BLOCK):
                    yield out
            block, member = (member.unused_data, None) if member.eof else (b"", member)
    if member is not None:
        raise EOFError


def count_lines(data: bytes) -> int:
    r"""Return the number of line ends: `\n`, `\r\n` and a lone `\r`."""
    lines = data.count(b"\n")
    return lines + data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else lines


def _state(file: BinaryIO) -> tuple[float, int]:
    stat = os.fstat(file.fileno())
    return stat.st_mtime, stat.st_size

"""Which encoding a file is in: by its byte order mark, as configured, or one that decodes all of it."""

import codecs
from collections.abc import Callable, Iterable, Iterator

from etl.errors import BadSource

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16's, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LIKELY = ("utf-8", "cp1252", "cp932", "gb18030", "latin-1")  # tried in this order; the last decodes whatever comes
_WIDE = ((2, 0, "utf-16-le"), (2, 1, "utf-16-be"), (4, 0, "utf-32-le"), (4, 3, "utf-32-be"))  # of ASCII, where it is
_NO_FILES = ("idna", "punycode", "unicode_escape", "raw_unicode_escape")  # of names and of Python's own source


def encoding_of(file: str, head: bytes, declared: str) -> tuple[str, int]:
    """Return the encoding of a text, and how many bytes its byte order mark has.

    Args:
        file: Its name, for errors.
        head: Its first bytes.
        declared: The configured encoding; a byte order mark wins over it.

    Raises:
        BadSource: Its first bytes are of another encoding, or no such encoding is known.
    """
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding, len(bom)
    try:
        name = codecs.lookup(declared).name
    except LookupError:
        raise BadSource(f'encoding "{declared}" is unknown', 'say for example encoding = "cp1252"') from None
    if name in ("utf-8", "utf-8-sig", "ascii"):
        name = "utf-8"
    elif name in ("utf-16", "utf-32"):
        name += "-le"
    if ascii_compatible(name) and len(head) >= 8:
        for width, place, likely in _WIDE:
            zeros = [head[at::width].count(0) / len(head[at::width]) for at in range(width)]
            if zeros.pop(place) < 0.2 and min(zeros) > 0.7:
                looks = likely.upper()[:6]
                raise BadSource(f"{file} line 1 is not {name}: it looks like {looks}", f'set encoding = "{likely}"')
    elif name.startswith("utf-16") and head and b"\0" not in head:  # each delimiter and line end would have one
        lines = head[: head.rfind(b"\n") + 1] or head
        likely = decoding(lambda: [lines], name)
        raise BadSource(f"{file} line 1 is not {name}: no byte of it is 0", f'set encoding = "{likely}"')
    return name, 0


def ascii_compatible(encoding: str) -> bool:
    """Return whether an ASCII byte of a text in this encoding never is part of anything else."""
    text = bytes(range(256)).decode(encoding, "replace")
    shifts = len(b"\x1b$B!!".decode(encoding, "replace")) < 5  # ISO-2022-JP: ASCII after an escape is something else
    return len(text) == 256 and text[:128] == bytes(range(128)).decode("ascii") and not shifts


def is_usable(encoding: str) -> bool:
    """Return whether files can be read in an encoding: Python knows it, and it turns bytes into text step by step."""
    try:
        if codecs.lookup(encoding).name.replace("-", "_") in _NO_FILES:
            return False
        ascii_compatible(encoding)
        codecs.getincrementaldecoder(encoding)().decode(b"", True)
        "".encode(encoding)
    except (LookupError, ValueError, TypeError, AssertionError):
        return False
    return True


def decoding(blocks: Callable[[], Iterable[bytes]], but: str) -> str:
    """Return an encoding that decodes all of a file.

    Args:
        blocks: Gives the file's bytes from its beginning.
        but: The encoding that does not.
    """
    others = [name for name in _LIKELY if codecs.lookup(name) != codecs.lookup(but)]
    return next((name for name in others if _decodes(blocks(), name)), "latin-1")


def is_mostly_utf8(blocks: Iterable[bytes]) -> bool:
    """Return whether a text that is not UTF-8 has more letters of UTF-8 than bytes that are none."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    bad = longer = 0
    for block in _and_last(blocks):
        text = decoder.decode(block, not block)
        bad += text.count("\ufffd")
        longer += len(text.encode()) - len(text)
    return longer - 2 * bad > bad


def _decodes(blocks: Iterable[bytes], encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in _and_last(blocks):
            decoder.decode(block, not block)
    except UnicodeDecodeError:
        return False
    return True


def _and_last(blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield from (block for block in blocks if block)
    yield b""

"""What a file is that is no table in text: by its signature, or a page or document by its first lines."""

import json
import re
from typing import Any

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (  # where it stands, what stands there, what the file is then
    (0, b"PK\x03\x04", "a ZIP or Excel file"),
    (0, b"PK\x05\x06", "a ZIP or Excel file"),
    (0, b"PK\x07\x08", "a ZIP or Excel file"),
    (0, b"\xd0\xcf\x11\xe0", "an old Excel or Office file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file"),
    (0, b"\x1f\x9d", "a compress (.Z) file"),
    (0, b"\x1f\xa0", "a compress (.Z) file"),
    (0, b"LZIP\x01", "an lzip file"),
    (257, b"ustar\x00", "a tar archive"),
    (257, b"ustar  \x00", "a tar archive"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"%PDF-", "a PDF"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF87a", "a GIF image"),
    (0, b"GIF89a", "a GIF image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"ARROW1\x00\x00", "an Arrow file"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x7fELF", "a program"),
)
# A header may begin with these: bytes that no text has must be there too.
_LETTERS: tuple[tuple[bytes, str], ...] = (
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "a bzip2 file"),
    (rb"PAR[1E]", "a Parquet file"),
    (rb"ARROW1|FEA1", "an Arrow file"),
    (rb"BM", "a BMP image"),
    (rb"(?s:RIFF....WEBP)", "a WebP image"),
    (rb"ORC", "an ORC file"),
    (rb"Obj\x01", "an Avro file"),
)
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_HTML = re.compile(
    r"<(!doctype|html|head|body|table|thead|tbody|tr|div|style|script|meta|h[1-6]|form|iframe)"
    r"(?=[\s/>])[^<>]*>(?!\s*[,;\t|])",
    re.IGNORECASE,
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_DEEPEST = 50
_CLOSED = {"{": "}", "[": "]"}


def foreign(head: bytes) -> str | None:
    """Return what a file is by its first bytes, such as "a PDF"; None where they may be text.

    Args:
        head: At least the first 512 bytes, where there are as many, unpacked.
    """
    for place, signature, what in _SIGNATURES:
        if head.startswith(signature, place):
            return what
    # Arrow streams have no signature but their first message's, behind its length.
    if head.startswith(b"\xff\xff\xff\xff") and _NO_TEXT.search(head[4:64]):
        return "an Arrow stream"
    if _NO_TEXT.search(head[:64]):
        return next((what for pattern, what in _LETTERS if re.match(pattern, head)), None)
    return None


def other(text: str, is_whole: bool) -> str | None:
    """Return what a text is that is no CSV, such as "an HTML page"; None where it may be CSV.

    Args:
        text: The file's text, or the beginning of it.
        is_whole: Whether that is all of it.
    """
    text = text.lstrip("\ufeff \t\r\n\f\v")
    if text.startswith("<"):
        return _markup(text, is_whole)
    return _json(text, is_whole) if text.startswith(("{", "[")) else None


def _markup(text: str, is_whole: bool) -> str | None:
    if re.match(r"<\?xml[\s?]", text, re.IGNORECASE):
        return "an XML document"
    if re.match(r"<!doctype(?!\s+html\b)\s", text, re.IGNORECASE):
        return "an XML document"
    if re.match(r"<!--|<!\[CDATA\[", text):
        return "an HTML or XML document"
    if _HTML.match(text) and (re.search(r"</\w+\s*>", text) or re.match(r"<(!doctype|html)\b", text, re.IGNORECASE)):
        return "an HTML page"
    return "an XML document" if _is_xml(text, is_whole) else None


def _is_xml(text: str, is_whole: bool) -> bool:
    """Whether a text is well-formed so far and has elements that end: a header such as <DATE>,<TIME> has none."""
    from xml.parsers import expat

    ended = 0

    def end(_name: str) -> None:
        nonlocal ended
        ended += 1

    parser = expat.ParserCreate()
    parser.EndElementHandler = end
    try:
        parser.Parse(text, is_whole)
    except (expat.ExpatError, ValueError):
        return False
    return ended > 0


def _json(text: str, is_whole: bool) -> str | None:
    if is_whole and _parsed(text) is not None:
        return "a JSON document"
    first, _, rest = text.partition("\n")
    lines = [line for line in [first, *rest.split("\n")[:20]] if line.strip()]
    found = [_parsed(line) for line in (lines if is_whole or len(lines) == 1 else lines[:-1])]
    if found and isinstance(found[0], dict) and found[0]:
        return "NDJSON, one JSON object a line,"
    if len(found) > 1 and all(isinstance(each, list) for each in found):
        return "NDJSON, one JSON array a line,"
    return "a JSON document" if not is_whole and _parsed(_closed(text)) else None


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _closed(text: str) -> str:
    """Cut a beginning of JSON at its last comma, and close what is open there."""
    open_: list[str] = []
    cut, then = 0, ""
    for token in _TOKEN.finditer(text):
        match token.group():
            case "{" | "[" as bracket if len(open_) < _DEEPEST:
                open_.append(_CLOSED[bracket])
            case "}" | "]" if open_:
                open_.pop()
            case "," if open_:
                cut, then = token.start(), "".join(reversed(open_))
            case text_or_mark if not text_or_mark.startswith('"'):
                return ""
    return text[:cut] + then

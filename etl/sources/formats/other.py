"""What a file is that is no table in text: by its signature, or a page or document by its first lines."""

import json
import re
from typing import Any

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (  # where it stands, what stands there, what the file is then
    (0, b"PK\x03\x04", "a ZIP or Excel file"),
    (0, b"PK\x05\x06", "a ZIP or Excel file"),
    (0, b"PK\x07\x08", "a ZIP or Excel file"),
    (0, b"\xd0\xcf\x11\xe0", "an old Excel or Office file"),
    (0, b"\x09\x08\x06\x00\x00\x05", "an old Excel or Office file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"!<arch>\n", "an ar archive"),
    (0, b"MSCF\x00\x00\x00\x00", "a CAB archive"),
    (0, b"xar!\x00", "a xar archive"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"\x5d\x00\x00", "an LZMA file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file"),
    (0, b"\x89LZO\x00", "an lzop file"),
    (0, b"\xff\x06\x00\x00sNaPpY", "a Snappy file"),
    (0, b"\x1f\x9d", "a compress (.Z) file"),
    (0, b"\x1f\xa0", "a compress (.Z) file"),
    (0, b"LZIP\x01", "an lzip file"),
    (257, b"ustar\x00", "a tar archive"),
    (257, b"ustar  \x00", "a tar archive"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (4, b"Standard Jet DB\x00", "an Access database"),
    (4, b"Standard ACE DB\x00", "an Access database"),
    (8, b"DUCK\x40\x00\x00\x00", "a DuckDB database"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (4, b"jP  \r\n\x87\n", "a JPEG 2000 image"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"II+\x00", "a TIFF image"),
    (0, b"MM\x00+", "a TIFF image"),
    (0, b"\x00\x00\x01\x00", "an icon"),
    (0, b"\x00\x00\x02\x00", "an icon"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF image"),
    (40, b" EMF\x00\x00", "an EMF image"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"ARROW1\x00\x00", "an Arrow file"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy file"),
    (0, b"\x7fELF", "a program"),
)
# Text too may begin with these, but a header hardly does.
_WRITTEN: tuple[tuple[bytes, str], ...] = (
    (rb"%PDF-\d", "a PDF"),
    (rb"%!PS-Adobe", "a PostScript document"),
    (rb"\{\\rtf\d?", "an RTF document"),
    (rb"-----BEGIN PGP", "a PGP message"),
    (rb"0707(?:0[12][0-9A-Fa-f]{104}|07[0-7]{70})", "a cpio archive"),
    (rb"P[1-6]\s(?:#[^\n]*\n)*\d+ \d+\s", "a PNM image"),
    (rb"SIMPLE  = {19}", "a FITS image"),
)
# A header may begin with these: bytes that no text has must be there too.
_LETTERS: tuple[tuple[bytes, str], ...] = (
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "a bzip2 file"),
    (rb"x[\x01\x5e\x9c\xda]", "a zlib file"),
    (rb"[\x50-\x5f]\x2a\x4d\x18", "a Zstandard file"),
    (rb"..-l[hz][\dsd]-", "an LHA archive"),
    (rb"\x60\xea", "an ARJ archive"),
    (rb"\xc7\x71", "a cpio archive"),
    (rb"(?s:.{7})\*\*ACE\*\*", "an ACE archive"),
    (rb"\xff\x0a", "a JPEG XL image"),
    (rb"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (rb"PAR[1E]", "a Parquet file"),
    (rb"ARROW1|FEA1", "an Arrow file"),
    (rb"BM", "a BMP image"),
    (rb"GIF8[79]a", "a GIF image"),
    (rb"(?s:RIFF....WEBP)", "a WebP image"),
    (rb"(?s:RIFF....(?:WAVE|AVI ))", "a sound or video"),
    (rb"(?s:....ftyp(?:hei|hev|mif|msf|avi))", "a HEIF image"),
    (rb"(?s:....ftyp)", "a sound or video"),
    (rb"8BPS", "a Photoshop image"),
    (rb"gimp xcf", "a GIMP image"),
    (rb"DDS ", "a DDS image"),
    (rb"ORC", "an ORC file"),
    (rb"Obj\x01", "an Avro file"),
)
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_HTML = re.compile(
    r"<(!doctype|html|head|body|table|thead|tbody|tr|div|style|script|meta|h[1-6]|form|iframe|title|link|br|hr|pre"
    r"|center|font|noscript|frameset|nav|main|section|article|header|footer|ul|ol|dl)"
    r"(?=[\s/>])[^<>]*>(?!\s*[,;\t|])",
    re.IGNORECASE,
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?$)|[\[\]{},]', re.DOTALL)
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
    if written := next((what for pattern, what in _WRITTEN if re.match(pattern, head)), None):
        return written
    if _is_old_tar(head):
        return "a tar archive"
    # Arrow streams have no signature but their first message's, behind its length.
    if head.startswith(b"\xff\xff\xff\xff") and _NO_TEXT.search(head[4:64]):
        return "an Arrow stream"
    if _NO_TEXT.search(head[:64]):
        return next((what for pattern, what in _LETTERS if re.match(pattern, head)), None)
    return None


def _is_old_tar(head: bytes) -> bool:
    """Whether a file begins with a tar's first block, which names no format: by the sum of its bytes."""
    block, said = head[:512], re.fullmatch(rb"[ 0]*([0-7]{1,6})[ \0]*", head[148:156])
    return (
        said is not None
        and len(block) == 512
        and b"\0" in block
        and sum(block[:148] + b" " * 8 + block[156:]) == int(said[1], 8)
    )


def other(text: str, is_whole: bool) -> str | None:
    """Return what a text is that is no CSV, such as "an HTML page"; None where it may be CSV.

    Args:
        text: The file's text, or the beginning of it.
        is_whole: Whether that is all of it.
    """
    text = text.lstrip("\ufeff\u00a0\u200b \t\r\n\f\v")
    if text.startswith("<"):
        return _markup(text)
    return _json(text, is_whole) if text.startswith(("{", "[")) else None


def _markup(text: str) -> str | None:
    if re.match(r"<\?xml[\s?]", text, re.IGNORECASE):
        return "an XML document"
    if re.match(r"<!doctype(?!\s+html\b)\s", text, re.IGNORECASE):
        return "an XML document"
    if re.match(r"<!--|<!\[CDATA\[", text):
        return "an HTML or XML document"
    if _HTML.match(text) and (re.search(r"</\w+\s*>", text) or re.match(r"<(!doctype|html)\b", text, re.IGNORECASE)):
        return "an HTML page"
    return "an XML document" if _is_xml(text) else None


def _is_xml(text: str) -> bool:
    """Whether a text is well-formed so far and has elements that end: a header such as <DATE>,<TIME> has none."""
    from xml.parsers import expat

    ended = 0

    def end(_name: str) -> None:
        nonlocal ended
        ended += 1

    parser = expat.ParserCreate()
    parser.EndElementHandler = end
    try:
        parser.Parse(text, False)  # one that was cut off while it was sent is no table either
    except (expat.ExpatError, ValueError):
        return False
    return ended > 0


def _json(text: str, is_whole: bool) -> str | None:
    if is_whole and _parsed(text) is not None:
        return "a JSON document"
    lines = [line for line in re.split(r"\r\n?|\n", text, maxsplit=21)[:21] if line.strip()]
    found = [_parsed(line) for line in (lines if is_whole or len(lines) == 1 else lines[:-1])]
    if found and isinstance(found[0], dict) and (found[0] or isinstance(found[-1], dict)):
        return "NDJSON, one JSON object a line,"
    if len(found) > 1 and all(isinstance(each, list) for each in found):
        return "NDJSON, one JSON array a line,"
    return "a JSON document" if not is_whole and _parsed(_closed(text)) else None


def is_object(line: str) -> bool:
    """Whether a line is a JSON object, also one with NaN, infinities or a key twice."""
    return isinstance(_parsed(line), dict)


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text)
    except RecursionError:  # no header is so deep
        return [text]
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _closed(text: str) -> str:
    """Cut a beginning of JSON at its last comma, or in a text before any, and close what is open there."""
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
    return text[:cut] + then if cut else text.rstrip("\\") + '"' + "".join(reversed(open_))

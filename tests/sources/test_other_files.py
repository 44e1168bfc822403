"""Files that are no CSV or NDJSON, by what is in them: refused with what they are, none for its header alone."""

import gzip
import json
from pathlib import Path

import pytest

from etl.errors import BadSource
from etl.sources import extract, plan
from etl.sources.formats import other
from tests.helpers.csv_files import CONTEXT, csv_pipeline, read_all


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inbox")


OTHERS = [
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
    (b"GIF89a\x01\0\x01\0", "a GIF image"),
    (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0", "a BMP image"),
    (b"II*\0\x08\0\0\0", "a TIFF image"),
    (b"II+\0\x08\0\0\0\x10\0\0\0", "a TIFF image"),
    (b"\0\0\1\0\1\0\x10\x10\0\0\1\0", "an icon"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIF image"),
    (b"\0\0\0\x20ftypavif\0\0\0\0", "a HEIF image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "a JPEG 2000 image"),
    (b"\xff\x0a\xfa\x7f\x01\x90\x08\x08", "a JPEG XL image"),
    (b"8BPS\0\1\0\0\0\0\0\0\0\3", "a Photoshop image"),
    (b"P6\n# made\n3 2\n255\n" + bytes(range(18)), "a PNM image"),
    (b"P2\n2 1\n9\n1 2\n", "a PNM image"),
    (b"%!PS-Adobe-3.0\n%%Title: x, y\n", "a PostScript document"),
    (b'<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>', "an XML document"),
    (b"!<arch>\ndebian-binary   1342943816  0     0     100644  4         `\n2.0\n", "an ar archive"),
    (b"070701" + b"0000000A" * 13 + b"a.csv\0x,y\n", "a cpio archive"),
    (b"MSCF\0\0\0\0\x90\0\0\0", "a CAB archive"),
    (b"\x21\x00-lh5-\x00\x01\x02", "an LHA archive"),
    (b"\x60\xea\x2c\0\x22\x0b\1\x0b", "an ARJ archive"),
    (b"\x5d\0\0\x80\0\xff\xff\xff\xff", "an LZMA file"),
    (b"x\x9cKT\xd0\xe1\x02\0\x04", "a zlib file"),
    (b"\x50\x2a\x4d\x18\4\0\0\0abcd", "a Zstandard file"),
    (b"\xab\xcd\xef\0\0\0\0\0DUCK\x40\0\0\0", "a DuckDB database"),
    (b"-----BEGIN PGP MESSAGE-----\n\nhQEMA\n", "a PGP message"),
    (b"a.csv" + b"\0" * 143 + b"001333\0 " + b"\0" * 356 + b"x,y\n1,2\n", "a tar archive"),
    (b"MM\0*\0\0\0\x08", "a TIFF image"),
    (b"RIFF\x24\0\0\0WEBPVP8 ", "a WebP image"),
    (b"PAR1\x15\x04\x15\x10", "a Parquet file"),
    (b"ARROW1\0\0\xff\xff\xff\xff", "an Arrow file"),
    (b"PK\x03\x04\x14\0\x06\0", "a ZIP or Excel file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Office file"),
    (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
    (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    (b"a.csv" + b"\0" * 252 + b"ustar\x0000" + b"\0" * 300, "a tar archive"),
    (b"BZh91AY&SY\x10\x02", "a bzip2 file"),
    (b"\xfd7zXZ\0\0\x04", "an xz file"),
    (b"\x28\xb5\x2f\xfd\x24\x08", "a Zstandard file"),
    (b"SQLite format 3\0\x10\0", "an SQLite database"),
    (b"<!DOCTYPE html>\n<html><body>Please log in</body></html>", "an HTML page"),
    (b"\xef\xbb\xbf\r\n<html xmlns:x='y'>\n<table><tr><td>1</table>", "an HTML page"),
    (b"<table border=1><tr><td>x,y</td></tr></table>", "an HTML page"),
    (b"<br />\n<b>Warning</b>: fopen(a, b) on line <b>1</b><br />\n", "an HTML page"),
    (b"\n<title>Please log in, again</title>\n", "an HTML page"),
    (b'<?xml version="1.0"?>\n<rows/>', "an XML document"),
    (b"<rows>\n<row>1</row>\n<row>2</row>\n", "an XML document"),  # cut off
    (b'{"rows":[' + b'{"x":1,"y":"a, b"},\n' * 4000 + b'{"x":1}]}', "a JSON document"),
    (b'{"x":"' + b"a,b" * 30_000 + b'"}\n', "a JSON document"),
    (b"[" * 3000 + b"]" * 3000, "a JSON document"),
    (b'{}\r{"x": 2}\r', "NDJSON"),
    (b'["x","y"]\n[1,2]\n', "NDJSON, one JSON array a line,"),
    (b"<rows><row>1</row>\n<row>2</row></rows>\n", "an XML document"),
    (b'{"error": "no such report"}', "a JSON document"),
    (b'[{"x": 1, "y": 2},\n {"x": 3, "y": 4}]\n', "a JSON document"),
    (b'[\n  {"x": 1, "y": "a, b"}' + b',\n  {"x": 1, "y": "a, b"}' * 4000 + b"\n]\n", "a JSON document"),
    (b'{"x": 1}\n{"x": 2}\n', "NDJSON"),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("content", "what"), OTHERS, ids=[f"{n} {what}" for n, (_, what) in enumerate(OTHERS)])
def test_what_is_no_csv_is_refused_with_what_it_is(folder: Path, content: bytes, what: str, packed: bool) -> None:
    for options in ({}, {"header": ["x", "y"]}, {"header": False, "delimiter": "auto"}, {"encoding": "cp1252"}):
        with pytest.raises(BadSource, match=f"a.csv is {what}"):
            read_all(folder, gzip.compress(content) if packed else content, **options)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        *((content, what) for content, what in OTHERS if what not in ("NDJSON", "a JSON document")),
        (b"x,y\n1,2\n3,4\n", "no NDJSON: none of its first 3 lines is a JSON object"),
        (b'"x","y"\n"1","2"\n', "no NDJSON"),
        (b'[{"x": 1}, {"x": 2}]', "a JSON document, not one JSON object a line"),
        (b'[\n{"x": 1},\n{"x": 2}\n]\n', "a JSON document, not one JSON object a line"),
        (b'{\n "x": [\n{"y": 1}\n]}\n', "a JSON document, not one JSON object a line"),
        (b'["x","y"]\n["1","2"]\n', "NDJSON, one JSON array a line, not one JSON object a line"),
    ],
)
def test_what_is_no_ndjson_is_refused_with_what_it_is(folder: Path, content: bytes, what: str, packed: bool) -> None:
    with pytest.raises(BadSource, match=f"a.csv is {what}"):
        read_all(folder, gzip.compress(content) if packed else content, type="ndjson")


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("<TICKER>,<DATE>,<OPEN>\nA,1,2\n", ["<TICKER>", "<DATE>", "<OPEN>"]),
        ("[id],[name]\n1,a\n", ["[id]", "[name]"]),
        ("[id]\n1\n", ["[id]"]),
        ("{x},{y}\n1,2\n", ["{x}", "{y}"]),
        ("{x}\n1\n", ["{x}"]),
        ("<DATE>\n1\n2\n", ["<DATE>"]),
        ("<b>x</b>,y\n1,2\n", ["<b>x</b>", "y"]),
        ("PAR1,PAR2\n1,2\n", ["PAR1", "PAR2"]),
        ("BMI,ORC,BM\n1,2,3\n", ["BMI", "ORC", "BM"]),
        ('"{""a"": 1}",y\n1,2\n', ['{"a": 1}', "y"]),
        ("5\n6\n", ["5"]),
        ("MM,II\n1,2\n", ["MM", "II"]),
        ("GIF89a,%PDF\n1,2\n", ["GIF89a", "%PDF"]),
        ("P1,P2\n1,2\n", ["P1", "P2"]),
        ("xar!,x^\n1,2\n", ["xar!", "x^"]),
        ("<title>,<p>\n1,2\n", ["<title>", "<p>"]),
    ],
)
def test_a_header_that_looks_like_something_else_is_a_header(folder: Path, text: str, header: list[str]) -> None:
    (folder / "a.csv").write_text(text)
    pipeline = csv_pipeline(folder)
    [chunk] = extract(pipeline, plan(pipeline).partitions[0], CONTEXT)
    assert chunk.rows.column_names == [*header, "_row"]
    assert other.other(text + "1,2\n" * 30_000, is_whole=False) is None


def test_lines_of_json_may_be_texts_of_one_column(folder: Path) -> None:
    rows, _ = read_all(folder, '{"a": 1}\n{"b": 2}\n', header=["doc"], delimiter="\t", quote="")
    assert [json.loads(text) for text, _ in rows] == [{"a": 1}, {"b": 2}]

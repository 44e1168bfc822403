"""Encodings of files: each decodes what it is, and what is in another is refused with a cure that cures."""

import gzip
import re
from pathlib import Path

import pytest

from etl.errors import BadSource
from tests.helpers.csv_files import read_all

TEXT = "x,y\n1,日本\n2,plain\n"


@pytest.mark.parametrize("encoding", ["iso2022_jp", "iso2022_jp_2004", "shift_jis", "gb18030", "utf-7", "hz", "utf-16"])
def test_text_is_decoded_though_all_its_bytes_are_ascii(tmp_path: Path, encoding: str) -> None:
    text = TEXT if encoding != "hz" else TEXT.replace("日本", "中文")
    rows, rejects = read_all(tmp_path, text.encode(encoding), encoding=encoding)
    assert ([row[1] for row in rows], rejects) == ([text[6:8], "plain"], [])


@pytest.mark.parametrize("encoding", ["utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_wide_text_without_a_mark_is_told_by_its_zeros(tmp_path: Path, encoding: str, packed: bool) -> None:
    content = "id,note\n1,Zoë\n2,b\n".encode(encoding)
    with pytest.raises(BadSource, match=f"looks like {encoding.upper()[:6]}") as caught:
        read_all(tmp_path, gzip.compress(content) if packed else content)
    assert caught.value.cure == f'set encoding = "{encoding}"'


@pytest.mark.parametrize(
    ("written", "declared"), [("utf-8", "utf-16"), ("cp1252", "utf-16-le"), ("utf-8", "utf-16-be")]
)
@pytest.mark.parametrize("lines", [2, 3, 4000])
def test_what_is_no_utf_16_is_not_read_as_one_long_header(
    tmp_path: Path, written: str, declared: str, lines: int
) -> None:
    content = ("id,name\n" + "1,Zoë\n" * lines).encode(written)
    with pytest.raises(BadSource, match="line 1 is not utf-16") as caught:
        read_all(tmp_path, content, encoding=declared)
    assert caught.value.cure == f'set encoding = "{written}"'


@pytest.mark.parametrize(
    ("mark", "rest"),
    [
        (b"\xef\xbb\xbf", b"x,y\n1,M\xfcller\n"),
        (b"\xff\xfe", "x,y\n1,a\n".encode("utf-16-le")[:-1]),
        (b"\xff\xfe", "x,y\n1,".encode("utf-16-le") + b"\0\xd8" + "a\n".encode("utf-16-le")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_no_encoding_is_advised_where_the_byte_order_mark_wins(
    tmp_path: Path, mark: bytes, rest: bytes, encoding: str
) -> None:
    with pytest.raises(BadSource, match="line 2 is not utf-") as caught:
        read_all(tmp_path, mark + rest, encoding=encoding)
    assert "have it written again" in caught.value.cure
    assert "set encoding" not in caught.value.cure


def test_one_wrong_byte_in_a_file_of_utf_8_is_told_from_another_encoding(tmp_path: Path) -> None:
    for content, advice in (
        ("x,y\n1,Zoë\n2,€\n".encode() + b"3,M\xfcller\n", "have the byte fixed, most of it is utf-8"),
        (b"x,y\n" + "1,Zoë\n2,M\xfcller\n".encode("cp1252"), 'set encoding = "cp1252"'),
    ):
        with pytest.raises(BadSource, match="is not utf-8: byte") as caught:
            read_all(tmp_path, content)
        assert caught.value.cure.startswith(advice)
        [named] = re.findall(r'encoding = "([^"]+)"', caught.value.cure)
        assert len(read_all(tmp_path, content, encoding=named)[0]) == content.count(b"\n") - 1


def test_a_mark_is_found_behind_empty_members_and_across_them(tmp_path: Path) -> None:
    for parts in (
        (b"", b"\xef\xbb\xbfx,y\n1,2\n"),
        (b"\xef\xbb", b"\xbfx,y\n1,2\n"),
        (b"", "x,y\n1,2\n".encode("utf-16")),
    ):
        rows, rejects = read_all(tmp_path, b"".join(map(gzip.compress, parts)), header=["x", "y"], skip=1)
        assert (rows, rejects) == ([("1", "2", 2)], [])

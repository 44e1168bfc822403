"""CSV files that are odd: what they mean is read, what they are not is refused, and no bytes make a reader hang."""

import contextlib
import gzip
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import etl.sources.feed
from etl.config.kinds import source
from etl.config.models import Column
from etl.errors import BadSource
from etl.sources import extract, plan
from tests.helpers.csv_files import CONTEXT, csv_pipeline, read_all
from tests.helpers.examples import examples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inbox")


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail what takes longer."""

    def late(_signal: int, _frame: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def names(folder: Path, content: str | bytes, rename: dict[str, str] | None = None, **options: Any) -> list[str]:
    (folder / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    pipeline = csv_pipeline(folder, **options).model_copy(update={"rename": rename or {}})
    [partition] = plan(pipeline).partitions
    return [name for chunk in extract(pipeline, partition, CONTEXT) for name in chunk.rows.column_names][:-1]


def warnings(folder: Path, content: str | bytes, **options: Any) -> list[str]:
    (folder / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    pipeline = csv_pipeline(folder, **options)
    return [
        text
        for partition in plan(pipeline, partition_bytes=options.pop("size", 1 << 20)).partitions
        for chunk in extract(pipeline, partition, CONTEXT)
        for text in chunk.warnings
    ]


MARKS = st.sampled_from(
    [",", ";", "\t", "|", '"', "'", " ", "“", "é", "😀", "\x85", "\u2028", "a", "0", "\x1f", "\x7f"]
)


@settings(max_examples=examples(300))
@given(
    delimiter=st.one_of(MARKS, st.just("auto"), st.characters(codec="utf-8")),
    quote=st.one_of(MARKS, st.just(""), st.characters(codec="utf-8")),
    encoding=st.sampled_from(
        ["utf-8", "cp1252", "utf-16", "utf-32-be", "utf-7", "shift_jis", "cp037", "gb18030", "hz"]
    ),
    blanks=st.booleans(),
    skip=st.integers(0, 3),
    data=st.data(),
)
def test_no_marks_and_no_encoding_make_a_reader_hang(
    folder: Path, delimiter: str, quote: str, encoding: str, blanks: bool, skip: int, data: st.DataObject
) -> None:
    options = {"delimiter": delimiter, "quote": quote, "encoding": encoding, "skip": skip, "skip_initial_space": blanks}
    try:
        source({"type": "csv", "path": "*.csv", **options})
    except ValidationError:
        return
    parts = ["x", "y", "\n", "\r\n", quote * 3, delimiter[:1], quote, " ", "1", "é"]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=30)))
    with within(20), contextlib.suppress(BadSource):
        read_all(folder, text.encode(encoding, "replace"), size=16, **options)


@settings(max_examples=examples(300))
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.text('ab",;\n\r\t |{}[]<>/=1é\0', max_size=120).map(str.encode),
        st.sampled_from(["sep=", "{", "[", "<a>", '"', "x,y\n", "\ufeff", "<html>"]).flatmap(
            lambda start: st.text('ab",;\n{}[]<>/:1', max_size=60).map(lambda rest: (start + rest).encode())
        ),
    ),
    packed=st.booleans(),
    kind=st.sampled_from(["csv", "ndjson"]),
    data=st.data(),
)
def test_any_bytes_are_rows_and_rejects_or_are_refused(
    folder: Path, content: bytes, packed: bool, kind: str, data: st.DataObject
) -> None:
    options: dict[str, Any] = {"type": kind}
    if kind == "csv":
        options["delimiter"] = data.draw(st.sampled_from([",", "auto"]))
        options["header"] = data.draw(st.sampled_from([True, False, ["x", "y"]]))
        options["skip_initial_space"] = data.draw(st.booleans())
    found: list[Any] = []
    for size in (1 << 20, 16):
        with within(20):
            try:
                found.append(read_all(folder, gzip.compress(content) if packed else content, size=size, **options))
            except BadSource as error:
                found.append(error.what)
    assert found[0] == found[1] or kind == "ndjson"


@pytest.mark.parametrize("quote", ["“", "é", "😀"])
def test_a_quote_that_is_not_ascii_quotes(folder: Path, quote: str) -> None:
    text = f"x,y\n{quote}a,{quote}{quote}b\nc{quote},1\n2,{quote}"
    with within(10):
        rows, rejects = read_all(folder, text, quote=quote)
    assert (rows, rejects) == ([(f"a,{quote}b\nc", "1", 2)], [(4, "quote never closed")])


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"delimiter": "\0"}, "delimiter"),
        ({"delimiter": "\ufeff"}, "delimiter"),
        ({"quote": "\0"}, "quote"),
        ({"quote": ","}, "quote"),
        ({"delimiter": " ", "skip_initial_space": True}, "skip_initial_space"),
        ({"encoding": "idna"}, "encoding"),
        ({"encoding": "punycode"}, "encoding"),
        ({"encoding": "unicode_escape"}, "encoding"),
        ({"encoding": "undefined"}, "encoding"),
        ({"encoding": "base64"}, "encoding"),
        ({"encoding": "rot13"}, "encoding"),
    ],
)
def test_marks_and_encodings_that_no_file_can_have_are_mistakes(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        source({"type": "csv", "path": "*.csv", **options})
    [problem] = caught.value.errors()
    assert [where for where, _ in problem["ctx"]["problems"]] == [(key,)]


def test_an_error_that_a_wrong_delimiter_makes_names_the_right_one(folder: Path) -> None:
    for text in ('"x";"y"\n"1";"2"\n', "x;y\n1,5;2\n2,5;3\n"):
        with pytest.raises(BadSource) as caught:
            read_all(folder, text)
        assert 'delimiter = ";" would' in caught.value.cure
        assert len(read_all(folder, text, delimiter=";")[0]) == text.count("\n") - 1


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;", "sep=; ", '"sep=;";;', "Sep = ;"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_sep_line_is_no_header(folder: Path, line: str, encoding: str, end: str) -> None:
    text = end.join([line, "x;y", *(f"{n};é" for n in range(40)), ""]).encode(encoding)
    for delimiter in ("auto", ";"):
        rows, rejects = read_all(folder, text, delimiter=delimiter, encoding=encoding, size=50)
        assert (rows, rejects) == ([(str(n), "é", n + 3) for n in range(40)], [])
    assert names(folder, text, delimiter=";", encoding=encoding) == ["x", "y"]
    rows, _ = read_all(folder, end.join([line, "1;2", "3;4"]), delimiter="auto", header=["x", "y"])
    assert rows == [("1", "2", 2), ("3", "4", 3)]
    assert read_all(folder, text, delimiter="auto", skip=1, encoding=encoding)[0][0] == ("0", "é", 3)


def test_a_sep_line_wins_over_what_looks_like_a_delimiter(folder: Path) -> None:
    assert read_all(folder, "sep=;\na,b;c,d\n1,5;2,5\n", delimiter="auto")[0] == [("1,5", "2,5", 3)]
    assert read_all(folder, "sep=^\na^b\n1^2\n", delimiter="auto")[0] == [("1", "2", 3)]
    assert read_all(folder, "sep=\\t\na\tb\n1\t2\n", delimiter="auto")[0] == [("1", "2", 3)]
    assert read_all(folder, "sep= \na b\n1 2\n", delimiter="auto")[0] == [("1", "2", 3)]
    with pytest.raises(BadSource, match='line 1 says that the delimiter is ";"') as caught:
        read_all(folder, "sep=;\nx;y\n1;2\n")
    assert 'delimiter = "auto"' in caught.value.cure
    assert names(folder, "sep,x\n1,2\n") == ["sep", "x"]


@pytest.mark.parametrize(
    ("text", "rows", "rejects"),
    [
        ("x,y\n1,2,\n3,4,\n", [("1", "2"), ("3", "4")], []),
        ("x,y\n1,2,\n\n3,4,\n,,\n", [("1", "2"), ("3", "4"), (None, None)], []),
        ('x,y\n1,"2\n2",\n3,4,""\n', [("1", "2\n2"), ("3", "4")], []),
        ("x\n1,\n2,\n", [("1",), ("2",)], []),
        ("x,y,\n1,2\n3,4\n", [("1", "2"), ("3", "4")], []),  # of the header alone
        ("x,y\n1,2, \n3,4,\n", [("1", "2"), ("3", "4")], []),
        ("x,y\n1,2,\n3,4\n5,6,\n", [("1", "2"), ("3", "4"), ("5", "6")], []),  # of most rows
        (
            'x,y\n1,2,\n3\n5,6,\n7,8,9,\n"a"b,\n1,2,\n1,2,\n',
            [("1", "2"), ("5", "6"), ("1", "2"), ("1", "2")],
            [3, 5, 6],
        ),
        ("x,y,\n1,2,\n3,4\n5,6,7\n", [("1", "2"), ("3", "4")], [4]),
        ("x,y,\n1,2\n3,4\n5,6,\n", [("1", "2"), ("3", "4"), ("5", "6")], []),
        ("x,y\n1,2,\n3,4\n", [("3", "4")], [2]),  # of some rows alone: nobody knows what is meant
        ("x,y\n1,2,\n3,4,5\n6,7\n", [("6", "7")], [2, 3]),
    ],
)
def test_a_delimiter_at_the_end_of_every_row_makes_no_column(
    folder: Path, text: str, rows: list[Any], rejects: list[int]
) -> None:
    for size in (1 << 20, 4):
        found, bad = read_all(folder, text, size=size)
        assert ([row[:-1] for row in found], [line for line, _ in bad]) == (rows, rejects)
    if "\nx" not in text and text.startswith("x,y\n"):
        found, bad = read_all(folder, text.removeprefix("x,y\n"), header=["x", "y"])
        assert ([row[:-1] for row in found], [line + 1 for line, _ in bad]) == (rows, rejects)


def test_a_row_that_has_a_value_behind_the_last_name_is_a_reject_however_far_down(folder: Path) -> None:
    text = "x,y\n" + "1,2,\n" * 20_000 + "3,4\n5,6,7\n" + "8,9,\n"
    rows, rejects = read_all(folder, text)
    assert (len(rows), rows[-2:]) == (20_002, [("3", "4", 20_002), ("8", "9", 20_004)])
    assert [line for line, _ in rejects] == [20_003]


@pytest.mark.parametrize("size", [1 << 20, 20])
def test_rows_that_all_differ_from_the_header_in_the_same_way_fail_the_file(folder: Path, size: int) -> None:
    for text, said in (
        ("x,y\n" + "1,2,3\n" * 30, "all rows have 3 fields, the header has 2"),
        ("x,y\n" + "1;2\n" * 30, "all rows have 1 field, the header has 2"),
        ("x;y\n" + "1,5;2\n" * 30, "all rows have 2 fields, the header has 1"),
    ):
        with pytest.raises(BadSource, match=said):
            read_all(folder, text, size=size)
    rows, rejects = read_all(folder, "x,y\n" + "1,2,3\n" * 30 + "1,2\n", size=size)
    assert (len(rows), len(rejects)) == (1, 30)
    assert len(read_all(folder, "x,y\n1,2,3\n")[1]) == 1


BLANKS = st.sampled_from(["", " ", "  "])


@settings(max_examples=examples(150))
@given(
    rows=st.lists(
        st.lists(st.tuples(BLANKS, st.text('ab ",\né', max_size=5), st.booleans()), min_size=2, max_size=2), max_size=20
    ),
    size=st.sampled_from([1 << 20, 30]),
)
def test_blanks_before_a_field_are_passed_over_if_asked_for(folder: Path, rows: list[Any], size: int) -> None:
    wanted, lines = [], ["x, y"]
    for row in rows:
        fields, written = [], []
        for blanks, value, always in row:
            is_quoted = always or bool(set(value) & set(' ",\n'))
            doubled = value.replace('"', '""')
            written.append(blanks + (f'"{doubled}"' if is_quoted else value))
            fields.append(value or None)
        lines.append(",".join(written))
        wanted.append(tuple(fields))
    found, rejects = read_all(folder, "\n".join(lines) + "\n", size=size, skip_initial_space=True)
    assert ([row[:-1] for row in found], rejects) == (wanted, [])


def test_without_it_blanks_before_a_quote_reject_the_row_and_warn_once(folder: Path) -> None:
    text = 'x,y\n1, "a"\n2," ""b"""\n3, c\n4,  "d, e"\n5,"f"\n'
    assert read_all(folder, text) == (
        [("2", ' "b"', 3), ("3", " c", 4), ("5", "f", 6)],
        [(2, "blanks before a quote"), (5, "blanks before a quote")],
    )
    [said] = warnings(folder, text)
    assert said.startswith("a.csv: 2 rows have blanks before a quote (first on line 2) and are rejected")
    assert "skip_initial_space = true" in said
    assert warnings(folder, text, skip_initial_space=True) == warnings(folder, text, quote="") == []


def test_auto_that_finds_no_delimiter_says_so(folder: Path) -> None:
    [said] = warnings(folder, "x\n1\n", delimiter="auto")
    assert said == "a.csv: no delimiter was found (of , ; \\t |), so it has one column"
    assert warnings(folder, "x;y\n1;2\n", delimiter="auto") == []


@pytest.mark.parametrize(("mark", "written"), [(";", ";"), ("\t", "\\t"), ("|", "|")])
def test_one_column_under_the_wrong_delimiter_names_the_right_one(folder: Path, mark: str, written: str) -> None:
    text = f"x{mark}y\n1{mark}2\n"
    [said] = warnings(folder, text)
    assert said == f'a.csv has one column with delimiter = ","; delimiter = "{written}" would give more'
    assert len(warnings(folder, text, header=False)) == 1
    for rows in ("1;2;\n3;4;\n", "1;2\n3;4;5\n6;7\n", "1;2\n3;4\nTotal: 2\n"):  # not all alike
        assert len(warnings(folder, (f"x;y\n{rows}").replace(";", mark))) == 1
    assert warnings(folder, "note\na; b\nc | d; e\n") == []
    assert warnings(folder, '"last, first"\n') == []
    assert warnings(folder, '"last, first"\nx\ny\n', delimiter=";") == []


def test_a_column_without_a_name_is_named_by_its_place(folder: Path) -> None:
    assert names(folder, "x,,z\n1,2,3\n", {"#2": "y"}) == ["x", "#2", "z"]
    assert names(folder, "x,x\n1,2\n", {"#2": "y"}) == ["x", "#2"]
    assert names(folder, "x,y,\n1,2,3\n", {"#3": "z"}) == ["x", "y", "#3"]
    assert names(folder, "#2,y\n1,2\n", {"#2": "a"}) == ["#2", "y"]
    assert names(folder, "1,2\n", {"#2": "a"}, header=False) == ["column1", "#2"]
    assert names(folder, "1,2\n", {"#2": "a"}, header=["x", "y"]) == ["x", "#2"]
    with pytest.raises(BadSource, match="line 1: column 2 has no name") as caught:
        names(folder, "x,,z\n1,2,3\n")
    assert caught.value.cure.startswith("set skip = N ")
    assert 'from = ["#2"]' in caught.value.cure


def test_the_cure_for_a_report_above_the_header_works_at_the_first_try(folder: Path) -> None:
    text = "Report of May,,\n,,\nid,name,amount\n1,a,2\n"
    with pytest.raises(BadSource) as caught:
        read_all(folder, text)
    assert caught.value.cure.startswith("set skip = 2 ")
    assert read_all(folder, text, skip=2) == ([("1", "a", "2", 4)], [])


@pytest.mark.parametrize(
    ("content", "declared", "line", "byte", "likely"),
    [
        ("x\nab\nné\n".encode("cp1252"), "utf-8", 3, 2, "cp1252"),
        ("x\nÁé\n".encode(), "cp1252", 2, 2, "utf-8"),
        ("x\n日本語、テキスト\n".encode("cp932"), "utf-8", 2, 1, "cp932"),
        (b"x\n\x81\xfe\xff\n", "utf-8", 2, 1, "latin-1"),
        (b"x\n\x81\xfe\xff\xa0\n", "cp1252", 2, 1, "latin-1"),
        (gzip.compress("x\nab\né\n".encode("cp1252"), mtime=0), "utf-8", 3, 1, "cp1252"),
        ("x\n\u0101\n".encode() * 40_000 + b"\x81", "cp1252", 80_001, 1, "latin-1"),
    ],
)
def test_an_encoding_error_names_one_that_decodes_the_whole_file(
    folder: Path, content: bytes, declared: str, line: int, byte: int, likely: str
) -> None:
    if line > 80_000:
        content = content.replace("\u0101".encode(), b"a")
    with pytest.raises(BadSource) as caught:
        read_all(folder, content, encoding=declared)
    assert caught.value.what == f"a.csv line {line} is not {declared}: byte {byte} of the line"
    assert f'encoding = "{likely}"' in caught.value.cure
    read_all(folder, content, encoding=likely)


def test_files_read_together_have_each_column_by_its_own_name(tmp_path: Path) -> None:
    for name, content in {
        "a": "ClaimNo,cafe\u0301\n1,2\n",
        "b": "café,Claim No.\n3,4\n",
        "c": "claim,z\n5,6\n",
    }.items():
        (tmp_path / f"{name}.csv").write_text(content)
        os.utime(tmp_path / f"{name}.csv", (1_700_000_000, 1_700_000_000))
    claim = Column.model_validate({"from": ["ClaimNo", "Claim No."]})
    pipeline = csv_pipeline(tmp_path, split="none").model_copy(update={"columns": {"claim": claim}})
    [partition] = plan(pipeline).partitions
    [chunk] = extract(pipeline, partition, CONTEXT)
    assert chunk.rows.drop_columns(["_row"]).to_pylist() == [
        {"ClaimNo": "1", "cafe\u0301": "2", "z": None},
        {"ClaimNo": "4", "cafe\u0301": "3", "z": None},
        {"ClaimNo": "5", "cafe\u0301": None, "z": "6"},
    ]
    (tmp_path / "d.csv").write_text("ClaimNo,Claim No.\n1,2\n")
    with pytest.raises(BadSource, match=r'd\.csv: its columns "ClaimNo" and "Claim No'):
        list(extract(pipeline, plan(pipeline).partitions[0], CONTEXT))


@pytest.mark.parametrize("members", [1, 50])
def test_a_gzip_bomb_is_refused_while_it_is_unpacked(
    folder: Path, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etl.sources.feed, "MOST_UNPACKED", 8 << 20)
    part = b"1\n" * ((6 << 20) // members)
    content = gzip.compress(b"x\n", mtime=0) + gzip.compress(part) * members
    with pytest.raises(BadSource, match="unpacks to over 8 MB and 100 times its size") as caught:
        read_all(folder, content)
    assert "max_unpacked in [settings]" in caught.value.cure
    (folder / "a.csv").write_bytes(content)
    pipeline = csv_pipeline(folder).model_copy(update={"max_unpacked": 10_000})
    [partition] = plan(pipeline).partitions
    assert sum(chunk.rows.num_rows for chunk in extract(pipeline, partition, CONTEXT)) == len(part) // 2 * members

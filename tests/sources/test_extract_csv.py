import contextlib
import csv
import gzip
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import etl.sources.feed
import etl.sources.formats.blocks
import etl.sources.formats.records
import etl.sources.formats.strict
from etl.config.models import Column, Load
from etl.errors import BadSource, SourceMissing
from etl.partition import ROW_BITS, Partition, Piece
from etl.sources import extract, plan
from tests.helpers.csv_files import CONTEXT, csv_pipeline, read, read_all
from tests.helpers.examples import examples


def columns(folder: Path, content: bytes, **options: Any) -> list[str]:
    (folder / "a.csv").write_bytes(content)
    pipeline = csv_pipeline(folder, **options)
    [partition] = plan(pipeline).partitions
    names: list[str] = next(extract(pipeline, partition, CONTEXT)).rows.column_names
    return names


def expected(text: str) -> tuple[list[Any], list[int]] | None:
    """Say what the rows and the rejected lines of a text are, with Python's own reader; None where it is refused."""
    lines = list(io.StringIO(text, newline=""))
    records: list[tuple[int, list[str]]] = []
    at, width = 0, 0
    while at < len(lines):
        reader = csv.reader(lines[at:], strict=True)
        try:
            fields = next(reader)
        except csv.Error:
            records.append((at + 1, []))
            at += 1
            continue
        record = "".join(lines[at : at + reader.line_num])
        if fields and not width:
            width = len(fields)
        elif fields:
            records.append((at + 1, [] if "\0" in record else fields))
        at += reader.line_num
    widths = {len(fields) for _, fields in records}
    if widths == {width + 1} and not any(fields[-1] for _, fields in records):
        records, widths = [(line, fields[:-1]) for line, fields in records], {width}
    if len(records) > 1 and len(widths) == 1 and not widths <= {0, width}:
        return None
    rows = [(*(value or None for value in fields), line) for line, fields in records if len(fields) == width]
    return rows, [line for line, fields in records if len(fields) != width]


def quoted(value: str, always: bool) -> str:
    return '"' + value.replace('"', '""') + '"' if always or set(value) & set(',"\r\n') else value


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read 16 bytes at once, so that small texts have many blocks."""
    for module in (etl.sources.feed, etl.sources.formats.blocks, etl.sources.formats.records):
        monkeypatch.setattr(module, "BLOCK", 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inbox")


FIELD = st.one_of(
    st.text("ab ,;'\"\n\r\té€😀.0", max_size=8),
    st.sampled_from(["", "NA", "066", "null", '"', '""', "\n", "\r\n", " "]),
)


@pytest.mark.parametrize("small", [True, False])
@settings(max_examples=examples(150))
@given(
    rows=st.lists(st.lists(FIELD, min_size=3, max_size=3), max_size=30),
    size=st.integers(1, 400),
    ending=st.sampled_from(["\n", "\r\n"]),
    always=st.booleans(),
    final=st.booleans(),
)
def test_a_file_split_anywhere_gives_the_rows_and_lines_of_the_whole(
    folder: Path, small: bool, rows: list[list[str]], size: int, ending: str, always: bool, final: bool
) -> None:
    whole = ending.join(",".join(quoted(value, always) for value in row) for row in [["x", "y", "z"], *rows])
    whole += ending if final else ""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            for module in (etl.sources.feed, etl.sources.formats.blocks, etl.sources.formats.records):
                patch.setattr(module, "BLOCK", 16)
        found, rejects = read_all(folder, whole, size=size)
    assert (found, rejects) == expected(whole)
    assert [row[:-1] for row in found] == [tuple(value or None for value in row) for row in rows]


@settings(max_examples=examples(400))
@given(body=st.text('ab",\n\r\0é', max_size=80), size=st.integers(1, 60), block=st.sampled_from([4, 16, 1 << 20]))
def test_every_record_of_any_text_is_a_row_or_a_reject_on_its_line(
    folder: Path, body: str, size: int, block: int
) -> None:
    text = f"x,y\n{body}"
    with pytest.MonkeyPatch.context() as patch:
        for module in (etl.sources.feed, etl.sources.formats.blocks, etl.sources.formats.records):
            patch.setattr(module, "BLOCK", block)
        if (wanted := expected(text)) is None:
            with pytest.raises(BadSource, match="all rows have"):
                read_all(folder, text, size=size)
            return
        rows, rejects = read_all(folder, text, size=size)
    assert (rows, [line for line, _ in rejects]) == wanted


@settings(max_examples=examples(300))
@given(
    content=st.binary(max_size=120),
    encoding=st.sampled_from(["utf-8", "cp1252", "latin-1", "utf-16", "shift_jis", "utf-7"]),
    delimiter=st.sampled_from([",", "auto", "\t", "é"]),
    header=st.sampled_from([True, False, ("x", "y")]),
)
def test_garbage_is_read_or_refused_but_never_crashes(
    folder: Path, content: bytes, encoding: str, delimiter: str, header: Any
) -> None:
    with contextlib.suppress(BadSource):
        read_all(folder, content, size=16, encoding=encoding, delimiter=delimiter, header=header)


@settings(max_examples=examples(100))
@given(rows=st.lists(st.lists(st.text('aé€",\n', max_size=6), min_size=2, max_size=2), max_size=20))
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_an_encoding_changes_no_row(folder: Path, encoding: str, rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([["x", "y"], *rows])
    found, rejects = read_all(folder, text.getvalue().encode(encoding), encoding=encoding, size=30)
    assert (found, rejects) == expected(text.getvalue())


def test_a_byte_order_mark_wins_over_the_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-8-sig"):
        assert read_all(tmp_path, "x\né\n".encode(encoding), encoding="cp1252") == ([("é", 2)], [])


def test_text_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    rows, _ = read_all(tmp_path, 'x,y\nNA,066\nnull,"NULL"\n nan ,1e5\n"",\n')
    assert rows == [("NA", "066", 2), ("null", "NULL", 3), (" nan ", "1e5", 4), (None, None, 5)]


def test_faults_are_rejected_on_their_lines_and_the_rest_is_read(tmp_path: Path) -> None:
    text = 'x,y\n1,"a\nb"\n\n2\n3,"x"z\n4,"open\n5,5\n6,6,6\n7\0,7\n8,"8"\n'
    rows, rejects = read_all(tmp_path, text)
    assert rows == [("1", "a\nb", 2), ("5", "5", 8), ("8", "8", 11)]
    assert rejects == [
        (5, "has 1 field, header has 2"),
        (6, "text after a closing quote"),
        (7, "quote never closed"),
        (9, "has 3 fields, header has 2"),
        (10, "NUL byte"),
    ]


def test_a_reject_keeps_the_whole_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n1,"a,b",3\n2,"z\n')
    pipeline = csv_pipeline(tmp_path)
    _, rejects, _ = read(pipeline, plan(pipeline).partitions[0])
    assert [json.loads(entry["raw"]) for entry in rejects] == [
        {"x": "1", "y": "a,b", "": ["3"]},
        {"x": None, "y": None, "": ['2,"z']},
    ]
    assert {entry["file"] for entry in rejects} == {"a.csv"}


def test_many_quotes_that_never_close_are_read_in_one_go(tmp_path: Path) -> None:
    lines = 3000
    rows, rejects = read_all(tmp_path, "x,y,z\n" + 'a",x,"c\n' * lines)
    assert rows == []
    assert [line for line, _ in rejects] == list(range(2, lines + 2))


def test_a_line_that_is_too_long_is_rejected_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    for module in (
        etl.sources.feed,
        etl.sources.formats.strict,
        etl.sources.formats.records,
    ):
        monkeypatch.setattr(module, "LIMIT", 100)
    for ending in ("\n", "\r\n", "\r"):
        lines = ["x,y", "1,1", "2," + "b" * 1000, "3,3", '4,"' + "c" * 500 + '"', '5,"open', *["6,6"] * 60]
        rows, rejects = read_all(tmp_path, ending.join(lines))
        assert [row[-1] for row in rows] == [2, 4, *range(7, 67)]
        assert rejects == [
            (3, etl.sources.formats.strict.LONG),
            (5, etl.sources.formats.strict.LONG),
            (6, "quote never closed"),
        ]


def test_a_lone_return_ends_a_line_too(tmp_path: Path) -> None:
    assert read_all(tmp_path, "x,y\r1,2\r\r3,4") == ([("1", "2", 2), ("3", "4", 4)], [])


def test_the_delimiter_is_found_in_the_first_lines(tmp_path: Path) -> None:
    for delimiter in ",;\t|":
        text = f'x{delimiter}y\n"a,b;c\t|"{delimiter}1,5\n2{delimiter}2\n'
        if delimiter == ",":
            text = text.replace("1,5", "15")
        rows, rejects = read_all(tmp_path, text, delimiter="auto")
        assert (len(rows), rejects) == (2, [])
    assert read_all(tmp_path, "x\n1\n", delimiter="auto") == ([("1", 2)], [])


def test_quote_header_and_skip_are_as_configured(tmp_path: Path) -> None:
    assert read_all(tmp_path, "x,y\n'a,b',\"\n", quote="'") == ([("a,b", '"', 2)], [])
    assert read_all(tmp_path, 'x,y\n"a,"b\n', quote="") == ([('"a', '"b', 2)], [])
    assert read_all(tmp_path, "a,1\nb,2\n", header=["n", "v"]) == ([("a", "1", 1), ("b", "2", 2)], [])
    assert read_all(tmp_path, "a,1\nb,2\n", header=False) == ([("a", "1", 1), ("b", "2", 2)], [])
    assert read_all(tmp_path, 'a "report"\nof "today\nx,y\n1,2\n', skip=2) == ([("1", "2", 4)], [])
    assert columns(tmp_path, b"a,1\n", header=False) == ["column1", "column2", "_row"]
    assert columns(tmp_path, b" x ,y\t\n1,2\n") == ["x", "y", "_row"]


def test_skip_and_header_stay_with_the_first_piece_however_small(tmp_path: Path) -> None:
    text = 'made by "us\n\n\nx,y\n' + "".join(f"{n},é\n" for n in range(50))
    for encoding in ("utf-8", "cp1252"):
        rows, rejects = read_all(tmp_path, text.encode(encoding), size=4, skip=1, encoding=encoding)
        assert (rows, rejects) == ([(str(n), "é", n + 5) for n in range(50)], [])


def test_a_last_column_without_name_may_only_be_empty(tmp_path: Path) -> None:
    rows, rejects = read_all(tmp_path, "x,y,\n1,2,\n3,4,5\n")
    assert (rows, rejects) == ([("1", "2", 2)], [(3, "has a value in a column without a name")])


def test_a_file_of_only_a_header_has_no_rows_but_columns(tmp_path: Path) -> None:
    assert columns(tmp_path, b"x,y") == ["x", "y", "_row"]
    assert read_all(tmp_path, "x,y") == ([], [])
    assert read_all(tmp_path, "", header=["x"]) == ([], [])


@pytest.mark.parametrize(
    ("content", "message", "cure"),
    [
        (b"", "is empty: not even a header", ""),
        (b"\n\n", "is empty: not even a header", ""),
        (
            b"x,Y,X ,y\n1,2,3,4\n",
            r"line 1: columns have the same name in the header: 1 and 3; 2 and 4",
            "",
        ),
        (b"x,,y\n", "line 1: column 2 has no name", ""),
        (b'x,"y\n', "line 1, the header: quote never closed", ""),
        (b"x,_row\n", "no column may be called _row", ""),
        (b"x\na\n\xe9\n", "line 3 is not utf-8", "cp1252"),
        ("x,y\n1,2\n".encode("utf-16-le"), "looks like UTF-16", "utf-16-le"),
        ("x,y\n1,2\n".encode("utf-16-be"), "looks like UTF-16", "utf-16-be"),
        (gzip.compress(b"x,y\n1,2\n", mtime=0)[:-4], "not a complete gzip file", ""),
        (b"\x1f\x8bnonsense", "not a complete gzip file", ""),
        (b"PK\x03\x04...", "ZIP or Excel", ""),
    ],
)
def test_a_source_that_cannot_be_read_says_what_where_and_the_cure(
    tmp_path: Path, content: bytes, message: str, cure: str
) -> None:
    with pytest.raises(BadSource, match=message) as caught:
        read_all(tmp_path, content)
    assert cure in caught.value.cure
    assert "a.csv" in caught.value.what


def test_an_undecodable_byte_is_found_on_its_line_in_any_encoding(tmp_path: Path, small_blocks: None) -> None:
    for encoding, byte in (("utf-8", b"\xff"), ("cp1252", b"\x81")):
        content = b'x,y\n"1\n1",2\r\n' + b"3,4\n" * 40 + b"5," + byte + b"\n"
        with pytest.raises(BadSource, match=f"a.csv line 44 is not {encoding}"):
            read_all(tmp_path, content, encoding=encoding)


def test_gzip_is_known_by_its_first_bytes_and_may_have_several_members(tmp_path: Path, small_blocks: None) -> None:
    content = gzip.compress(b"x,y\n1,2\n") + gzip.compress(b"3,4\n" * 100) + b"\0" * 20
    rows, rejects = read_all(tmp_path, content, size=10)
    assert (len(rows), rejects) == (101, [])


def test_the_content_hash_is_of_the_bytes_as_they_stand(tmp_path: Path) -> None:
    for content in (b"x\n1\n", gzip.compress(b"x\n1\n"), "x\n1\n".encode("utf-16")):
        (tmp_path / "a.csv").write_bytes(content)
        pipeline = csv_pipeline(tmp_path)
        assert read(pipeline, plan(pipeline).partitions[0])[2] == hashlib.sha256(content).hexdigest()


def test_files_read_together_are_joined_by_column_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("Y,z\n3,4\n5\n")
    pipeline = csv_pipeline(tmp_path, split="none")
    [partition] = plan(pipeline).partitions
    rows, rejects, content = read(pipeline, partition)
    names = [piece.file for piece in partition.pieces]
    second = names.index("b.csv") << ROW_BITS
    assert sorted(names) == ["a.csv", "b.csv"]
    assert content == hashlib.sha256(b"".join((tmp_path / name).read_bytes() for name in names)).hexdigest()
    assert {tuple(sorted(map(str, row[:-1]))) for row in rows} == {("1", "2", "None"), ("3", "4", "None")}
    assert [(entry["file"], entry["row"]) for entry in rejects] == [("b.csv", second + 3)]


@pytest.mark.parametrize("split", ["none", "file"])
def test_a_file_that_lacks_columns_of_those_it_is_merged_with_is_a_warning(tmp_path: Path, split: str) -> None:
    (tmp_path / "a.csv").write_text("k,note,more,d\n1,kept,1,1\n")
    (tmp_path / "b.csv").write_text("K\n2\n")
    load = {"load": Load(target="warehouse", table="claims", mode="merge", key=["k"])}
    pipeline = csv_pipeline(tmp_path, split=split)
    pipeline = pipeline.model_copy(update={**load, "columns": {"k": Column(), "d": Column(type="integer")}})
    partitions = plan(pipeline).partitions
    found = [warning for each in partitions for chunk in extract(pipeline, each, CONTEXT) for warning in chunk.warnings]
    what = "b.csv lacks 2 columns of other files that are read with it: its rows empty what the table has there"
    assert found == ([f'{what}; split = "rows" keeps it'] if split == "none" else [])
    plain = pipeline.model_copy(update={"load": Load(target="warehouse", table="claims")})
    assert not any(chunk.warnings for each in plan(plain).partitions for chunk in extract(plain, each, CONTEXT))


def test_chunks_hold_at_most_100_000_rows_and_all_of_them(tmp_path: Path) -> None:
    rows, rejects = read_all(tmp_path, "x\n" + "1\n" * 250_001)
    assert (len(rows), rows[-1], rejects) == (250_001, ("1", 250_002), [])


def test_a_file_that_changed_since_it_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n" + "1\n" * 100)
    pipeline = csv_pipeline(tmp_path)
    partitions = plan(pipeline, partition_bytes=50).partitions
    path.write_text("y\n" + "12\n" * 100)
    with pytest.raises(BadSource, match="changed since the run was planned"):
        read(pipeline, partitions[1])
    path.unlink()
    with pytest.raises(SourceMissing, match="gone since the run was planned"):
        read(pipeline, partitions[1])


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n" + "1234567890\n" * 300_000)
    piece = Piece(file="a.csv", path=str(path))
    chunks = extract(csv_pipeline(tmp_path), Partition(number=1, order=0, pieces=(piece,)), CONTEXT)
    next(chunks)
    with path.open("a") as file:
        file.write("2\n" * 10)
    with pytest.raises(BadSource, match="changed while it was read"):
        list(chunks)


def test_no_message_quotes_a_value(tmp_path: Path) -> None:
    with pytest.raises(BadSource) as caught:
        read_all(tmp_path, b"x,y\nJane Roe,\xff\n")
    assert not re.search("Jane|Roe", str(caught.value))

"""Extract of NDJSON: what is a row, what is rejected, and how values keep what they are."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import etl.sources.feed
import etl.sources.formats.ndjson
import etl.sources.formats.records
import etl.sources.formats.strict
from etl.config.kinds import source
from etl.config.models import Load, Target
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.partition import Chunk
from etl.sources import extract, plan
from etl.types.infer import candidates
from etl.types.lattice import decide, merge_candidates
from etl.types.spelling import as_text


def read(
    root: Path, content: str | bytes, columns: Mapping[str, Any] | None = None, size: int = 1 << 40, **options: Any
) -> list[Chunk]:
    """Return the chunks of a file of this content."""
    (root / "rows.ndjson").write_bytes(content if isinstance(content, bytes) else content.encode())
    pipeline = Pipeline(
        name="rows",
        client="acme",
        root=str(root),
        staging=str(root / "staging"),
        modules=(),
        extract=source({"type": "ndjson", "path": "*.ndjson", "settle": 0, **options}),
        load=Load(target="warehouse", table="rows"),
        target=Target(name="warehouse", url="sqlite:///warehouse.db"),
        columns=columns or {},
    )
    partitions = plan(pipeline, partition_bytes=size).partitions
    return [chunk for partition in partitions for chunk in extract(pipeline, partition, Context("acme", "run"))]


def column(
    root: Path, *values: str, name: str = "a", columns: Mapping[str, Any] | None = None
) -> tuple[str, list[Any]]:
    """Return the type and the values of a column, given as JSON."""
    [chunk] = read(root, "".join(f'{{"{name}": {value}}}\n' for value in values), columns)
    assert chunk.rejects.num_rows == 0
    return str(chunk.rows.schema.field(name).type), chunk.rows[name].to_pylist()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1', "is no JSON: expecting ',' delimiter"),
        ('{"a": 1} x', "is no JSON: extra data"),
        ('{"a": 1}{"a": 2}', "is no JSON: extra data"),
        ("{'a': 1}", "is no JSON: expecting property name enclosed in double quotes"),
        ("secret", "is no JSON: expecting value"),
        ('{"a": NaN}', "is no JSON: NaN is no number"),
        ('{"a": -Infinity}', "is no JSON: -Infinity is no number"),
        ('{"a": "\t"}', "is no JSON: invalid control character at"),
        ('{"a": 01}', "is no JSON: expecting ',' delimiter"),
        ("\u00a0{}", "is no JSON: expecting value"),
        ("[1]", "is an array, not an object"),
        ('"x"', "is a text, not an object"),
        ("true", "is true or false, not an object"),
        ("1.5", "is a number, not an object"),
        ("null", "is null, not an object"),
        ('{"": 1}', "has a key without a name"),
        ('{"_row": 1}', "has a key _row"),
        ('{"B": 1, " b": 2}', "has keys that are the same without case and blanks"),
        (r'{"a": "\ud800"}', "holds half a surrogate pair"),
        (r'{"a": ["\ud800", 1.5]}', "holds half a surrogate pair"),
        (r'{"\ud800": 1}', "holds half a surrogate pair"),
        (r'{"a": "\u0000"}', "NUL character"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "is nested too deep"),
        ('{"a": ' + "[" * 200 + "1.5" + "]" * 200 + "}", "is nested too deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "is nested too deep"),
    ],
)
def test_a_line_that_is_no_object_is_rejected_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    [chunk] = read(tmp_path, f'{{"a": 1}}\n\n{line}\r\n \t\n{{"a": 2}}')
    assert chunk.rows.to_pylist() == [{"a": 1, "_row": 1}, {"a": 2, "_row": 5}]
    [reject] = chunk.rejects.to_pylist()
    assert (reject["file"], reject["row"], reject["reason"]) == ("rows.ndjson", 3, reason)
    assert json.loads(reject["raw"])[""][0] == line[: etl.sources.formats.strict.RAW]


@pytest.mark.parametrize("lines", ['{"a": NaN}', '{"a": NaN}\n{"a": -Infinity}', '{"": 1}\n{"": 2}'])
def test_objects_that_cannot_be_kept_are_rejects_though_a_file_has_no_others(tmp_path: Path, lines: str) -> None:
    [chunk] = read(tmp_path, lines)
    assert (chunk.rows.num_rows, chunk.rejects.num_rows) == (0, len(lines.split("\n")))


def test_keys_of_all_lines_are_columns_and_what_a_line_lacks_is_null(tmp_path: Path) -> None:
    [chunk] = read(tmp_path, '{"a": 1}\n{"b": "x", "A": 2}\n{}\n{"c": null}\n')
    assert chunk.rows.drop_columns(["_row"]).to_pylist() == [
        {"a": 1, "b": None, "c": None},
        {"a": 2, "b": "x", "c": None},
        {"a": None, "b": None, "c": None},
        {"a": None, "b": None, "c": None},
    ]


def test_of_a_key_that_comes_twice_the_last_is_taken_as_python_does(tmp_path: Path) -> None:
    assert read(tmp_path, '{"a": 1, "a": 2}')[0].rows["a"].to_pylist() == [2]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "-2", "null"], "int64", [1, -2, None]),
        (["9223372036854775807"], "int64", [2**63 - 1]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),
        (["9" * 5000], "string", ["9" * 5000]),
        (["1.5", "2", "1e3"], "double", [1.5, 2.0, 1000.0]),
        (["0.1", "0.30000000000000004", "5e-324"], "double", [0.1, 0.1 + 0.2, 5e-324]),
        (["1e400", "0.1"], "string", ["1e400", "0.1"]),
        (["1e-400"], "string", ["1e-400"]),
        (["0.12345678901234567890"], "string", ["0.12345678901234567890"]),
        (["9007199254740993", "0.5"], "string", ["9007199254740993", "0.5"]),
        (["9007199254740993"], "int64", [2**53 + 1]),
        (["true", "false", "null"], "bool", [True, False, None]),
        (["true", "1", "1.50", '"x"'], "string", ["true", "1", "1.5", "x"]),
        (["12345678901", "0.5", '"x"'], "string", ["12345678901", "0.5", "x"]),
        (['"066"', '""', '"NA"'], "string", ["066", "", "NA"]),
        (['{"x": [1.50, "é", null]}', "[]"], "string", ['{"x": [1.50, "é", null]}', "[]"]),
        (['{"x":1}'], "string", ['{"x": 1}']),
        ([r'"\ud83d\ude00"'], "string", ["😀"]),
        (["null"], "string", [None]),
    ],
)
def test_values_keep_their_type_or_their_digits(
    tmp_path: Path, values: list[str], kind: str, expected: list[Any]
) -> None:
    assert column(tmp_path, *values) == (kind, expected)


def test_numbers_of_a_decimal_column_are_never_rounded(tmp_path: Path) -> None:
    values = ["123456789.123456789", "1e2", "5", '"7,5"', "0.12345678901"]
    for mark in (".", ","):
        found = column(tmp_path, *values, columns={"a": {"type": "decimal", "decimal": mark}})[1]
        assert found == [f"123456789{mark}123456789", "100", "5", "7,5", f"0{mark}12345678901"]


def test_a_column_is_the_same_however_its_lines_are_ordered_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In lines parsed at once, in blocks and in partitions."""
    kinds = {
        "number": ["1", "2.5", "-3", "1e3", "null"],
        "text": ["1", "12345678901", "2.5", '"x"', "true"],
        "flag": ["true", "false"],
        "long": ["9007199254740993", "1"],
    }
    expected = {"number": "number", "text": "string", "flag": "boolean", "long": "integer"}
    for seed in range(20):
        chosen = random.Random(seed)
        lines = [{key: json.loads(values[n % len(values)]) for key, values in kinds.items()} for n in range(40)]
        chosen.shuffle(lines)
        monkeypatch.setattr(etl.sources.formats.ndjson, "LINES", chosen.choice([1, 3, 1000]))
        for module in (etl.sources.feed, etl.sources.formats.records):
            monkeypatch.setattr(module, "BLOCK", chosen.choice([64, 1 << 20]))
        content = "".join(json.dumps(line) + "\n" for line in lines)
        whole, cut = read(tmp_path, content), read(tmp_path, content, size=chosen.choice([200, 1000]))
        for chunks in (whole, cut):
            fitting = merge_candidates(candidates(chunk.rows) for chunk in chunks)
            assert decide(fitting) == expected
        assert [row["_row"] for chunk in cut for row in chunk.rows.to_pylist()] == list(range(1, 41))
        texts = [row["text"] for chunk in whole for row in chunk.rows.to_pylist()]
        assert texts == [json.dumps(line["text"]).strip('"') for line in lines]


def test_a_line_that_is_too_long_is_rejected_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (etl.sources.feed, etl.sources.formats.records, etl.sources.formats.ndjson):
        monkeypatch.setattr(module, "LIMIT", 100)
    for module in (etl.sources.feed, etl.sources.formats.records):
        monkeypatch.setattr(module, "BLOCK", 64)
    long = [f'{{"a": "{"x" * length}"}}' for length in (110, 150, 1000)]
    chunks = read(tmp_path, "\n".join(['{"a": "1"}', *long, '{"a": "2"}']))
    rows = [row for chunk in chunks for row in chunk.rows.to_pylist()]
    rejected = [(each["row"], each["reason"]) for chunk in chunks for each in chunk.rejects.to_pylist()]
    assert rows == [{"a": "1", "_row": 1}, {"a": "2", "_row": 5}]
    assert rejected == [(line, etl.sources.formats.strict.LONG) for line in (2, 3, 4)]


def test_chunks_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.sources.join.CHUNK_ROWS", 100)
    chunks = read(tmp_path, "".join(f'{{"a": {number}}}\n' for number in range(1050)))
    assert [chunk.rows.num_rows for chunk in chunks] == [100] * 10 + [50]
    assert [row["a"] for chunk in chunks for row in chunk.rows.to_pylist()] == list(range(1050))


@pytest.mark.parametrize("number", ["12000000000.0", "9007199254740992.0", "12", "0.5", "1e300", "-3e15"])
def test_a_number_has_the_same_text_beside_text_as_in_a_partition_of_numbers(tmp_path: Path, number: str) -> None:
    [alone] = read(tmp_path, f'{{"a": {number}}}\n{{"a": 0.25}}\n')
    [beside] = read(tmp_path, f'{{"a": {number}}}\n{{"a": "text"}}\n')
    assert str(alone.rows["a"].type) == "double"
    assert as_text(alone.rows["a"])[0].as_py() == beside.rows["a"][0].as_py()


def test_a_whole_float_reads_as_digits() -> None:
    values = pa.chunked_array([pa.array([1.2e10, 12.0, 0.5, None, 2.0**53, float("nan")])])
    assert as_text(values).to_pylist() == ["12000000000", "12", "0.5", None, "9007199254740992", None]
    assert as_text(values.cast(pa.float32())).to_pylist()[:3] == ["12000000000", "12", "0.5"]


def test_keys_that_differ_by_how_accents_are_encoded_are_one_column(tmp_path: Path) -> None:
    [chunk] = read(tmp_path, '{"café": 1}\n{"cafe\u0301": 2}\n')
    assert chunk.rows.drop_columns(["_row"]).to_pydict() == {"café": [1, 2]}

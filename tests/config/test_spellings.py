"""Keys that say how values are spelled, what is wrong between them, and words that others use for ours."""

from pathlib import Path
from typing import Any

import pytest

from etl.config.read import load_config
from etl.config.values import suggest
from etl.errors import ConfigError
from tests.helpers.project import Folder, etl_toml


def mistakes(folder: Path, **pipeline: Any) -> list[str]:
    """Return what is wrong with a pipeline `t`, after its own key."""
    path = Folder(folder, etl_toml({"t": pipeline})).path
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return [line.removeprefix(f"{path}: ").removeprefix("pipelines.t.") for line in caught.value.mistakes]


WRONG_COLUMNS = [
    ({"thousands": "."}, "thousands: is for integer and number and decimal columns, this one is string"),
    ({"true": ["ja"]}, "true: is for boolean columns, this one is string"),
    ({"type": "integer", "percent": True}, "percent: is for number and decimal columns"),
    ({"type": "decimal", "thousands": "_"}, "thousands: must be one of . , '"),
    ({"type": "decimal", "thousands": "."}, 'thousands: the column\'s decimal and thousands are both "."'),
    ({"type": "decimal", "currency": ["5"]}, "currency: must be signs or words without digits"),
    ({"type": "decimal", "currency": [" "]}, "currency: must be signs or words without digits"),
    ({"type": "decimal", "negative": "red"}, "negative: must be parentheses or trailing"),
    ({"type": "decimal", "percent": "yes"}, "percent: must be true or false"),
    ({"type": "boolean", "true": ["Ja"], "false": ["ja "]}, 'false: "ja" is in true too'),
    ({"type": "boolean", "true": [""]}, "true: holds blank text, which is a missing value"),
    ({"type": "boolean", "true": ["-"], "null": ["-"]}, 'true: "-" is in null too'),
    ({"regex": "x"}, "unknown key pipelines.t.columns.x.regex; did you mean pattern?"),
    ({"na_values": "x"}, "unknown key pipelines.t.columns.x.na_values; did you mean null?"),
    ({"type": "NUMERIC(10,2)"}, "did you mean decimal?"),
    ({"type": "float"}, "did you mean number?"),
    ({"type": "int"}, "did you mean integer?"),
    ({"type": "datetime"}, "did you mean timestamp?"),
    ({"type": "text"}, "did you mean string?"),
    ({"type": "DECIMAL"}, "did you mean decimal?"),
    ({"type": "date-time"}, "did you mean timestamp?"),
    ({"data_type": "date"}, "unknown key pipelines.t.columns.x.data_type; did you mean type?"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "said"), WRONG_COLUMNS)
def test_a_mistake_of_a_column_is_said_with_its_cure(tmp_path: Path, column: dict[str, Any], said: str) -> None:
    [line] = mistakes(tmp_path, columns={"x": column})
    assert said in line
    assert "columns.x." in line


WRONG_PIPELINES = [
    ({"extract": {"thousands": "."}, "columns": {"x": "decimal"}}, "columns.x.decimal: the column's decimal and thous"),
    (
        {"extract": {"null": ["Ja"]}, "columns": {"x": {"type": "boolean", "true": ["ja"]}}},
        'columns.x.true: "ja" is in',
    ),
    ({"extract": {"thousands": "."}}, "extract.thousands: is the decimal point of columns that are not declared"),
    (
        {"lookups": {"a": {"type": "csv", "path": "a.csv", "null": ["NA"]}}},
        "lookups.a.null: a lookup's values are given",
    ),
    ({"extract": {"type": "jsonl"}}, "did you mean ndjson?"),
    ({"extract": {"type": "postgres"}}, "did you mean sql?"),
    ({"load": {"mode": "upsert"}}, "load.mode: must be append or merge or replace; did you mean merge?"),
    ({"load": {"mode": "truncate"}}, "did you mean replace?"),
    ({"load": {"mode": "insert"}}, "did you mean append?"),
    (
        {"transform": ["steps:f"], "columns": {"m": "string", '"M "': {"computed": True}}},
        'columns."M ": differs from m by',
    ),
]


@pytest.mark.parametrize(("pipeline", "said"), WRONG_PIPELINES)
def test_a_mistake_between_keys_is_said_with_its_cure(tmp_path: Path, pipeline: dict[str, Any], said: str) -> None:
    [line] = mistakes(tmp_path, **pipeline)
    assert said in line


def test_all_mistakes_of_spellings_are_said_at_once(tmp_path: Path) -> None:
    columns = {"a": {"type": "decimal", "thousands": "_"}, "b": {"true": ["x"]}, "c": "decimal"}
    found = mistakes(tmp_path, extract={"thousands": ".", "currency": ["5"]}, columns=columns)
    keys = ["extract.currency", "columns.a.thousands", "columns.b.true", "columns.c.decimal"]
    assert sorted(line.partition(":")[0] for line in found) == sorted(keys), found


def test_a_computed_column_may_have_the_name_of_a_header_that_another_column_reads(tmp_path: Path) -> None:
    columns = {"amount": {"type": "decimal", "computed": True}, "as_written": {"from": ["Amount"]}}
    folder = Folder(tmp_path, etl_toml({"t": {"transform": ["steps:f"], "columns": columns}}))
    assert load_config(folder.path).pipelines["t"].columns["as_written"].from_ == ("Amount",)


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("UPSERT", ["append", "merge", "replace"], "merge"),
        ("Merge", ["append", "merge", "replace"], "merge"),
        ("target_table", ["target", "table"], "table"),
        ("transaction", ["function", "atomic"], "atomic"),
        ("requires", ["retries", "needs"], "needs"),
        ("skip-lines", ["skip", "split"], "skip"),
        ("scale", ["false", "required"], ""),
        ("table", ["false", "path"], ""),
        ("Claims", ["claims", "visits"], "claims"),
    ],
)
def test_the_nearest_name_is_that_of_the_meaning_or_none(word: str, known: list[str], said: str) -> None:
    assert suggest(word, known) == (f"; did you mean {said}?" if said else "")

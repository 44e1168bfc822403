"""The table of types: every word everywhere, and the same answer from each side."""

from decimal import Decimal
from typing import get_args

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from etl.config.models import Column
from etl.load.targets import postgres, sqlite
from etl.types import sql
from etl.types.casts import cast
from etl.types.words import TYPES, WORDS, arrow_of, natural_word, pandas_dtype, word_of


def test_its_words_are_those_of_the_configuration() -> None:
    assert set(TYPES) == set(WORDS) == set(sql.TYPES) == set(get_args(Column.model_fields["type"].annotation))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_comes_back_from_arrow_and_from_sql(word: str) -> None:
    assert word_of(arrow_of(word)) == natural_word(arrow_of(word)) == word
    assert word_of(pa.dictionary(pa.int32(), arrow_of(word))) == word
    assert sql.word_of_column(sql.TYPES[word]) == word


@pytest.mark.parametrize("target", [postgres, sqlite])
@pytest.mark.parametrize("word", WORDS)
def test_every_target_takes_what_any_database_does(target: object, word: str) -> None:
    fits = target.FITS[word]  # type: ignore[attr-defined]
    assert fits - {"any"} >= sql.FITS[word] - (set() if target is postgres else {word})


def test_sqlite_takes_dates_and_booleans_as_it_keeps_them_and_any_column_takes_anything() -> None:
    assert {
        "string": {"string", "any"},
        "integer": {"integer", "number", "decimal", "any"},
        "number": {"number", "decimal", "any"},
        "decimal": {"decimal", "any"},
        "boolean": {"boolean", "integer", "decimal", "any"},
        "date": {"date", "string", "any"},
        "timestamp": {"timestamp", "string", "any"},
    } == sqlite.FITS


def test_columns_are_made_with_the_standards_types() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    made = {word: sql.TYPES[word].compile(dialect) for word in WORDS}
    assert made == {
        "boolean": "BOOLEAN", "date": "DATE", "timestamp": "TIMESTAMP WITH TIME ZONE",
        "integer": "BIGINT", "number": "DOUBLE PRECISION", "decimal": "NUMERIC", "string": "TEXT",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "word", "natural"),
    [
        (pa.null(), "null", "string"),
        (pa.large_string(), "string", "string"),
        (pa.string_view(), "string", "string"),
        (pa.uint8(), "integer", "integer"),
        (pa.float16(), "number", "number"),
        (pa.decimal256(40, 3), "decimal", "decimal"),
        (pa.date64(), "date", "date"),
        (pa.timestamp("ns"), "timestamp", "timestamp"),
        (pa.time64("us"), None, "string"),
        (pa.binary(), None, "string"),
        (pa.list_(pa.int64()), None, "string"),
    ],
)
def test_other_arrow_types_have_the_nearest_word(kind: pa.DataType, word: str | None, natural: str) -> None:
    assert (word_of(kind), natural_word(kind)) == (word, natural)


@pytest.mark.parametrize(
    ("type", "word"),
    [
        (sa.VARCHAR(3), "string"),
        (sa.SMALLINT(), "integer"),
        (sa.NUMERIC(10, 2), "decimal"),
        (sa.FLOAT(), "number"),
        (sa.DATETIME(), "timestamp"),
        (sa.types.NullType(), "any"),
        (sa.Enum("a"), ""),
        (sa.LargeBinary(), ""),
    ],
)
def test_a_tables_columns_have_words(type: sa.types.TypeEngine[object], word: str) -> None:
    assert sql.word_of_column(type) == word


def test_whole_numbers_and_booleans_keep_missing_values_in_frames() -> None:
    assert pandas_dtype(pa.int64()) == pd.Int64Dtype()
    assert pandas_dtype(pa.bool_()) == pd.BooleanDtype()
    assert pandas_dtype(pa.float64()) is None


@example("240300000000000000000000000000", "000000000", "")  # Arrow alone makes a negative number of it
@example("9" * 29, "0" * 10, "-")
@given(
    st.text("0123456789", max_size=45), st.text("0123456789", min_size=1, max_size=14), st.sampled_from(["", "-", "+"])
)
def test_a_decimal_is_taken_where_its_digits_are_kept(whole: str, part: str, sign: str) -> None:
    text = f"{sign}{whole}.{part}"
    found, failures = cast(pa.chunked_array([pa.array([text])]), Column(type="decimal"), "UTC")
    value = Decimal(text)
    fits = len(whole.lstrip("0")) <= 29 and len(part.rstrip("0")) <= 9
    too_long = len(whole.lstrip("0")) + len(part) > 38  # zeros behind the point count too
    if fits and not too_long:
        assert found.to_pylist() == [value]
    else:
        assert found.to_pylist() == [None]
        assert [reason for _, reason in failures] == ["too many digits"]

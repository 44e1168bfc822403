"""Formats with fractions of a second: Arrow reads them as Python does."""

import datetime as dt
import time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.config.models import Column
from etl.types.casts import cast

FORMATS = [
    "%Y-%m-%d %H:%M:%S.%f",
    "%d/%m/%Y %I:%M:%S.%f %p",
    "%f|%Y %m %d",
    "%H:%M:%S,%f on %d.%m.%Y",
    "%Y%m%d%H%M%S.%f",
    "%Y%m%d%H%M%S%f",
    "%Y-%m-%dT%H:%M:%S.%fZ",
    "%y-%m-%d at %H.%M.%S.%f",
]


def read(text: str, form: str) -> dt.datetime | None:
    try:
        return dt.datetime.strptime(text.strip(), form).replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def written(moment: dt.datetime, form: str, digits: int) -> str:
    """Write a moment with fewer digits of its fraction, as other programs do."""
    return moment.strftime(form).replace(f"{moment.microsecond:06d}", f"{moment.microsecond:06d}"[:digits])


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
def test_a_fraction_is_read_as_python_reads_it(form: str, data: st.DataObject) -> None:
    moments = st.datetimes(min_value=dt.datetime(1970, 1, 1), max_value=dt.datetime(2060, 1, 1))
    texts = data.draw(st.lists(st.builds(written, moments, st.just(form), st.integers(0, 6)), min_size=1, max_size=5))
    odd = st.sampled_from(["  ", "\u00a0", "\t", "0", "30", "x", "٣", "", ".", "1234567", "Z", "am", "\n"])
    texts += [
        text.replace(data.draw(st.sampled_from([" ", "0", "2", "T", "M", ":"])), data.draw(odd)) for text in texts
    ]
    column = Column(type="timestamp", format=(form,))
    found, _ = cast(pa.chunked_array([pa.array(texts)]), column, "UTC")
    assert found.to_pylist() == [read(text, form) for text in texts]


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ({"type": "decimal"}, "{0}.{0:012d}1"),
        ({"type": "integer"}, "1{0:030d}"),
        ({"type": "timestamp", "format": "%Y-%m-%d %H:%M:%S.%f"}, "2024-01-31 08:00:00.{0:06d}"),
    ],
)
def test_a_hundred_thousand_odd_values_take_no_time_each(column: dict[str, str], text: str) -> None:
    """They did: 40 µs for a decimal that is too long, 8 µs for a fraction."""
    values = pa.chunked_array([pa.array([text.format(number) for number in range(100_000)])])
    before = time.process_time()
    found, _ = cast(values, Column.model_validate(column), "UTC")
    assert found.null_count in (0, 100_000)
    assert time.process_time() - before < 0.5

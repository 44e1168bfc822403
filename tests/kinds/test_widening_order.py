"""Types that nobody declared only widen: a table is the same in whatever order clients, files and nights come."""

import tempfile
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from etl.config.pipeline import Pipeline
from tests.helpers.deliveries import pipeline, query
from tests.helpers.examples import examples
from tests.helpers.nights import ZONES, Night, Nights

pytestmark = pytest.mark.slow

TEXTS = ["10", "10.5", "1.50", "NA", "", "true", "false", "2024-01-05", "2024-01-05T10:00:00Z", "2024-01-05 10:00:00"]
TEXTS += [
    "007",
    "+5",
    "-0",
    "-3",
    "1e-05",
    "1.5e+300",
    "12345678901234567",
    "0.30000000000000004",
    "0.1234567890123456",
]
TEXTS += ["9007199254740993", "12345678901234567890", "12345678901234567.25", "1234567890.123456789", "x"]
TEXTS += ["2024-01-05T23:30:00+05:00", "2024-02-29 10:00:00.123456"]
TYPED: list[tuple[pa.DataType, list[Any]]] = [
    (pa.int64(), [7, 0, -(2**60), None]),
    (pa.float64(), [0.1, 2.0, 1e300, 0.30000000000000004, 1e-7, None]),
    (pa.float32(), [0.1, 2.0, None]),
    (pa.decimal128(38, 9), [Decimal("1.5"), Decimal("12345678901234567.25"), Decimal(3), None]),
    (pa.bool_(), [True, False, None]),
    (pa.string(), ["1.50", "007", "true", "2024-01-05", None]),
]
WIDTH = 8  # columns: as many small tables in one


def random_night(number: int, luck: Random) -> Night:
    """Return a run of one or two files, each column of its own kind of values."""
    typed = luck.random() < 0.3
    pools = [luck.choice(TYPED) if typed else (pa.string(), luck.sample(TEXTS, 3)) for _ in range(WIDTH)]
    files = []
    for _ in range(luck.choice([1, 1, 2])):
        count = luck.choice([1, 2])
        arrays = [pa.array([luck.choice(pool) for _ in range(count)], kind) for kind, pool in pools]
        files.append(pa.table(arrays, names=[f"v{column}" for column in range(WIDTH)]))
    return Night(number, luck.choice(list(ZONES)), files, typed)


def loaded(url: str, pipeline: Pipeline, order: list[Night], luck: Random | None = None) -> Any:
    """Run the nights, one after another or with their steps mixed; return the table."""
    runs = Nights(url, pipeline)
    waiting = [runs.steps(night) for night in order]
    while waiting:
        one = luck.choice(waiting) if luck else waiting[0]
        one.pop(0)()
        waiting = [steps for steps in waiting if steps]
    return runs.table()


def compare(seed: int, first: str, second: str, tables: tuple[str, str] = ("t", "t")) -> None:
    """Load some nights into two tables, into the second in another order and some at once.

    Args:
        first, second: URLs of the databases.
    """
    luck = Random(seed)
    mode = luck.choice(["append", "merge"])
    more: dict[str, Any] = {"key": "id"} if mode == "merge" else {}
    more |= {"columns": {"id": {"type": "integer"}}} if luck.random() < 0.3 else {}  # all others are text then
    one, other = (pipeline(mode, table=table, **more) for table in tables)
    order = [random_night(number, luck) for number in range(luck.choice([2, 2, 3, 4]))]
    if theirs := luck.random() < 0.2:
        for url, table in ((first, tables[0]), (second, tables[1])):
            columns = ", ".join(f"v{column} TEXT" for column in range(WIDTH))
            query(url, f"CREATE TABLE {table} (id BIGINT, {columns}, _client TEXT, _run TEXT, _file TEXT)")
    found = loaded(first, one, order)
    luck.shuffle(order)
    words, rows = loaded(second, other, order, luck.choice([None, luck]))
    assert rows == found[1]
    # Text of a source with types makes a text column, and goes into one of another type that is there and fits.
    is_text = {
        name
        for night in order
        for name in night.files[0].column_names
        if (night.typed or one.columns) and night.files[0].schema.field(name).type == pa.string()
    }
    assert {name: words[name] for name in words if name not in is_text} == {
        name: word for name, word in found[0].items() if name not in is_text
    }
    assert not theirs or set(words.values()) <= {"string"}


@settings(max_examples=examples(60), deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_the_order_of_clients_files_and_nights_does_not_change_the_table(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compare(seed, f"sqlite:///{folder}/1.db", f"sqlite:///{folder}/2.db")


@settings(max_examples=examples(10), deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32))
def test_the_order_does_not_change_a_table_of_duckdb(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compare(seed, f"duckdb:///{folder}/1.duckdb", f"duckdb:///{folder}/2.duckdb")


@settings(
    max_examples=examples(15),
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 2**32))
def test_the_order_does_not_change_a_table_of_postgresql(pg_url: str, seed: int) -> None:
    query(pg_url, "DROP SCHEMA IF EXISTS one CASCADE; DROP SCHEMA IF EXISTS other CASCADE")
    query(pg_url, "CREATE SCHEMA one; CREATE SCHEMA other")
    compare(seed, pg_url, pg_url, ("one.t", "other.t"))

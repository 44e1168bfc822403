import itertools
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl.config.kinds import source
from etl.config.models import Column, Load, Target
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import ConfigError, FunctionFailed
from etl.partition import CHUNK_ROWS
from etl.sources import extract, plan

MODULES = (f"legacy{number}" for number in itertools.count())


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Return a function that writes a user's module and gives a pipeline which extracts by its `rows`."""

    def write(code: str, zone: str = "UTC", **args: Any) -> Pipeline:
        module = next(MODULES)
        (tmp_path / f"{module}.py").write_text(f"import pandas as pd\nimport decimal, datetime\n{code}\n")
        return Pipeline(
            name="claims",
            client="acme",
            root=str(tmp_path),
            staging=str(tmp_path / "staging"),
            modules=(module,),
            extract=source({"type": "function", "function": f"{module}:rows", "args": args}),
            load=Load(target="warehouse", table="claims"),
            target=Target(name="warehouse", url="sqlite:///warehouse.db"),
            params={"region": "north"},
            timezone=zone,
        )

    return write


def read(pipeline: Pipeline) -> tuple[pa.Table, str]:
    """Return all rows as one table, and the content hash."""
    [partition] = plan(pipeline).partitions
    source = extract(pipeline, partition, Context(client="acme", run="r1", params=pipeline.params))
    tables: list[pa.Table] = []
    while True:
        try:
            chunk = next(source)
        except StopIteration as stop:
            return pa.concat_tables(tables), stop.value
        assert chunk.rows.num_rows <= CHUNK_ROWS
        assert chunk.rejects.num_rows == 0
        tables.append(chunk.rows)


def test_frames_keep_their_types_and_rows_are_counted_from_one(written: Any) -> None:
    table, _ = read(
        written(
            "def rows():\n"
            "    yield pd.DataFrame({' a ': [1, 2], 'b': ['x', None], 'c': [decimal.Decimal('1.50'), None]})\n"
            "    yield pd.DataFrame({'a': [3], 'b': ['y'], 'c': [decimal.Decimal('2')]})"
        )
    )
    assert table.schema.field("a").type == pa.int64()
    assert pa.types.is_decimal(table.schema.field("c").type)
    assert table.column("_row").to_pylist() == [1, 2, 3]
    assert table.column("b").to_pylist() == ["x", None, "y"]


@pytest.mark.parametrize(
    "code",
    [
        "def rows():\n    return [{'a': 1}, {'b': 'x'}]",
        "def rows():\n    yield {'a': 1}\n    yield {'b': 'x'}",
        "def rows():\n    yield [{'a': 1}]\n    yield [{'b': 'x'}]",
        "def rows():\n    yield pd.DataFrame({'a': [1]})\n    yield {'b': 'x'}",
        "def rows():\n    return pd.DataFrame({'a': [1, None], 'b': [None, 'x']}, dtype=object)",
    ],
)
def test_records_and_frames_give_the_same_rows_and_hash_and_missing_keys_are_null(written: Any, code: str) -> None:
    table, content = read(written(code))
    assert table.to_pylist() == [{"a": 1, "b": None, "_row": 1}, {"a": None, "b": "x", "_row": 2}]
    assert content == read(written("def rows():\n    return iter([{'a': 1, 'b': None}, {'b': 'x'}])"))[1]


def test_the_hash_tells_other_content_and_types(written: Any) -> None:
    one = [read(written(f"def rows():\n    return [{{'a': {value}}}]"))[1] for value in ("1", "'1'", "2", "None", "''")]
    assert len(set(one)) == 5


def test_many_rows_come_in_chunks(written: Any) -> None:
    for code in ("return pd.DataFrame({'a': range(250_001)})", "return ({'a': n} for n in range(250_001))"):
        table, _ = read(written(f"def rows():\n    {code}"))
        assert table.column("a").to_pylist() == list(range(250_001))
        assert table.column("_row").to_pylist() == list(range(1, 250_002))


def test_types_that_differ_between_frames_are_widened(written: Any) -> None:
    table, _ = read(
        written(
            "def rows():\n"
            "    yield pd.DataFrame({'a': [1], 'b': [None], 'c': [1]})\n"
            "    yield pd.DataFrame({'a': [1.5], 'b': [datetime.date(2024, 1, 2)], 'c': ['x'], 'd': [True]})"
        )
    )
    assert [str(field.type) for field in table.schema] == ["double", "date32[day]", "string", "bool", "int64"]
    assert table.column("c").to_pylist() == ["1", "x"]


def test_what_no_target_holds_becomes_text(written: Any) -> None:
    table, _ = read(
        written("def rows():\n    return [{'a': {'k': [1, 'é']}, 'b': [1], 'c': 1}, {'c': 'x', 'a': None}]")
    )
    assert table.column("a").to_pylist() == ['{"k": [1, "é"]}', None]
    assert table.column("b").to_pylist() == ["[1]", None]
    assert table.column("c").to_pylist() == ["1", "x"]
    table, _ = read(written("def rows():\n    return pd.DataFrame({'a': pd.Categorical(['x', 'y'])})"))
    assert table.column("a").to_pylist() == ["x", "y"]


def test_a_named_index_is_a_column(written: Any) -> None:
    table, _ = read(written("def rows():\n    return pd.DataFrame({'a': [1]}, index=pd.Index([7], name='id'))"))
    assert table.to_pylist() == [{"id": 7, "a": 1, "_row": 1}]


def test_nothing_is_no_rows(written: Any) -> None:
    for code in ("return []", "return pd.DataFrame()", "yield from ()"):
        table, content = read(written(f"def rows():\n    {code}"))
        assert table.num_rows == 0
        assert table.column_names == ["_row"]
        assert content
    table, _ = read(written("def rows():\n    return pd.DataFrame({'a': []}, dtype=str)"))
    assert table.column_names == ["a", "_row"]


def test_arguments_come_by_name_with_client_and_params_filled(written: Any) -> None:
    table, _ = read(
        written(
            "def rows(client, where, region, n):\n    return [{'v': v} for v in (client, *where, region, str(n))]",
            where=["{client}-x"],
            region="{region}",
            n=3,
        )
    )
    assert table.column("v").to_pylist() == ["acme", "acme-x", "north", "3"]
    with pytest.raises(ConfigError, match="nowhere"):
        read(written("def rows(a):\n    return []", a="{nowhere}"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def rows():\n    raise ValueError('Jane Roe')", "raised ValueError in legacy.* line 4"),
        ("def rows():\n    yield {'a': 1}\n    raise ValueError('Jane Roe')", "raised ValueError in legacy.* line 5"),
        ("def rows():\n    return None", "gave NoneType"),
        ("def rows():\n    return {'a': 'Jane Roe'}", "gave dict"),
        ("def rows():\n    return ['Jane Roe']", "gave str"),
        ("def rows():\n    return [{'a': 1, ' A': 2}]", "columns of the same name"),
        ("def rows():\n    return pd.DataFrame([[1, 2]], columns=['a', 'a'])", "columns of the same name: a"),
        ("def rows():\n    return [{'_row': 1}]", "called _row"),
        ("def rows():\n    return [{'a': b'J\\xf8'.decode(errors='surrogateescape')}]", "text that is not Unicode"),
    ],
)
def test_a_function_that_fails_is_named_with_the_place_and_no_value(written: Any, code: str, message: str) -> None:
    with pytest.raises(FunctionFailed, match=message) as caught:
        read(written(code))
    assert "Jane" not in str(caught.value)


def test_dates_among_datetimes_keep_their_times_and_naive_ones_mean_the_clients_zone(written: Any) -> None:
    written = partial(written, zone="America/Chicago")
    day, noon = "datetime.date(2024, 7, 1)", "datetime.datetime(2024, 7, 1, 12)"
    aware = "datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.timezone.utc)"
    for made in ("[{{'a': v}} for v in ({})]", "pd.DataFrame({{'a': [{}]}}, dtype=object)"):
        table, _ = read(written(f"def rows():\n    return {made.format(f'{day}, {noon}, None')}"))
        assert table["a"].to_pylist() == [datetime(2024, 7, 1), datetime(2024, 7, 1, 12), None]
        table, _ = read(written(f"def rows():\n    return {made.format(f'{noon}, {aware}, {day}, pd.NaT')}"))
        assert table.schema.field("a").type == pa.timestamp("us", "UTC")
        chicago = [datetime(2024, 7, 1, 17, tzinfo=UTC), datetime(2024, 7, 1, 12, tzinfo=UTC)]
        assert table["a"].to_pylist() == [*chicago, datetime(2024, 7, 1, 5, tzinfo=UTC), None]


def test_a_value_has_the_same_text_beside_text_as_alone(written: Any) -> None:
    code = "def rows():\n    return pd.DataFrame({{'a': [{}, 'x']}}, dtype=object)"
    for value, text in (
        ("4111111111111111.0", "4111111111111111"),
        ("True", "true"),
        ("1e20", "100000000000000000000"),
        ("decimal.Decimal('1.50')", "1.5"),
        ("1", "1"),
    ):
        table, _ = read(written(code.format(value)))
        assert table["a"].to_pylist() == [text, "x"]
        table, _ = read(written(f"def rows():\n    yield {{'a': {value}}}\n    yield pd.DataFrame({{'a': ['x']}})"))
        assert table["a"].to_pylist() == [text, "x"]


def test_an_infinity_rejects_its_row_and_pandas_nan_is_missing(written: Any) -> None:
    made = written("def rows():\n    return pd.DataFrame({'a': [1.5, float('nan'), float('-inf')], 'b': [1, 2, 3]})")
    [chunk] = extract(made, plan(made).partitions[0], Context(client="acme", run="r"))
    assert chunk.rows.to_pylist() == [{"a": 1.5, "b": 1, "_row": 1}, {"a": None, "b": 2, "_row": 2}]
    [reject] = chunk.rejects.to_pylist()
    assert (reject["row"], reject["column"], reject["value"]) == (3, "a", "-Infinity")
    made = written("def rows():\n    import pyarrow as pa\n    return pa.table({'a': [1.5, float('nan'), None]})")
    [chunk] = extract(made, plan(made).partitions[0], Context(client="acme", run="r"))
    assert chunk.rows["a"].to_pylist() == [1.5, None]
    assert chunk.rejects["value"].to_pylist() == ["NaN"]


@pytest.mark.parametrize(
    ("code", "lacked"),
    [
        ("pd.DataFrame({'k': [1], 'x': [1]}), pd.DataFrame({'k': [2], 'y': [1]})", "x, y"),
        ("pd.DataFrame({'k': [1], 'x': [1]}), pd.DataFrame({'k': [2]})", "x"),
        ("{'k': 1, 'x': 1}, pd.DataFrame({'k': [2]})", "x"),
        ("pd.DataFrame({'k': [1], 'x': [1]}), pd.DataFrame(), pd.DataFrame({'k': []})", ""),
        ("pd.DataFrame({'k': [1], 'd': [1]}), pd.DataFrame({'k': [2]})", ""),
        ("{'k': 1, 'x': 1}, {'k': 2}", ""),
    ],
)
def test_frames_that_lack_columns_of_those_they_are_merged_with_are_a_warning(
    written: Any, code: str, lacked: str
) -> None:
    plain = written(f"def rows():\n    yield from [{code}]")
    load = {"load": Load(target="warehouse", table="claims", mode="merge", key=["k"])}
    merged = plain.model_copy(update={**load, "columns": {"d": Column(type="integer")}})
    [partition] = plan(plain).partitions
    for pipeline, expected in ((merged, lacked), (plain, "")):
        context = Context(client="acme", run="r1", params={})
        found = [said for chunk in extract(pipeline, partition, context) for said in chunk.warnings]
        assert len(found) == bool(expected)
        assert all(f"gave frames without {expected}, which others have: their rows empty" in said for said in found)


def test_the_rows_of_a_function_are_known_again_in_whatever_order_they_come(written: Any) -> None:
    code = "def rows():\n    return pd.DataFrame({'id': %s, 'name': ['a', 'b', 'b']}).iloc[%s]"
    contents = {
        order: read(written(code % ([1, 2, 2] if order != "other" else [1, 2, 3], places)))[1]
        for order, places in (
            ("once", "[0, 1, 2]"),
            ("again", "[2, 0, 1]"),
            ("other", "[0, 1, 2]"),
            ("fewer", "[0, 1]"),
        )
    }
    assert contents["once"] == contents["again"]
    assert len(set(contents.values())) == 3

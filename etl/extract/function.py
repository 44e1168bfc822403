"""Rows from a function of the user's own, which returns or yields DataFrames or records."""

import hashlib
import json
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from etl import rejects
from etl.context import Context
from etl.errors import FunctionFailed
from etl.extract import CHUNK_BYTES, CHUNK_ROWS, Chunk
from etl.functions import blame, call_by_name, load_function
from etl.pipeline import FunctionExtract, Pipeline
from etl.values import fill

_END = object()


def extract_function(pipeline: Pipeline, config: FunctionExtract, context: Context) -> Generator[Chunk, None, str]:
    """Yield the chunks of what the function gives, `_row` counted from 1; return the sha256 of the content.

    Columns keep their types. Where frames differ, a column gets the type that holds all of them, text if no other
    does; so the rows rest in a temporary file until the function has given its last.

    Raises:
        ConfigError: There is no such function, or nothing fills one of its parameters.
        FunctionFailed: It raised, or gave something else than DataFrames and records.
    """
    name = config.function
    function = load_function(name, root=pipeline.root, modules=pipeline.modules)
    values = {**pipeline.params, **context.params, "client": context.client}
    args = {key: _filled(value, values) for key, value in config.args.items()}
    given = call_by_name(function, (), context, args, name=name)

    types: dict[str, pa.DataType] = {}
    with tempfile.SpooledTemporaryFile(max_size=2 * CHUNK_BYTES) as file:
        count = 0
        for table in _tables(given, name):
            for field in table.schema:
                types[field.name] = _wider(types.get(field.name, field.type), field.type)
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
            count += 1
        _check_names(list(types), name)
        schema = pa.schema([(key, pa.string() if pa.types.is_null(kind) else kind) for key, kind in types.items()])
        digest = hashlib.sha256(json.dumps([[field.name, str(field.type)] for field in schema]).encode())
        first = 1
        file.seek(0)
        for _ in range(count):
            with pa.ipc.open_stream(file) as reader:
                table = _cast(reader.read_all(), schema, name)
            if types:
                _hash(table, digest)
            rows = pa.array(np.arange(first, first + table.num_rows), pa.int64())
            first += table.num_rows
            yield Chunk(table.append_column("_row", rows), rejects.SCHEMA.empty_table())
        if not count:
            empty = schema.append(pa.field("_row", pa.int64())).empty_table()
            yield Chunk(empty, rejects.SCHEMA.empty_table())
    return digest.hexdigest()


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    return [_filled(item, values) for item in value] if isinstance(value, list | tuple) else value


def _tables(given: Any, name: str) -> Iterator[pa.Table]:
    """Yield what the function gives as tables of the size of a chunk; single records are gathered."""
    if isinstance(given, pd.DataFrame | pa.Table):
        yield from _cut(_table(given, name))
        return
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise _wrong(given, name)
    records: list[Mapping[Any, Any]] = []
    for item in _each(given, name):
        if isinstance(item, pd.DataFrame | pa.Table):
            if records:
                yield from _cut(_recorded(records, name))
                records = []
            yield from _cut(_table(item, name))
            continue
        some = item if isinstance(item, list) else [item]
        for record in some:
            if not isinstance(record, Mapping):
                raise _wrong(record, name)
        records += some
        if len(records) >= CHUNK_ROWS:
            yield from _cut(_recorded(records, name))
            records = []
    if records:
        yield from _cut(_recorded(records, name))


def _each(given: Iterable[Any], name: str) -> Iterator[Any]:
    with blame(name):
        items = iter(given)
    while True:
        with blame(name):
            item = next(items, _END)
        if item is _END:
            return
        yield item


def _wrong(given: Any, name: str) -> FunctionFailed:
    what = f"{name} gave {type(given).__name__} where a DataFrame or a record (a mapping) was expected"
    return FunctionFailed(what, "return or yield DataFrames, or records such as dicts")


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    rows = min(CHUNK_ROWS, max(1, CHUNK_BYTES * table.num_rows // max(table.nbytes, 1)))
    for start in range(0, max(table.num_rows, 1), rows):
        yield table.slice(start, rows)


def _recorded(records: list[Mapping[Any, Any]], name: str) -> pa.Table:
    keys: dict[Any, None] = {}
    for record in records:
        keys.update(dict.fromkeys(record))
    columns = [_array([record.get(key) for record in records]) for key in keys]
    return _named(columns, [str(key) for key in keys], name)


def _table(frame: pd.DataFrame | pa.Table, name: str) -> pa.Table:
    if isinstance(frame, pa.Table):
        columns = [_simple(column.combine_chunks()) for column in frame.columns]
        return _named(columns, frame.column_names, name)
    levels = [frame.index.get_level_values(level) for level in frame.index.names if level is not None]
    columns = [_array(level) for level in levels] + [_array(frame.iloc[:, at]) for at in range(frame.shape[1])]
    return _named(columns, [*(str(level.name) for level in levels), *map(str, frame.columns)], name)


def _named(columns: list[pa.Array], names: list[str], name: str) -> pa.Table:
    names = [text.strip() for text in names]
    _check_names(names, name)
    return pa.Table.from_arrays(columns, names=names)


def _check_names(names: list[str], name: str) -> None:
    folded = [text.casefold() for text in names]
    twice = sorted({text for text, key in zip(names, folded, strict=True) if folded.count(key) > 1})
    if twice:
        raise FunctionFailed(f"{name} gave columns of the same name: {', '.join(twice)}", "rename one of them")
    if "" in folded or "_row" in folded:
        what = "a column without a name" if "" in folded else "a column called _row"
        raise FunctionFailed(f"{name} gave {what}", "rename it")


def _array(values: Any) -> pa.Array:
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):  # mixed types
        return pa.array([_text(value) for value in values], pa.string())
    return _simple(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)


def _simple(array: pa.Array) -> pa.Array:
    """Return the column in one of the few types that a target has."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _simple(array.dictionary_decode())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        return array.cast(pa.float64())
    if pa.types.is_date64(kind):
        return array.cast(pa.date32())
    kept = (
        pa.types.is_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_decimal,
        pa.types.is_boolean,
        pa.types.is_date,
        pa.types.is_timestamp,
        pa.types.is_null,
    )
    if any(is_kept(kind) for is_kept in kept):
        return array
    return pa.array([_text(value) for value in array.to_pylist()], pa.string())


def _text(value: Any) -> str | None:
    if isinstance(value, Mapping | list | tuple | set | frozenset | np.ndarray):
        plain = dict(value) if isinstance(value, Mapping) else list(value)
        return json.dumps(plain, ensure_ascii=False, default=str)
    if value is None or pd.isna(value):
        return None
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    try:
        fields = [pa.schema([("", kind)]) for kind in (one, other)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _cast(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        try:
            columns.append(column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            what = (
                f"{name}: column {field.name} is {column.type} in one frame and does not fit the others' {field.type}"
            )
            raise FunctionFailed(what, "give the column the same type in every frame") from None
    return pa.Table.from_arrays(columns, schema=schema)


class _Hashing:
    """A file that hashes what is written to it."""

    closed = False

    def __init__(self, digest: "hashlib._Hash") -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _hash(table: pa.Table, digest: "hashlib._Hash") -> None:
    # The text of one row after another: the same however the rows came in frames.
    options = pyarrow.csv.WriteOptions(include_header=False)
    pyarrow.csv.write_csv(table, pa.PythonFile(_Hashing(digest), "w"), options)

"""What a function of the user's own returns or yields, DataFrames or records, as tables."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.config.pipeline import Pipeline
from etl.config.values import fill
from etl.context import Context
from etl.errors import FunctionFailed
from etl.functions import NOT_UNICODE, blame, call_by_name, load_function
from etl.partition import CHUNK_BYTES, CHUNK_ROWS, Chunk
from etl.sources.spool import check_names, spooled
from etl.types.words import arrow_of, is_dictionary, word_of

_END = object()


def call(pipeline: Pipeline, name: str, args: Mapping[str, Any], context: Context) -> Generator[Chunk, None, str]:
    """Yield the chunks of what a function gives, `_row` counted from 1; return the sha256 of the content.

    Columns keep their types. Where frames differ, a column gets the type that holds all of them, text if no other
    does; so the rows rest in a temporary file until the function has given its last.

    Raises:
        ConfigError: There is no such function, or nothing fills one of its parameters.
        FunctionFailed: It raised, or gave something else than DataFrames and records.
    """
    function = load_function(name, root=pipeline.root, modules=pipeline.modules)
    values = {**pipeline.params, **context.params, "client": context.client}
    filled = {key: _filled(value, values) for key, value in args.items()}
    given = call_by_name(function, (), context, filled, name=name)
    try:
        return (yield from spooled(_tables(given, name), name, FunctionFailed))
    except UnicodeEncodeError:
        raise FunctionFailed(f"{name} gave text that is not Unicode", NOT_UNICODE) from None


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
    index = frame.index
    levels = [index.get_level_values(at) for at, level in enumerate(index.names) if level is not None]
    columns = [_array(level) for level in levels] + [_array(frame.iloc[:, at]) for at in range(frame.shape[1])]
    return _named(columns, [*(str(level.name) for level in levels), *map(str, frame.columns)], name)


def _named(columns: list[pa.Array], names: list[str], name: str) -> pa.Table:
    names = [text.strip() for text in names]
    check_names(names, name, FunctionFailed)
    return pa.Table.from_arrays(columns, names=names)


def _array(values: Any) -> pa.Array:
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):  # mixed types
        return pa.array([_text(value) for value in values], pa.string())
    return _simple(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)


def _simple(array: pa.Array) -> pa.Array:
    """Return the column in one of the few types that a target has."""
    word = word_of(array.type)
    if is_dictionary(array.type):
        return _simple(array.dictionary_decode())
    if word in ("string", "number", "date"):
        return array.cast(arrow_of(word))
    if word is not None:
        return array
    return pa.array([_text(value) for value in array.to_pylist()], pa.string())


def _text(value: Any) -> str | None:
    if isinstance(value, Mapping | list | tuple | set | frozenset | np.ndarray):
        plain = dict(value) if isinstance(value, Mapping) else list(value)
        return json.dumps(plain, ensure_ascii=False, default=str)
    if value is None or pd.isna(value):
        return None
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)

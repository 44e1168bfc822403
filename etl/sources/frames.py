"""What a function of the user's own returns or yields, DataFrames or records, as tables."""

import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.config.columns import named, points
from etl.config.pipeline import Pipeline
from etl.config.values import fill
from etl.context import Context
from etl.errors import FunctionFailed
from etl.functions import NOT_UNICODE, blame, call_by_name, load_function
from etl.partition import CHUNK_BYTES, CHUNK_ROWS, Chunk
from etl.sources.spool import Given, check_names, spooled
from etl.types.spelling import spell
from etl.types.times import missing
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
    seen = _Seen()
    try:
        tables = _tables(given, name, pipeline, seen)
        appended = pipeline.load.mode == "append"  # where rows may come twice, in whatever order
        chunks = spooled(map(Given, tables), name, FunctionFailed, pipeline, unordered=appended)
        first = next(chunks)  # the function has given its last
        yield first._replace(warnings=(*seen.lacking(name, pipeline), *first.warnings))
        content = yield from chunks
        return content.split()[0]
    except UnicodeEncodeError:
        raise FunctionFailed(f"{name} gave text that is not Unicode", NOT_UNICODE) from None


@dataclass
class _Seen:
    """The columns that a function has given, and those that each of its frames had."""

    every: dict[str, None] = field(default_factory=dict)
    common: set[str] | None = None

    def note(self, table: pa.Table, *, is_frame: bool) -> pa.Table:
        """Remember a table's columns. A key that a record lacks is empty, as in NDJSON: only frames lack any."""
        self.every |= dict.fromkeys(table.column_names)
        if is_frame and table.num_rows:
            names = set(table.column_names)
            self.common = names if self.common is None else self.common & names
        return table

    def lacking(self, name: str, pipeline: Pipeline) -> tuple[str, ...]:
        """Return a warning where frames that are merged together lack columns that others have."""
        if self.common is None or pipeline.load.mode != "merge":
            return ()
        columns = named(self.every, pipeline)
        lacks = [each for each in self.every if each not in self.common and columns[each] not in pipeline.columns]
        if not lacks:
            return ()
        which = ", ".join(lacks[:5]) + (f" and {len(lacks) - 5} more" if len(lacks) > 5 else "")
        what = f"{name} gave frames without {which}, which others have: their rows empty what the table has there"
        return (f"{what}; give every frame the same columns",)


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    return [_filled(item, values) for item in value] if isinstance(value, list | tuple) else value


def _tables(given: Any, name: str, pipeline: Pipeline, seen: _Seen) -> Iterator[pa.Table]:
    """Yield what the function gives as tables of the size of a chunk; single records are gathered."""
    if isinstance(given, pd.DataFrame | pa.Table):
        yield from _cut(_table(given, name, pipeline))
        return

    def recorded() -> Iterator[pa.Table]:
        return _cut(seen.note(_recorded(records, name, pipeline), is_frame=False))

    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise _wrong(given, name)
    records: list[Mapping[Any, Any]] = []
    for item in _each(given, name):
        if isinstance(item, pd.DataFrame | pa.Table):
            if records:
                yield from recorded()
                records = []
            yield from _cut(seen.note(_table(item, name, pipeline), is_frame=True))
            continue
        some = item if isinstance(item, list) else [item]
        for record in some:
            if not isinstance(record, Mapping):
                raise _wrong(record, name)
        records += some
        if len(records) >= CHUNK_ROWS:
            yield from recorded()
            records = []
    if records:
        yield from recorded()


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


def _recorded(records: list[Mapping[Any, Any]], name: str, pipeline: Pipeline) -> pa.Table:
    keys: dict[Any, None] = {}
    for record in records:
        keys.update(dict.fromkeys(record))
    columns = [[record.get(key) for record in records] for key in keys]
    return _made(columns, [str(key) for key in keys], name, pipeline)


def _table(frame: pd.DataFrame | pa.Table, name: str, pipeline: Pipeline) -> pa.Table:
    if isinstance(frame, pa.Table):
        columns = [_simple(column.combine_chunks()) for column in frame.columns]
        return _named(columns, frame.column_names, name)
    index = frame.index
    levels = [index.get_level_values(at) for at, level in enumerate(index.names) if level is not None]
    columns = [*levels, *(frame.iloc[:, at] for at in range(frame.shape[1]))]
    return _made(columns, [*(str(level.name) for level in levels), *map(str, frame.columns)], name, pipeline)


def _made(columns: list[Any], names: list[str], name: str, pipeline: Pipeline) -> pa.Table:
    marks = points(names, pipeline)
    made = (
        _array(values, pipeline.timezone, marks.get(each, ".")) for values, each in zip(columns, names, strict=True)
    )
    return _named(list(made), names, name)


def _named(columns: list[pa.Array], names: list[str], name: str) -> pa.Table:
    names = [text.strip() for text in names]
    check_names(names, name, FunctionFailed)
    return pa.Table.from_arrays(columns, names=names)


def _array(values: Any, zone: str, mark: str) -> pa.Array:
    try:
        if not isinstance(values, pd.Series | pd.Index) or values.dtype == object:
            moments = _moments(list(values), zone)
            if moments is not None:
                return moments
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, OverflowError):  # mixed types
        return pa.array([_text(value, mark) for value in values], pa.string())
    return _simple(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)


def _moments(values: list[Any], zone: str) -> pa.Array | None:
    """Return datetimes, and dates among them, as timestamps; None where there are none, or other values too.

    Arrow would take all of them for what the first one is: a datetime among dates loses its time.

    Args:
        zone: Time zone of dates and of times that say none, where others say theirs.

    Raises:
        pa.ArrowInvalid, OverflowError: One is outside the calendar, or left out by the zone's clocks.
    """
    kinds = set(map(type, values)) - {type(None), type(pd.NaT), type(pd.NA), float}
    if not all(issubclass(kind, date) for kind in kinds) or not any(issubclass(kind, datetime) for kind in kinds):
        return None
    if any(isinstance(value, float) and not pd.isna(value) for value in values):
        return None
    moments = [None if pd.isna(value) else _moment(value) for value in values]
    unit = "ns" if any(getattr(value, "nanosecond", 0) for value in moments) else "us"
    if not any(value.tzinfo for value in moments if value is not None):
        return pa.array(moments, pa.timestamp(unit))
    place = ZoneInfo(zone)
    aware = [value if value is None or value.tzinfo else value.replace(tzinfo=place) for value in moments]
    found = [value if value is None else value.astimezone(UTC) for value in aware]
    for value, instant in zip(values, found, strict=True):
        is_local = isinstance(value, datetime) and value.tzinfo is None
        if is_local and instant is not None and instant.astimezone(place).replace(tzinfo=None) != value:
            raise pa.ArrowInvalid(missing(zone))  # as text it is kept, and is a reject where it is to be a time
    return pa.array(found, pa.timestamp(unit, "UTC"))


def _moment(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime.combine(value, time.min)


def _simple(array: pa.Array) -> pa.Array:
    """Return the column in one of the few types that a target has."""
    word = word_of(array.type)
    if is_dictionary(array.type):
        return _simple(array.dictionary_decode())
    if word == "number" and array.type != pa.float16():
        return array  # a float32 keeps its own digits: 0.1, not 0.10000000149011612
    if word in ("string", "number", "date"):
        return array.cast(arrow_of(word))
    if word is not None:
        return array
    return pa.array([_text(value) for value in array.to_pylist()], pa.string())


def _text(value: Any, mark: str = ".") -> str | None:
    if isinstance(value, Mapping | list | tuple | set | frozenset | np.ndarray):
        plain = dict(value) if isinstance(value, Mapping) else list(value)
        return json.dumps(plain, ensure_ascii=False, default=str)
    if isinstance(value, bool | np.bool_ | float | np.floating | Decimal | bytes):
        return spell(value, point=mark)
    return None if value is None or pd.isna(value) else str(value)

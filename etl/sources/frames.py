"""What a function of the user's own returns or yields, DataFrames or records, as tables."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from etl.config.columns import named, points
from etl.config.pipeline import Pipeline
from etl.config.values import fill
from etl.context import Context
from etl.errors import FunctionFailed
from etl.functions import NOT_UNICODE, blame, call_by_name, load_function
from etl.partition import CHUNK_BYTES, CHUNK_ROWS, Chunk
from etl.sources.resting import INFINITE, Given, Unfit
from etl.sources.spool import check_names, spooled
from etl.types.given import UNFIT, Held, of_array, of_column

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
        chunks = spooled(tables, name, FunctionFailed, pipeline, unordered=appended)
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

    def note(self, given: Given, *, is_frame: bool) -> Given:
        """Remember a table's columns. A key that a record lacks is empty, as in NDJSON: only frames lack any."""
        table = given.table
        self.every |= dict.fromkeys(table.column_names)
        if is_frame and table.num_rows:
            names = set(table.column_names)
            self.common = names if self.common is None else self.common & names
        return given

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


def _tables(given: Any, name: str, pipeline: Pipeline, seen: _Seen) -> Iterator[Given]:
    """Yield what the function gives as tables of the size of a chunk; single records are gathered."""
    if isinstance(given, pd.DataFrame | pa.Table):
        yield from _cut(_table(given, name, pipeline))
        return

    def recorded() -> Iterator[Given]:
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


def _cut(given: Given) -> Iterator[Given]:
    table, unfit = given
    rows = min(CHUNK_ROWS, max(1, CHUNK_BYTES * table.num_rows // max(table.nbytes, 1)))
    for start in range(0, max(table.num_rows, 1), rows):
        some = {place - start: bad for place, bad in unfit.items() if start <= place < start + rows}
        yield Given(table.slice(start, rows), some)


def _recorded(records: list[Mapping[Any, Any]], name: str, pipeline: Pipeline) -> Given:
    keys: dict[Any, None] = {}
    for record in records:
        keys.update(dict.fromkeys(record))
    columns = [[record.get(key) for record in records] for key in keys]
    return _made(columns, [str(key) for key in keys], name, pipeline)


def _table(frame: pd.DataFrame | pa.Table, name: str, pipeline: Pipeline) -> Given:
    if isinstance(frame, pa.Table):
        return _named([of_array(column.combine_chunks()) for column in frame.columns], frame.column_names, name)
    index = frame.index
    levels = [index.get_level_values(at) for at, level in enumerate(index.names) if level is not None]
    columns = [*levels, *(frame.iloc[:, at] for at in range(frame.shape[1]))]
    return _made(columns, [*(str(level.name) for level in levels), *map(str, frame.columns)], name, pipeline)


def _made(columns: list[Any], names: list[str], name: str, pipeline: Pipeline) -> Given:
    marks = points(names, pipeline)
    made = [
        of_column(values, pipeline.timezone, marks.get(each, ".")) for values, each in zip(columns, names, strict=True)
    ]
    return _named(made, names, name)


def _named(columns: list[Held], names: list[str], name: str) -> Given:
    names = [text.strip() for text in names]
    check_names(names, name, FunctionFailed)
    unfit: dict[int, list[Unfit]] = {}
    for column, held in zip(names, columns, strict=True):
        for place, value in held.unfit.items():
            unfit.setdefault(place, []).append(Unfit(column, value, INFINITE if value[-1:].isalpha() else UNFIT))
    return Given(pa.Table.from_arrays([held.array for held in columns], names=names), unfit)

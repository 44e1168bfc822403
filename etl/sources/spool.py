"""Tables on their way to chunks, where only the last one shows what type each column has."""

import hashlib
import json
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from etl import rejects
from etl.config.columns import points
from etl.config.pipeline import Pipeline
from etl.config.values import header_key
from etl.errors import EtlError
from etl.partition import Chunk
from etl.sources.resting import INFINITE, Given, Spool, Unfit, fitted
from etl.sources.unordered import Unordered
from etl.types.infer import candidates, take
from etl.types.lattice import decide, merge_candidates
from etl.types.spelling import as_text
from etl.types.times import INSTANT, WALL, left_out, localize, missing
from etl.types.words import arrow_of, word_of


def spooled(
    given: Iterable[Given],
    name: str,
    error: type[EtlError],
    pipeline: Pipeline,
    *,
    typeless: bool = False,
    unordered: bool = False,
) -> Generator[Chunk, None, str]:
    """Yield tables as chunks, `_row` counted from 1; return the sha256 of the content.

    Where tables differ, a column gets the type that holds all of them, text if no other does; so the rows rest in a
    temporary file until the last has come. A row with a float that is not finite, or with NUL in a text, is a reject.

    Args:
        given: Tables of the size of a chunk; columns may come and go.
        name: Where they come from, for errors.
        error: What is raised where columns have the same name, or a value fits no common type.
        pipeline: Whose columns say how numbers that become text are written.
        typeless: A column without any value has no type; otherwise it is text.
        unordered: Whether rows may come in another order each time: the content then begins with a hash without it.
    """
    seen = _Types()
    with closing(Spool()) as spool:
        first = 1
        for table, unfit in given:
            if not table.num_columns:
                continue
            seen.note(table)
            check_names(table.column_names, name, error)
            rows = pa.array(np.arange(first, first + table.num_rows), pa.int64())
            first += table.num_rows
            marks = points(table.column_names, pipeline)
            for chunk in _split(table.append_column("_row", rows), unfit, name, marks):
                spool.write(chunk)
        types = seen.joined(spool)
        check_names(list(types), name, error)
        schema = pa.schema([(key, pa.string() if kind == pa.null() else kind) for key, kind in types.items()])
        digest = hashlib.sha256(json.dumps([[field.name, str(field.type)] for field in schema]).encode())
        schema = pa.schema(list(types.items())) if typeless else schema
        apart = Unordered() if unordered else None
        shape = digest.hexdigest()[:16]
        kept, marks = spool.read(), points(types, pipeline)
        for rows in kept:
            wrong = next(kept)
            if skipped := _skipped(rows, schema, pipeline.timezone):
                rows, more = _split(rows, skipped, name, marks)
                wrong = pa.concat_tables([wrong, more])
            table = _cast(rows, schema, name, error, marks, pipeline.timezone)
            if types:
                _hash(table, digest, apart)
            yield Chunk(table.append_column("_row", rows["_row"]), wrong)
        if not types:
            yield Chunk(pa.table({"_row": pa.array([], pa.int64())}), rejects.SCHEMA.empty_table())
    return f"{shape}{apart.hexdigest()} {digest.hexdigest()}" if apart else digest.hexdigest()


def check_names(names: list[str], name: str, error: type[EtlError]) -> None:
    """Refuse names that no table can have, or that two columns have.

    Args:
        name: Who gave them, for errors.
        error: What is raised where there is one.
    """
    folded = [header_key(text) for text in names]
    twice = sorted({text for text, key in zip(names, folded, strict=True) if folded.count(key) > 1})
    if twice:
        raise error(f"{name} gave columns of the same name: {', '.join(twice)}", "rename one of them")
    if "" in folded or "_row" in folded:
        what = "a column without a name" if "" in folded else "a column called _row"
        raise error(f"{name} gave {what}", "rename it")


def _split(
    rows: pa.Table, unfit: Mapping[int, list[Unfit]], name: str, marks: Mapping[str, str]
) -> tuple[pa.Table, pa.Table]:
    """Return the rows that are none of the rejects, and the rejects."""
    found = {place: list(values) for place, values in unfit.items()}
    for column in rows.column_names:
        if word_of(rows[column].type) == "number" and pc.all(pc.is_finite(rows[column])).as_py() is False:
            values = rows[column].to_pylist()
            for place in np.flatnonzero(~pc.fill_null(pc.is_finite(rows[column]), True).to_numpy()).tolist():
                bad = Unfit(column, _INFINITE.get(values[place], "NaN"), INFINITE)
                found.setdefault(place, []).append(bad)
        elif word_of(rows[column].type) == "string" and pc.any(pc.match_substring(rows[column], "\0")).as_py():
            values = rows[column].to_pylist()
            for place in [at for at, value in enumerate(values) if "\0" in (value or "")]:
                found.setdefault(place, []).append(Unfit(column, values[place], "NUL character"))
    if not found:
        return rows, rejects.SCHEMA.empty_table()
    places = sorted(found)
    some = rows.take(pa.array(places))
    names = some.column_names[:-1]
    texts = list(zip(*(as_text(some[column], marks.get(column, ".")).to_pylist() for column in names), strict=True))
    entries = []
    for place, row, raw in zip(places, some["_row"].to_pylist(), texts, strict=True):
        first = min(found[place], key=lambda bad: names.index(bad.column))
        written = dict(zip(names, raw, strict=True)) | {bad.column: bad.value for bad in found[place]}
        reject = {"file": name, "row": row, "raw": rejects.raw_json(names, list(written.values()))}
        entries.append({**reject, "column": first.column, "value": first.value, "reason": first.reason})
    keep = np.ones(rows.num_rows, dtype=bool)
    keep[places] = False
    return rows.filter(pa.array(keep)), rejects.table(entries)


_INFINITE = {float("inf"): "Infinity", float("-inf"): "-Infinity"}


class _Types:
    """The types that tables have given a column, in their order; those of columns without any value apart."""

    def __init__(self) -> None:
        self._valued: dict[str, list[pa.DataType]] = {}
        self._every: dict[str, list[pa.DataType]] = {}

    def note(self, table: pa.Table) -> None:
        """Remember a table's types."""
        for field in table.schema:
            is_empty = table[field.name].null_count == table.num_rows
            for kinds in (self._every, *(() if is_empty else (self._valued,))):
                some = kinds.setdefault(field.name, [])
                if field.type not in some:
                    some.append(field.type)

    def joined(self, spool: Spool) -> dict[str, pa.DataType]:
        """Return for each column the type that holds all of its values exactly; text if no other does."""
        found = {name: _joined(self._valued.get(name) or kinds) for name, kinds in self._every.items()}
        if asked := [name for name, kind in found.items() if kind is None]:
            tables = (rows.select([each for each in asked if each in rows.column_names]) for rows in spool.rows())
            words = decide(merge_candidates(candidates(rows, guess=False) for rows in tables))
            found |= {name: arrow_of(words[name]) for name in asked}
        return found


def _joined(kinds: list[pa.DataType]) -> pa.DataType | None:
    """Return the type that values of several have in common, None where that depends on the values."""
    kinds = [kind for kind in kinds if kind != pa.null()] or [pa.null()]
    if len(kinds) == 1:
        return kinds[0]
    words = {word_of(kind) for kind in kinds}
    if words <= {"date", "timestamp"}:
        if any(word_of(kind) == "timestamp" and kind.unit == "ns" for kind in kinds):
            return pa.string()  # more digits of a second than any type here has
        return INSTANT if any(getattr(kind, "tz", None) for kind in kinds) else WALL
    if len(words) > 1:
        return None if words <= {"integer", "number", "decimal"} else pa.string()
    try:
        fields = [pa.schema([("", kind)]) for kind in kinds]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _skipped(rows: pa.Table, schema: pa.Schema, zone: str) -> dict[int, list[Unfit]]:
    """Return the times of rows that say no zone, where others of their column do, and that the zone's clocks skip."""
    found: dict[int, list[Unfit]] = {}
    for name in rows.column_names[:-1]:
        column = rows[name]
        if schema.field(name).type == INSTANT and getattr(column.type, "tz", "") is None:  # a date has no such time
            for place in np.flatnonzero(left_out(column, zone).to_numpy()).tolist():
                value = as_text(column.slice(place, 1))[0].as_py()
                found.setdefault(place, []).append(Unfit(name, value, missing(zone)))
    return found


def _cast(
    table: pa.Table, schema: pa.Schema, name: str, error: type[EtlError], marks: Mapping[str, str], zone: str
) -> pa.Table:
    columns = []
    for field in schema:
        column = table.column(field.name) if field.name in table.column_names else None
        if column is not None and field.type == INSTANT and getattr(column.type, "tz", None) is None:
            column = _localized(column, zone)
        try:
            if column is not None and field.type == arrow_of("decimal") and word_of(column.type) == "number":
                column = take(column, "decimal", zone)[0]
            columns.append(fitted(column, field.type, table.num_rows, marks.get(field.name, ".")))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            kinds = f"{table.schema.field(field.name).type} in one frame and does not fit the others' {field.type}"
            what = f"{name}: column {field.name} is {kinds}"
            raise error(what, "give the column the same type in every frame") from None
    return pa.Table.from_arrays(columns, schema=schema)


def _localized(column: pa.ChunkedArray, zone: str) -> pa.ChunkedArray:
    word = word_of(column.type)
    return localize(column.cast(WALL), zone, days=word == "date") if word in ("date", "timestamp") else column


def _hash(table: pa.Table, digest: "hashlib._Hash", apart: Unordered | None) -> None:
    # The text of one row after another: the same however the rows came in frames.
    for batch in table.to_batches(max_chunksize=10_000):
        text = pa.BufferOutputStream()
        pyarrow.csv.write_csv(batch, text, pyarrow.csv.WriteOptions(include_header=False))
        digest.update(text.getvalue())
        if apart is not None:
            apart.update(text.getvalue().to_pybytes(), batch.num_rows)

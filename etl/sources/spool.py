"""Tables on their way to chunks, where only the last one shows what type each column has."""

import hashlib
import json
import tempfile
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.csv

from etl import rejects
from etl.errors import EtlError
from etl.partition import CHUNK_BYTES, Chunk
from etl.types.spelling import as_text
from etl.types.words import word_of


class Spool:
    """A temporary file of tables, in memory while it is small."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=2 * CHUNK_BYTES)  # noqa: SIM115
        self._count = 0

    @property
    def is_empty(self) -> bool:
        """Whether no table has been written."""
        return not self._count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, table: pa.Table) -> None:
        """Put a table behind those that are there."""
        with pa.ipc.new_stream(self._file, table.schema) as writer:
            writer.write_table(table)
        self._count += 1

    def read(self) -> Iterator[pa.Table]:
        """Yield the tables in their order."""
        self._file.seek(0)
        for _ in range(self._count):
            with pa.ipc.open_stream(self._file) as reader:
                yield reader.read_all()


def spooled(tables: Iterable[pa.Table], name: str, error: type[EtlError]) -> Generator[Chunk, None, str]:
    """Yield tables as chunks, `_row` counted from 1; return the sha256 of the content.

    Where tables differ, a column gets the type that holds all of them, text if no other does; so the rows rest in a
    temporary file until the last has come.

    Args:
        tables: Each of the size of a chunk; columns may come and go.
        name: Where they come from, for errors.
        error: What is raised where columns have the same name, or a value fits no common type.
    """
    types: dict[str, pa.DataType] = {}
    with Spool() as spool:
        for table in tables:
            for field in table.schema:
                types[field.name] = _wider(types.get(field.name, field.type), field.type)
            spool.write(table)
        check_names(list(types), name, error)
        schema = pa.schema([(key, pa.string() if kind == pa.null() else kind) for key, kind in types.items()])
        digest = hashlib.sha256(json.dumps([[field.name, str(field.type)] for field in schema]).encode())
        first = 1
        for kept in spool.read():
            table = _cast(kept, schema, name, error)
            if types:
                _hash(table, digest)
            rows = pa.array(np.arange(first, first + table.num_rows), pa.int64())
            first += table.num_rows
            yield Chunk(table.append_column("_row", rows), rejects.SCHEMA.empty_table())
        if spool.is_empty:
            empty = schema.append(pa.field("_row", pa.int64())).empty_table()
            yield Chunk(empty, rejects.SCHEMA.empty_table())
    return digest.hexdigest()


def check_names(names: list[str], name: str, error: type[EtlError]) -> None:
    """Refuse names that no table can have, or that two columns have.

    Args:
        name: Who gave them, for errors.
        error: What is raised where there is one.
    """
    folded = [text.casefold() for text in names]
    twice = sorted({text for text, key in zip(names, folded, strict=True) if folded.count(key) > 1})
    if twice:
        raise error(f"{name} gave columns of the same name: {', '.join(twice)}", "rename one of them")
    if "" in folded or "_row" in folded:
        what = "a column without a name" if "" in folded else "a column called _row"
        raise error(f"{name} gave {what}", "rename it")


def _wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    try:
        fields = [pa.schema([("", kind)]) for kind in (one, other)]
        return pa.unify_schemas(fields, promote_options="permissive").field(0).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _cast(table: pa.Table, schema: pa.Schema, name: str, error: type[EtlError]) -> pa.Table:
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        try:
            as_decimal = word_of(column.type) == "decimal" and field.type == pa.string()
            columns.append(as_text(column) if as_decimal else column.cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            what = (
                f"{name}: column {field.name} is {column.type} in one frame and does not fit the others' {field.type}"
            )
            raise error(what, "give the column the same type in every frame") from None
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

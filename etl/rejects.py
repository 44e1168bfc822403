"""The shape of rejects: rows that failed a check, kept with file, line, column and reason."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),  # physical line in the file, header = line 1
        ("column", pa.string()),
        ("value", pa.string()),
        ("reason", pa.string()),
        ("raw", pa.string()),  # JSON object of the whole source row, so that it can be exported, mended and loaded
    ]
)

REASONS = ("_file", "_row", "_column", "_reason")  # an export's columns that say where a row comes from and why


def table(entries: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rejects as a table of `SCHEMA`; missing keys are null."""
    return pa.Table.from_pylist([dict(entry) for entry in entries], schema=SCHEMA)


def raw_json(names: Sequence[str], values: Sequence[str | None]) -> str:
    """Return one source row as JSON text; fields beyond the header go under the empty name."""
    row: dict[str, Any] = dict(zip(names, values, strict=False))
    if len(values) > len(names):
        row[""] = list(values[len(names) :])
    return json.dumps(row, ensure_ascii=False)

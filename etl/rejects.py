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
        ("raw", pa.string()),  # JSON object of the whole source row, so that it can be exported, fixed and loaded
    ]
)

FIXED = "mended-"  # begins the name of a file of fixed rows, in the staging of the run that rejected them
REASONS = ("_file", "_row", "_column", "_reason")  # an export's columns that say where a row comes from and why


def table(entries: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rejects as a table of `SCHEMA`; missing keys are null."""
    return pa.Table.from_pylist([dict(entry) for entry in entries], schema=SCHEMA)


def raw_json(names: Sequence[str], values: Sequence[str | None], text: str | None = None) -> str:
    """Return one source row as JSON text.

    A row that doesn't fit the header has the empty name too, with the fields beyond it; what it lacks is null.

    Args:
        names: The header's names; a last one may be empty.
        text: The beginning of a row that can't be read as fields.
    """
    named = [name for name in names if name]
    row: dict[str, Any] = dict(zip(named, [*values, *[None] * len(named)], strict=False))
    if len(values) != len(names):
        row[""] = list(values[len(named) :]) if text is None else [text]
    return json.dumps(row, ensure_ascii=False)


def fields(raw: str | None, names: Sequence[str]) -> list[str]:
    """Return the fields of a row of `raw_json` under a header of `names`; one that didn't fit its own fits none.

    Args:
        raw: None for a row that stood in no source, which has no fields.
        names: All of the row's names, and perhaps those of other files.
    """
    row = json.loads(raw or '{"": []}')
    rest = row.pop("", None)
    there = [value for value in row.values() if value is not None]
    if rest is not None and not (rest and there):
        return [*there, *rest, *([""] if len(there) + len(rest) == len(names) else [])]
    return [*("" if row.get(name) is None else row[name] for name in names), *(rest or ())]

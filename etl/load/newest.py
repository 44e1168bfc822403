"""Whether text that says which row is newest can say so: what nobody declared must be in order, as a cursor's."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from etl.errors import TableMismatch
from etl.load.staged import Shadow
from etl.types.ordered import common_form

MANY = 50_000  # texts looked at together


def is_free_text(shadow: Shadow) -> bool:
    """Whether the column is kept as text that nobody has declared."""
    name = shadow.pipeline.load.newest
    if name is None or name in shadow.pipeline.columns or shadow.words.get(name) != "string":
        return False
    return isinstance(shadow.types[name], sa.String)


def check(shadow: Shadow, queries: Iterable[sa.Select[Any]]) -> None:
    """Refuse texts that are not dates or times of one form alone: "9" would beat "10".

    Args:
        queries: Each selects texts that are compared with those of the others.

    Raises:
        TableMismatch: They are others.
    """
    form: str | None = None
    for query in queries:
        for some in shadow.connection.execute(query).scalars().partitions(MANY):
            texts = pa.chunked_array([pa.array([text for text in some if text and text.strip()], pa.string())])
            if not len(texts):
                continue
            found = common_form(texts)
            if found is None or form not in (None, found):
                raise _unordered(shadow)
            form = found


def _unordered(shadow: Shadow) -> TableMismatch:
    name = shadow.pipeline.load.newest
    return TableMismatch(
        f"table {shadow.pipeline.table}, column {name}: it says which row is newest, and holds text that is not "
        "declared and is not dates or times of one form alone",
        f'declare columns.{name}: as what it is compared, such as type = "integer"; "string" is by code points',
    )

"""Where in a run's source a value is that is not of its column's type."""

from collections.abc import Sequence

import pyarrow as pa

from etl.config.columns import named
from etl.config.pipeline import Pipeline
from etl.errors import EtlError
from etl.partition import Partition, line_of
from etl.staging import Staging
from etl.types.infer import candidates


def locate(staging: Staging, pipeline: Pipeline, partitions: Sequence[Partition], column: str, word: str) -> str | None:
    """Return the file and line of the first value of a column that is not of a type, or None where none is found.

    Args:
        partitions: Where it is looked for, in this order.
        column: By the pipeline's name of it.
        word: The type, as the pipeline calls it.
    """
    for partition in partitions:
        try:
            row = _first(staging, pipeline, partition.number, column, word)
        except EtlError:
            continue  # it is gone from staging, or damaged: whoever needs it says so
        if row is not None:
            file, line = line_of(partition, row)
            return f"{file}, line {line:,}"
    return None


def _first(staging: Staging, pipeline: Pipeline, number: int, column: str, word: str) -> int | None:
    marker = staging.marker("extract", number)
    for chunk in staging.chunks(marker.data if marker else ()):
        for header, name in named(chunk.column_names, pipeline).items():
            values = chunk.select([header, "_row"])
            if name.casefold() == column.casefold() and not _all(values, pipeline, word):
                while values.num_rows > 1:  # by halves, since only many values together are looked at fast
                    half = values.slice(0, values.num_rows // 2)
                    values = half if not _all(half, pipeline, word) else values.slice(half.num_rows)
                return int(values["_row"][0].as_py())
    return None


def _all(values: pa.Table, pipeline: Pipeline, word: str) -> bool:
    [kinds] = candidates(values, pipeline.extract).values()
    return word in kinds

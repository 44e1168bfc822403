"""From a partition to chunks of rows and rejects; one module per kind of source."""

from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple

from etl.context import Context
from etl.pipeline import CsvExtract, Pipeline, SqlExtract
from etl.plan import Partition

if TYPE_CHECKING:
    import pyarrow as pa

    from etl.cursor import Span

CHUNK_ROWS = 100_000
CHUNK_BYTES = 32 << 20


class Chunk(NamedTuple):
    """A piece of a partition small enough for memory.

    Args:
        rows: All source columns and, last, `_row` (int64), which says where each row comes from.
        rejects: What is no row, in the shape of `etl.rejects.SCHEMA`.
    """

    rows: "pa.Table"
    rejects: "pa.Table"


def extract(
    pipeline: Pipeline, partition: Partition, context: Context, span: "Span | None" = None
) -> Generator[Chunk, None, str]:
    """Yield a partition's chunks, at least one; return the sha256 of the content read.

    Every chunk of a partition has the same columns. Rows and rejects together are all the records there are.

    Args:
        context: Its `pace` is called before each file, statement or call.
        span: Which rows a database is asked for; None means all.

    Raises:
        SourceMissing: A file is gone.
        BadSource: A file can't be read as the pipeline describes it.
        FunctionFailed: The user's function raised, or gave what it must not.
    """
    if isinstance(pipeline.extract, CsvExtract):
        from etl.extract.csv import extract_csv

        return extract_csv(pipeline.extract, partition, context.pace)
    context.pace()
    if isinstance(pipeline.extract, SqlExtract):
        from etl.cursor import Span
        from etl.extract.sql import extract_sql

        return extract_sql(pipeline, pipeline.extract, partition, context, span or Span())
    from etl.extract.function import extract_function

    return extract_function(pipeline, pipeline.extract, context)

"""From a source to a plan of partitions, and from a partition to chunks of rows and rejects."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from etl.config.models import CsvExtract, SqlExtract
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.partition import Partition

if TYPE_CHECKING:
    from etl.types.cursor import Span
from datetime import datetime

from etl.errors import SourceMissing
from etl.partition import Chunk, Piece, Plan
from etl.sources.files import cut_file, listed, nearby, path_pattern, settled, unescaped


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
        from etl.sources.formats.csv import extract_csv

        return extract_csv(pipeline.extract, partition, context.pace)
    context.pace()
    if isinstance(pipeline.extract, SqlExtract):
        from etl.sources.sql import extract_sql
        from etl.types.cursor import Span

        return extract_sql(pipeline, pipeline.extract, partition, context, span or Span())
    from etl.sources.function import extract_function

    return extract_function(pipeline, pipeline.extract, context)


def plan(
    pipeline: Pipeline,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    today: datetime | None = None,
    partition_bytes: int = 32 << 20,
) -> Plan:
    """Return the partitions of a run.

    Args:
        start, end: The run's window.
        today: The moment that `{date}` means where there is no window; None means now.
        partition_bytes: A CSV file of 1.5 times as many bytes is cut into partitions of about this size.

    Raises:
        SourceMissing: No file matches, and `missing` is "fail".
        BadSource: A database can't be reached or asked for its keys.
        ConfigError: The path needs a window, or a parameter has a value that leads elsewhere.
    """
    config = pipeline.extract
    if isinstance(config, SqlExtract):
        from etl.sources.sql import plan_sql

        return Plan(partitions=plan_sql(pipeline, config, start, end))
    if not isinstance(config, CsvExtract):
        piece = Piece(file=config.function, path=config.function)
        return Plan(partitions=(Partition(number=1, pieces=(piece,), order=0),))

    pattern = path_pattern(pipeline, config, start, end, today)
    files, growing = settled(listed(pipeline.root, pattern), config.settle)
    warnings = [f"{file.name} is still growing: left out of this run" for file in sorted(growing)]
    if not files and not growing:
        shown = unescaped(pattern)
        if config.missing == "fail":
            raise SourceMissing(f"no file matches {shown}{nearby(pipeline.root, pattern)}", 'or set missing = "ok"')
        return Plan(warnings=(f"no file matches {shown}",) if config.missing == "warn" else ())

    pieces = []
    for file in sorted(files):
        large = config.split == "rows" and file.size > 1.5 * partition_bytes
        cut = cut_file(file, config, partition_bytes) if large else None
        pieces.append(cut or [Piece(file=file.name, path=file.path, size=file.size, modified=file.modified)])
    if config.split == "none" and pieces:
        parts = [tuple(piece for cut in pieces for piece in cut)]
    else:
        parts = [(piece,) for cut in pieces for piece in cut]
    partitions = (Partition(number=order + 1, pieces=part, order=order) for order, part in enumerate(parts))
    return Plan(partitions=tuple(partitions), warnings=tuple(warnings))

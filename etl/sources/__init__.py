"""From a source to a plan of partitions, and from a partition to chunks of rows and rejects."""

from collections.abc import Generator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from etl.config.kinds import module_of
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.partition import Chunk, Partition, Plan
from etl.sources import files

if TYPE_CHECKING:
    from etl.types.cursor import Cursor, Span


class Source(Protocol):
    """What a kind of source that is no file gives, beside its `Config`; what a kind of file gives is a `Format`."""

    def plan(self, pipeline: Pipeline, config: Any, window: tuple[datetime | None, datetime | None]) -> Plan:
        """Return the partitions of a run."""

    def read(
        self, pipeline: Pipeline, config: Any, partition: Partition, context: Context, span: "Span | None"
    ) -> Generator[Chunk, None, str]:
        """Yield a partition's chunks; return the sha256 of the content."""

    def latest(self, pipeline: Pipeline, config: Any, partitions: int) -> "Cursor | None":
        """Return how far the cursor's column reaches now, where `FACTS.windows` is "query" and reading needs it."""


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
    config, kind = pipeline.extract, module_of(pipeline.extract.type)
    if isinstance(config, files.FileConfig):
        return files.read(kind, pipeline, config, partition, context)
    context.pace()
    found: Generator[Chunk, None, str] = kind.read(pipeline, config, partition, context, span)
    return found


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
        partition_bytes: A file of 1.5 times as many bytes is cut into partitions of about this size.

    Raises:
        SourceMissing: No file matches, and `missing` is "fail".
        BadSource: A database can't be reached or asked for its keys.
        ConfigError: The path needs a window, or a parameter has a value that leads elsewhere.
    """
    config, kind = pipeline.extract, module_of(pipeline.extract.type)
    if isinstance(config, files.FileConfig):
        return files.plan(kind, pipeline, config, (start, end, today), partition_bytes)
    planned: Plan = kind.plan(pipeline, config, (start, end))
    return planned


def read_all(pipeline: Pipeline, context: Context) -> Iterator[tuple[str, Chunk]]:
    """Plan and read a source whole: yield its chunks with their files; the first has the plan's warnings."""
    planned = plan(pipeline, start=context.start, end=context.end, today=context.today)
    warnings = planned.warnings
    for partition in planned.partitions:
        for chunk in extract(pipeline, partition, context):
            yield partition.pieces[0].file, chunk._replace(warnings=(*warnings, *chunk.warnings))
            warnings = ()
    if warnings:  # there is no file
        import pyarrow as pa

        from etl import rejects

        yield pipeline.name, Chunk(pa.table({}), rejects.SCHEMA.empty_table(), warnings)


def latest(pipeline: Pipeline, partitions: int) -> "Cursor | None":
    """Return how far the cursor's column reaches in the source now, where reading needs to know; else None."""
    if pipeline.extract.FACTS.windows != "query":
        return None
    found: Cursor | None = module_of(pipeline.extract.type).latest(pipeline, pipeline.extract, partitions)
    return found

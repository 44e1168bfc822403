"""CSV files in a folder, planned and read by a pipeline without columns."""

from pathlib import Path
from typing import Any

from etl.config.kinds import source
from etl.config.models import Load, Target
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.partition import CHUNK_ROWS, Partition
from etl.sources import extract, plan

CONTEXT = Context(client="acme", run="r1")


def csv_pipeline(folder: Path, **options: Any) -> Pipeline:
    options = {"path": "*.csv", "settle": 0, **options}
    return Pipeline(
        name="claims",
        client="acme",
        root=str(folder),
        staging=str(folder / "staging"),
        modules=(),
        extract=source({"type": "csv", **options}),
        load=Load(target="warehouse", table="claims"),
        target=Target(name="warehouse", url="sqlite:///warehouse.db"),
    )


def read(pipeline: Pipeline, partition: Partition) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]], str]:
    """Return rows (`_row` last), rejects and the content hash."""
    chunks = extract(pipeline, partition, CONTEXT)
    rows: list[tuple[Any, ...]] = []
    rejects: list[dict[str, Any]] = []
    while True:
        try:
            chunk = next(chunks)
        except StopIteration as stop:
            return rows, rejects, stop.value
        assert chunk.rows.num_rows <= CHUNK_ROWS
        rows += [tuple(row.values()) for row in chunk.rows.to_pylist()]
        rejects += chunk.rejects.to_pylist()


def read_all(folder: Path, content: bytes | str, *, size: int = 32 << 20, **options: Any) -> tuple[Any, Any]:
    """Write a.csv, plan it and read all its partitions; return rows and (line, reason) of the rejects."""
    (folder / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    pipeline = csv_pipeline(folder, **options)
    rows: list[Any] = []
    rejects: list[Any] = []
    for partition in plan(pipeline, partition_bytes=size).partitions:
        some, bad, _ = read(pipeline, partition)
        rows += some
        rejects += [(entry["row"], entry["reason"]) for entry in bad]
    return rows, sorted(rejects)

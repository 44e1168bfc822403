"""Files that need not be loaded again, as they are in the target already: the ledger says so, by their content."""

import hashlib
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.load import ledger, tables
from etl.load.targets.connect import transaction
from etl.partition import Partition

WORTH_ASKING = 8 << 20  # bytes; a smaller file is sooner read than the target is asked


def may_skip(pipeline: Pipeline, partition: Partition, partitions: int) -> bool:
    """Whether a partition can be left out without changing what becomes of the run's other rows."""
    if not pipeline.extract.FACTS.files or pipeline.extract.cursor or pipeline.load.function:
        return False
    if len(partition.pieces) > 1:
        return False
    if partitions > 1 and any(column.unique for column in pipeline.columns.values()):
        return False  # a row may be doubled between files
    piece = partition.pieces[0]
    whole = piece.start == 0 and piece.end is None
    return pipeline.load.mode != "replace" or (pipeline.load.by == ("_file",) and whole)


def rows_there(pipeline: Pipeline, partition: Partition, url: str | None = None) -> tuple[int, str] | None:
    """Return how many rows of a large file are in the target since an earlier run, and its sha256; None to read it.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked.
    """
    piece = partition.pieces[0]
    if piece.size < WORTH_ASKING:
        return None
    with transaction(url or url_of(pipeline), pipeline.target.name) as connection:
        book = ledger.table(connection, pipeline)
        found = _latest(connection, book, pipeline, partition)
        if found is None:
            return None
        version = piece.version or _hash(piece.path)
        rows = _same(connection, pipeline, partition, found, version)
        return None if rows is None else (rows, found["content"])


def is_there(connection: sa.Connection, book: sa.Table, delivery: ledger.Delivery) -> int | None:
    """Return how many rows of a delivery are in the target since an earlier run, or None."""
    found = _latest(connection, book, delivery.pipeline, delivery.partition, but=delivery.run)
    version = delivery.partition.pieces[0].version or delivery.content
    return None if found is None else _same(connection, delivery.pipeline, delivery.partition, found, version)


def _latest(
    connection: sa.Connection, book: sa.Table, pipeline: Pipeline, partition: Partition, but: str = ""
) -> dict[str, Any] | None:
    """Return what the ledger says of this piece in the latest run that loaded any of its file."""
    piece = partition.pieces[0]
    same = (book.c.client == pipeline.client) & (book.c.pipeline == pipeline.name)
    same &= (book.c.table_name == pipeline.table) & (book.c.file == piece.file) & (book.c.run != but)
    query = sa.select(book.c.run).where(same, book.c.final.is_(True)).order_by(book.c.loaded_at.desc()).limit(1)
    run = connection.execute(query).scalar()
    if run is None:
        return None
    mine = same & (book.c.run == run) & (book.c.first_byte == piece.start)
    row = connection.execute(sa.select(book).where(mine, book.c.last_byte.is_not_distinct_from(piece.end))).mappings()
    found = row.first()
    return dict(found) if found else None


def _same(
    connection: sa.Connection, pipeline: Pipeline, partition: Partition, found: dict[str, Any], version: str
) -> int | None:
    # Where rows were rejected or lost to others, the file is read again: what became of them is this run's to tell.
    clean = found["read"] == found["rows"] and not found["superseded"] and not found["rejected"]
    if not clean or not found["rows"] or (found["version"], found["fingerprint"]) != (version, pipeline.fingerprint):
        return None
    if tables.existing(connection, pipeline.table) is None:
        return None
    there = tables.table(connection, pipeline.table, ["_file", "_client"])
    query = sa.select(sa.literal(1)).where(there.c._file == partition.pieces[0].file).limit(1)
    if pipeline.shared:
        query = query.where(there.c._client == pipeline.client)
    return int(found["rows"]) if connection.execute(query).scalar() else None


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # reading it says what is wrong

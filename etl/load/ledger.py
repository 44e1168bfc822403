"""The ledger: the target's table `_etl_loads`, which says which partition of which run was loaded, and from what.

By it a file that is in the target already, as its content says, need not be loaded again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.context import Context
from etl.errors import ChangedFile
from etl.load import columns, tables
from etl.load.targets import kind
from etl.load.targets.connect import transaction
from etl.partition import Partition

NAME = "_etl_loads"
COUNTS = ("rows", "loaded", "unchanged", "superseded", "rejected")
WORTH_ASKING = 8 << 20  # bytes; a smaller file is sooner read than the target is asked


@dataclass(frozen=True)
class Delivery:
    """One partition of a run, as it is handed to the target.

    Args:
        content: sha256 of what was extracted.
        partitions: How many the run has.
        attempt: Which attempt of the run this is, from 1; a later one takes back what an earlier one staged.
        read: Rows that the partition was read as, rejects included; -1 where nobody knows.
        skipped: Rows that were not even read, as an earlier run has loaded the same file.
        again: Whether a file that is loaded is loaded again.
        context: What a load function of the user's may ask for by name; None means what the pipeline knows.
    """

    pipeline: Pipeline
    run: str
    partition: Partition
    content: str
    partitions: int
    attempt: int = 1
    read: int = -1
    skipped: int = 0
    again: bool = False
    context: Context | None = None

    @property
    def file(self) -> str:
        """What the partition is read from: a file's name, or a JSON list of several."""
        names = [piece.file for piece in self.partition.pieces]
        return names[0] if len(names) == 1 and not names[0].startswith("[") else json.dumps(names)


@dataclass(frozen=True)
class Entry:
    """What the ledger says of one partition."""

    partition: int
    rows: int
    loaded: int
    unchanged: int
    superseded: int
    rejected: int
    final: bool
    attempt: int


def table(connection: sa.Connection, pipeline: Pipeline) -> sa.Table:
    """Return the ledger, made if it is missing, in the schema of the pipeline's table."""
    return tables.own(connection, named(tables.split(connection, pipeline.table)[0]))


@lru_cache  # statements are compiled anew for a new table
def named(schema: str | None) -> sa.Table:
    """Return the ledger of a schema, there or not."""
    text, number = sa.Text, sa.BigInteger
    return sa.Table(
        NAME,
        sa.MetaData(),
        sa.Column("run", text, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        *(sa.Column(name, text, nullable=False) for name in ("client", "pipeline", "table_name", "mode", "file")),
        sa.Column("first_byte", number, nullable=False),
        sa.Column("last_byte", number),
        *(sa.Column(name, text, nullable=False) for name in ("version", "content", "fingerprint")),
        sa.Column("types", text, nullable=False, server_default="{}"),
        sa.Column("read", number, nullable=False, server_default="-1"),
        *(sa.Column(name, number, nullable=False) for name in COUNTS),
        sa.Column("final", sa.Boolean, nullable=False),
        sa.Column("loaded_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Index(f"{NAME}_file", "client", "pipeline", "table_name", "file"),
        schema=schema,
    )


def claim(connection: sa.Connection, ledger: sa.Table, delivery: Delivery) -> Entry | None:
    """Write the delivery's row, or return the one that is there. A second execution waits here for the first."""
    pipeline, piece = delivery.pipeline, delivery.partition.pieces[0]
    whole = piece.start == 0 and piece.end is None and len(delivery.partition.pieces) == 1
    values = {
        "run": delivery.run,
        "partition": delivery.partition.number,
        "attempt": delivery.attempt,
        "client": pipeline.client,
        "pipeline": pipeline.name,
        "table_name": pipeline.table,
        "mode": pipeline.load.mode,
        "file": delivery.file,
        "first_byte": piece.start,
        "last_byte": piece.end,
        "version": piece.version or (delivery.content if whole else ""),
        "content": delivery.content,
        "fingerprint": pipeline.fingerprint,
        "types": "{}",
        "read": delivery.read,
        **dict.fromkeys(COUNTS, 0),
        "final": False,
        "loaded_at": datetime.now(UTC),
    }
    insert = kind(connection).insert(ledger).values(values).on_conflict_do_nothing()
    if connection.execute(insert).rowcount == 1:
        return None
    return entries(connection, ledger, delivery.run, delivery.partition.number)[0]


def entries(connection: sa.Connection, ledger: sa.Table, run: str, partition: int | None = None) -> list[Entry]:
    """Return what the ledger says of a run, by partition."""
    columns = [ledger.c[name] for name in Entry.__dataclass_fields__]
    query = sa.select(*columns).where(ledger.c.run == run).order_by(ledger.c.partition)
    if partition is not None:
        query = query.where(ledger.c.partition == partition)
    return [Entry(*row) for row in connection.execute(query)]


def record(connection: sa.Connection, ledger: sa.Table, run: str, partition: int, **values: Any) -> None:
    """Write counts into a partition's row."""
    mine = (ledger.c.run == run) & (ledger.c.partition == partition)
    connection.execute(sa.update(ledger).where(mine).values(loaded_at=datetime.now(UTC), **values))


def last_load(connection: sa.Connection, ledger: sa.Table, run: str) -> datetime:
    """Return when a run last loaded something; the year 1 where it never has."""
    found = connection.execute(sa.select(sa.func.max(ledger.c.loaded_at)).where(ledger.c.run == run)).scalar()
    return (found or datetime.min).replace(tzinfo=found.tzinfo if found and found.tzinfo else UTC)


def forget(connection: sa.Connection, ledger: sa.Table, run: str, partition: int | None = None) -> None:
    """Remove the rows of what was staged and never applied."""
    gone = (ledger.c.run == run) & ledger.c.final.is_(False)
    if partition is not None:
        gone &= ledger.c.partition == partition
    connection.execute(sa.delete(ledger).where(gone))


def last_types(connection: sa.Connection, ledger: sa.Table, pipeline: Pipeline) -> dict[str, str]:
    """Return the types of the columns that the pipeline's latest load had."""
    same = (ledger.c.pipeline == pipeline.name) & (ledger.c.table_name == pipeline.table) & (ledger.c.types != "{}")
    query = sa.select(ledger.c.types).where(same).order_by(ledger.c.loaded_at.desc()).limit(1)
    found: Mapping[str, str] = json.loads(connection.execute(query).scalar() or "{}")
    return dict(found)


def columns_there(connection: sa.Connection, pipeline: Pipeline) -> dict[str, columns.Known] | None:
    """Return the columns of the pipeline's table, or None where there is no such table."""
    if tables.existing(connection, pipeline.table) is None:
        return None
    return columns.known(connection, pipeline.table, last_types(connection, table(connection, pipeline), pipeline))


def loaded_before(connection: sa.Connection, ledger: sa.Table, delivery: Delivery) -> bool:
    """Say whether an earlier run has loaded this very piece of this file.

    Raises:
        ChangedFile: An earlier run has loaded the file when it was another, so that its rows would be there twice.
    """
    pipeline, piece = delivery.pipeline, delivery.partition.pieces[0]
    if not pipeline.extract.FACTS.repeatable or pipeline.extract.cursor is not None:
        return False  # no file that could be the same; or the cursor says what is loaded
    kind(connection).lock(connection, "file", pipeline.client, pipeline.name, pipeline.table, delivery.file)
    earlier = _earlier(connection, ledger, delivery)
    if not earlier:
        return False
    if len(delivery.partition.pieces) > 1 or any(row.file != delivery.file for row in earlier):
        if any((row.file, row.content) == (delivery.file, delivery.content) for row in earlier):
            return True
        raise _changed(delivery, earlier[0].run)
    if any((row.first_byte, row.content) == (piece.start, delivery.content) for row in earlier):
        return True
    version = piece.version or (delivery.content if piece.start == 0 and piece.end is None else "")
    end = piece.end if piece.end is not None else float("inf")
    for row in earlier:
        last = row.last_byte if row.last_byte is not None else float("inf")
        if row.version != version or not version or (row.first_byte < end and piece.start < last):
            raise _changed(delivery, row.run)
    return False  # the rest of a file of which another run loaded a part


def _earlier(connection: sa.Connection, ledger: sa.Table, delivery: Delivery) -> Sequence[sa.Row[Any]]:
    pipeline, names = delivery.pipeline, {piece.file for piece in delivery.partition.pieces}
    same = (ledger.c.client == pipeline.client) & (ledger.c.pipeline == pipeline.name)
    same &= (ledger.c.table_name == pipeline.table) & (ledger.c.run != delivery.run)
    same &= ledger.c.final.is_(True) & (ledger.c.rows > 0)
    if pipeline.extract.FACTS.windows == "query":  # its "file" is one for all windows
        same &= ledger.c.version == delivery.partition.pieces[0].version
    # Several files are in one row as a JSON list, where no index can find one of them.
    either = ledger.c.file.startswith("[", autoescape=True)
    if len(names) == 1:
        either |= ledger.c.file == delivery.file
        same &= either
    query = sa.select(ledger).where(same).order_by(ledger.c.loaded_at.desc())
    rows = connection.execute(query).all()
    return [row for row in rows if names & set(json.loads(row.file) if row.file.startswith("[") else [row.file])]


def _changed(delivery: Delivery, run: str) -> ChangedFile:
    pieces = delivery.partition.pieces
    if delivery.pipeline.extract.FACTS.windows == "query":
        what = f"{pieces[0].file} has other rows now than when run {run} appended it to {delivery.pipeline.table}"
        return ChangedFile(what, 'read new rows only (cursor = "…"), or use mode = "merge" or mode = "replace"')
    what = pieces[0].file if len(pieces) == 1 else f"{pieces[0].file} or one of {len(pieces) - 1} files with it"
    return ChangedFile(
        f"{what} has changed since run {run} appended it to {delivery.pipeline.table}",
        'use mode = "replace" with by = ["_file"] to replace its rows, or give new rows a file of their own',
    )


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
        book = table(connection, pipeline)
        found = _latest(connection, book, pipeline, partition)
        if found and _is_same(connection, pipeline, partition, found, piece.version or _hash(piece.path)):
            return int(found["rows"]), found["content"]
        return None


def has_rows(connection: sa.Connection, ledger: sa.Table, delivery: Delivery) -> bool:
    """Whether the rows of a delivery are in the target since an earlier run."""
    found = _latest(connection, ledger, delivery.pipeline, delivery.partition, but=delivery.run)
    version = delivery.partition.pieces[0].version or delivery.content
    return found is not None and _is_same(connection, delivery.pipeline, delivery.partition, found, version)


def _latest(
    connection: sa.Connection, ledger: sa.Table, pipeline: Pipeline, partition: Partition, but: str = ""
) -> Mapping[str, Any] | None:
    """Return what the ledger says of this piece in the latest run that loaded any of its file."""
    piece = partition.pieces[0]
    same = (ledger.c.client == pipeline.client) & (ledger.c.pipeline == pipeline.name)
    same &= (ledger.c.table_name == pipeline.table) & (ledger.c.file == piece.file) & (ledger.c.run != but)
    query = sa.select(ledger.c.run).where(same, ledger.c.final.is_(True)).order_by(ledger.c.loaded_at.desc()).limit(1)
    run = connection.execute(query).scalar()
    if run is None:
        return None
    same &= (ledger.c.run == run) & (ledger.c.first_byte == piece.start)
    mine = sa.select(ledger).where(same, ledger.c.last_byte.is_not_distinct_from(piece.end))
    found = connection.execute(mine).mappings().first()
    return None if found is None else dict(found)


def _is_same(
    connection: sa.Connection, pipeline: Pipeline, partition: Partition, found: Mapping[str, Any], version: str
) -> bool:
    # Where rows were rejected or superseded, the file is read again: what became of them is for this run to report.
    clean = found["read"] == found["rows"] and not found["superseded"] and not found["rejected"]
    if not clean or not found["rows"] or (found["version"], found["fingerprint"]) != (version, pipeline.fingerprint):
        return False
    if tables.existing(connection, pipeline.table) is None:
        return False
    there = tables.table(connection, pipeline.table, ["_file", "_client"])
    query = sa.select(sa.literal(1)).where(there.c._file == partition.pieces[0].file).limit(1)
    if pipeline.shared:
        query = query.where(there.c._client == pipeline.client)
    return bool(connection.execute(query).scalar())


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # reading it says what is wrong

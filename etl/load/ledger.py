"""The ledger: the target's table `_etl_loads`, which says which partition of which run was loaded, and from what.

`etl.load.earlier` and `etl.load.known` ask it what is in the target already.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.load import columns, tables
from etl.load.targets import kind
from etl.partition import ROW_BITS, Partition

NAME = "_etl_loads"
COUNTS = ("rows", "loaded", "unchanged", "superseded", "rejected")
BATCH = 500  # names in one question
REMEMBERED = 50_000  # loads that are looked at for how many rows are usual
SHAPED = ("code", "lookups")  # what shapes rows beside content and configuration; null in rows of earlier releases


@dataclass(frozen=True)
class Delivery:
    """One partition of a run, as it is handed to the target.

    Args:
        content: sha256 of what was extracted.
        partitions: How many the run has.
        attempt: Which attempt of the run this is, from 1; a later one takes back what an earlier one staged.
        read: Rows that the partition was read as, rejects included; -1 where nobody knows.
        rows: Rows that are to be loaded; -1 where nobody has counted them.
        rejected: Those of them that were rejected before the load.
        skipped: Rows that were not even read, as an earlier run has loaded the same file.
        all_rejected: Whether rows were read and each of them was rejected.
        again: Whether a file that is loaded is loaded again.
        code, lookups: sha256 of the user's modules, and of the lookups' rows, that shaped these rows; "" without any.
            Behind the first is the run's window where a function asks for it.
        day: Of the client's delivery that the run is for.
        newly: Rows that were read for the first time, as far as the run knows; -1 where nobody knows.
        context: What a load function of the user's may ask for by name; None means what the pipeline knows.
    """

    pipeline: Pipeline
    run: str
    partition: Partition
    content: str
    partitions: int
    attempt: int = 1
    read: int = -1
    rows: int = -1
    rejected: int = 0
    skipped: int = 0
    all_rejected: bool = False
    again: bool = False
    context: Context | None = None
    code: str = ""
    lookups: str = ""
    day: date | None = None
    newly: int = -1

    @property
    def file(self) -> str:
        """What the partition is read from: a file's name, or a JSON list of several; of fixed rows, their own."""
        return name_of(self.partition)

    @property
    def modified(self) -> tuple[float | None, str | None]:
        """When the latest of its files was modified, and where there are several, a JSON list of when each was."""
        times = [piece.modified for piece in self.partition.pieces]
        if not self.pipeline.extract.FACTS.files or not all(times):
            return None, None
        return max(times), json.dumps(times) if len(times) > 1 or self.file.startswith("[") else None


def name_of(partition: Partition) -> str:
    """Return what the ledger calls the files of a partition: a file's name, or a JSON list of several."""
    if partition.fixed:
        return partition.fixed
    names = [piece.file for piece in partition.pieces]
    return names[0] if len(names) == 1 and not names[0].startswith("[") else json.dumps(names)


def names_in(file: str) -> list[str]:
    """Return the names of the files that the ledger's `file` means."""
    return list(json.loads(file)) if file.startswith("[") else [file]


def files_of(row: Any) -> list[str]:
    """Return the names that the target's rows have in `_file`, of a row of the ledger with its `file` and `lines`."""
    return list(json.loads(row.lines)) if row.lines else names_in(row.file)


def times_of(row: Any) -> Iterable[tuple[str, float]]:
    """Return when each of the files of a row of the ledger was modified, by name."""
    times = json.loads(row.modified_each) if row.modified_each else [row.modified]
    return zip(files_of(row), times, strict=True)


@dataclass(frozen=True)
class Entry:
    """What the ledger says of one partition.

    Args:
        types: JSON of its columns and their types.
    """

    partition: int
    content: str
    types: str
    rows: int
    loaded: int
    unchanged: int
    superseded: int
    rejected: int
    final: bool
    attempt: int


def window_of(code: str | None) -> str:
    """Return the window that shaped rows, of what the ledger says of their code; "" where no function asked for it."""
    return (code or "").partition(" ")[2]


def of_table(book: sa.Table, pipeline: Pipeline) -> sa.ColumnElement[bool]:
    """Return the condition for what this client's pipeline has loaded into its table."""
    same = (book.c.client == pipeline.client) & (book.c.pipeline == pipeline.name)
    return same & (book.c.table_name == pipeline.table)


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
        *(sa.Column(name, text) for name in (*SHAPED, "modified_each")),
        sa.Column("modified", sa.Double),
        sa.Column("sequence", number),
        sa.Column("lines", text),
        sa.Column("good", number),
        sa.Column("day", text),
        sa.Column("newly", number),
        sa.Index(f"{NAME}_file", "client", "pipeline", "table_name", "file"),
        sa.Index(f"{NAME}_content", "content"),
        sa.Index(f"{NAME}_sequence", "table_name", "sequence"),
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
        "good": delivery.read - delivery.rejected if delivery.read >= 0 else None,
        **dict.fromkeys(COUNTS, 0),
        "final": False,
        "loaded_at": datetime.now(UTC),
        "code": delivery.code,
        "lookups": delivery.lookups,
        "day": delivery.day and delivery.day.isoformat(),
        "newly": delivery.newly if delivery.newly >= 0 else None,
        "modified": delivery.modified[0],
        "modified_each": delivery.modified[1],
        "lines": lines_of(delivery.partition, ()) if delivery.partition.fixed else None,
        # Until it is final: what was final when it was read; whatever came later it does not know of.
        "sequence": _latest_number(connection, ledger, pipeline),
    }
    insert = kind(connection).insert(ledger).values(values).on_conflict_do_nothing()
    if connection.execute(insert).rowcount == 1:
        return None
    return entries(connection, ledger, delivery.run, delivery.partition.number)[0]


def lines_of(partition: Partition, rows: Iterable[int]) -> str:
    """Return what the ledger says of a partition of fixed rows: by file, JSON of the lines that are loaded.

    Args:
        rows: Their `_row`s.
    """
    loaded = set(rows)
    return json.dumps(
        {
            piece.file: sorted({line for _, line in piece.lines if (index << ROW_BITS) | line in loaded})
            for index, piece in enumerate(partition.pieces)
        }
    )


def entries(connection: sa.Connection, ledger: sa.Table, run: str, partition: int | None = None) -> list[Entry]:
    """Return what the ledger says of a run, by partition."""
    columns = [ledger.c[name] for name in Entry.__dataclass_fields__]
    query = sa.select(*columns).where(ledger.c.run == run).order_by(ledger.c.partition)
    if partition is not None:
        query = query.where(ledger.c.partition == partition)
    return [Entry(*row) for row in connection.execute(query)]


def latest_first(ledger: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Return what orders loads from the latest on: no worker's clock but where an earlier release has loaded."""
    return [ledger.c.sequence.desc().nulls_last(), ledger.c.loaded_at.desc()]


def next_number(connection: sa.Connection, ledger: sa.Table, pipeline: Pipeline) -> int:
    """Return the `sequence` of what this transaction makes final; the next one's waits until it has ended.

    This is the last lock but the cursor's, so that it is held for a moment only.
    """
    kind(connection).lock(connection, "sequence", pipeline.table)
    return _latest_number(connection, ledger, pipeline) + 1


def _latest_number(connection: sa.Connection, ledger: sa.Table, pipeline: Pipeline) -> int:
    latest = sa.select(sa.func.max(ledger.c.sequence)).where(ledger.c.table_name == pipeline.table)
    return int(connection.execute(latest).scalar() or 0)


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


def ranked_files(
    connection: sa.Connection, pipeline: Pipeline, run: str, partitions: Collection[Partition]
) -> list[tuple[str, str, int, int]]:
    """Return files that rows of the table may be from and that are newer than any of a run's own; most nights none.

    A file is newer by its modification time, then by its name. One that was there unchanged when it was modified last
    is as new as that.

    Returns:
        The run, the file, its rank, and the `sequence` of its load. The run's own files are among them.
    """
    mine = {piece.file: (piece.modified, piece.file) for partition in partitions for piece in partition.pieces}
    if not mine or not min(mine.values())[0] or not pipeline.extract.FACTS.files:
        return []  # nobody knows how old they are
    book, oldest = table(connection, pipeline), min(mine.values())
    same = [book.c[name] for name in ("file", "content", "first_byte")]
    of_pipeline = (book.c.client == pipeline.client) & (book.c.pipeline == pipeline.name)
    of_pipeline &= book.c.table_name == pipeline.table
    latest = sa.func.max(book.c.modified).label("modified"), sa.func.max(book.c.modified_each).label("modified_each")
    late = sa.select(*same, *latest).where(of_pipeline, book.c.modified >= oldest[0]).group_by(*same).subquery()
    query = sa.select(book.c.run, book.c.file, book.c.lines, book.c.sequence, late.c.modified, late.c.modified_each)
    query = query.where(of_pipeline, *(late.c[column.name] == column for column in same))
    theirs: dict[tuple[str, str], tuple[float, str]] = {}
    since: dict[tuple[str, str], int] = {}
    for row in connection.execute(query.where(book.c.run != run, book.c.loaded > 0, book.c.final.is_(True))):
        for name, modified in times_of(row):
            if (modified, name) > oldest:
                theirs[row.run, name] = max((modified, name), theirs.get((row.run, name), oldest))
                since[row.run, name] = row.sequence or 0
    if not theirs:
        return []
    for own in connection.execute(sa.select(book.c.file, book.c.lines, book.c.sequence).where(book.c.run == run)):
        # Fixed rows are as old as their file, however late: its next version was there after them.
        since |= {(run, name): 0 if own.lines else own.sequence or 0 for name in files_of(own)}
    ranks = {each: rank for rank, each in enumerate(sorted({*mine.values(), *theirs.values()}))}
    found = {(run, name): each for name, each in mine.items()} | theirs
    return [(*key, ranks[each], since.get(key, 0)) for key, each in found.items()]


def later_runs(connection: sa.Connection, pipeline: Pipeline, run: str) -> list[str]:
    """Return the runs of a pipeline that have loaded rows since a run staged the first of what is not final."""
    book = table(connection, pipeline)
    since = sa.select(sa.func.min(book.c.sequence)).where(book.c.run == run, book.c.final.is_(False)).scalar_subquery()
    same = (book.c.client == pipeline.client) & (book.c.pipeline == pipeline.name)
    same &= (book.c.table_name == pipeline.table) & (book.c.run != run) & book.c.final.is_(True)
    query = sa.select(book.c.run).where(same, book.c.loaded > 0, book.c.sequence > since).distinct()
    return sorted(connection.execute(query).scalars())


def last_types(connection: sa.Connection, ledger: sa.Table, pipeline: Pipeline) -> dict[str, str]:
    """Return the types of the columns that the pipeline's latest load had."""
    same = (ledger.c.pipeline == pipeline.name) & (ledger.c.table_name == pipeline.table) & (ledger.c.types != "{}")
    query = sa.select(ledger.c.types).where(same).order_by(*latest_first(ledger)).limit(1)
    found: Mapping[str, str] = json.loads(connection.execute(query).scalar() or "{}")
    return {name: word for name, word in found.items() if word != "null"}


def columns_there(connection: sa.Connection, pipeline: Pipeline) -> dict[str, columns.Known] | None:
    """Return the columns of the pipeline's table, or None where there is no such table."""
    if tables.existing(connection, pipeline.table) is None:
        return None
    return columns.known(connection, pipeline.table, last_types(connection, table(connection, pipeline), pipeline))


def by_day(
    connection: sa.Connection, pipeline: Pipeline, run: str, day_of: Callable[[datetime], date]
) -> tuple[dict[date, int], set[object]]:
    """Return how many rows each delivery of a client's pipeline had, and which parts of files they were; see `part`.

    A file that was read again has no rows but those of the first time. Rows of the run itself are left out.

    Args:
        day_of: Gives the day of a delivery of which only is known when it was loaded: an earlier release's.
    """
    book = named(tables.split(connection, pipeline.table)[0])
    lacking = tables.lacks(connection, book)
    rows: dict[date, int] = {}
    seen: set[object] = set()
    if lacking is None:
        return rows, seen
    names = ("day", "newly", "modified", "lines")
    own = [book.c[name] if name not in lacking else sa.null().label(name) for name in names]
    known = [book.c[name] for name in ("read", "loaded", "superseded", "loaded_at", "file", "content", "first_byte")]
    query = sa.select(*own, *known).where(of_table(book, pipeline), book.c.run != run, book.c.final.is_(True))
    if "newly" not in lacking:  # what lies there and is not even read is in the ledger every night
        query = query.where(book.c.newly.is_(None) | (book.c.newly > 0) | (book.c.read == 0))
    query = query.where(book.c.read >= 0).order_by(book.c.loaded_at.desc()).limit(REMEMBERED)
    for row in reversed(connection.execute(query).all()):
        if row.lines:
            continue  # rejects that were fixed are of an older delivery
        newly = row.newly if row.newly is not None else row.read if row.loaded or row.superseded else 0
        key = part(pipeline, row.content, row.first_byte, row.file, row.modified, row.read)
        if key in seen:
            continue
        moment = row.loaded_at if row.loaded_at.tzinfo else row.loaded_at.replace(tzinfo=UTC)
        day = date.fromisoformat(row.day) if row.day else day_of(moment)
        if key is not None:
            seen.add(key)
        rows[day] = rows.get(day, 0) + newly
    return rows, seen


def part(
    pipeline: Pipeline, content: str, first_byte: int, file: str, modified: float | None, rows: int
) -> object | None:
    """Return by what a part of a file is known to have come before; None where its source gives no files.

    Without rows its content says nothing: an empty file of each night is another one.
    """
    if not pipeline.extract.FACTS.files:
        return None
    return (content, first_byte) if rows and content else (content, file, modified)

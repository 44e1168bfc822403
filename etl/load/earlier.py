"""What earlier runs have made of the same files: rows that are there already, are newer, or are there twice."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.errors import ChangedFile
from etl.load import ledger, tables
from etl.load.ledger import BATCH, Delivery
from etl.load.targets import kind
from etl.load.targets.connect import reading
from etl.partition import ROW_BITS, Partition
from etl.rejects import FIXED
from etl.types.cursor import is_strict

LOCKS = 128  # of a pipeline's files: a run of any number of files takes no more of a server's locks

Row = Any  # of a query of the ledger


def lock_files(connection: sa.Connection, pipeline: Pipeline, partitions: Iterable[Partition]) -> None:
    """Wait until no other load makes rows of these files final, and let none until the transaction ends."""
    names = {piece.file for partition in partitions for piece in partition.pieces}
    for mark in sorted({int(hashlib.sha256(name.encode()).hexdigest(), 16) % LOCKS for name in names}):
        kind(connection).lock(connection, "file", pipeline.client, pipeline.name, pipeline.table, str(mark))


def loaded_before(connection: sa.Connection, book: sa.Table, deliveries: Sequence[Delivery]) -> dict[int, Row]:
    """Return those partitions of a run of which an earlier run has loaded this very piece of this file, with its row.

    Raises:
        ChangedFile: An earlier run has loaded the file when it was another, so that its rows would be there twice.
    """
    if not deliveries or not is_known_again(deliveries[0].pipeline):
        return {}
    lock_files(connection, deliveries[0].pipeline, (delivery.partition for delivery in deliveries))
    names = {piece.file for delivery in deliveries for piece in delivery.partition.pieces}
    by_name: dict[str, list[Row]] = {}
    for row in _earlier(connection, book, deliveries[0], names):
        for name in ledger.names_in(row.file):
            by_name.setdefault(name, []).append(row)
    found = {}
    for delivery in deliveries:
        earlier = [row for piece in delivery.partition.pieces for row in by_name.get(piece.file, ())]
        if (row := _loaded(delivery, _of_window(delivery, earlier))) is not None:
            found[delivery.partition.number] = row
    return found


def never_loaded(connection: sa.Connection, book: sa.Table, pipeline: Pipeline, row: Row, rows: int) -> int:
    """Return how many of a partition's rows are not in the target, as the run that appended it has rejected them.

    Args:
        row: What the ledger says of that run's load.
        rows: That are good now.
    """
    missing: int = min(rows, row.read) - row.loaded - row.unchanged
    if missing <= 0:
        return 0  # as nearly always: the ledger is not searched
    fixed = book.c.final.is_(True) & book.c.file.contains(f"/{row.run}/{FIXED}", autoescape=True)
    # Earlier releases did not write down which lines they were.
    query = sa.select(sa.func.sum(book.c.loaded)).where(fixed, book.c.lines.is_(None))
    lines = _fixed_lines(connection, book, pipeline, row.run, ledger.names_in(row.file))
    return max(0, missing - int(connection.execute(query).scalar() or 0) - sum(map(len, lines.values())))


def fixed_before(connection: sa.Connection, book: sa.Table, delivery: Delivery) -> set[int]:
    """Return `_row` of those fixed rows that an earlier run of fixed rows has loaded, and that are still there.

    A row is known by its line in the file that it came from, whatever else was fixed together with it.
    """
    pipeline, partition = delivery.pipeline, delivery.partition
    lock_files(connection, pipeline, [partition])
    names = [piece.file for piece in partition.pieces]
    there = _fixed_lines(connection, book, pipeline, PurePath(partition.fixed).parent.name, names)
    return {
        (index << ROW_BITS) | line
        for index, piece in enumerate(partition.pieces)
        for _, line in piece.lines
        if line in there.get(piece.file, ())
    }


def fixed_too_late(connection: sa.Connection, book: sa.Table, delivery: Delivery) -> set[int]:
    """Return `_row` of those fixed rows of which a replace has taken out all other rows of their file since."""
    pipeline, partition = delivery.pipeline, delivery.partition
    if not partition.replaced:
        return set()
    names, rejected_by = {piece.file for piece in partition.pieces}, PurePath(partition.fixed).parent.name
    loads = [row for row in _same_version(connection, book, pipeline, rejected_by) if row.rows]
    known = {name for row in loads for name in ledger.names_in(row.file)} & names
    stay = {
        name
        for row in loads
        for name in known.intersection(ledger.names_in(row.file))
        if _rows_stay(connection, pipeline, row.run, [name])
    }
    return {
        (index << ROW_BITS) | line
        for index, piece in enumerate(partition.pieces)
        for _, line in piece.lines
        if piece.file in known - stay
    }


def _same_version(connection: sa.Connection, book: sa.Table, pipeline: Pipeline, run: str) -> Sequence[Row]:
    """Return the loads of what a run has loaded, its own and those of other runs: of the same files, as they were."""
    first = book.alias("first")
    alike = (first.c.run == run) & (first.c.file == book.c.file) & (first.c.content == book.c.content)
    final = ledger.of_table(book, pipeline) & book.c.final.is_(True) & book.c.lines.is_(None)
    query = sa.select(book.c.run, book.c.file, book.c.rows).join_from(book, first, alike).where(final)
    return connection.execute(query).all()


def _fixed_lines(
    connection: sa.Connection, book: sa.Table, pipeline: Pipeline, run: str, names: Collection[str]
) -> dict[str, set[int]]:
    """Return by file the lines that were rejected by a run, or another of the same content, and fixed and loaded."""
    same, files = ledger.of_table(book, pipeline) & book.c.final.is_(True), set(names)
    columns = book.c.run, book.c.file, book.c.lines
    loads = connection.execute(sa.select(*columns).where(same, book.c.lines.is_not(None))).all()
    if not loads:
        return {}
    again = _same_version(connection, book, pipeline, run)
    runs = {(run, name) for name in files} | {(row.run, name) for row in again for name in ledger.names_in(row.file)}
    found: dict[str, set[int]] = {}
    for load in loads:
        rejected_by = PurePath(load.file).parent.name
        for name, lines in json.loads(load.lines).items():
            is_same = lines and name in files and (rejected_by, name) in runs
            # What replaced the file's rows since has taken these out too.
            if is_same and _rows_stay(connection, pipeline, load.run, [name]):
                found.setdefault(name, set()).update(lines)
    return found


def rejected_then(delivery: Delivery, row: Row, missing: int) -> str:
    """Return the warning that rows are good now which the run that appended their file has rejected."""
    of = f"{missing:,} of {row.read:,} rows" if row.read > 1 else "its only row"
    what = f"{_shown(delivery)} was appended by run {row.run}, which did not load {of}"
    return f"{what}: {_again(row.run)}"


def of_another_window(pipeline: Pipeline, row: Row) -> str:
    """Return the warning that a file's rows are of another window than functions would make of it now."""
    return (
        f"run {row.run} appended to {pipeline.table} what functions made of the same files for its window: what they "
        'make of them for this one is not loaded; use mode = "merge" with a key, or a file for each window'
    )


def _again(run: str) -> str:
    return f"rq-etl rejects {run} --export FILE, fix what is wrong, then rq-etl rejects {run} --load FILE"


def outdated(connection: sa.Connection, book: sa.Table, deliveries: Sequence[Delivery]) -> set[int]:
    """Return the numbers of those partitions that would replace a file's rows by those of an older version of it.

    That is so where another run has loaded a newer version since these rows were read.
    """
    if not deliveries or deliveries[0].pipeline.load.by != ("_file",):
        return set()
    pipeline, run, found = deliveries[0].pipeline, deliveries[0].run, set[int]()
    asked = {row.partition: row.sequence for row in connection.execute(sa.select(book).where(book.c.run == run))}
    latest: dict[str, tuple[int, float]] = {}
    names = sorted({delivery.file for delivery in deliveries})
    for start in range(0, len(names), BATCH):
        same = ledger.of_table(book, pipeline) & (book.c.run != run) & book.c.final.is_(True) & (book.c.rows > 0)
        query = sa.select(book.c.file, book.c.sequence, book.c.modified).where(same, book.c.modified.is_not(None))
        query = query.where(book.c.file.in_(names[start : start + BATCH])).order_by(*ledger.latest_first(book))
        for file, sequence, modified in connection.execute(query):
            latest.setdefault(file, (sequence or 0, modified))
    for delivery in deliveries:
        sequence, modified = latest.get(delivery.file, (0, 0.0))
        number, mine = delivery.partition.number, delivery.modified[0]
        if mine is not None and sequence > (asked[number] or 0) and modified > mine:
            found.add(number)
    return found


def is_known_again(pipeline: Pipeline) -> bool:
    """Whether what was appended once is not appended again: its source gives the same again, and no cursor decides."""
    return pipeline.load.mode == "append" and pipeline.extract.FACTS.repeatable and pipeline.extract.cursor is None


def _earlier(connection: sa.Connection, book: sa.Table, delivery: Delivery, names: Collection[str]) -> list[Row]:
    """Return what other runs have loaded of some files, those first that wrote rows, and of them the latest."""
    pipeline = delivery.pipeline
    same = ledger.of_table(book, pipeline) & (book.c.run != delivery.run) & book.c.final.is_(True) & (book.c.rows > 0)
    columns = [book.c[name] for name in ("run", "file", "first_byte", "last_byte", "version", "content", "code")]
    columns += [book.c[name] for name in ("read", "loaded", "unchanged")]
    # A run that found them there has appended nothing.
    order = sa.case((book.c.loaded > 0, 0), else_=1), *ledger.latest_first(book)
    query = sa.select(*columns).where(same).order_by(*order)
    # Several files are in one row as a JSON list, where no index can find one of them.
    found: list[Row] = list(connection.execute(query.where(book.c.file.startswith("[", autoescape=True))))
    single = sorted(name for name in names if not name.startswith("["))
    for start in range(0, len(single), BATCH):
        found += connection.execute(query.where(book.c.file.in_(single[start : start + BATCH])))
    return found


def _of_window(delivery: Delivery, rows: list[Row]) -> list[Row]:
    if delivery.pipeline.extract.FACTS.windows == "query":  # its "file" is one for all windows
        rows = [row for row in rows if row.version == delivery.partition.pieces[0].version]
    return rows


def _loaded(delivery: Delivery, earlier: Sequence[Row]) -> Row | None:
    if not earlier:
        return None
    piece = delivery.partition.pieces[0]
    if len(delivery.partition.pieces) > 1 or any(row.file != delivery.file for row in earlier):
        for row in earlier:
            if row.file == delivery.file and is_same(row.content, delivery.content):
                return row
        raise _changed(delivery, earlier[0])
    for row in earlier:
        if row.first_byte == piece.start and is_same(row.content, delivery.content):
            return row
    version = piece.version or (delivery.content if piece.is_whole else "")
    end = piece.end if piece.end is not None else float("inf")
    for row in earlier:
        last = row.last_byte if row.last_byte is not None else float("inf")
        if row.version != version or not version or (row.first_byte < end and piece.start < last):
            raise _changed(delivery, row)
    return None  # the rest of a file of which another run loaded a part


def is_same(one: str, other: str) -> bool:
    """Whether two contents are the same rows: of a database each is a hash without order, and one with it."""
    return bool(set(one.split()) & set(other.split()))


def _changed(delivery: Delivery, row: Row) -> ChangedFile:
    pieces, run = delivery.partition.pieces, row.run
    if delivery.pipeline.extract.FACTS.windows == "query":
        what = f"{pieces[0].file} has other rows now than when run {run} appended it to {delivery.pipeline.table}"
        return ChangedFile(what, 'read new rows only (cursor = "…"), or use mode = "merge" or mode = "replace"')
    cure = 'use mode = "replace" with by = ["_file"] to replace its rows, or give new rows a file of their own'
    if row.read > row.loaded + row.unchanged:
        cure = f"to load rows that it rejected, put the file back as it was: {_again(run)}; otherwise {cure}"
    return ChangedFile(f"{_shown(delivery)} has changed since run {run} appended it to {delivery.pipeline.table}", cure)


def _shown(delivery: Delivery) -> str:
    pieces = delivery.partition.pieces
    return pieces[0].file if len(pieces) == 1 else f"{pieces[0].file} or one of {len(pieces) - 1} files with it"


def passed_over(pipeline: Pipeline, run: str, passed: Mapping[str, int], url: str | None = None) -> list[str]:
    """Return a warning for each file with rows that the cursor has passed by and that no earlier run has read.

    They are counted, not known row by row: a file is new by its name, or has more good rows than ever before. Where
    others of its rows were taken out, or have a later cursor now, there may be more.

    Args:
        passed: By the ledger's name of its files, how many rows of a partition were left out as loaded already.
    """
    with reading(url or url_of(pipeline), pipeline.target.name) as connection:
        book = ledger.named(tables.split(connection, pipeline.table)[0]) if connection is not None else None
        if connection is None or book is None or tables.lacks(connection, book) is None:
            return []
        good = sa.func.coalesce(book.c.good, book.c.read)  # earlier releases knew no better
        counts = sa.func.sum(good), sa.func.sum(book.c.unchanged)
        rows: list[Row] = []
        for start in range(0, len(passed), BATCH):
            some = ledger.of_table(book, pipeline) & book.c.final.is_(True) & (book.c.read >= 0)
            some &= book.c.file.in_([*passed][start : start + BATCH])
            query = sa.select(book.c.file, book.c.run, *counts).where(some).group_by(book.c.file, book.c.run)
            rows += connection.execute(query)
    now = {file: (int(count), int(unchanged)) for file, mine, count, unchanged in rows if mine == run}
    before: dict[str, int] = {}
    for file, other, rows_then, _ in rows:
        if other != run:
            before[file] = max(before.get(file, 0), int(rows_then))
    found = []
    for file, count in passed.items():
        here, again = now.get(file, (0, 0))
        known = before.get(file, 0)
        # Of the rows that were known, some were read again: from the cursor on, and in its overlap.
        if (new := min(count, here - known, count - known + again)) > 0:
            found.append(_passed(pipeline, file, new))
    return found


def _passed(pipeline: Pipeline, file: str, count: int) -> str:
    names = ledger.names_in(file)
    where = names[0] if len(names) == 1 else f"{names[0]} or one of {len(names) - 1} files with it"
    rows = "1 row is" if count == 1 else f"{count:,} rows are"
    cure = "load all of it with --full-refresh"
    if is_strict(pipeline):
        cure = 'use mode = "merge" with a key, or a cursor that is greater in rows that come later'
    return f"{where}: {rows} new, but not beyond the cursor (column {pipeline.extract.cursor}): not loaded; {cure}"


def doubled(
    connection: sa.Connection, book: sa.Table, pipeline: Pipeline, run: str, partitions: Collection[int]
) -> list[str]:
    """Return a warning for each file of which the table now has the rows twice, as it had them under another name.

    A function's rows that are as those of an earlier run are such too. What a merge or a replace has taken out since
    is not. Called in the transaction that makes the partitions final, under its `next_number`.
    """
    if pipeline.load.function or not (pipeline.load.mode == "append" or pipeline.load.by == ("_file",)):
        return []
    mine, theirs = book.alias("mine"), book.alias("theirs")
    same = [mine.c[name] == theirs.c[name] for name in ("client", "pipeline", "table_name", "content")]
    new = [mine.c.run == run, mine.c.content != "", mine.c.loaded > 0, mine.c.partition.in_(sorted(partitions))]
    other = mine.c.file != theirs.c.file
    if pipeline.load.mode == "append":
        other |= theirs.c.run != run  # what is replaced under its own name is not there twice
    final = [theirs.c.final.is_(True), theirs.c.loaded > 0]
    columns = mine.c.file, theirs.c.file.label("other"), theirs.c.run, theirs.c.lines
    order = mine.c.partition, theirs.c.run == run, theirs.c.sequence.desc().nulls_last(), theirs.c.file
    found: dict[str, str] = {}
    for file, name, earlier, lines in connection.execute(
        sa.select(*columns).where(*same, *new, *final, other).order_by(*order)
    ):
        names = list(json.loads(lines)) if lines else ledger.names_in(name)
        if file in found or not _rows_stay(connection, pipeline, earlier, names):
            continue
        if earlier == run:
            what = "{} and {} have the same rows".format(*sorted((file, name)))
        else:
            what = f"{file} has the same rows as " + (
                f"{name} of run {earlier}" if name != file else f"in run {earlier}"
            )
        found[file] = f"{what}: they are in {pipeline.table} twice now"
    return list(dict.fromkeys(found.values()))


def _rows_stay(connection: sa.Connection, pipeline: Pipeline, run: str, files: Sequence[str]) -> bool:
    """Whether the table still has any row that a run has loaded from some files."""
    there = tables.table(connection, pipeline.table, ["_file", "_client", "_run"])
    mine = there.c._client == pipeline.client if pipeline.shared else sa.true()
    some = there.c._file.in_(files[:BATCH])
    query = sa.select(sa.literal(1)).where(mine, there.c._run == run, some).limit(1)
    return bool(connection.execute(query).scalar())

"""Files that need not be read again: what an earlier run loaded of them, as the ledger says, is in the target."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.config.urls import url_of
from etl.load import ledger, tables
from etl.load.ledger import BATCH, Delivery
from etl.load.targets.connect import reading
from etl.partition import Partition, Piece, plain

FEW = 3  # files of which each is asked for by itself, which ends at its first row
KEPT = 8  # runs whose known files a process remembers: clients take turns

Row = Any  # of a query of the ledger


def may_skip(pipeline: Pipeline, partition: Partition, partitions: int) -> bool:
    """Whether a partition can be left out without changing what becomes of the run's other rows."""
    if not pipeline.extract.FACTS.files or pipeline.extract.cursor or pipeline.load.function:
        return False
    if len(partition.pieces) > 1 or partition.fixed:
        return False
    if partitions > 1 and any(column.unique for column in pipeline.columns.values()):
        return False  # a row may be doubled between files
    return pipeline.load.mode != "replace" or (pipeline.load.by == ("_file",) and partition.pieces[0].is_whole)


@dataclass(frozen=True)
class Known:
    """A piece of a file that was loaded so that it need not be read again, if nothing that shapes its rows differs.

    Args:
        clean: Whether all of its rows were loaded: none was rejected.
    """

    version: str
    content: str
    rows: int
    clean: bool
    shaped: Mapping[str, str | None]


Key = tuple[str, int, int | None]  # a file, and a range of its bytes
_asked: OrderedDict[tuple[str, str, int], dict[Key, Known]] = OrderedDict()


def rows_there(
    pipeline: Pipeline,
    run: str,
    attempt: int,
    partition: Partition,
    pieces: Collection[Piece],
    shaped: Callable[[], Mapping[str, str]],
    url: str | None = None,
) -> tuple[int, str] | None:
    """Return how many rows of a file are in the target since an earlier run, and its sha256; None to read it.

    A process asks once for all of a run's files, whatever their size.

    Args:
        pieces: All of the run's.
        shaped: Gives what shapes rows beside content and configuration; called only where the file is known.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked.
    """
    piece, place = partition.pieces[0], url or url_of(pipeline)
    key = (place, run, attempt)
    if key not in _asked:
        with reading(place, pipeline.target.name) as connection:
            _asked[key] = {} if connection is None else _known(connection, pipeline, run, pieces)
        while len(_asked) > KEPT:
            _asked.popitem(last=False)
    found = _asked[key].get(_key(piece))
    if found is None or found.version != (piece.version or hash_of(piece.path)):
        return None
    return (found.rows, found.content) if _is_shaped(pipeline, found.shaped, shaped) else None


def files_loaded(pipeline: Pipeline, url: str | None = None) -> dict[str, set[float | None]]:
    """Return the files that a client's pipeline has loaded, each with when its versions were modified.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked.
    """
    found: dict[str, set[float | None]] = {}
    with reading(url or url_of(pipeline), pipeline.target.name) as connection:
        if connection is None:
            return found
        book = ledger.named(tables.split(connection, pipeline.table)[0])
        if not tables.there(connection, book):
            return found
        mine = ledger.of_table(book, pipeline)
        if tables.lacks(connection, book):  # of an earlier release
            return {
                name: {None}
                for (file,) in connection.execute(sa.select(book.c.file).where(mine))
                for name in ledger.names_in(file)
            }
        query = sa.select(book.c.file, book.c.lines, book.c.modified, book.c.modified_each).where(mine).distinct()
        for row in connection.execute(query):
            times = json.loads(row.modified_each) if row.modified_each else [row.modified]
            for name, modified in zip_longest(ledger.files_of(row), times[: len(ledger.files_of(row))]):
                found.setdefault(name, set()).add(modified)
    return found


def has_rows(connection: sa.Connection, book: sa.Table, delivery: Delivery) -> bool:
    """Whether the rows of a delivery are in the target since an earlier run."""
    pipeline, piece = delivery.pipeline, delivery.partition.pieces[0]
    # A file with rejects too, if there are as many again: a row of it that was fixed and loaded stays.
    found = _known(connection, pipeline, delivery.run, [piece], rejects=True).get(_key(piece))
    if found is not None and not found.clean and found.rows != delivery.rows:
        return False
    if found is None or found.version != (piece.version or delivery.content):
        return False
    return _is_shaped(pipeline, found.shaped, lambda: {"code": delivery.code, "lookups": delivery.lookups})


def _key(piece: Piece) -> Key:
    return piece.file, piece.start, piece.end


def _is_shaped(pipeline: Pipeline, found: Mapping[str, str | None], shaped: Callable[[], Mapping[str, str]]) -> bool:
    """Whether rows were shaped as they would be now; what is appended is not read again but for another window."""
    if pipeline.load.mode == "append":
        window = ledger.window_of(found["code"])
        return not window or window == ledger.window_of(shaped()["code"])
    if found["fingerprint"] != pipeline.fingerprint:
        return False
    now = shaped()
    return all(found[name] is None or found[name] == now[name] for name in ledger.SHAPED)


def _known(
    connection: sa.Connection, pipeline: Pipeline, run: str, pieces: Collection[Piece], *, rejects: bool = False
) -> dict[Key, Known]:
    """Return those of some pieces that the latest other run to load any of their file has loaded whole.

    Args:
        rejects: Also those of which rows were rejected before they were to be loaded.
    """
    book = ledger.named(tables.split(connection, pipeline.table)[0])
    lacking = tables.lacks(connection, book)
    if lacking is None:
        return {}
    there = [column for column in book.c if column.name not in lacking]
    # An earlier release's ledger has no columns for what it did not know.
    by = ledger.latest_first(book)[-1 if "sequence" in lacking else 0 :]
    files = sorted({piece.file for piece in pieces})
    wanted, found = {_key(piece) for piece in pieces}, dict[Key, Known]()
    now, then = {piece.file: piece.modified for piece in pieces}, dict[str, float]()
    for start in range(0, len(files), BATCH):
        same = ledger.of_table(book, pipeline) & (book.c.run != run) & book.c.final.is_(True)
        latest = sa.func.first_value(book.c.run).over(partition_by=book.c.file, order_by=by).label("latest")
        query = sa.select(*there, latest).where(same, book.c.file.in_(files[start : start + BATCH])).subquery()
        for row in connection.execute(sa.select(query).where(query.c.run == query.c.latest)).mappings():
            # Where rows were rejected or superseded, the file is read again: what became of them is for this run to
            # report.
            is_loaded, clean = not row["superseded"] and not row["rejected"], row["read"] == row["rows"]
            key = row["file"], row["first_byte"], row["last_byte"]
            if is_loaded and (clean or rejects) and row["rows"] and key in wanted:
                shaped = {name: row.get(name) for name in ("fingerprint", *ledger.SHAPED)}
                found[key] = Known(row["version"], row["content"], row["rows"], clean, shaped)
                then[key[0]] = row.get("modified") or now[key[0]]
    present = _present(connection, pipeline, sorted({key[0] for key in found}))
    if pipeline.load.mode == "merge":
        present -= _overtaking(connection, book, pipeline, now, then)
    return {key: known for key, known in found.items() if key[0] in present}


def _overtaking(
    connection: sa.Connection, book: sa.Table, pipeline: Pipeline, now: Mapping[str, float], then: Mapping[str, float]
) -> set[str]:
    """Return the files that were touched since they were loaded, so that they are newer than others that were newer.

    Args:
        now: When the run's files were modified, by name.
        then: When those of them that are known were modified when they were loaded.
    """
    touched = [name for name, modified in then.items() if now[name] > modified]
    if not touched:
        return set()
    since = min(then[name] for name in touched)
    loaded = ledger.of_table(book, pipeline) & book.c.final.is_(True) & (book.c.loaded > 0)
    columns = book.c.file, book.c.lines, book.c.modified, book.c.modified_each
    others: dict[str, float] = {}
    for row in connection.execute(sa.select(*columns).where(loaded, book.c.modified >= since)):
        for name, modified in ledger.times_of(row):
            others[name] = max(modified, others.get(name, since))

    def overtakes(name: str, other: str) -> bool:
        was, its = (then[name], name), (others[other], other)
        return was < its and (now[name], name) > (now.get(other, its[0]), other)

    return {name for name in touched if any(overtakes(name, other) for other in others if other != name)}


def _present(connection: sa.Connection, pipeline: Pipeline, files: Sequence[str]) -> set[str]:
    """Return the files of which the table has any row."""
    if not files or tables.existing(connection, pipeline.table) is None:
        return set()
    there = tables.table(connection, pipeline.table, ["_file", "_client"])
    mine = there.c._client == pipeline.client if pipeline.shared else sa.true()
    if len(files) <= FEW:
        one = sa.select(sa.literal(1)).where(mine).limit(1)
        return {name for name in files if connection.execute(one.where(there.c._file == name)).scalar()}
    found = set[str]()
    for start in range(0, len(files), BATCH):
        some = there.c._file.in_(files[start : start + BATCH])
        found |= set(connection.execute(sa.select(there.c._file).where(mine, some).distinct()).scalars())
    return found


def hash_of(path: str) -> str:
    """Return the sha256 of a file; "" where it can't be read."""
    try:
        with open(path, "rb", opener=plain) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # reading it says what is wrong


def changed_since(
    pipeline: Pipeline, pieces: Mapping[str, Sequence[Piece]], url: str | None = None
) -> dict[str, list[str]]:
    """Return by run the files that are others now, or were not there, when the run loaded its files.

    Args:
        pieces: By run, its files as they are now, each whole.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked.
    """
    then: dict[str, dict[str, Row]] = {run: {} for run in pieces}
    with reading(url or url_of(pipeline), pipeline.target.name) as connection:
        book = ledger.named(tables.split(connection, pipeline.table)[0]) if connection is not None else None
        lacking = tables.lacks(connection, book) if connection is not None and book is not None else None
        if connection is None or book is None or lacking is None:
            return {}
        runs = sorted(pieces)
        modified = book.c.modified if "modified" not in lacking else sa.null().label("modified")
        for start in range(0, len(runs), BATCH):
            some = ledger.of_table(book, pipeline) & book.c.run.in_(runs[start : start + BATCH])
            for row in connection.execute(sa.select(book.c.run, book.c.file, book.c.version, modified).where(some)):
                then[row.run] |= dict.fromkeys(ledger.names_in(row.file), row)

    def is_other(piece: Piece, row: Row | None) -> bool:
        if row is None:
            return True
        together = row.file.startswith("[")  # of several files the latest time is known
        same = piece.modified <= row.modified if together and row.modified else piece.modified == row.modified
        return not same and (not row.version or row.version != hash_of(piece.path))

    found = {
        run: [each.file for each in some if is_other(each, then[run].get(each.file))] for run, some in pieces.items()
    }
    return {run: files for run, files in found.items() if files}

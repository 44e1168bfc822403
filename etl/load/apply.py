"""Applying staged rows: one swap into the table of those that win.

A run of one partition stages its rows in a temporary table and applies them in the same transaction. A run of
several stages them in a shadow table that `finish` applies. The code is the same.

Nothing is remembered but the staged rows themselves. Applied again after more partitions have come, they are compared
anew: rows of a partition applied before are known in the table by their `_run`, and only new winners are written.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.errors import ReceiptMismatch, TableMismatch
from etl.load import ledger, swap, tables
from etl.load.columns import remember
from etl.load.staged import ID, LINE, LOST, ORDER, Shadow, partition_of
from etl.load.targets import kind
from etl.partition import Partition
from etl.types.ordered import is_in_order
from etl.types.sql import CastText
from etl.types.words import arrow_of

RANKS = "_etl_ranks"  # temporary
TEXTS = 50_000  # looked at together
_RANK = {"run": "string", "file": "string", "rank": "integer", "since": "integer"}


@dataclass
class Outcome:
    """What became of one partition's staged rows."""

    staged: int = 0
    loaded: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0


def apply(
    shadow: Shadow,
    partitions: Collection[Partition],
    applied: Collection[int],
    *,
    staged: Mapping[int, int] | None = None,
    columns: Mapping[int, Collection[str]] | None = None,
) -> dict[int, Outcome]:
    """Bring staged rows into the pipeline's table, in the connection's transaction.

    Args:
        partitions: Those whose rows count; rows of others are left as they are.
        applied: Numbers of those among them that were applied before.
        staged: Rows by partition, where they have been counted.
        columns: Of partitions whose rows have not all of the columns, in lower case.

    Returns:
        What became of each partition's rows, counting what became of them earlier.

    Raises:
        ReceiptMismatch: The target wrote another number of rows than it was given.
    """
    connection, pipeline = shadow.connection, shadow.pipeline
    database = kind(connection)
    lock(connection, pipeline)
    outcomes = {number: Outcome(staged=count) for number, count in (staged or shadow.counts()).items()}
    shared = ("_client",) if pipeline.shared else ()
    key = (*shared, *pipeline.load.key) if pipeline.load.mode == "merge" else ()
    wanted = {**shadow.types, **dict.fromkeys((*shared, "_run", "_file"), database.TYPES["string"])}
    # An index over rows that are there takes half the time of one that is kept up row by row.
    late = bool(key) and database.FACTS.late_keys
    new = tables.ensure(connection, pipeline.table, wanted, key, late=late)
    if new:
        remember(connection, pipeline.table, shadow.words, new=True)
    shadow.make_lost()
    database.prepare(connection, shadow.rows)
    winners = _Winners(shadow, partitions, set(applied), set(outcomes), key, columns or {})
    if len(partitions) > 1:
        winners.reject_duplicates()
    if pipeline.load.mode == "merge":
        winners.check_newest(with_table=not new)
        winners.compare_staged()
        winners.fill_absent(with_table=not new)
        if not new:
            winners.compare_with_table()
    elif pipeline.load.mode == "replace" and not new:
        winners.compare_with_later_runs()
    outcomes = {number: outcomes.get(number, Outcome()) for number in winners.counting}
    for number, why, count in winners.lost_counts():
        outcome = outcomes[number]
        setattr(outcome, why, getattr(outcome, why) + count)
    to_write = winners.to_write()
    if pipeline.load.mode == "replace" and to_write:
        # A partition that is final and staged nothing is a file that has not changed: its rows stay.
        swap.clear(
            winners, [each for each in partitions if each.number not in applied or each.number in winners.present]
        )
    written = swap.write(winners, over=not (new and late)) if to_write else 0
    if new and late:
        tables.add_key(connection, pipeline.table, key)
    if written != to_write:
        what = f"table {pipeline.table} took {written:,} rows of {to_write:,}"
        raise ReceiptMismatch(what, "look for a trigger or a rule on the table that drops rows")
    for outcome in outcomes.values():
        outcome.loaded = outcome.staged - outcome.unchanged - outcome.superseded - outcome.rejected
    return outcomes


def lock(connection: sa.Connection, pipeline: Pipeline) -> None:
    """Wait until no other load applies rows to the client's table, and let none until the transaction ends.

    The order of locks is the same everywhere: ledger row, this, tables. So no two loads wait for each other.
    """
    kind(connection).lock(connection, "apply", pipeline.table, pipeline.client if pipeline.shared else "")


class _Winners:
    """The staged rows of one `apply`, less those that lose.

    Args:
        applied: Numbers of the partitions that were applied before.
        present: Numbers of those that have staged rows.
        key: The columns that tell the table's rows apart, or nothing.
        columns: What each partition's rows have, where some have fewer columns than others of the run.
    """

    def __init__(
        self,
        shadow: Shadow,
        partitions: Collection[Partition],
        applied: set[int],
        present: set[int],
        key: tuple[str, ...],
        columns: Mapping[int, Collection[str]],
    ) -> None:
        self.shadow, self.connection, self.pipeline = shadow, shadow.connection, shadow.pipeline
        self.run, self.types = shadow.run, shadow.types
        self.partitions, self.counting = partitions, {partition.number for partition in partitions}
        self.applied, self.present, self.columns = applied & present, present, columns
        self.rows, self.lost, self.key = shadow.rows, shadow.lost, key
        names = dict.fromkeys([*shadow.types, "_client", "_run", "_file"])
        self.table = tables.table(self.connection, self.pipeline.table, names)
        # A column without any value that the table lacks is not staged, and decides nothing.
        self.newest = self.pipeline.load.newest if self.pipeline.load.newest in shadow.types else None
        self.any_lost = False
        self.collations = kind(self.connection).collations(
            self.connection, *tables.split(self.connection, self.pipeline.table)
        )

    def live(self, *, but: Collection[int] = ()) -> sa.ColumnElement[bool]:
        """Rows of the partitions that count, but for some, that are not lost yet."""
        numbers = (self.counting & self.present) - set(but)
        condition: sa.ColumnElement[bool] = sa.true()
        if numbers != self.present:
            condition = partition_of(self.rows).in_(sorted(numbers))
        if self.any_lost:
            same = self.lost.c[ID] == self.rows.c[ID]
            condition = sa.and_(condition, ~sa.exists().where(same).correlate(self.rows))
        return condition

    def mine(self) -> sa.ColumnElement[bool]:
        """Rows of the table that are this client's."""
        return self.table.c._client == self.pipeline.client if self.pipeline.shared else sa.true()

    def same_key(self) -> sa.ColumnElement[bool]:
        """Rows of the table and staged ones that have the same key."""
        return sa.and_(*(self.table.c[name] == self._keyed(name) for name in self.pipeline.load.key))

    def _keyed(self, name: str, rows: sa.FromClause | None = None) -> sa.ColumnElement[Any]:
        """Return a staged column of the key, which is compared as the table's own is."""
        collation, column = self.collations.get(name), (self.rows if rows is None else rows).c[name]
        return sa.collate(column, collation) if collation and self._is_text(name) else column

    def _is_text(self, name: str) -> bool:
        return isinstance(self.types[name], sa.String)

    def lose(self, query: sa.Select[Any]) -> None:
        """Leave out the rows of a query of id, why and column: they are not written."""
        statement = sa.insert(self.lost).from_select(list(LOST), query)
        if self.connection.execute(statement).rowcount:
            self.any_lost = True
            kind(self.connection).prepare(self.connection, self.lost)

    def reject_duplicates(self) -> None:
        """Of rows with the same value of a unique column the first stays, or the one that was applied before."""
        for name, column in self.pipeline.columns.items():
            if not column.unique or name not in self.types:
                continue
            there = sa.and_(self.live(), self.rows.c[name].is_not(None))
            first: list[sa.ColumnElement[Any]] = [self._order(), self.rows.c[LINE], self.rows.c[ID]]
            if self.applied:
                first.insert(0, sa.case((partition_of(self.rows).in_(sorted(self.applied)), 0), else_=1))
            self.lose(self._beaten([self.rows.c[name]], there, first, "rejected", name))

    def check_newest(self, *, with_table: bool) -> None:
        """Refuse text that nobody declared and that has no order in time, here and in the table: "9" would beat "10".

        Raises:
            TableMismatch: It is not dates or times of one form.
        """
        name, table = self.newest, self.pipeline.table
        is_free = name and name not in self.pipeline.columns and self.shadow.words.get(name) == "string"
        if name is None or not is_free or not self._is_text(name):
            return
        mine, theirs = self.rows.c[name], self.table.c[name]
        queries = [sa.select(mine).where(self.live(), mine.is_not(None))]
        if with_table:
            there = sa.select(theirs).join_from(self.rows, self.table, sa.and_(self.same_key(), self.mine()))
            queries.append(there.where(self.live(), theirs.is_not(None)))
        found = (self.connection.execute(query.distinct()).scalars().partitions(TEXTS) for query in queries)
        if not is_in_order(chain.from_iterable(found)):
            raise TableMismatch(
                f"table {table}, column {name}: it says which row is newest, and holds text that is not declared "
                "and is not dates or times of one form alone",
                f'declare columns.{name}: as what it is compared, such as type = "integer"; "string" is by code points',
            )

    def compare_staged(self) -> None:
        """Of rows with the same key the newest stays, else that of the later file, else the later."""
        keys = [self._keyed(name) for name in self.pipeline.load.key]
        self.lose(self._beaten(keys, self.live(), self._latest_first(), "superseded", None))

    def _latest_first(self) -> list[sa.ColumnElement[Any]]:
        last: list[sa.ColumnElement[Any]] = [self._order().desc(), self.rows.c[LINE].desc(), self.rows.c[ID].desc()]
        if self.newest:
            last.insert(0, self._plain(self.rows.c[self.newest]).desc().nulls_last())
        return last

    def _order(self) -> sa.ColumnElement[Any]:
        """Return the rank of a staged row's file; a retry ranks files anew that were fixed since others were staged."""
        ranks = {partition.number: partition.order for partition in self.partitions}
        if all(rank == number - 1 for number, rank in ranks.items()):
            return self.rows.c[ORDER]
        return sa.case(ranks, value=partition_of(self.rows), else_=self.rows.c[ORDER])

    def _beaten(
        self, keys: list[Any], condition: Any, order: list[Any], why: str, column: str | None
    ) -> sa.Select[Any]:
        # SQLite renames columns of a subquery that are called true or false.
        named = {f"k{number}": key for number, key in enumerate(keys)}
        labels = [key.label(name) for name, key in named.items()]
        doubled = sa.select(*labels).where(condition).group_by(*keys).having(sa.func.count() > 1).subquery()
        rank = sa.func.row_number().over(partition_by=keys, order_by=order).label("rank")
        ranked = (
            sa.select(self.rows.c[ID], rank)
            .join_from(self.rows, doubled, sa.and_(*(key == doubled.c[name] for name, key in named.items())))
            .where(condition)
            .subquery()
        )
        return sa.select(ranked.c[ID], sa.literal(why), sa.cast(sa.literal(column), sa.Text)).where(ranked.c.rank > 1)

    def _plain(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Compare text by its code points, whatever the database's language."""
        name, facts = self.newest or "", kind(self.connection).FACTS
        usual = facts.plain_text and name not in self.collations
        return sa.collate(column, facts.plain) if self._is_text(name) and not usual else column

    def _alike(self, table: sa.TableClause, name: str) -> sa.ColumnElement[Any]:
        """Compare types that text is cast to by their text: json has no equality, that of others overlooks changes."""
        column = table.c[name]
        if name in self.collations and self._is_text(name):
            return sa.collate(column, kind(self.connection).FACTS.plain)
        return sa.cast(column, sa.Text) if isinstance(self.types[name], CastText) else column

    def compare_with_table(self) -> None:
        """Rows that the table has already, or has newer, are not written."""
        table, rows, run = self.table, self.rows, self.run
        meet = sa.and_(self.same_key(), self.mine())
        data = [name for name in self.types if name not in self.pipeline.load.key]
        equal = sa.and_(
            sa.true(),
            *(
                # As rows: SQLite takes no more than a thousand terms in a chain.
                sa.tuple_(*(self._alike(table, name) for name in some)).is_not_distinct_from(
                    sa.tuple_(*(self._alike(rows, name) for name in some))
                )
                for some in (data[start : start + 100] for start in range(0, len(data), 100))
            ),
        )
        older = self._is_of_an_older_file()
        if self.newest:
            there, here = table.c[self.newest], rows.c[self.newest]
            older = sa.and_(there.is_not_distinct_from(here), older)
            older |= (self._plain(there) > self._plain(here)) | (there.is_not(None) & here.is_(None))
        ours = table.c._run.is_not_distinct_from(run)
        nothing = sa.cast(sa.null(), sa.Text)
        if self.applied:
            # What an earlier `apply` of this run wrote is there under its name, unless a later run has been at it.
            became = sa.case((ours, "loaded"), (equal, "unchanged"), else_="superseded")
            query = sa.select(rows.c[ID], became, nothing).join_from(rows, table, meet, isouter=True)
            self.lose(query.where(self.live(but=self.counting - self.applied)))
        became = sa.case((equal, "unchanged"), else_="superseded")
        query = sa.select(rows.c[ID], became, nothing).join_from(rows, table, meet)
        self.lose(query.where(self.live(), older | (equal & ~ours)))

    def compare_with_later_runs(self) -> None:
        """Rows whose `by` values were replaced since they were staged by a later run are not written."""
        by = self.pipeline.load.by
        if not by or by == ("_file",) or not (later := ledger.later_runs(self.connection, self.pipeline, self.run)):
            return
        table, rows = self.table, self.rows
        for start in range(0, len(later), 500):
            alike = sa.and_(*(table.c[name].is_not_distinct_from(rows.c[name]) for name in by))
            theirs = sa.exists().where(alike, self.mine(), table.c._run.in_(later[start : start + 500]))
            why = sa.literal("superseded"), sa.cast(sa.null(), sa.Text)
            self.lose(sa.select(rows.c[ID], *why).where(self.live(), theirs.correlate(rows)))

    def _is_of_an_older_file(self) -> sa.ColumnElement[bool]:
        """Whether a staged row's file is older than the file that the table's row of its key is from.

        What earlier releases have loaded counts as older, and so does what came from no file.
        """
        staged = [partition for partition in self.partitions if partition.number in self.present]
        ranks = ledger.ranked_files(self.connection, self.pipeline, self.run, staged)
        if not ranks:
            return sa.false()
        tables.drop(self.connection, RANKS)
        types = {name: kind(self.connection).TYPES[word] for name, word in _RANK.items()}
        tables.ensure(self.connection, RANKS, types, temporary=True)
        known = tables.table(self.connection, RANKS, _RANK)
        columns = zip(zip(*ranks, strict=True), _RANK.values(), strict=True)
        rows = pa.table([pa.array(column, arrow_of(word)) for column, word in columns], names=list(_RANK))
        kind(self.connection).write(self.connection, known, list(_RANK), [rows])
        kind(self.connection).prepare(self.connection, known)
        theirs, mine = known.alias("theirs"), known.alias("mine")
        newer = (
            (theirs.c.run == self.table.c._run) & (theirs.c.file == self.table.c._file)
            & (mine.c.run == self.run) & (mine.c.file == self.rows.c._file) & (theirs.c.rank > mine.c.rank)
            # An older copy of a file that was put in its place later is what the file is now.
            & ((theirs.c.file != mine.c.file) | (theirs.c.since > mine.c.since))
        )  # fmt: skip
        since = {file: since for run, file, _, since in ranks if run == self.run}
        if any(run != self.run and number <= since.get(file, -1) for run, file, _, number in ranks):
            newer &= ~self._comes_again(theirs, known.alias("now"))
        return sa.exists().where(newer).correlate(self.table, self.rows)

    def _comes_again(self, theirs: sa.FromClause, now: sa.FromClause) -> sa.ColumnElement[bool]:
        """Whether the file that the table's row is from has the row's key in this run too: it is as old as it is now.

        As if the files had been loaded one after another: the copy that was put in its place replaces the row first.
        """
        again = self.rows.alias("again")
        is_now = (now.c.run == self.run) & (now.c.file == theirs.c.file) & (now.c.since >= theirs.c.since)
        keys = (self._keyed(name, again) == self._keyed(name) for name in self.pipeline.load.key)
        return sa.exists().where(is_now, again.c._file == theirs.c.file, *keys).correlate(theirs, self.rows)

    def lost_counts(self) -> list[tuple[int, str, int]]:
        """Return (partition, why, rows) of the rows that are not written."""
        partition = partition_of(self.lost)
        query = sa.select(partition, self.lost.c.why, sa.func.count()).group_by(partition, self.lost.c.why)
        return [(int(number), why, count) for number, why, count in self.connection.execute(query)]

    def to_write(self) -> int:
        """Return how many rows are to be written."""
        query = sa.select(sa.func.count()).select_from(self.rows).where(self.live(but=self.applied))
        return int(self.connection.execute(query).scalar_one())

    def fill_absent(self, *, with_table: bool) -> None:
        """Give rows whose file lacks a column the value that their key has there without them.

        As if the files of a run had been loaded one after another: what a file does not have it does not empty.

        Args:
            with_table: Whether the table may have rows of the same keys.
        """
        lacking: dict[frozenset[int], list[str]] = {}
        for name in self.types:
            without = frozenset(n for n in self.columns if n in self.present and name.casefold() not in self.columns[n])
            if without and name not in self.pipeline.load.key:
                lacking.setdefault(without, []).append(name)
        for numbers, names in lacking.items():
            mine = partition_of(self.rows).in_(sorted(numbers)) & self.live(but=self.applied)
            if with_table:
                values = {name: self.table.c[name] for name in names}
                self.connection.execute(sa.update(self.rows).values(values).where(mine, self.same_key(), self.mine()))
            # Of the rows that lost, the last one that has the columns.
            keys, others = list(self.pipeline.load.key), partition_of(self.rows).not_in(sorted(numbers))
            rank = sa.func.row_number().over(
                partition_by=[self._keyed(name) for name in keys], order_by=self._latest_first()
            )
            # SQLite renames columns of a subquery that are called true or false.
            labels = {name: f"k{number}" for number, name in enumerate((*keys, *names))}
            columns = [self.rows.c[name].label(label) for name, label in labels.items()]
            counting = partition_of(self.rows).in_(sorted(self.counting & self.present))
            doubled = sa.exists().where(self.lost.c[ID] == self.rows.c[ID], self.lost.c.why == "rejected")
            some = counting & others & ~doubled.correlate(self.rows)
            ranked = sa.select(*columns, rank.label("_rank")).where(some).subquery()
            best = sa.select(*(ranked.c[label] for label in labels.values())).where(ranked.c["_rank"] == 1).subquery()
            same = sa.and_(*(self._keyed(name) == best.c[labels[name]] for name in keys))
            best_values = {name: best.c[labels[name]] for name in names}
            self.connection.execute(sa.update(self.rows).values(best_values).where(mine, same))

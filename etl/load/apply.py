"""Applying staged rows: who wins a key, what is there already, and one swap into the table.

A run of one partition stages its rows in a temporary table and applies them in the same transaction. A run of
several stages them in a shadow table that `finish` applies. The code is the same.

Nothing is remembered but the staged rows themselves. Applied again after more partitions have come, they are compared
anew: rows of a partition applied before are known in the table by their `_run`, and only new winners are written.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.errors import ReceiptMismatch
from etl.load import columns, tables
from etl.load.staged import ID, LINE, LOST, ORDER, Shadow, partition_of
from etl.load.targets import kind
from etl.partition import Partition


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
) -> dict[int, Outcome]:
    """Bring staged rows into the pipeline's table, in the connection's transaction.

    Args:
        partitions: Those whose rows count; rows of others are left as they are.
        applied: Numbers of those among them that were applied before.
        staged: Rows by partition, where they have been counted.

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
        columns.remember(connection, pipeline.table, shadow.words, new=True)
    shadow.make_lost()
    database.prepare(connection, shadow.rows)
    step = _Step(shadow, {p.number for p in partitions}, set(applied), set(outcomes), key)
    if len(partitions) > 1:
        step.reject_duplicates()
    if pipeline.load.mode == "merge":
        step.compare_staged()
        if not new:
            step.compare_with_table()
    outcomes = {number: outcomes.get(number, Outcome()) for number in step.counting}
    for number, why, count in step.lost_counts():
        outcome = outcomes[number]
        setattr(outcome, why, getattr(outcome, why) + count)
    to_write = step.to_write()
    if pipeline.load.mode == "replace" and to_write:
        # A partition that is final and staged nothing is a file that has not changed: its rows stay.
        step.clear([each for each in partitions if each.number not in applied or each.number in step.present])
    written = step.write(over=not (new and late)) if to_write else 0
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


class _Step:
    """The statements of one `apply`."""

    def __init__(
        self, shadow: Shadow, counting: set[int], applied: set[int], present: set[int], key: tuple[str, ...]
    ) -> None:
        self.shadow, self.connection, self.pipeline = shadow, shadow.connection, shadow.pipeline
        self.counting, self.applied, self.present = counting, applied & present, present
        self.rows, self.lost, self.key = shadow.rows, shadow.lost, key
        columns = dict.fromkeys([*shadow.types, "_client", "_run", "_file"])
        self.table = tables.table(self.connection, self.pipeline.table, columns)
        # A column without any value that the table lacks is not staged, and decides nothing.
        self.newest = self.pipeline.load.newest if self.pipeline.load.newest in shadow.types else None
        self.any_lost = False

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
        return sa.and_(*(self.table.c[name] == self.rows.c[name] for name in self.pipeline.load.key))

    def lose(self, query: sa.Select[Any]) -> None:
        """Leave out the rows of a query of id, why and column: they are not written."""
        statement = sa.insert(self.lost).from_select(list(LOST), query)
        if self.connection.execute(statement).rowcount:
            self.any_lost = True
            kind(self.connection).prepare(self.connection, self.lost)

    def reject_duplicates(self) -> None:
        """Of rows with the same value of a unique column the first stays, or the one that was applied before."""
        for name, column in self.pipeline.columns.items():
            if not column.unique or name not in self.shadow.types:
                continue
            there = sa.and_(self.live(), self.rows.c[name].is_not(None))
            first: list[sa.ColumnElement[Any]] = [self.rows.c[ORDER], self.rows.c[LINE], self.rows.c[ID]]
            if self.applied:
                first.insert(0, sa.case((partition_of(self.rows).in_(sorted(self.applied)), 0), else_=1))
            self.lose(self._beaten([self.rows.c[name]], there, first, "rejected", name))

    def compare_staged(self) -> None:
        """Of rows with the same key the newest stays, else that of the later file, else the later."""
        keys = [self.rows.c[name] for name in self.pipeline.load.key]
        last = [self.rows.c[name].desc() for name in (ORDER, LINE, ID)]
        if self.newest:
            last.insert(0, self._plain(self.rows.c[self.newest]).desc().nulls_last())
        self.lose(self._beaten(keys, self.live(), last, "superseded", None))

    def _beaten(
        self, keys: list[Any], condition: Any, order: list[Any], why: str, column: str | None
    ) -> sa.Select[Any]:
        doubled = sa.select(*keys).where(condition).group_by(*keys).having(sa.func.count() > 1).subquery()
        rank = sa.func.row_number().over(partition_by=keys, order_by=order).label("rank")
        ranked = (
            sa.select(self.rows.c[ID], rank)
            .join_from(self.rows, doubled, sa.and_(*(key == doubled.c[key.name] for key in keys)))
            .where(condition)
            .subquery()
        )
        return sa.select(ranked.c[ID], sa.literal(why), sa.cast(sa.literal(column), sa.Text)).where(ranked.c.rank > 1)

    def _plain(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Compare text by its code points, whatever the database's language."""
        type = self.shadow.types[self.newest or ""]
        plain = kind(self.connection).FACTS.plain_text
        return sa.collate(column, "C") if isinstance(type, sa.String) and not plain else column

    def compare_with_table(self) -> None:
        """Rows that the table has already, or has newer, are not written."""
        table, rows, run = self.table, self.rows, self.shadow.run
        meet = sa.and_(self.same_key(), self.mine())
        data = [name for name in self.shadow.types if name not in self.pipeline.load.key]
        equal = sa.and_(
            sa.true(),
            *(
                # As rows: SQLite takes no more than a thousand terms in a chain.
                sa.tuple_(*(table.c[name] for name in some)).is_not_distinct_from(
                    sa.tuple_(*(rows.c[name] for name in some))
                )
                for some in (data[start : start + 100] for start in range(0, len(data), 100))
            ),
        )
        older: sa.ColumnElement[bool] = sa.false()
        if self.newest:
            there, here = table.c[self.newest], rows.c[self.newest]
            older = (self._plain(there) > self._plain(here)) | (there.is_not(None) & here.is_(None))
        ours = table.c._run.is_not_distinct_from(run)
        nothing = sa.cast(sa.null(), sa.Text)
        if self.applied:
            # What an earlier `apply` of this run wrote is there under its name, unless a later run has been at it.
            became = sa.case((ours, "loaded"), (equal, "unchanged"), else_="superseded")
            query = sa.select(rows.c[ID], became, nothing).join_from(rows, table, meet, isouter=True)
            self.lose(query.where(self.live(but=self.counting - self.applied)))
        became = sa.case((older, "superseded"), else_="unchanged")
        query = sa.select(rows.c[ID], became, nothing).join_from(rows, table, meet)
        self.lose(query.where(self.live(), older | (equal & ~ours)))

    def lost_counts(self) -> list[tuple[int, str, int]]:
        """Return (partition, why, rows) of the rows that are not written."""
        partition = partition_of(self.lost)
        query = sa.select(partition, self.lost.c.why, sa.func.count()).group_by(partition, self.lost.c.why)
        return [(int(number), why, count) for number, why, count in self.connection.execute(query)]

    def to_write(self) -> int:
        """Return how many rows are to be written."""
        query = sa.select(sa.func.count()).select_from(self.rows).where(self.live(but=self.applied))
        return int(self.connection.execute(query).scalar_one())

    def clear(self, partitions: Collection[Partition]) -> None:
        """Delete what a replace replaces, of this client alone."""
        table, by = self.table, self.pipeline.load.by
        mine = self.mine()
        if not by:
            self.connection.execute(sa.delete(table).where(mine))
        elif by == ("_file",):
            names = sorted({piece.file for partition in partitions for piece in partition.pieces})
            for start in range(0, len(names), 1000):
                self.connection.execute(sa.delete(table).where(mine, table.c._file.in_(names[start : start + 1000])))
        else:
            there, here = [table.c[name] for name in by], [self.rows.c[name] for name in by]
            values = sa.select(*here).where(self.live()).distinct()
            self.connection.execute(sa.delete(table).where(mine, sa.tuple_(*there).in_(values)))
            # IN finds no nulls; and a comparison that does find them can't be hashed, so it gets only those.
            some_null = values.where(sa.or_(*(column.is_(None) for column in here))).subquery()
            alike = sa.and_(*(column.is_not_distinct_from(some_null.c[column.name]) for column in there))
            self.connection.execute(sa.delete(table).where(mine, sa.exists().where(alike)))

    def clear_keys(self) -> None:
        """Delete the rows that are about to be written anew, where no unique key finds them."""
        anew = sa.exists().where(self.same_key(), self.live(but=self.applied)).correlate(self.table)
        self.connection.execute(sa.delete(self.table).where(self.mine(), anew))

    def write(self, *, over: bool) -> int:
        """Insert the rows that are left, `over` those of their keys; return how many the target says it wrote."""
        keys = kind(self.connection).FACTS.keys
        if over and self.key and not keys:
            self.clear_keys()
        rows, table = self.rows, self.table
        values: dict[str, Any] = {name: rows.c[name] for name in self.shadow.types}
        if self.pipeline.shared:
            values["_client"] = sa.cast(sa.literal(self.pipeline.client), sa.Text)
        values |= {"_run": sa.cast(sa.literal(self.shadow.run), sa.Text), "_file": rows.c._file}
        # SQLite takes ON CONFLICT for a join's ON unless there is a WHERE.
        chosen = sa.select(*(value.label(name) for name, value in values.items()))
        chosen = chosen.where(sa.literal_column("1") == sa.literal_column("1"), self.live(but=self.applied))
        insert = kind(self.connection).insert(table).from_select(list(values), chosen)
        if over and self.key and keys:
            kept = {name: insert.excluded[name] for name in values if name not in self.key}
            insert = insert.on_conflict_do_update(index_elements=list(self.key), set_=kept)
        return int(self.connection.execute(insert).rowcount)

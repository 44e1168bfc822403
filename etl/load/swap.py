"""The swap: what a replace replaces goes, and the staged rows that won go into the table, in one transaction."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.errors import TargetRefused
from etl.load.targets import kind
from etl.load.targets.driver_errors import DOUBLED
from etl.partition import Partition


class Winning(Protocol):
    """Staged rows of which some have lost, and the table that the others go to.

    Args:
        types: The staged rows' own columns.
        applied: Numbers of the partitions that were applied before.
        key: The columns that tell the table's rows apart, or nothing.
    """

    connection: sa.Connection
    pipeline: Pipeline
    run: str
    rows: sa.TableClause
    table: sa.TableClause
    types: dict[str, Any]
    applied: set[int]
    key: tuple[str, ...]

    def live(self, *, but: Collection[int] = ()) -> sa.ColumnElement[bool]:
        """Rows of the partitions that count, but for some, that are not lost."""

    def mine(self) -> sa.ColumnElement[bool]:
        """Rows of the table that are this client's."""

    def same_key(self) -> sa.ColumnElement[bool]:
        """Rows of the table and staged ones that have the same key."""


def clear(winners: Winning, partitions: Collection[Partition]) -> None:
    """Delete what a replace replaces, of this client alone."""
    table, by = winners.table, winners.pipeline.load.by
    mine = winners.mine()
    if not by:
        winners.connection.execute(sa.delete(table).where(mine))
    elif by == ("_file",):
        names = sorted({piece.file for partition in partitions for piece in partition.pieces})
        for start in range(0, len(names), 1000):
            winners.connection.execute(sa.delete(table).where(mine, table.c._file.in_(names[start : start + 1000])))
    else:
        there, here = [table.c[name] for name in by], [winners.rows.c[name] for name in by]
        # SQLite renames columns of a subquery that are called true or false.
        values = sa.select(*(column.label(f"k{number}") for number, column in enumerate(here)))
        values = values.where(winners.live()).distinct()
        winners.connection.execute(sa.delete(table).where(mine, sa.tuple_(*there).in_(values)))
        # IN finds no nulls; and a comparison that does find them can't be hashed, so it gets only those.
        some_null = values.where(sa.or_(*(column.is_(None) for column in here))).subquery()
        pairs = zip(there, some_null.c, strict=True)
        alike = sa.and_(*(column.is_not_distinct_from(null) for column, null in pairs))
        winners.connection.execute(sa.delete(table).where(mine, sa.exists().where(alike)))


def write(winners: Winning, *, over: bool) -> int:
    """Insert the rows that are left, `over` those of their keys; return how many the target says it wrote.

    Raises:
        TargetRefused: A merge by its key meets another unique key of the table.
    """
    try:
        return _write(winners, over=over)
    except sa.exc.DBAPIError as error:
        pipeline = winners.pipeline
        if winners.key and isinstance(error.orig, kind(winners.connection).ERRORS):
            refused = kind(winners.connection).translate(error.orig, f"target {pipeline.target.name}")
            if refused.cure == DOUBLED[1]:
                columns = kind(winners.connection).doubled(error.orig)
                raise TargetRefused(refused.what, _other_key(pipeline, columns)) from error
        raise


def _other_key(pipeline: Pipeline, columns: Sequence[str]) -> str:
    """Return what to do where a row has the key of none that is there, and yet the unique values of one.

    Args:
        columns: Which have to be unique, where the database says so.
    """
    key = ", ".join(["_client", *pipeline.load.key])
    folded = {column.casefold() for column in columns}
    if pipeline.shared and not columns:
        return (
            f"where it is load.key's, make it ({key}), since clients share the table; else correct the rows, or drop it"
        )
    if pipeline.shared and folded <= {column.casefold() for column in pipeline.load.key}:
        return f"clients share the table: make its key ({key}), put {{client}} in load.table, or drop the constraint"
    names = ", ".join(column for column in columns if column != "_client")
    if not names:
        return "name that constraint's columns in load.key, or drop it"
    return f"rows with different keys have the same {names}: correct them, name {names} in load.key, or drop that key"


def _write(winners: Winning, *, over: bool) -> int:
    has_keys = kind(winners.connection).FACTS.keys
    rows, table = winners.rows, winners.table
    values: dict[str, Any] = {name: rows.c[name] for name in winners.types}
    if winners.pipeline.shared:
        values["_client"] = sa.cast(sa.literal(winners.pipeline.client), sa.Text)
    values |= {"_run": sa.cast(sa.literal(winners.run), sa.Text), "_file": rows.c._file}
    anew = {name: value for name, value in values.items() if name not in winners.key}
    live, updated = winners.live(but=winners.applied), 0
    if over and winners.key and not has_keys:
        updated = _update(winners, live, anew)
        live = sa.and_(live, ~sa.exists().where(winners.same_key(), winners.mine()).correlate(rows))
    # SQLite takes ON CONFLICT for a join's ON unless there is a WHERE.
    chosen = sa.select(*(value.label(name) for name, value in values.items()))
    chosen = chosen.where(sa.literal_column("1") == sa.literal_column("1"), live)
    insert = kind(winners.connection).insert(table).from_select(list(values), chosen)
    if over and winners.key and has_keys:
        insert = insert.on_conflict_do_update(
            index_elements=list(winners.key), set_={name: insert.excluded[name] for name in anew}
        )
    return updated + int(winners.connection.execute(insert).rowcount)


def _update(winners: Winning, live: sa.ColumnElement[bool], values: Mapping[str, Any]) -> int:
    """Update the table's rows that have the keys of staged ones, where no unique key finds them; return how many."""
    table, mine = winners.table, winners.mine()
    # Where a key is there more than once, all of its rows give way.
    keys = [table.c[name] for name in winners.pipeline.load.key]
    named = {f"k{number}": key for number, key in enumerate(keys)}
    doubled = sa.select(*(key.label(name) for name, key in named.items())).where(mine).group_by(*keys)
    doubled = doubled.having(sa.func.count() > 1)
    staged = sa.exists().where(winners.same_key(), live).correlate(table)
    winners.connection.execute(sa.delete(table).where(mine, sa.tuple_(*keys).in_(doubled), staged))
    update = sa.update(table).values(dict(values)).where(mine, winners.same_key(), live)
    return int(winners.connection.execute(update).rowcount)

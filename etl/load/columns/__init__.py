"""Columns of tables: what each is in the pipeline's words, which of them we made, and making them wider.

The target's table `_etl_columns` remembers both, since a database has fewer types than the pipeline (SQLite keeps dates
as text), and since a column of the user's own is never changed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from etl.load import tables
from etl.load.targets import Dependent, Widening, kind
from etl.types.lattice import EMPTY, choose, fixed, is_empty, is_held, meet
from etl.types.sql import literal, word_of_column
from etl.types.words import WORDS

NAME = "_etl_columns"
_WHOLE = 2**53  # up to here every whole number is a float


@dataclass(frozen=True)
class Known:
    """A column of a table.

    Args:
        type: Its type in the database.
        word: Its type in the pipeline's words: `EMPTY` where it had no value yet, "any" and "" as `word_of_column`.
        ours: Whether we made it.
        noted: Whether we have remembered its word, or loaded it as that.
    """

    type: TypeEngine[object]
    word: str
    ours: bool
    noted: bool = False


@dataclass(frozen=True)
class Change:
    """A column that gets a wider type: from one word to another."""

    old: str
    new: str


def known(connection: sa.Connection, name: str, last: Mapping[str, str] | None = None) -> dict[str, Known] | None:
    """Return the columns of a table, or None where there is no such table.

    Args:
        last: Types that they were last loaded with, for a table from before columns were remembered.
    """
    there = tables.existing(connection, name)
    if there is None:
        return None
    schema, short = tables.split(connection, name)
    book = tables.own(connection, named(schema))
    query = sa.select(book.c.column_name, book.c.word, book.c.ours).where(book.c.table_name == short)
    remembered = {column: (word, bool(ours)) for column, word, ours in connection.execute(query)}
    made = kind(connection).TYPES
    found = {}
    for column, type in there.items():
        shown = word_of_column(type)
        word, ours = remembered.get(column, ("", False))
        if word == EMPTY and shown == "string":
            found[column] = Known(type, EMPTY, ours, True)
        elif word in WORDS and word_of_column(made[word]) == shown:
            found[column] = Known(type, word, ours, True)
        elif word:  # altered since: if as our own statement says, it is still ours
            as_made = shown in WORDS and str(type) == str(made[shown]) and (word == EMPTY or shown in fixed(word))
            found[column] = Known(type, shown, ours and as_made, True)
        else:
            word = (last or {}).get(column, "")
            is_of = word in WORDS and word_of_column(made[word]) == shown
            found[column] = Known(type, word if is_of else shown, False, bool(word))
    return found


@lru_cache  # statements are compiled anew for a new table
def named(schema: str | None) -> sa.Table:
    """Return the table of remembered columns of a schema, there or not."""
    return sa.Table(
        NAME,
        sa.MetaData(),
        sa.Column("table_name", sa.Text, primary_key=True),
        sa.Column("column_name", sa.Text, primary_key=True),
        sa.Column("word", sa.Text, nullable=False),
        sa.Column("ours", sa.Boolean, nullable=False),
        schema=schema,
    )


def remember(connection: sa.Connection, name: str, words: Mapping[str, str], *, new: bool = False) -> None:
    """Remember columns that were made, or have another type now.

    Args:
        new: Whether the table is new too: one of the same name that is gone is forgotten.
    """
    schema, short = tables.split(connection, name)
    book = tables.own(connection, named(schema))
    if new:
        forget(connection, name)
    rows = [{"table_name": short, "column_name": column, "word": word, "ours": True} for column, word in words.items()]
    if rows:
        insert = kind(connection).insert(book)
        same = {"word": insert.excluded.word, "ours": insert.excluded.ours}
        connection.execute(insert.on_conflict_do_update(index_elements=["table_name", "column_name"], set_=same), rows)


def ours(connection: sa.Connection, name: str) -> set[str]:
    """Return the columns of a table that we made, as far as we remember; nothing is written."""
    schema, short = tables.split(connection, name)
    book = named(schema)
    if not tables.there(connection, book):
        return set()
    query = sa.select(book.c.column_name).where(book.c.table_name == short, book.c.ours.is_(True))
    return set(connection.execute(query).scalars())


def forget(connection: sa.Connection, *names: str) -> None:
    """Forget the columns of tables that are gone."""
    for name in names:
        schema, short = tables.split(connection, name)
        book = named(schema)
        if tables.there(connection, book):
            connection.execute(sa.delete(book).where(book.c.table_name == short))


def wider(connection: sa.Connection, name: str, column: str, word: str) -> list[str]:
    """Return the types that hold each value of a table's column exactly; see `etl.types.infer`."""
    kinds = fixed(word)
    if word not in ("integer", "number"):
        return kinds
    table = tables.table(connection, name, [column])
    value = table.c[column]
    if word == "integer":
        beyond = sa.or_(value > _WHOLE, value < -_WHOLE)
        many = connection.execute(sa.select(sa.literal(1)).select_from(table).where(beyond).limit(1)).first()
        return [each for each in kinds if each not in ("number", "double")] if many else kinds
    inexact: sa.ColumnClause[bool] = sa.literal_column(
        kind(connection).no_decimal(connection, _quoted(connection, column))
    )
    lost = connection.execute(sa.select(sa.literal(1)).select_from(table).where(inexact).limit(1)).first()
    return [each for each in kinds if each != "decimal"] if lost else kinds


def joined(connection: sa.Connection, name: str, column: str, there: str, kinds: Collection[str]) -> str:
    """Return the type that holds what a column of a table has and what is to come, as the candidates of that say."""
    exact = kind(connection).FACTS.exact_decimals
    if there == EMPTY:
        return choose(kinds, exact=exact)
    if is_empty(kinds) or is_held(kinds, there, exact=exact):
        return there
    return choose(meet(kinds, wider(connection, name, column, there)), exact=exact)


def is_unused(connection: sa.Connection, name: str, column: str, key: Collection[str]) -> bool:
    """Whether a column has no value, and nothing depends on it."""
    table = tables.table(connection, name, [column])
    some = sa.select(sa.literal(1)).select_from(table).where(table.c[column].is_not(None)).limit(1)
    return connection.execute(some).first() is None and not dependents(connection, name, [column], key)


def widen(
    connection: sa.Connection,
    name: str,
    changes: Mapping[str, Change],
    zones: Mapping[str, str],
    zone: str,
) -> None:
    """Give columns wider types, with the values that they have.

    Args:
        zones: Time zones by client, for a table that clients share; `zone` for the others: what had no time of day is
            midnight there.
    """
    schema, short = tables.split(connection, name)
    made = {column: change for column, change in changes.items() if _differs(connection, change)}
    if made:
        kind(connection).widen(connection, Widening(schema, short, made, zones, zone))


def statement(
    connection: sa.Connection,
    name: str,
    changes: Mapping[str, Change],
    zones: Mapping[str, str],
    zone: str,
    noted: Collection[str] = (),
) -> str:
    """Return what the owner of a table runs to give columns wider types.

    Args:
        zones: See `widen`.
        noted: Columns whose words we have noted: where the database's type doesn't tell the new one, it is noted too.
    """
    schema, short = tables.split(connection, name)
    if zones:
        clients = sa.select(tables.table(connection, name, ["_client"]).c["_client"]).distinct()
        zones = {each: zones[each] for each in connection.execute(clients).scalars() if zones.get(each, zone) != zone}
    statements = [kind(connection).statement(connection, Widening(schema, short, changes, zones, zone))]
    made = {word: word_of_column(type) for word, type in kind(connection).TYPES.items()}
    for column in changes:
        word = changes[column].new
        if column in noted and list(made.values()).count(made[word]) > 1:
            values = ", ".join([*map(literal, (short, column, word)), "false"])
            statements.append(
                f'INSERT INTO "{NAME}" (table_name, column_name, word, ours) VALUES ({values})'
                " ON CONFLICT (table_name, column_name) DO UPDATE SET word = excluded.word"
            )
    return "; ".join(statements)


def dependents(
    connection: sa.Connection, name: str, columns: Iterable[str], key: Collection[str]
) -> dict[str, Sequence[Dependent]]:
    """Return, for columns that something else depends on, what that is, in the order in which it can be dropped.

    Args:
        key: The columns of the load's key, whose index changes with them.
    """
    schema, short = tables.split(connection, name)
    return dict(kind(connection).dependents(connection, schema, short, list(columns), set(key)))


def _differs(connection: sa.Connection, change: Change) -> bool:
    """Whether a change is more than another word: text that had no value yet is text."""
    return not (change.old == EMPTY and change.new == "string")


def _quoted(connection: sa.Connection, column: str) -> str:
    return str(connection.dialect.identifier_preparer.quote_identifier(column))

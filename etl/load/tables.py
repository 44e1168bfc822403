"""The target's tables: what is there, and making what is missing."""

import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from etl.errors import TableMismatch
from etl.load.targets import kind
from etl.types.sql import word_of_column

Types = Mapping[str, TypeEngine[Any]]
ROW = "_row"
OWN = ("_client", "_run", "_file")


def table(connection: sa.Connection, name: str, columns: Iterable[str]) -> sa.TableClause:
    """Return a table, "name" or "schema.name", with columns of any type to build statements from."""
    schema, name = split(connection, name)
    return sa.table(name, *(sa.column(column) for column in columns), schema=schema)


def split(connection: sa.Connection, name: str) -> tuple[str | None, str]:
    """Return schema and name; where there are no schemas, the name may have a dot."""
    schema, dot, rest = name.partition(".")
    return (schema, rest) if dot and kind(connection).FACTS.schemas else (None, name)


def own(connection: sa.Connection, table: sa.Table) -> sa.Table:
    """Return one of rq-etl's own tables, made if it is missing; one of an earlier release gets what it lacks.

    Such columns are null in rows that are there. An earlier release names its columns, so it goes on with the table.
    """
    if lacks(connection, table) != []:
        kind(connection).lock(connection, "table", table.name)
        lacking = lacks(connection, table)  # another load may have been quicker while this one waited
        if lacking is None:
            connection.execute(sa.schema.CreateTable(table))
        quote = connection.dialect.identifier_preparer
        for column in lacking or ():
            made = table.c[column].type.compile(connection.dialect)
            connection.exec_driver_sql(
                f"ALTER TABLE {quote.format_table(table)} ADD COLUMN {quote.quote(column)} {made}"
            )
        if kind(connection).FACTS.keys and lacking != []:
            there = {index["name"] for index in sa.inspect(connection).get_indexes(table.name, schema=table.schema)}
            for index in table.indexes:
                if index.name not in there:
                    index.create(connection)
    return table


def lacks(connection: sa.Connection, table: sa.Table) -> list[str] | None:
    """Return the columns that one of rq-etl's own tables lacks, or None where there is no such table."""
    if not there(connection, table):
        return None
    name = connection.dialect.identifier_preparer.format_table(table)
    found = set(connection.exec_driver_sql(f"SELECT * FROM {name} LIMIT 0").keys())  # a tenth of what inspecting costs
    return [column.name for column in table.c if column.name not in found]


def there(connection: sa.Connection, table: sa.Table) -> bool:
    """Whether a table is in the database."""
    return sa.inspect(connection).has_table(table.name, schema=table.schema)


def hold(connection: sa.Connection, name: str, *, adds: bool) -> None:
    """Have a table, if it is there, keep its columns until the transaction ends; other loads may be about to change it.

    Args:
        adds: Whether rows are only added to it.
    """
    schema, table = split(connection, name)
    kind(connection).hold(connection, schema, table, adds=adds)


def schema_of(connection: sa.Connection, schema: str | None) -> str | None:
    """Return a schema, or None where there are none."""
    return schema if kind(connection).FACTS.schemas else None


def existing(connection: sa.Connection, name: str) -> dict[str, TypeEngine[Any]] | None:
    """Return the types of a table's columns, or None where there is no such table."""
    schema, name = split(connection, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # of types that it does not know, which are given text
            columns = sa.inspect(connection).get_columns(name, schema=schema)
    except sa.exc.NoSuchTableError:
        return None
    return _plain_types(connection, schema, name, {column["name"]: column["type"] for column in columns})


def _plain_types(
    connection: sa.Connection, schema: str | None, table: str, types: Mapping[str, TypeEngine[Any]]
) -> dict[str, TypeEngine[Any]]:
    """Return the types of a table's columns: of a domain what it is made of, and those that are given text."""
    if not kind(connection).FACTS.typed or all(_is_plain(type) for type in types.values()):
        return dict(types)
    found = kind(connection).describe(connection, schema, table)
    given = found.types if found else {}
    return {name: given.get(name, _base(type)) for name, type in types.items()}


def _is_plain(type: TypeEngine[Any]) -> bool:
    # A plain String is PostgreSQL's "char" or name, which cut texts.
    return word_of_column(type) not in ("", "any") and type.__class__ not in (postgresql.CITEXT, sa.String)


def _base(type: TypeEngine[Any]) -> TypeEngine[Any]:
    while isinstance(type, postgresql.DOMAIN):
        type = type.data_type
    return type


def ensure(
    connection: sa.Connection,
    name: str,
    types: Types,
    key: Sequence[str] = (),
    *,
    temporary: bool = False,
    late: bool = False,
    known: Types | None = None,
) -> bool:
    """Make a table, or add the columns and the unique index that it lacks.

    Args:
        types: The columns it must have.
        key: The columns that tell its rows apart.
        late: Whether a new table gets its key from `add_key`, once it has its rows.
        known: The columns that it was seen to have in this transaction; the server is asked where that is None.

    Returns:
        Whether the table is new.

    Raises:
        TableMismatch: Rows that are there have the same key.
    """
    key = key if temporary or kind(connection).FACTS.keys else ()
    there = existing(connection, name) if known is None else known
    if there is not None and not lacking(connection, there, types) and has_key(connection, name, key):
        return False
    if not temporary:
        kind(connection).lock(connection, "table", name)
        there = existing(connection, name)  # another load may have made it while this one waited
    if there is None:
        _create(connection, name, types, () if late else key, temporary)
        return True
    where = _formatted(connection, name)
    quote = connection.dialect.identifier_preparer.quote_identifier
    for column in lacking(connection, there, types):
        made = types[column].compile(connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {where} ADD COLUMN {quote(column)} {made}")
    if not has_key(connection, name, key):
        _index(connection, name, key)
    return False


def lacking(connection: sa.Connection, there: Collection[str], types: Collection[str]) -> list[str]:
    """Return the columns that a table has not yet."""
    fold = folding(connection)
    known = {fold(name) for name in there}
    return [name for name in types if fold(name) not in known]


def folding(connection: sa.Connection) -> Callable[[str], str]:
    """Return what makes names of one column equal."""
    return str.lower if kind(connection).FACTS.folds_case else str


def has_key(connection: sa.Connection, name: str, key: Sequence[str]) -> bool:
    """Whether a table has a unique key of these columns, which may be none."""
    if not key:
        return True
    schema, name = split(connection, name)
    inspector = sa.inspect(connection)
    found: list[Sequence[str | None]] = [inspector.get_pk_constraint(name, schema=schema)["constrained_columns"]]
    for index in inspector.get_indexes(name, schema=schema):
        partial = any("where" in option for option in index.get("dialect_options", {}))
        if index["unique"] and not partial and not index.get("expressions"):
            found.append(index["column_names"])
    found += [constraint["column_names"] for constraint in inspector.get_unique_constraints(name, schema=schema)]
    return any(len(columns) == len(key) and set(columns) == set(key) for columns in found)


def _create(connection: sa.Connection, name: str, types: Types, key: Sequence[str], temporary: bool) -> None:
    schema, name = split(connection, name)
    columns = [
        sa.Column(column, type, primary_key=column in key, nullable=column not in key, autoincrement=False)
        for column, type in types.items()
    ]
    made = sa.Table(
        name,
        sa.MetaData(),
        *columns,
        schema=schema,
        prefixes=["TEMPORARY"] if temporary else [],
        postgresql_on_commit="DROP" if temporary else None,
    )
    made.create(connection)


def add_key(connection: sa.Connection, name: str, key: Sequence[str]) -> None:
    """Give a table that has rows its primary key."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    columns = ", ".join(quote(column) for column in key)
    connection.exec_driver_sql(f"ALTER TABLE {_formatted(connection, name)} ADD PRIMARY KEY ({columns})")


def _index(connection: sa.Connection, name: str, key: Sequence[str]) -> None:
    _, short = split(connection, name)
    mark = hashlib.sha256("\0".join((short, *key)).encode()).hexdigest()[:8]
    quote = connection.dialect.identifier_preparer.quote_identifier
    begins = short.encode()[:40].decode(errors="ignore")  # PostgreSQL would cut a long name, and its end with it
    index = quote(f"{begins}_key_{mark}")
    columns = ", ".join(quote(column) for column in key)
    try:
        connection.exec_driver_sql(f"CREATE UNIQUE INDEX {index} ON {_formatted(connection, name)} ({columns})")
    except sa.exc.IntegrityError as error:
        raise TableMismatch(
            f"table {name} has rows with the same {', '.join(key)}, so it can't be merged into by that key",
            "remove the doubled rows, or name a key that tells them apart",
        ) from error


def rename(connection: sa.Connection, name: str, old: str, new: str) -> None:
    """Rename a column."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    where = _formatted(connection, name)
    connection.exec_driver_sql(f"ALTER TABLE {where} RENAME COLUMN {quote(old)} TO {quote(new)}")


def drop(connection: sa.Connection, name: str) -> None:
    """Drop a table if it is there."""
    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_formatted(connection, name)}")


def _formatted(connection: sa.Connection, name: str) -> str:
    schema, name = split(connection, name)
    quote = connection.dialect.identifier_preparer.quote_identifier
    return ".".join(quote(part) for part in (schema, name) if part)

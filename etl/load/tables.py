"""The target's tables: what is there, whether the rows fit it, and making or widening what is missing."""

import hashlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from etl.config.pipeline import Pipeline
from etl.config.values import is_header, shown
from etl.errors import BadSource, MissingColumn, TableMismatch
from etl.load.targets import Target, kind
from etl.types.sql import CastText, word_of_column
from etl.types.words import word_of

Types = Mapping[str, TypeEngine[Any]]
ROW = "_row"
OWN = ("_client", "_run", "_file")
BESIDE = 4  # columns that rows are staged with, beside their own; the table itself has up to three


def kind_of(name: str, kind: pa.DataType) -> str:
    """Return the pipeline's word for an Arrow type, or "null" for a column without any value.

    Raises:
        BadSource: No table column can hold it.
    """
    found = word_of(kind)
    if found is None:
        raise BadSource(f"column {name} holds {kind} values, which no table can", "turn it into text in your function")
    return found


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
    types = {name: _base(type) for name, type in types.items()}
    if not kind(connection).FACTS.typed or all(_is_plain(type) for type in types.values()):
        return types
    found = kind(connection).describe(connection, schema, table)
    given = found.types if found else {}
    return {name: CastText(given[name]) if name in given else type for name, type in types.items()}


def _is_plain(type: TypeEngine[Any]) -> bool:
    return word_of_column(type) not in ("", "any") and not isinstance(type, postgresql.CITEXT)


def _base(type: TypeEngine[Any]) -> TypeEngine[Any]:
    while isinstance(type, postgresql.DOMAIN):
        type = type.data_type
    return type


@dataclass(frozen=True)
class Fit:
    """How a chunk's columns go into a table.

    Args:
        types: Columns to load, with the type they have there or would be made with.
        casts: Arrow types to cast columns to first.
        warnings: What is left out although it was declared.
        makes: Whether the table, or a column of it, has yet to be made.
        there: The columns that the table has, or None where there is no table.
    """

    types: dict[str, TypeEngine[Any]]
    casts: dict[str, pa.DataType] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    makes: bool = False
    there: Types | None = None


def fit(connection: sa.Connection, pipeline: Pipeline, schema: pa.Schema) -> Fit:
    """Say how rows go into the pipeline's table, by its types and by `new_columns`.

    Raises:
        TableMismatch: A column has another type there, or is unknown where `new_columns = "fail"`.
        BadSource: A column can't be a table's, or there are more than a table can have.
        MissingColumn: A column that decides which row wins is not among the rows'.
    """
    database = kind(connection)
    facts = database.FACTS
    there = existing(connection, pipeline.table)
    fold = _folding(connection)
    known = {fold(name): type for name, type in (there or {}).items()}
    names = [name for name in schema.names if name != ROW]
    quotable = ({*(there or {})} - {*OWN}) | {*pipeline.columns}
    _check_names(names, fold, facts.name_bytes, quotable)
    needed = {*pipeline.load.key, *pipeline.load.by, *filter(None, [pipeline.load.newest])} - {"_file"}
    if missing := sorted(needed - set(names)):
        others = [name for name in names if name in quotable or is_header(names, quotable)]
        more = f"{len(names) - len(others)} other columns" if len(others) < len(names) else ""
        have = ", ".join([*others[:20], *filter(None, [more])])
        error = MissingColumn(f"the rows have no column {missing[0]}, which load needs", f"they have {have}")
        error.add_note(f"They have: {', '.join(names)}")  # in the private file that rq-etl logs shows
        raise error
    types: dict[str, TypeEngine[Any]] = {}
    casts: dict[str, pa.DataType] = {}
    warnings = []
    for name in names:
        wanted = kind_of(name, schema.field(name).type)
        if fold(name) in known:
            types[name], to = _met(pipeline, name, schema.field(name).type, known[fold(name)], database)
            if to is not None:
                casts[name] = to
            continue
        expected = name in needed or (there is None and (name in pipeline.columns or not pipeline.columns))
        if pipeline.new_columns == "fail" and not expected:
            raise TableMismatch(
                f"table {pipeline.table} has no {shown(name, names, quotable)}, and new_columns is fail",
                f'add the column to the table, or say new_columns = "add" or "ignore" for {pipeline.name}',
            )
        if pipeline.new_columns == "ignore" and not expected:
            if name in pipeline.columns:
                warnings.append(f"table {pipeline.table} has no column {name}: not loaded (new_columns is ignore)")
        elif wanted != "null":  # a column without values is made once there is a value, since only that has a type
            types[name] = database.TYPES[wanted]
            if (to := _fewer_digits(schema.field(name).type, types[name])) is not None:
                casts[name] = to
        elif name in pipeline.load.by:
            types[name] = database.TYPES["string"]
    made = [name for name in types if fold(name) not in known]
    if made and (count := len({*known, *made} - set(OWN)) + BESIDE) > facts.columns:
        raise BadSource(
            f"table {pipeline.table} would have {count:,} columns with rq-etl's own, and takes {facts.columns:,}",
            'declare those that you need in [columns], and say new_columns = "ignore"; or look at the delimiter',
        )
    return Fit(types, casts, tuple(warnings), bool(made), there)


def _check_names(names: Sequence[str], fold: Callable[[str], str], limit: int, known: Collection[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or len(name.encode()) > limit:
            what = f"the name of {shown(name, names, known)} is empty or longer than {limit} bytes"
            raise BadSource(what, "rename it with [columns] from")
        if name.casefold() in OWN:  # which a table's column may be in any case
            raise BadSource(f"column {name} has the name of a column that rq-etl adds", "rename it with [columns] from")
        if fold(name) in seen:
            what = f"{shown(name, names, known)} differs from another in case only"
            raise BadSource(what, "rename one with [columns] from")
        seen.add(fold(name))


def _met(
    pipeline: Pipeline, name: str, type: pa.DataType, there: TypeEngine[Any], database: Target
) -> tuple[TypeEngine[Any], pa.DataType | None]:
    """Return the type to stage a column with that the table has, and the Arrow type to cast it to."""
    wanted, found = kind_of(name, type), word_of_column(there)
    if wanted == "null":
        return there, None
    if wanted == "integer" and found == "string" and not pipeline.columns:
        return there, pa.string()  # inferred from fewer rows than the table was made from
    if isinstance(there, CastText) and wanted == "string":
        return there, None
    if found not in database.FITS[wanted]:
        declared = f'declare type = "{found}" for it in [columns]' if found and found != "any" else "leave it out"
        raise TableMismatch(
            f"table {pipeline.table}, column {name}: the table has {there}, the pipeline {wanted}",
            f"{declared}, or alter the table",
        )
    if wanted == "integer" and found == "number":
        return database.TYPES["number"], pa.float64()  # refuses what a float can't hold
    return database.TYPES[wanted], _fewer_digits(type, there)


def _fewer_digits(type: pa.DataType, there: TypeEngine[Any]) -> pa.DataType | None:
    """Return the decimals to cast to where a column keeps fewer: the cast refuses what the database would round."""
    scale = there.scale if isinstance(there, sa.Numeric) and not isinstance(there, sa.Float) else None
    if kind_of("", type) == "decimal" and scale is not None and 0 <= scale < type.scale:
        return pa.decimal128(38, scale)
    return None


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
    if there is not None and not _lacking(connection, there, types) and _has_key(connection, name, key):
        return False
    if not temporary:
        kind(connection).lock(connection, "table", name)
        there = existing(connection, name)  # another load may have made it while this one waited
    if there is None:
        _create(connection, name, types, () if late else key, temporary)
        return True
    where = _formatted(connection, name)
    quote = connection.dialect.identifier_preparer.quote_identifier
    for column in _lacking(connection, there, types):
        made = types[column].compile(connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {where} ADD COLUMN {quote(column)} {made}")
    if not _has_key(connection, name, key):
        _index(connection, name, key)
    return False


def _lacking(connection: sa.Connection, there: Types, types: Types) -> list[str]:
    fold = _folding(connection)
    known = {fold(name) for name in there}
    return [name for name in types if fold(name) not in known]


def _folding(connection: sa.Connection) -> Callable[[str], str]:
    """Return what makes names of one column equal."""
    return str.lower if kind(connection).FACTS.folds_case else str


def _has_key(connection: sa.Connection, name: str, key: Sequence[str]) -> bool:
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

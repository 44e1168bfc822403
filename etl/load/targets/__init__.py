"""Kinds of databases that rows go to: a module each, registered in `etl.config.kinds`.

The rest of `load` asks a kind for its facts and calls its functions; it never asks for its name.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from etl.config.kinds import DATABASES
from etl.errors import ConfigError, EtlError


@dataclass(frozen=True)
class TargetFacts:
    """What a kind of database can do.

    Args:
        schemas: Whether "schema.name" names a table of a schema; else the table's name has a dot.
        folds_case: Whether `id` and `ID` are one column.
        typed: Whether a column refuses, or changes, what is not of its type.
        keys: Whether the tables of users get a unique key, which an insert finds the row to update by.
        late_keys: Whether a table that has rows can be given a primary key.
        row_keys: Whether a key of one integer costs nothing, since it is how rows are stored.
        plain_text: Whether text is ordered by its code points, unless a column has another collation.
        plain: The collation that orders it so.
        writers: "one" where a transaction that writes is alone in the database; "many" where they meet at locks.
        name_bytes: The longest name of a table or column.
        system: Names that no column may have, since every table has one of its own.
        columns: The most columns of a table.
        widens: Whether columns that we made can be given a wider type, with what they hold.
        exact_decimals: Whether each digit of a decimal is kept; else decimals are kept as floats.
    """

    schemas: bool
    folds_case: bool
    typed: bool
    keys: bool
    late_keys: bool
    row_keys: bool
    plain_text: bool
    plain: str
    writers: str
    name_bytes: int
    columns: int
    system: frozenset[str] = frozenset()
    widens: bool = False
    exact_decimals: bool = True


@dataclass(frozen=True)
class Relation:
    """What the database says of a table.

    Args:
        kind: "table", or what else it is.
        columns: As they are spelled there; those of `generated` get their values from the database alone.
        types: Of columns whose type SQLAlchemy has none for, or does not know in full.
    """

    kind: str
    columns: tuple[str, ...]
    generated: frozenset[str] = frozenset()
    types: Mapping[str, TypeEngine[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Dependent:
    """What depends on a column.

    Args:
        what: Its kind and name, as the database has them.
        goes: Whether it has to be dropped before the column gets another type, or may have to.
    """

    what: str
    goes: bool = False


class Widening(NamedTuple):
    """Columns of a table that get other types.

    Args:
        changes: By column, what it was (`old`) and becomes (`new`), as words of the pipeline.
        zones: Time zones by `_client`; `zone` is that of the others.
    """

    schema: str | None
    table: str
    changes: Mapping[str, Any]
    zones: Mapping[str, str]
    zone: str


class Guard(Protocol):
    """Has the end of a transaction fail while the user's own code has the connection."""

    def __init__(self, connection: sa.Connection) -> None: ...

    def start(self) -> None:
        """Refuse commits and rollbacks from now on."""

    def caused(self, error: BaseException | None) -> bool:
        """End the guard; say whether it, or what it refused, raised this error of the driver."""

    def stop(self) -> bool:
        """End the guard; say whether the transaction is still the one that it was."""


class Target(Protocol):
    """The module of a kind of target."""

    FACTS: TargetFacts
    TYPES: Mapping[str, TypeEngine[Any]]  # a column's word in the pipeline → the type that it is made with
    FITS: Mapping[str, frozenset[str]]  # a column's word in the pipeline → words of columns that take it unharmed
    ERRORS: tuple[type[Exception], ...]  # of the driver
    Guard: type[Guard]
    insert: Callable[[Any], Any]  # an INSERT that has `on_conflict_do_update`; rq-etl's own tables have keys everywhere

    def engine(self, url: sa.URL) -> sa.Engine:
        """Return an engine that opens one connection for each use."""

    def reader(self, url: sa.URL, patience: float) -> sa.Engine:
        """Return an engine that only reads, and gives up after `patience` seconds."""

    def lock(self, connection: sa.Connection, *names: str) -> None:
        """Wait for a lock that is held until the transaction ends; `names` say what is locked."""

    def hold(self, connection: sa.Connection, schema: str | None, table: str, *, adds: bool) -> None:
        """Have a table, if it is there, keep its columns until the transaction ends.

        Args:
            adds: Whether rows are only added to it, for which nobody needs the right to read it.
        """

    def write(
        self, connection: sa.Connection, table: sa.TableClause, columns: Sequence[str], chunks: Iterable[pa.Table]
    ) -> int:
        """Add rows to a table.

        Args:
            table: Its name and schema.
            columns: Names, in the order of the chunks' columns.
            chunks: Rows of storable types.

        Returns:
            How many rows the database says it took.
        """

    def impatient(self, connection: sa.Connection) -> None:
        """Have the transaction give up soon where others hold a lock that it asks for; others would wait behind it."""

    def no_decimal(self, connection: sa.Connection, column: str) -> str:
        """Return a condition that is true for floats which are not exactly decimals."""

    def widen(self, connection: sa.Connection, widening: Widening) -> None:
        """Give columns other types, their values spelled as those have them."""

    def statement(self, connection: sa.Connection, widening: Widening) -> str:
        """Return statements that do the same, for the user to run."""

    def dependents(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], key: Collection[str]
    ) -> Mapping[str, Sequence[Dependent]]:
        """Return, for columns that a view, an index, a key, a check or a trigger depends on, which these are.

        They are in the order in which they can be dropped.

        Args:
            key: Columns whose unique index is ours, and changes with them.
        """

    def describe(self, connection: sa.Connection, schema: str | None, table: str) -> Relation | None:
        """Return what a table is and which columns it has, or None where there is none."""

    def collations(self, connection: sa.Connection, schema: str | None, table: str) -> Mapping[str, str]:
        """Return the collations of a table's columns by which texts that differ are equal."""

    def prepare(self, connection: sa.Connection, *staged: sa.TableClause) -> None:
        """Tell the planner about rows that have just been written."""

    def doubled(self, error: BaseException) -> Sequence[str]:
        """Return the columns of the unique key that a row breaks, as far as the driver's error names them."""

    def translate(self, error: BaseException, where: str, *, connecting: bool = False) -> EtlError:
        """Return the error of `etl.errors` that the driver's own means; row values never get into it."""


@lru_cache
def kind_named(scheme: str) -> Target:
    """Return the module of a kind of target by the scheme of its URLs.

    Raises:
        ConfigError: Its driver is not installed.
    """
    database = DATABASES[scheme]
    try:
        return cast(Target, import_module(database.module))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{database.title} can't be opened: the driver {error.name} is not installed",
            f"pip install 'rq-etl[{database.extra}]' where workers run",
        ) from error


def kind(connection: sa.Connection) -> Target:
    """Return the module of the connection's kind of target."""
    return kind_named(connection.dialect.name)


def new_engine(url: sa.URL, **arguments: Any) -> sa.Engine:
    """Return an engine that keeps no connection, quotes every name, and whose errors hold no values.

    Args:
        arguments: For the driver.
    """
    made = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        hide_parameters=True,
        execution_options={"preserve_rowcount": True},
        connect_args=arguments,
    )
    # Which words must be quoted differs by database and version: SQLAlchemy's own lists lack `lateral` and `returning`.
    dialect: Any = made.dialect
    dialect.identifier_preparer._requires_quotes = _always
    # SQLAlchemy looks for %(name)s when it numbers parameters: what stands in a quoted name is none.
    compiler = dialect.statement_compiler
    pattern = re.compile(f'"(?:[^"]|"")*"|{compiler._positional_pattern.pattern}')
    dialect.statement_compiler = type("Compiler", (compiler,), {"_positional_pattern": pattern})
    return made


def _always(_name: str) -> bool:
    return True

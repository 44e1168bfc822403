"""What runs have left in a target: shadow tables that no run will apply any more."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import sqlalchemy as sa

from etl.load import ledger, tables
from etl.load.targets.connect import reading, transaction

PREFIXES = ("_etl_shadow_", "_etl_settled_")


def drop(url: str, name: str, schemas: Iterable[str | None], *, spare: Collection[str], before: datetime) -> list[str]:
    """Drop shadow tables whose last load was long ago, and forget what they held; returns the runs' ids.

    Args:
        url: Of the target, as `resolve_url` gives it.
        name: The target's, for errors.
        schemas: Where its ledgers are.
        spare: Runs that are active, or may be retried.
        before: A run that has loaded something since then may be of another project that has the same target.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked, or does not permit it.
    """
    with reading(url, name) as connection:
        places = [] if connection is None else [(each, _runs(connection, each)) for each in schemas]
    places = [(schema, found - set(spare)) for schema, found in places if found - set(spare)]
    if not places:
        return []
    dropped = []
    with transaction(url, name) as connection:
        for schema, runs in places:
            for run in sorted(runs):
                if _last_load(connection, schema, run) < before:
                    _forget(connection, schema, run)
                    dropped.append(run)
    return dropped


def _runs(connection: sa.Connection, schema: str | None) -> set[str]:
    names = sa.inspect(connection).get_table_names(schema=tables.schema_of(connection, schema))
    return {name.removeprefix(PREFIXES[0]) for name in names if name.startswith(PREFIXES[0])}


def _last_load(connection: sa.Connection, schema: str | None, run: str) -> datetime:
    book = ledger.named(tables.schema_of(connection, schema))
    if not tables.there(connection, book):
        return datetime.min.replace(tzinfo=UTC)
    found = connection.execute(sa.select(sa.func.max(book.c.loaded_at)).where(book.c.run == run)).scalar()
    return found.replace(tzinfo=found.tzinfo or UTC) if found else datetime.min.replace(tzinfo=UTC)


def _forget(connection: sa.Connection, schema: str | None, run: str) -> None:
    book = ledger.named(tables.schema_of(connection, schema))
    if tables.there(connection, book):
        ledger.forget(connection, book, run)
    for prefix in PREFIXES:
        tables.drop(connection, ".".join(filter(None, (tables.schema_of(connection, schema), f"{prefix}{run}"))))

"""A user's own load function, called inside the ledger's transaction, which it may not end."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from etl.context import Context
from etl.errors import FunctionFailed
from etl.functions import call_by_name, load_function
from etl.load.tables import ROW
from etl.load.targets import kind

if TYPE_CHECKING:
    from etl.load.ledger import Delivery

_CURE = "leave the transaction to rq-etl: it commits the rows together with the ledger"
_ENDS = re.compile(r"\s*(commit|rollback(?!\s+to)|end|abort|begin|start\s+transaction)\b", re.IGNORECASE)


def call(connection: sa.Connection, delivery: "Delivery", chunks: Iterable[pa.Table]) -> int:
    """Give the user's function the rows, the connection to load them with, and what else it asks for by name.

    It gets every piece of the partition by itself with `split = "rows"`, and the whole partition at once otherwise.

    Returns:
        How many rows the function was given.

    Raises:
        ConfigError: It asks for something that nothing gives it.
        FunctionFailed: It raised, or it ended the transaction.
    """
    pipeline = delivery.pipeline
    context = delivery.context or Context(pipeline.client, delivery.run, pipeline.params)
    name = pipeline.load.function or ""
    function = load_function(name, root=pipeline.root, modules=pipeline.modules)
    given = 0
    tables: Iterator[pa.Table] = (chunk for chunk in chunks if chunk.num_rows)
    if pipeline.extract.split != "rows":
        whole = list(tables)
        tables = iter([pa.concat_tables(whole, promote_options="permissive")] if whole else [])
    for chunk in tables:
        frame = _frame(chunk.drop_columns([ROW]))
        with _unbroken(connection, name):
            call_by_name(function, [frame, connection], context, name=name)
        given += chunk.num_rows
    return given


def _frame(chunk: pa.Table) -> Any:
    import pandas as pd

    types = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return chunk.to_pandas(types_mapper=types.get)


@contextmanager
def _unbroken(connection: sa.Connection, name: str) -> Iterator[None]:
    """Have a commit inside the block fail, whichever way it is asked for, so that nothing of it stays."""

    def refuse(_connection: sa.Connection) -> None:
        raise FunctionFailed(f"{name} ends the transaction of its load", _CURE)

    def look(_c: object, _cursor: object, statement: str, _p: object, _x: object, _many: bool) -> None:
        if _ENDS.match(statement):
            raise FunctionFailed(f"{name} ends the transaction of its load", _CURE)

    events: list[tuple[str, Callable[..., Any]]] = [
        ("commit", refuse),
        ("rollback", refuse),
        ("before_cursor_execute", look),
    ]
    guard = kind(connection).Guard(connection)
    guard.start()
    for event, handler in events:
        sa.event.listen(connection, event, handler)
    try:
        yield
    except FunctionFailed as error:
        if guard.caused(getattr(error.__cause__, "orig", None) or error.__cause__):
            raise FunctionFailed(f"{name} ends the transaction of its load", _CURE) from error
        raise
    finally:
        for event, handler in events:
            sa.event.remove(connection, event, handler)
    if not connection.in_transaction() or not guard.stop():
        raise FunctionFailed(f"{name} ends the transaction of its load", _CURE)

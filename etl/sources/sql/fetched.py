"""What a database gives, as Arrow tables that hold it exactly; a row with what no type here has is a reject."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types.string import TextLoader

from etl.partition import CHUNK_BYTES
from etl.sources.resting import INFINITE, Given, Unfit
from etl.types.given import decimals
from etl.types.spelling import spell
from etl.types.words import arrow_of

FETCH = 20_000  # rows at once, fewer where they are long

# By PostgreSQL's type numbers; anything else is read as the text that the server writes.
POSTGRES = {
    16: pa.bool_(),
    **dict.fromkeys((20, 21, 23, 26), pa.int64()),
    **dict.fromkeys((700, 701), pa.float64()),
    1700: pa.decimal128(38, 9),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
}
# What comes as text in another order: money, interval, timetz, inet, cidr, pg_lsn, xid8.
ODDLY_ORDERED = (790, 1186, 1266, 869, 650, 3220, 5069)
_LIMITED = (1082, 1114, 1184)  # types of which Python has fewer values than PostgreSQL
# What a column that prefers a type holds if it holds nothing else.
_HELD: dict[pa.DataType, set[type]] = {pa.int64(): {int}, pa.string(): {str}, pa.float64(): {int, float}}


class _Unfit(str):
    """What PostgreSQL writes for a value that Python has not."""

    reason = "infinite, before the year 1 or after 9999"


class _NoText(_Unfit):
    """What is readable of an SQLite text that is not UTF-8."""

    reason = "not UTF-8"


def text_of(data: bytes) -> str:
    """Return a text of SQLite, which does not look at what a program writes as text."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _NoText(data.decode(errors="backslashreplace"))


def prepare(connection: "psycopg.Connection[Any]") -> None:
    """Have what Python or Arrow has no type for read as the text that the server writes."""
    adapters = connection.adapters
    for oid in _LIMITED:
        adapters.register_loader(oid, _or_unfit(adapters.get_loader(oid, Format.TEXT)))
    for info in adapters.types:
        if info.oid not in POSTGRES:
            adapters.register_loader(info.oid, TextLoader)
        if info.array_oid:
            adapters.register_loader(info.array_oid, TextLoader)


def _or_unfit(loader: Any) -> type[Loader]:
    """Return a loader that gives an `_Unfit` for what Python has not."""

    class OrUnfit(Loader):
        def __init__(self, oid: int, context: Any = None) -> None:
            super().__init__(oid, context)
            self._load = loader(oid, context).load

        def load(self, data: Any) -> Any:
            try:
                return self._load(data)
            except psycopg.DataError:
                return _Unfit(bytes(data).decode())

    return OrUnfit


def fetched(
    cursor: Any, names: Sequence[str], types: Sequence[pa.DataType | None], marks: Mapping[str, str]
) -> Iterator[Given]:
    """Yield a cursor's rows, a table of bounded size at a time; at least one.

    Args:
        types: Of the columns, where they have one that all of their values have.
        marks: By column, the decimal point of numbers that become text.
    """
    size, first = FETCH // 10, True
    while (rows := cursor.fetchmany(size)) or first:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(names)
        unfit: dict[int, list[Unfit]] = {}
        for at, (name, column) in enumerate(zip(names, columns, strict=True)):
            columns[at] = _fitting(name, column, unfit)
        made = [_array(*each) for each in zip(columns, types, (marks.get(name, ".") for name in names), strict=True)]
        table = pa.table(dict(zip(names, made, strict=True)))
        first = False
        size = min(FETCH, max(100, CHUNK_BYTES // 4 * len(rows) // max(1, table.nbytes))) if rows else size
        yield Given(table, unfit)


def _fitting(column: str, values: Sequence[Any], unfit: dict[int, list[Unfit]]) -> Sequence[Any]:
    """Return values with None for each that no type here has, and add those to `unfit`."""
    kinds = set(map(type, values))
    if not kinds & {_Unfit, _NoText, Decimal}:
        return values
    found = {}
    for place, value in enumerate(values):
        if isinstance(value, _Unfit):
            found[place] = Unfit(column, value, value.reason)
        elif type(value) is Decimal and not value.is_finite():
            found[place] = Unfit(column, str(value), INFINITE)
    if not found:
        return values
    for place, bad in found.items():
        unfit.setdefault(place, []).append(bad)
    return [None if place in found else value for place, value in enumerate(values)]


def _array(values: Sequence[Any], kind: pa.DataType | None, mark: str) -> pa.Array:
    """Return a column; values that its type can't hold exactly make it text."""
    kinds = {type(value) for value in values} - {type(None)}
    if kind is None or not kinds <= _HELD.get(kind, kinds):
        kind = _kind_of(kinds, values)
    try:
        return decimals(values) if kind == arrow_of("decimal") and float in kinds else pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([_text(value, mark) for value in values], pa.string())


def _kind_of(kinds: set[type], values: Sequence[Any]) -> pa.DataType:
    """Return the type of an SQLite column, where every value has one of its own."""
    if not kinds:
        return pa.null()
    if kinds == {int}:
        return pa.int64()
    if kinds <= {int, float}:
        whole = all(abs(value) <= 2**53 for value in values if isinstance(value, int))
        return pa.float64() if whole else arrow_of("decimal")
    return pa.string()


def _text(value: Any, mark: str) -> str | None:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, Decimal | float):
        return spell(value, point=mark)
    return None if value is None else str(value)

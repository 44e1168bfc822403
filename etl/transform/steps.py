"""The user's functions at work: frames in, frames out, and every row still knows its line."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.config.columns import ROW, point
from etl.config.models import Column
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import FunctionFailed
from etl.functions import NOT_UNICODE, call_by_name, load_function
from etl.transform.reject import Rejected, collecting
from etl.types.casts import Failures, cast, only_missing
from etl.types.given import UNFIT, Held, from_series, of_column
from etl.types.spelling import as_text
from etl.types.words import natural_word, pandas_dtype, word_of

_KEEP = 'keep it: df.reset_index().merge(…).set_index("_row")'


@dataclass(frozen=True)
class Loaded:
    """A step whose function has been found."""

    name: str
    function: Callable[..., Any]
    args: Mapping[str, Any]


def load_steps(pipeline: Pipeline) -> list[Loaded]:
    """Return the pipeline's functions, imported.

    Raises:
        ConfigError: One of them can't be.
    """
    return [
        Loaded(step.function, load_function(step.function, root=pipeline.root, modules=pipeline.modules), step.args)
        for step in pipeline.transform
    ]


def to_frame(rows: pa.Table) -> pd.DataFrame:
    """Return rows as functions see them, indexed by `_row`.

    string is pandas' str, integer Int64, number float64, decimal Decimal objects, boolean boolean, date and timestamp
    datetime64[us] (timestamps in UTC).
    """
    for place, field in enumerate(rows.schema):
        if word_of(field.type) == "date":
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.timestamp("us")))
    frame: pd.DataFrame = rows.to_pandas(types_mapper=pandas_dtype)
    return frame.set_index(ROW)


def run_steps(
    frame: pd.DataFrame, steps: list[Loaded], context: Context, declared: Collection[str]
) -> tuple[pd.DataFrame, list[Rejected]]:
    """Call the functions one after another, and return what the last one made and what was rejected on the way.

    Args:
        declared: Columns that must be there in the end.

    Raises:
        FunctionFailed: One raised, or returned what it must not.
    """
    rejected: list[Rejected] = []
    lost: dict[str, str] = {}
    for step in steps:
        before = set(frame.columns)
        with collecting() as now:
            frame = _checked(call_by_name(step.function, [frame], context, step.args, name=step.name), step.name)
        if any(frame.index.isin(entry.gone).any() for entry in now):
            raise FunctionFailed(
                f"{step.name} returned rows that it had rejected", "use what reject() returns: df = reject(df, …)"
            )
        rejected += now
        lost.update(dict.fromkeys(before - set(frame.columns), step.name))
    for name in declared:
        if name not in frame.columns:
            by = lost.get(name, steps[-1].name)
            what = "dropped column" if name in lost else "did not make column"
            raise FunctionFailed(f"{by} {what} {name}", f"return it, or take columns.{name} out of the pipeline")
    return frame, rejected


def from_frame(
    frame: pd.DataFrame, columns: Mapping[str, Column], zone: str
) -> tuple[pa.Table, dict[str, Failures], dict[str, pa.ChunkedArray]]:
    """Return a function's frame as rows of the declared types, what didn't fit them, and the text of what didn't.

    Columns that aren't declared get the type that is nearest to what they hold.

    Raises:
        FunctionFailed: Text in it can't be kept.
    """
    made: dict[str, pa.ChunkedArray] = {}
    failures: dict[str, Failures] = {}
    spelled: dict[str, pa.ChunkedArray] = {}
    for name in [*columns, *(str(name) for name in frame.columns if name not in columns)]:
        try:
            column = columns.get(name)
            held = Held(pa.nulls(0)) if column else of_column(frame[name], zone)
            values = from_series(frame[name], column.type, point(column)) if column else pa.chunked_array([held.array])
        except UnicodeEncodeError:
            raise FunctionFailed(f"functions put text into {name} that is not Unicode", NOT_UNICODE) from None
        if name not in columns and word_of(values.type) != "number":
            made[name], failed = undeclared(values, zone, made=True)
        else:  # an infinity changes no column's type: its row is a reject
            made[name], failed = cast(values, columns.get(name) or Column(type="number"), zone, made=True)
        if failed or held.unfit:
            failures[name], spelled[name] = failed, as_text(values)
        if held.unfit:
            bad = np.isin(np.arange(len(values)), [*held.unfit])
            texts = pa.array([held.unfit.get(place) for place in range(len(values))], pa.string())
            spelled[name] = pc.coalesce(spelled[name], texts)
            failures[name] = [*failed, (pa.chunked_array([pa.array(bad)]), UNFIT)]
    made[ROW] = pa.chunked_array([pa.array(frame.index.to_numpy(dtype=np.int64))])
    return pa.table(made), failures, spelled


def undeclared(values: pa.ChunkedArray, zone: str, *, made: bool = False) -> tuple[pa.ChunkedArray, Failures]:
    """Return the values of a column that isn't declared in the nearest type that holds them all.

    Times that the zone's clocks leave out change no column's type: they are what failed.
    """
    result, failed = cast(values, Column(type=natural_word(values.type)), zone, made=made)
    return (result, failed) if only_missing(failed, zone) else (as_text(values), [])


def _checked(result: Any, name: str) -> pd.DataFrame:
    if not isinstance(result, pd.DataFrame):
        raise FunctionFailed(f"{name} returned {type(result).__name__}, not a DataFrame", "return the frame")
    if result.index.name != ROW or result.index.nlevels > 1:
        raise FunctionFailed(f"{name} returned a frame without the index _row", _KEEP)
    if not result.columns.is_unique:
        double = result.columns[result.columns.duplicated()][0]
        raise FunctionFailed(f"{name} returned column {double} twice", "rename or drop one")
    if not all(isinstance(column, str) for column in result.columns):
        raise FunctionFailed(f"{name} returned a column whose name is no text", "name every column")
    if ROW in result.columns:
        raise FunctionFailed(f"{name} returned _row as a column beside the index", 'drop it: df.drop(columns="_row")')
    if pd.api.types.is_integer_dtype(result.index.dtype) and not result.index.hasnans:
        return result
    try:  # rows of an outer merge have no number: 0 is no line of any file
        rows = pd.to_numeric(result.index.to_series()).fillna(0).to_numpy(dtype=np.float64)
    except (ValueError, TypeError):
        raise FunctionFailed(f"{name} returned an index _row that isn't numbers", _KEEP) from None
    if (rows != np.floor(rows)).any():
        raise FunctionFailed(f"{name} returned an index _row that isn't whole numbers", _KEEP)
    return result.set_axis(pd.Index(rows.astype(np.int64), name=ROW), axis=0)

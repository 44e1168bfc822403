"""The user's `reject`: rows that a function finds bad, collected while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Rejected:
    """Rows that a function rejected: their `_row` numbers, those that no other row of the frame had, and why."""

    rows: list[int]
    gone: list[int]
    reason: str
    column: str | None


_rejected: ContextVar[list[Rejected] | None] = ContextVar("rejected", default=None)


@contextmanager
def collecting() -> Iterator[list[Rejected]]:
    """Collect what `reject` is called with inside the block."""
    collected: list[Rejected] = []
    token = _rejected.set(collected)
    try:
        yield collected
    finally:
        _rejected.reset(token)


def reject(df: pd.DataFrame, bad: Any, *, reason: str, column: str | None = None) -> pd.DataFrame:
    """Turn the bad rows of `df` into rejects and return the others.

    Args:
        df: Rows indexed by `_row`.
        bad: Which rows: booleans (a Series indexed by `_row` is aligned by it, anything else by position), a function
            of `df` that returns such booleans, or the bad rows themselves (a DataFrame or its index). A missing
            value isn't bad, since comparing it gives no answer.
        reason: Why, short and without values, so that rejects can be counted by it.
        column: The column at fault; its source text becomes the reject's value.

    Raises:
        RuntimeError: `df` has no `_row` index, so that the rows' lines in the file are unknown.
        ValueError: `bad` doesn't fit `df`.
    """
    if df.index.name != "_row":
        raise RuntimeError('reject() needs the index named "_row": keep it, or set it with df.set_index("_row")')
    mask = _mask(df, bad)
    collected = _rejected.get()
    if collected is not None and mask.any():
        rows = df.index[mask]
        collected.append(Rejected(rows.tolist(), rows[~rows.isin(df.index[~mask])].tolist(), reason, column))
    good: pd.DataFrame = df[~mask]
    return good


def _mask(df: pd.DataFrame, bad: Any) -> Any:
    if callable(bad):
        bad = bad(df)
    if isinstance(bad, pd.DataFrame | pd.Index):
        return df.index.isin(bad.index if isinstance(bad, pd.DataFrame) else bad)
    if isinstance(bad, pd.Series) and bad.index.name == "_row" and not bad.index.equals(df.index):
        if not bad.index.is_unique:
            raise ValueError("reject(): rows share a _row, so bad must come from this very frame")
        bad = bad.reindex(df.index)
    values = pd.array(bad, dtype="boolean") if len(bad) else np.zeros(0, dtype=bool)
    if len(values) != len(df):
        raise ValueError(f"reject(): bad has {len(values)} values for {len(df)} rows")
    return np.asarray(pd.Series(values).fillna(False), dtype=bool)

"""What a run knows of itself, and what functions may ask for by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


GIVEN = ("client", "params", "run", "start", "end", "since", "pace")  # what functions are given by these names
MOMENTS = ("start", "end", "today")  # what a run knows of time: its window, and what {date} means without one


def at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True)
class Context:
    """The values a user's function is given for parameters of these names.

    Args:
        client: Name of the client whose rows these are.
        run: Id of the run.
        params: The client's and the run's parameters.
        start, end: The run's window, or None.
        today: The moment that `{date}` means where there is no window, or None for now.
        since: Rows from here on are read: where the client's cursor stands, less the overlap. None means all.
        lookups: Reference tables by name.
        pace: Waits until the source may be asked once more; to be called before each request (`extract.rate`).
    """

    client: str
    run: str
    params: Mapping[str, Any] = field(default_factory=dict)
    start: datetime | None = None
    end: datetime | None = None
    today: datetime | None = None
    since: Any = None
    lookups: Mapping[str, "pd.DataFrame"] = field(default_factory=dict)
    pace: Callable[[], None] = at_once

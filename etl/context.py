"""What a run knows of itself, and what functions may ask for by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


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
    """

    client: str
    run: str
    params: Mapping[str, Any] = field(default_factory=dict)
    start: datetime | None = None
    end: datetime | None = None
    today: datetime | None = None
    since: Any = None
    lookups: Mapping[str, "pd.DataFrame"] = field(default_factory=dict)

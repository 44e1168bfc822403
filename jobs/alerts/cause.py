"""A cause: what is wrong, of whom, since when. Its identity has no text in it, so that one thing is said once."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from etl import errors
from jobs.store import forms

Subject = tuple[str, str, str, str]  # kind, client, pipeline and of what, see `Cause`
AWAY = 300.0  # seconds that one that has come back must stay away; doubled each time it comes back
LONGEST = 6 * 3600.0  # that at the most
ANY = "*"  # of a subject: each window that isn't a cause
DETAIL = 300  # letters
AT_ONCE = ("missing", "odd")  # each delivery is said as soon as it is known


@dataclass(frozen=True)
class Cause:
    """Something that is wrong.

    Args:
        kind: One of `etl.config.models.KINDS_OF_ALERTS`.
        client, pipeline: Whose; "" for what concerns all.
        error: The name of the error's class.
        stage: Which failed.
        place: The target, or the host of the source.
        of: The day of the delivery, the beginning of the window, or the run, where each counts by itself.
        since: In seconds since the epoch.
        run: Its id.
        count: Rows rejected, runs that wait, or expectations that weren't met.
        detail: One line without a row's value.
    """

    kind: str
    client: str = ""
    pipeline: str = ""
    error: str = ""
    stage: str = ""
    place: str = ""
    of: str = ""
    since: float = 0.0
    run: str = ""
    count: int = 0
    detail: str = ""

    @property
    def key(self) -> str:
        """What tells it from others."""
        return json.dumps([self.kind, self.client, self.pipeline, self.error, self.stage, self.place, self.of])

    @property
    def subject(self) -> Subject:
        """What it is about, whatever the error."""
        return self.kind, self.client, self.pipeline, self.of

    @property
    def group(self) -> str:
        """What it has in common with others, which are said together."""
        same = self.place or self.stage
        return " ".join([self.kind] if self.kind in AT_ONCE else [self.kind, self.error, same]).strip()

    @property
    def who(self) -> str:
        """Whose it is: `client/pipeline`, or "" for what concerns all."""
        return f"{self.client}/{self.pipeline}" if self.client else ""

    def as_json(self) -> dict[str, Any]:
        """Return it as Redis keeps it."""
        return {name: value for name, value in vars(self).items() if value}


def cause_of(found: Mapping[str, Any]) -> Cause:
    """Return a cause as Redis has kept it; what another release has added is left out."""
    return Cause(**{name: found[name] for name in Cause.__dataclass_fields__ if name in found})


@dataclass
class Conditions:
    """What is known of the present.

    Args:
        causes: What is wrong, by key.
        fine: What is right.
        unsure: Kinds of clients' pipelines of which nothing can be said now; "" stands for all of them.
    """

    causes: dict[str, Cause] = field(default_factory=dict)
    fine: set[Subject] = field(default_factory=set)
    unsure: set[tuple[str, str, str]] = field(default_factory=set)

    def add(self, *causes: Cause) -> None:
        """Add what is wrong."""
        self.causes |= {cause.key: cause for cause in causes}

    def doubt(self, kinds: Iterable[str], client: str = "", pipeline: str = "") -> None:
        """Say of some kinds that nothing can be said."""
        self.unsure |= {(kind, client, pipeline) for kind in kinds}

    def is_fine(self, cause: Cause) -> bool:
        """Whether a cause is known to be over."""
        return not self.fine.isdisjoint({cause.subject, (*cause.subject[:3], ANY)})

    def is_unsure(self, cause: Cause) -> bool:
        """Whether it can't be said whether a cause is over."""
        return not self.unsure.isdisjoint({(cause.kind, "", ""), (cause.kind, cause.client, cause.pipeline)})


@dataclass(frozen=True)
class Entry:
    """A cause that is open, or was until lately. Moments are in seconds since the epoch, 0 for none.

    Args:
        opened: When it was seen first.
        sent: When somebody was informed of it.
        ended: Since when it is gone.
        over: When its end was said, or would have been.
        again: How often it has come back within an hour of its end.
        by: Who has acknowledged it.
        acknowledged: When.
    """

    cause: Cause
    opened: float
    sent: float = 0.0
    ended: float = 0.0
    over: float = 0.0
    again: int = 0
    by: str = ""
    acknowledged: float = 0.0

    def as_json(self) -> str:
        """Return it as Redis keeps it."""
        return json.dumps(vars(self) | {"cause": self.cause.as_json()})

    @property
    def away(self) -> float:
        """How long it must have been gone to be over, in seconds."""
        return min(LONGEST, AWAY * 2 ** (self.again - 1)) if self.again else 0.0


def entries_of(raw: Any) -> dict[str, Entry]:
    """Return the causes that Redis answered, by key; what is malformed is left out."""
    found = {}
    for key, value in forms.fit("causes", cast(dict[Any, Any], raw)).items():
        known = json.loads(value)
        kept = {name: known[name] for name in Entry.__dataclass_fields__ if name in known}
        found[key] = Entry(**kept | {"cause": cause_of(known["cause"])})
    return found


def is_a(name: str, *kinds: type[Exception]) -> bool:
    """Whether a class of our errors, by its name, is one of some kinds."""
    found = getattr(errors, name, None)
    return isinstance(found, type) and issubclass(found, kinds)


def one_line(text: str) -> str:
    """Return the first line of a text, as long as a cause's detail may be."""
    return text.partition("\n")[0][:DETAIL]

"""What the looks keep of what they saw, in Redis: see `jobs.alerts.seen`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from redis import Redis

from jobs.store import forms
from jobs.store.keys import SEEN

RUN = "run:"  # the fields of active runs


@dataclass(frozen=True)
class Memory:
    """What was seen, in seconds since the epoch; 0 for never.

    Args:
        noted: When it was looked last.
        worker, scheduler: When one was last alive.
        synced: When all schedules last had an entry of rq-scheduler.
        moved: When anything last happened to any run.
        runs: By the id of an active run, since when nothing has happened to it.
        digests: By the id of an active run, what its stages were like.
        looked: When the causes were last worked out and compared.
        pinged: When the heartbeat was last sent.
    """

    noted: float = 0.0
    worker: float = 0.0
    scheduler: float = 0.0
    synced: float = 0.0
    moved: float = 0.0
    looked: float = 0.0
    pinged: float = 0.0
    runs: Mapping[str, float] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


def recalled(connection: Redis) -> Memory:
    """Return what was seen."""
    raw = forms.fit("texts", cast(dict[Any, Any], connection.hgetall(SEEN)))
    moments = {
        name: float(raw[name]) for name in Memory.__dataclass_fields__ if forms.is_number(raw.get(name, "").encode())
    }
    found = {name.removeprefix(RUN): value.partition(" ") for name, value in raw.items() if name.startswith(RUN)}
    kept = {run: (digest, since) for run, (digest, _, since) in found.items() if forms.is_number(since.encode())}
    return Memory(
        **moments,
        runs={run: float(since) for run, (_, since) in kept.items()},
        digests={run: digest for run, (digest, _) in kept.items()},
    )


def keep(connection: Redis, **moments: datetime) -> None:
    """Keep moments under the names of `Memory`."""
    connection.hset(SEEN, mapping={name: repr(moment.timestamp()) for name, moment in moments.items()})

"""When something was last seen to move or to be alive: what one look at Redis alone can't say."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from redis import Redis
from rq import worker_registration
from rq.utils import utcparse

from etl.config.pipeline import Config
from jobs.store import forms, malformed, runs
from jobs.store.keys import ENTRIES, SEEN, entry_id, stages_key

EVERY = 15.0  # seconds between two looks
SILENCE = 60.0  # seconds without a heartbeat after which a worker counts as dead
OVERDUE = 120.0  # seconds after its moment at which rq-scheduler should have seen an entry
SCHEDULERS = "rq:scheduler_instance:*"  # rq-scheduler's keys; each lives as long as its process
BATCH = 200  # runs whose stages are read together
_RUN = "run:"


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


def read(connection: Redis) -> Memory:
    """Return what was seen."""
    raw = forms.fit("texts", cast(dict[Any, Any], connection.hgetall(SEEN)))
    moments = {
        name: float(raw[name]) for name in Memory.__dataclass_fields__ if forms.is_number(raw.get(name, "").encode())
    }
    found = {name.removeprefix(_RUN): value.partition(" ") for name, value in raw.items() if name.startswith(_RUN)}
    kept = {run: (digest, since) for run, (digest, _, since) in found.items() if forms.is_number(since.encode())}
    return Memory(
        **moments,
        runs={run: float(since) for run, (_, since) in kept.items()},
        digests={run: digest for run, (digest, _) in kept.items()},
    )


def keep(connection: Redis, **moments: datetime) -> None:
    """Keep moments under the names of `Memory`."""
    connection.hset(SEEN, mapping={name: repr(moment.timestamp()) for name, moment in moments.items()})


def note(config: Config, connection: Redis, now: datetime) -> None:
    """Look at what moves and who is alive, where that was not done a moment ago."""
    memory, at = read(connection), now.timestamp()
    if 0 <= at - memory.noted < EVERY:
        return
    active = runs.active(connection)
    digests = _digests(connection, active)
    moved = {run for run, digest in digests.items() if memory.digests.get(run) != digest}
    gone = memory.runs.keys() - digests.keys()
    fields: dict[Any, Any] = {f"{_RUN}{run}": f"{digests[run]} {at!r}" for run in moved}
    is_alive: dict[str, Callable[[], bool]] = {
        "worker": lambda: _has_worker(connection, at),
        "scheduler": lambda: _has_scheduler(connection, at),
        "synced": lambda: _is_synced(config, connection),
        "moved": lambda: bool(moved or gone),
    }
    # Of what was never seen nobody knows how long it is gone.
    fields |= {name: repr(at) for name, ask in is_alive.items() if not getattr(memory, name) or ask()}
    pipe = connection.pipeline()
    pipe.hset(SEEN, mapping=fields | {"noted": repr(at)})
    if gone:
        pipe.hdel(SEEN, *(f"{_RUN}{run}" for run in gone))
    pipe.execute()


def _digests(connection: Redis, active: list[str]) -> dict[str, str]:
    """Return for each run what changes whenever a stage begins, ends or counts rows."""
    found = {}
    for start in range(0, len(active), BATCH):
        ids = active[start : start + BATCH]
        pipe = connection.pipeline(transaction=False)
        for run in ids:
            pipe.hgetall(stages_key(run))
        for run, stages in zip(ids, malformed.answers(pipe), strict=True):
            text = repr(sorted((stages or {}).items())).encode()
            found[run] = hashlib.sha256(text).hexdigest()[:12]
    return found


def _has_worker(connection: Redis, at: float) -> bool:
    pipe = connection.pipeline(transaction=False)
    for key in malformed.ids(connection.smembers(worker_registration.REDIS_WORKER_KEYS)):
        pipe.hget(key, "last_heartbeat")
    return any(_moment(beat) > at - SILENCE for beat in malformed.answers(pipe))


def _moment(beat: bytes | None) -> float:
    return utcparse(beat.decode()).timestamp() if beat and forms.is_moment(beat) else 0.0


def _is_synced(config: Config, connection: Redis) -> bool:
    """Whether each schedule has an entry of rq-scheduler: a flush takes them away."""
    there = set(malformed.ids(connection.zrange(ENTRIES, 0, -1)))
    wanted = {entry_id(name, pipeline) for name, client in config.clients.items() for pipeline in client.schedule}
    return wanted <= there


def _has_scheduler(connection: Redis, at: float) -> bool:
    overdue = connection.zrangebyscore(ENTRIES, 0, at - OVERDUE, start=0, num=1)
    return not overdue and any(
        not connection.hexists(key, "death") for key in connection.scan_iter(SCHEDULERS, count=1000)
    )

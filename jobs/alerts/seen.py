"""When something was last seen to move or to be alive: what one look at Redis alone can't say."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from redis import Redis

from etl.config.pipeline import Config
from jobs.alerts.memory import RUN, recalled
from jobs.store import live, malformed, runs
from jobs.store.keys import ENTRIES, SEEN, WINDOWS, entry_id, stages_key

EVERY = 15.0  # seconds between two looks
OVERDUE = 120.0  # seconds after its moment at which rq-scheduler should have seen an entry
FORGOTTEN = 60.0  # seconds without a look after which one begins anew
BATCH = 200  # runs whose stages are read together


def note(config: Config, connection: Redis, now: datetime) -> None:
    """Look at what moves and who is alive, where that was not done a moment ago."""
    memory, at = recalled(connection), now.timestamp()
    if 0 <= at - memory.noted < EVERY:
        return
    active = runs.active(connection)
    digests = _digests(connection, active)
    moved = {run for run, digest in digests.items() if memory.digests.get(run) != digest}
    gone = memory.runs.keys() - digests.keys()
    fields: dict[Any, Any] = {f"{RUN}{run}": f"{digests[run]} {at!r}" for run in moved}
    is_alive: dict[str, Callable[[], bool]] = {
        "worker": lambda: any(worker.is_alive for worker in live.workers(connection)),
        "scheduler": lambda: _has_scheduler(connection, at),
        "synced": lambda: _is_synced(config, connection),
        "moved": lambda: bool(moved or gone),
    }
    # Of what nobody has looked at nobody knows how long it is gone.
    is_first = at - memory.noted > FORGOTTEN
    fields |= {name: repr(at) for name, ask in is_alive.items() if is_first or ask()}
    pipe = connection.pipeline()
    pipe.hset(SEEN, mapping=fields | {"noted": repr(at)})
    if gone:
        pipe.hdel(SEEN, *(f"{RUN}{run}" for run in gone))
    windows = cast(dict[bytes, bytes], connection.hgetall(WINDOWS))
    known = runs.read_many(connection, malformed.ids(windows.values()))
    if old := [window for window, run in windows.items() if run.decode(errors="replace") not in known]:
        pipe.hdel(WINDOWS, *old)
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


def _is_synced(config: Config, connection: Redis) -> bool:
    """Whether each schedule has an entry of rq-scheduler: a flush takes them away."""
    there = set(malformed.ids(connection.zrange(ENTRIES, 0, -1)))
    wanted = {entry_id(name, pipeline) for name, client in config.clients.items() for pipeline in client.schedule}
    return wanted <= there


def _has_scheduler(connection: Redis, at: float) -> bool:
    overdue = connection.zrangebyscore(ENTRIES, 0, at - OVERDUE, start=0, num=1)
    return not overdue and live.cron_alive(connection)

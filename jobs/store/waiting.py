"""Held runs: who waits for whom, and whose wait may be over.

The end of a run lists those that wait for it in `etl:held:ready` (close.lua); maintenance looks at these alone.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.errors import EtlError
from jobs import settings
from jobs.store import runs
from jobs.store.keys import HELD, HELD_READY, held_key, run_key, waiters_key
from jobs.store.run_json import text_of, texts_of
from jobs.store.transitions import NOTHING, sources

MANY = 10_000  # held runs that are looked at together


def hold(connection: Redis, run: str, fields: Mapping[Any, Any], *, was: Mapping[str, str] | None) -> None:
    """Write a run that waits until others have ended; it keeps the moment of its first submission.

    Args:
        fields: Of its hash: whose run it is, where it is new, and `after`, the runs that it waits for.
        was: Its hash as it was read, or None where it is new.

    Raises:
        EtlError: It is in another state: someone else has started it.
    """
    now = time.time()
    whose: dict[str, str] = {**(was or {}), **fields}

    def write(pipe: RedisPipeline) -> None:
        state, ended = (text_of(raw) for raw in cast(list[Any], pipe.hmget(run_key(run), "state", "ended")))
        is_as_read = (state, ended) == ((was["state"], was.get("ended")) if was else (None, None))
        if not is_as_read or (state or NOTHING) not in sources("hold"):
            raise EtlError(runs.not_retried(run, state) if was else f"run {run} is {state} already")
        pipe.multi()
        fresh: dict[Any, Any] = dict.fromkeys(("error", "rows", "ended", "failures", "done", "exit"), "")
        pipe.hset(run_key(run), mapping={**fresh, **fields, "state": "held"})
        pipe.hsetnx(run_key(run), "created", repr(now))
        pipe.persist(run_key(run))
        runs.index(pipe, run, now)
        pipe.zadd(HELD, {run: now})
        pipe.zadd(held_key(whose["client"], whose["pipeline"], whose["start"]), {run: now})
        for other in json.loads(fields["after"]):
            pipe.sadd(waiters_key(other), run)
            pipe.expire(waiters_key(other), int(settings.history()))  # where that run has ended meanwhile

    connection.transaction(write, run_key(run))


def pending_run(connection: Redis, client: str, pipeline: str, start: str | None = None) -> str | None:
    """Return the run of a client, pipeline and window that will end last: the newest held one, else the active one."""
    key = held_key(client, pipeline, start)
    for run in texts_of(connection.zrevrange(key, 0, -1)):
        if connection.zscore(HELD, run) is not None:
            return run
        connection.zrem(key, run)  # its record was lost, and nothing has ended it
    return runs.holder(connection, client, pipeline, start)


def pop_ready(connection: Redis) -> list[str]:
    """Remove the held runs that one wait is over for from their list, and return their ids."""
    return texts_of(connection.spop(HELD_READY, MANY))


def add_ready(connection: Redis, held: Sequence[str]) -> None:
    """List held runs to be looked at again."""
    if held:
        connection.sadd(HELD_READY, *held)

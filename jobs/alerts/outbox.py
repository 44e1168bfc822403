"""Who sends which message now, and what became of it; a message is gone when every address of its route has it."""

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from jobs.alerts.cause import entries_of
from jobs.alerts.messages import Message, outbox_of
from jobs.store.keys import CAUSES, OUTBOX

LEASE = 30.0  # seconds after which another process sends what nobody has said anything of
OFTEN, FIRST, LAST = 10, 2.0, 300.0  # so many tries FIRST seconds apart, then twice as long each time, at most LAST


def take(connection: Redis, now: float, most: int = 20) -> dict[str, Message]:
    """Take messages that are due, the oldest first, for LEASE seconds; no other process has them meanwhile.

    Args:
        now: In seconds since the epoch.
    """
    taken: dict[str, Message] = {}

    def write(pipe: RedisPipeline) -> None:
        found = outbox_of(pipe.hgetall(OUTBOX))
        ready = {id: each for id, each in found.items() if max(each.due, each.after, each.lease) <= now}
        taken.clear()
        for id in sorted(ready, key=lambda id: (ready[id].tries, ready[id].made))[:most]:
            taken[id] = replace(ready[id], lease=now + LEASE)
        pipe.multi()
        for id, message in taken.items():
            pipe.hset(OUTBOX, id, message.as_json())

    if connection.hlen(OUTBOX):
        _write(connection, write, OUTBOX)
    return taken


def renew(connection: Redis, ids: Iterable[str], now: float) -> None:
    """Keep messages that are being sent from other processes for another LEASE seconds."""

    def write(pipe: RedisPipeline) -> None:
        found = outbox_of(pipe.hgetall(OUTBOX))
        kept = {id: replace(found[id], lease=now + LEASE) for id in ids if id in found}
        pipe.multi()
        for id, message in kept.items():
            pipe.hset(OUTBOX, id, message.as_json())

    if ids:
        _write(connection, write, OUTBOX)


def deliver(connection: Redis, id: str, mark: str, wanted: Collection[str], now: float) -> None:
    """Keep that an address has a message; when all have it, it is gone.

    Args:
        mark: Of the address.
        wanted: The marks of all addresses of its route.
    """

    def write(pipe: RedisPipeline) -> None:
        message = _one(pipe, id)
        keys = [line.cause.key for line in message.lines] if message and not message.is_over else []
        values = cast(list[Any], pipe.hmget(CAUSES, keys)) if keys else []
        known = entries_of({key.encode(): value for key, value in zip(keys, values, strict=True) if value})
        pipe.multi()
        if message is None:
            return
        got = (*message.got, *({mark} - {*message.got}))
        if {*wanted} <= {*got}:
            pipe.hdel(OUTBOX, id)
        else:
            pipe.hset(OUTBOX, id, replace(message, got=got).as_json())
        for line in message.lines:
            entry = known.get(line.cause.key)
            if entry and entry.opened == line.opened and not entry.sent:
                pipe.hset(CAUSES, line.cause.key, replace(entry, sent=now).as_json())

    _write(connection, write, OUTBOX, CAUSES)


def give_back(connection: Redis, id: str, wanted: Collection[str], now: float) -> None:
    """Have a message tried again later, if an address of those wanted has not got it."""

    def write(pipe: RedisPipeline) -> None:
        message = _one(pipe, id)
        pipe.multi()
        if message is None:
            return
        if {*wanted} <= {*message.got}:
            pipe.hdel(OUTBOX, id)  # as where no address is left
            return
        delay = min(LAST, FIRST * 2 ** max(0, message.tries + 1 - OFTEN))
        again = replace(message, lease=0.0, tries=message.tries + 1, after=now + delay)
        pipe.hset(OUTBOX, id, again.as_json())

    _write(connection, write, OUTBOX)


def _one(pipe: RedisPipeline, id: str) -> Message | None:
    raw = cast(bytes | None, pipe.hget(OUTBOX, id))
    return outbox_of({id.encode(): raw} if raw else {}).get(id)


_lock = threading.Lock()  # threads that write one after another have none begin again


def _write(connection: Redis, write: Callable[[RedisPipeline], None], *keys: str) -> None:
    with _lock:
        connection.transaction(write, *keys)

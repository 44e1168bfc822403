"""What an operator sets for a client while it runs, and what its queue has used of the workers."""

from collections.abc import Sequence

from redis import Redis

from jobs.store import keys
from jobs.store.keys import PREFIX

USE_KEPT = 7200  # seconds


def pause(connection: Redis, names: Sequence[str]) -> None:
    """Hold the clients' waiting jobs; what runs ends."""
    for name in names:
        connection.hset(keys.client_key(name), "paused", "1")


def resume(connection: Redis, names: Sequence[str]) -> None:
    """Let the clients' jobs go on."""
    for name in names:
        connection.hdel(keys.client_key(name), "paused")
        connection.zadd(keys.READY, {f"{PREFIX}{name}": 0})  # dequeue removes it where nothing waits


def limit(connection: Redis, name: str, most: int | None) -> None:
    """Cap a client's jobs in progress from now on, whatever etl.toml says; None goes back to `max_active`."""
    if most is None:
        connection.hdel(keys.client_key(name), "limit")
    else:
        connection.hset(keys.client_key(name), "limit", str(most))

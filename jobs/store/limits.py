"""What an operator sets for a client while it runs, and what its queue has used of the workers."""

import getpass
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from redis import Redis

from jobs.store import keys
from jobs.store.keys import PREFIX

USE_KEPT = 7200  # seconds


def pause(connection: Redis, names: Sequence[str]) -> None:
    """Hold the clients' waiting jobs; what runs ends. Who has paused one first, and when, is kept."""
    for name in names:
        if connection.hset(keys.client_key(name), "paused", "1"):
            who: dict[Any, Any] = {"paused_by": _whoami(), "paused_at": f"{time.time():.3f}"}
            connection.hset(keys.client_key(name), mapping=who)


def resume(connection: Redis, names: Sequence[str]) -> None:
    """Let the clients' jobs go on."""
    for name in names:
        connection.hdel(keys.client_key(name), "paused", "paused_by", "paused_at")
        connection.zadd(keys.READY, {f"{PREFIX}{name}": 0})  # dequeue removes it where nothing waits


def limit(connection: Redis, name: str, most: int | None) -> None:
    """Cap a client's jobs in progress from now on, whatever etl.toml says; None goes back to `max_active`."""
    if most is None:
        connection.hdel(keys.client_key(name), "limit")
    else:
        connection.hset(keys.client_key(name), "limit", str(most))


def _whoami() -> str:
    """Return who runs this process, and where: `user@host`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may know no name for its user
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"

"""Who looks at a pipeline's deliveries: one process at a time; when that was done last, and what prevented it."""

import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, cast

from redis import Redis
from redis.exceptions import RedisError

from etl.config.pipeline import Pair
from jobs.store import forms, keys, scripts

LASTS = keys.CLAIMED  # seconds; it is renewed while its process lives
MOST = 500  # letters of an error that are kept


class Looked(NamedTuple):
    """What is known of the last look at a pipeline's deliveries.

    Args:
        at: When it was, in seconds since the epoch.
        error: What prevented it.
        version: Of the record that it left; None where there is none.
    """

    at: float
    error: str | None = None
    version: str | None = None


@contextmanager
def claimed(connection: Redis, pair: Pair) -> Iterator[Callable[[], bool] | None]:
    """Hold the claim on a pipeline's deliveries; gives what renews it and says whether it is held, or None.

    None means that another has it; a process that dies with it has it for fifteen seconds more.
    """
    key, token = keys.look_key(*pair), secrets.token_hex(8)

    def renew(seconds: float = LASTS) -> bool:
        return bool(scripts.renew_claim(connection, key, token, int(seconds * 1000), "", ""))

    if not connection.set(key, token, nx=True, px=int(LASTS * 1000)):
        yield None
        return
    over = threading.Event()

    def keep() -> None:
        while not over.wait(LASTS / 4):
            with suppress(RedisError):
                renew()

    threading.Thread(target=keep, daemon=True).start()
    try:
        yield renew
    finally:
        over.set()
        with suppress(RedisError):  # it runs out by itself
            renew(0)


def looked(connection: Redis) -> dict[Pair, Looked]:
    """Return when each pipeline's deliveries were looked at last."""
    found: dict[Pair, Looked] = {}
    for name, value in forms.fit("looked", cast(dict[bytes, bytes], connection.hgetall(keys.LOOKED))).items():
        client, _, pipeline = name.partition("/")
        found[client, pipeline] = Looked(**json.loads(value))
    return found


def last_look(connection: Redis, pair: Pair) -> Looked | None:
    """Return when one pipeline's deliveries were looked at last."""
    name = "/".join(pair)
    found = forms.fit("looked", {name.encode(): cast(bytes | None, connection.hget(keys.LOOKED, name)) or b""})
    return Looked(**json.loads(found[name])) if found else None


def note(connection: Redis, pair: Pair, look: Looked) -> None:
    """Keep what is known of a look."""
    error = look.error[:MOST] if look.error else None
    connection.hset(keys.LOOKED, "/".join(pair), json.dumps(look._replace(error=error)._asdict()))


def forget(connection: Redis, pairs: Iterable[Pair]) -> None:
    """Forget pipelines that have no deliveries any more."""
    if names := ["/".join(pair) for pair in pairs]:
        connection.hdel(keys.LOOKED, *names)

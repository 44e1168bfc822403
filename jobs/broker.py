"""The Redis that runs are sent to: the one that is named, else a private one, else one inside this process."""

import atexit
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from redis import Redis

from etl.safe_message import printable
from jobs.process.elsewhere import signs
from jobs.process.private_redis import PrivateRedis, not_running
from jobs.store.dial import dial, version_of

SERVERS = ("redis-server", "valkey-server")


@dataclass
class Broker:
    """A Redis to work with.

    Args:
        kind: `set` by its URL, `private` to this folder, or `in-process`.
        url: Its address for other processes, "" where it has none; it may hold a password: print `dial.shown(url)`.
        owned: Whether it stops with this process.
    """

    connection: Redis = field(repr=False)
    url: str = field(repr=False)
    kind: Literal["set", "private", "in-process"]
    owned: bool = False
    _server: PrivateRedis | None = field(default=None, repr=False)

    def keep(self) -> None:
        """Start the server again where it is this process's own and has died.

        Raises:
            BrokerUnreachable: It does not start.
        """
        if self._server is not None:
            self._server.keep()

    def close(self) -> None:
        """Close the connection, and stop the server if it is this process's own."""
        self.connection.close()
        if self._server is not None:
            atexit.unregister(self.close)
            self._server.stop()


def connect(url: str | None, folder: Path, *, start: bool = True) -> Broker:
    """Connect to the Redis of a URL, or where there is none to a private one.

    Args:
        url: A Redis URL, or None for a private server in `folder`/.rq-etl/redis: the one that runs, else a new one,
            else, without a redis-server on PATH, a Redis inside this process.
        folder: The folder of etl.toml.
        start: Whether to start what does not run yet.

    Raises:
        BrokerUnreachable: The Redis of the URL can't be reached or is too old; there is no falling back from it.
        ConfigError: It is not a Redis URL.
    """
    if url:
        return Broker(dial(url), url, "set")
    program = next(filter(None, map(shutil.which, SERVERS)), None)
    if program is not None:
        server = PrivateRedis(program, folder)
        broker = Broker(server.connect(start=start), server.url, "private", owned=server.owned, _server=server)
        if server.owned:
            atexit.register(broker.close)
        return broker
    if not start:
        raise not_running(folder)
    return in_process()


def announce(broker: Broker, workers: int) -> None:
    """Say on stderr that a Redis is this process's own, as there is no REDIS_URL, and what suggests that one is meant.

    Args:
        workers: How many are started with it.
    """
    if not broker.owned:
        return
    if broker.kind == "private":
        beside = f", with {workers} worker{'s' if workers > 1 else ''}" if workers else ""
        said = f"no REDIS_URL: this command's own private Redis in {_nearest(broker)}{beside}; it ends with the command"
    else:
        said = "no REDIS_URL and no redis-server: jobs run in this process, with a Redis that ends with it"
    lines = [f"rq-etl: {said}", *(f"rq-etl: warning: {what}\n  {cure}" for what, cure in signs())]
    print(printable("\n".join(lines), keep="\n"), file=sys.stderr, flush=True)


def _nearest(broker: Broker) -> Path:
    """Return where a private Redis keeps its data, from the working folder where it is in that."""
    home = broker._server.home if broker._server is not None else Path()
    return home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home


def given(connection: Redis) -> Broker:
    """Return the broker of a connection that is there already."""
    kind: Literal["set", "in-process"] = "in-process" if type(connection).__module__.startswith("fakeredis") else "set"
    return Broker(connection, _address(connection) if kind == "set" else "", kind)


def in_process() -> Broker:
    """Return a broker inside this process, gone with it."""
    import fakeredis

    return Broker(fakeredis.FakeRedis(server=fakeredis.FakeServer()), "", "in-process", owned=True)


@dataclass(frozen=True)
class Facts:
    """What a Redis is like.

    Args:
        version: Such as (7, 0, 15).
        policy: Its `maxmemory-policy`, "" where it does not say; anything but `noeviction` loses jobs.
        appendonly: Whether it keeps what it knows over a restart; None where it does not say.
        skew: Seconds its clock is ahead of this machine's.
    """

    version: tuple[int, ...]
    policy: str
    appendonly: bool | None
    skew: float


def examine(connection: Redis) -> Facts:
    """Ask a Redis for what runs depend on.

    Raises:
        CannotWriteError: It takes no data.
        RedisError: It can't be asked.
    """
    connection.ping()  # which Redis refuses, as it does writes
    info = connection.info()
    seconds, micros = connection.time()
    return Facts(
        version=version_of(info),
        policy=str(info.get("maxmemory_policy", "")),
        appendonly=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        skew=seconds + micros / 1e6 - time.time(),
    )


def _address(connection: Redis) -> str:
    kwargs = connection.connection_pool.connection_kwargs
    if "path" in kwargs:
        return f"unix://{kwargs['path']}?db={kwargs.get('db', 0)}"
    scheme = "rediss" if "SSL" in connection.connection_pool.connection_class.__name__ else "redis"
    user, password = kwargs.get("username") or "", kwargs.get("password")
    login = f"{user}:{password}@" if password else ""
    return f"{scheme}://{login}{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}/{kwargs.get('db', 0)}"

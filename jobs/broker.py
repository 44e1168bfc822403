"""The Redis that runs are sent to: the one that is named, else a private one, else one inside this process."""

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
)
from redis.retry import Retry

from etl.errors import BrokerUnreachable, ConfigError
from jobs.process.spawn import spawn
from jobs.store.redis_errors import CannotWriteError

OLDEST = (6, 2)
SERVERS = ("redis-server", "valkey-server")
SOCKET_PATH = 100  # bytes; the kernel takes 107
PATIENCE = 10.0  # seconds a private server may take to start


@dataclass
class Broker:
    """A Redis to work with.

    Args:
        kind: `set` by its URL, `private` to this folder, or `in-process`.
        url: Its address for other processes, "" where it has none; it may hold a password: print `shown(url)`.
        owned: Whether it stops with this process.
    """

    connection: Redis = field(repr=False)
    url: str = field(repr=False)
    kind: Literal["set", "private", "in-process"]
    owned: bool = False
    _server: "_Server | None" = field(default=None, repr=False)

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
            _stop(self._server.process)
            self._server = None


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
        return Broker(_dial(url), url, "set")
    program = next(filter(None, map(shutil.which, SERVERS)), None)
    if program is not None:
        return _private(program, folder, start)
    if not start:
        raise _nobody(folder)
    return in_process()


def given(connection: Redis) -> Broker:
    """Return the broker of a connection that is there already."""
    kind: Literal["set", "in-process"] = "in-process" if type(connection).__module__.startswith("fakeredis") else "set"
    return Broker(connection, _address(connection) if kind == "set" else "", kind)


def in_process() -> Broker:
    """Return a broker inside this process, gone with it."""
    import fakeredis

    return Broker(fakeredis.FakeRedis(server=fakeredis.FakeServer()), "", "in-process", owned=True)


def shown(url: str) -> str:
    """Return a Redis URL without user, password and options, fit to be printed."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


@dataclass(frozen=True)
class Facts:
    """What a Redis is like.

    Args:
        version: Such as (7, 0, 15).
        policy: Its `maxmemory-policy`, "" where it does not tell; anything but `noeviction` loses jobs.
        appendonly: Whether it keeps what it knows over a restart; None where it does not tell.
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
        version=_version(info),
        policy=str(info.get("maxmemory_policy", "")),
        appendonly=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        skew=seconds + micros / 1e6 - time.time(),
    )


def _version(info: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in str(info["redis_version"]).split(".")[:3] if part.isdigit())


def _dial(url: str) -> Redis:
    """Return a connection to a Redis that has answered and is new enough."""
    try:
        connection = Redis.from_url(url, socket_connect_timeout=5)
        once = Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    except ValueError as error:
        raise ConfigError(
            "what --redis or REDIS_URL says is not a Redis URL", "write redis://host:6379/0 or unix:///path/of/socket"
        ) from error
    try:
        with once:
            version = _version(once.info("server"))
            with contextlib.suppress(CannotWriteError):  # what it knows can be read all the same
                once.ping()  # refused, other than info, until a server that has just started has read its data
    except (AuthenticationError, NoPermissionError) as error:
        raise BrokerUnreachable(
            f"Redis at {shown(url)} refuses the user or password", "correct the part before the @ in REDIS_URL"
        ) from error
    except (RedisError, OSError) as error:
        if "unknown command" in str(error):  # HELLO, which a server before 6.0 does not know
            raise BrokerUnreachable(f"Redis at {shown(url)} is too old", "6.2 or newer is needed") from error
        raise BrokerUnreachable(
            f"Redis at {shown(url)} can't be reached: {_reason(error)}",
            "start it, correct REDIS_URL or --redis, or leave both out for a private Redis",
        ) from error
    if version < OLDEST:
        raise BrokerUnreachable(
            f"Redis at {shown(url)} is version {'.'.join(map(str, version))}, too old", "6.2 or newer is needed"
        )
    return connection


def _reason(error: Exception) -> str:
    if isinstance(error, BusyLoadingError):
        return "it is still reading its data"
    for cause in (error.__cause__, error.__context__, error):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if "NOAUTH" in str(error):
        return "it wants a password"
    return type(error).__name__


def _address(connection: Redis) -> str:
    kwargs = connection.connection_pool.connection_kwargs
    if "path" in kwargs:
        return f"unix://{kwargs['path']}?db={kwargs.get('db', 0)}"
    scheme = "rediss" if "SSL" in connection.connection_pool.connection_class.__name__ else "redis"
    user, password = kwargs.get("username") or "", kwargs.get("password")
    login = f"{user}:{password}@" if password else ""
    return f"{scheme}://{login}{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}/{kwargs.get('db', 0)}"


# --- the private server ---


@dataclass
class _Server:
    """A private server of this process's own."""

    program: str
    home: Path
    socket: Path
    process: subprocess.Popen[bytes]

    def keep(self) -> None:
        if self.process.poll() is None:
            return
        with _locked(self.home / "lock"):
            with contextlib.suppress(BrokerUnreachable):  # another command of this folder may have started one
                _dial(f"unix://{self.socket}").close()
                return
            self.process, connection = _launch(self.program, self.home, self.socket)
            connection.close()


def _private(program: str, folder: Path, start: bool) -> Broker:
    home = folder.resolve() / ".rq-etl" / "redis"
    socket = _socket(home)
    if not start and not home.is_dir():
        raise _nobody(folder)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    home.chmod(0o700)
    url = f"unix://{socket}"
    with _locked(home / "lock"):  # two commands that start at once share one server
        with contextlib.suppress(BrokerUnreachable):
            return Broker(_dial(url), url, "private")
        if not start:
            raise _nobody(folder)
        process, connection = _launch(program, home, socket)
    broker = Broker(connection, url, "private", owned=True, _server=_Server(program, home, socket, process))
    atexit.register(broker.close)
    return broker


def _nobody(folder: Path) -> BrokerUnreachable:
    return BrokerUnreachable(f"no Redis runs for {folder}", "set REDIS_URL, or start rq-etl up in that folder")


def _socket(home: Path) -> Path:
    """Return where the socket is: in the folder, or, where that path is too long, in one of our own under /tmp."""
    socket = home / "redis.sock"
    if len(os.fsencode(socket)) <= SOCKET_PATH:
        return socket
    short = Path(tempfile.gettempdir()) / f"rq-etl-{os.getuid()}-{sha256(os.fsencode(home)).hexdigest()[:12]}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BrokerUnreachable(f"{short} belongs to someone else", "move etl.toml to a folder with a shorter path")
    return short / "redis.sock"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _launch(program: str, home: Path, socket: Path) -> tuple[subprocess.Popen[bytes], Redis]:
    """Start a server and wait until it answers."""
    process = _serve(program, home, socket)
    try:
        return process, _await(process, f"unix://{socket}", home)
    except BaseException:
        _stop(process)
        raise


def _serve(program: str, home: Path, socket: Path) -> subprocess.Popen[bytes]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", value))]
    with (home / "redis.log").open("wb") as log:
        return spawn(command, signal.SIGTERM, stdout=log, stderr=log)


def _await(process: subprocess.Popen[bytes], url: str, home: Path) -> Redis:
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return _dial(url)
        except BrokerUnreachable as error:
            if process.poll() is not None or time.monotonic() > give_up:
                why = (home / "redis.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise BrokerUnreachable(
                    f"the private Redis in {home} does not start: {why[0] if why else error.what}",
                    f"see {home}/redis.log, or set REDIS_URL",
                ) from error
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

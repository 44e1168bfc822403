"""Servers, databases and workers for tests: all private, in temporary folders, without a network port."""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import fakeredis
import hypothesis
import psycopg
import pytest
from redis import Redis

from jobs.settings import WORKER_CLASSES

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds a server or a worker may take to come up on a busy machine

# A shell without job control has what it starts in the background ignore Ctrl-C, nohup has it ignore a hangup, and so
# would all that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

hypothesis.settings.register_profile("rq-etl", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("rq-etl"), derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "rq-etl")


def give_up(reason: str) -> NoReturn:
    """Skip, or fail where every server must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs it: {reason}")
    pytest.skip(reason)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Poll `ready` until it is true; fail with the end of the log if the process dies or takes too long."""
    give_up_at = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > give_up_at:
            pytest.fail(f"{process.args!r} did not come up:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.01)


def die_with_parent() -> None:
    """Have the kernel kill this process when pytest dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all it has started: a worker's horse is in a group of its own, but in the same session."""
    members = {process.pid} if process.poll() is None else set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = int(stat.read_text(errors="replace").rpartition(")")[2].split()[3])
            if session == process.pid:
                members.add(int(stat.parent.name))
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(PATIENCE)


@pytest.fixture(autouse=True)
def without_the_users_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests off the Redis and the configuration that a developer has set."""
    for name in ("REDIS_URL", "RQ_REDIS_URL", "ETL_CONFIG", "ETL_MODULES", "ETL_LEASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets (107 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="rq-etl-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


# --- Redis ---


@dataclass(frozen=True)
class RedisServer:
    """A running server: its URL, its unix socket, its process."""

    url: str
    path: Path
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="session")
def redis_server(server_folder: Path) -> Iterator[RedisServer]:
    """A private redis-server (or valkey-server) on a unix socket, for the whole session."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        give_up("no redis-server or valkey-server on PATH")
    folder = server_folder / "redis"
    folder.mkdir()
    path = folder / "redis.sock"
    options = {"port": "0", "unixsocket": path, "unixsocketperm": "700", "dir": folder, "save": "", "appendonly": "no"}
    command = [program, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    log = folder / "redis.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, preexec_fn=die_with_parent)
    wait_until(path.exists, process, log)
    yield RedisServer(f"unix://{path}", path, process)
    kill_session(process)


@pytest.fixture
def real_redis(redis_server: RedisServer) -> Iterator[Redis]:
    """A client of the private redis-server, emptied before the test."""
    client = Redis.from_url(redis_server.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def fake_redis() -> Redis:
    """An empty Redis inside this process."""
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture(params=["fake", "real"])
def connection(request: pytest.FixtureRequest) -> Redis:
    """The same test on fakeredis and on a real redis-server."""
    client: Redis = request.getfixturevalue(f"{request.param}_redis")
    return client


# --- PostgreSQL ---


def postgres_program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs: Debian keeps them off PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    search = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    found = shutil.which(name, path=search)
    if found is None:
        give_up(f"no {name} of PostgreSQL in /usr/lib/postgresql or on PATH")
    return found


def as_postgres() -> dict[str, Any]:
    """Return Popen's arguments to run as a user that PostgreSQL accepts: it refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        give_up("PostgreSQL refuses to run as root, and there is no user postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres_url(server_folder: Path) -> Iterator[str]:
    """A private PostgreSQL on a unix socket, for the whole session; the URL is its maintenance database's."""
    initdb, postgres, identity = postgres_program("initdb"), postgres_program("postgres"), as_postgres()
    folder = server_folder / "pg"
    folder.mkdir(mode=0o700)
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    folder.chmod(0o755)
    data, log = folder / "data", server_folder / "postgres.log"
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": folder,
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "max_connections": 60,
        "shared_buffers": "32MB",
        "timezone": "UTC",
    }
    with log.open("wb") as out:
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, stdout=out, stderr=out, cwd="/", **identity,
        )  # fmt: skip
        process = subprocess.Popen(
            [postgres, "-D", data, *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))],
            stdout=out, stderr=out, cwd="/", start_new_session=True, preexec_fn=die_with_parent, **identity,
        )  # fmt: skip
    url = f"postgresql://postgres@/postgres?host={folder}"

    def answers() -> bool:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(answers, process, log)
    yield url
    process.send_signal(signal.SIGQUIT)  # at once, and it takes its own children along
    process.wait(PATIENCE)


_database = count(1)


@pytest.fixture
def pg_url(postgres_url: str) -> Iterator[str]:
    """An empty PostgreSQL database of this test's own."""
    name = f"test_{next(_database)}"
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        yield postgres_url.replace("/postgres?", f"/{name}?")
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture(params=["sqlite", "postgresql"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same test with an SQLite file and with a PostgreSQL database as the target."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/target.db"
    url: str = request.getfixturevalue("pg_url")
    return url


# --- Workers ---


class StartWorkers:
    """Starts real `rq worker` processes; each leads a session, and its log is `<cwd>/worker-<i>.log`."""

    def __init__(self, url: str, cwd: Path) -> None:
        self.url = url
        self.cwd = cwd
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(
        self, n: int = 1, *, cwd: Path | None = None, env: Mapping[str, str] | None = None, args: tuple[str, ...] = ()
    ) -> list[subprocess.Popen[bytes]]:
        """Start `n` workers in `cwd` and return them once all are registered in Redis.

        Args:
            n: How many.
            cwd: Working directory, the test's `tmp_path` by default; users' modules are imported from it.
            env: More environment variables.
            args: More arguments of `rq worker`.
        """
        cwd = cwd or self.cwd
        environment = {**os.environ, **WORKER_CLASSES, "RQ_REDIS_URL": self.url, "REDIS_URL": self.url}
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        started = []
        with Redis.from_url(self.url) as client:
            for _ in range(n):
                name = f"worker-{len(self.processes) + 1}"
                log = cwd / f"{name}.log"
                with log.open("wb") as out:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "rq.cli", "worker", *args],
                        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                        start_new_session=True, preexec_fn=die_with_parent,
                    )  # fmt: skip
                self.processes.append(process)
                started.append((process, log))
            for process, log in started:
                pid = str(process.pid).encode()
                wait_until(lambda pid=pid: pid in registered(client), process, log)  # type: ignore[misc]
        return [process for process, _ in started]


def registered(client: Redis) -> set[bytes | str | None]:
    """Return the process ids of the workers that Redis knows."""
    return {client.hget(key, "pid") for key in client.smembers("rq:workers")}


@pytest.fixture
def workers(redis_server: RedisServer, real_redis: Redis, tmp_path: Path) -> Iterator[StartWorkers]:
    """`workers(2)` starts two real worker processes on the private Redis; they are killed after the test."""
    start = StartWorkers(redis_server.url, tmp_path)
    yield start
    for process in start.processes:
        kill_session(process)

"""Redis for tests: a private server without a network port, and one inside this process."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fakeredis
import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.helpers.processes import die_with_parent, give_up, kill_session, wait_until


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
    wait_until(lambda: _answers(path), process, log)
    yield RedisServer(f"unix://{path}", path, process)
    kill_session(process)


def _answers(path: Path) -> bool:
    with Redis(unix_socket_path=str(path)) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


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

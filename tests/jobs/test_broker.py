"""The broker: the Redis that is named, else a private one that the commands of a folder share."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest
from redis import Redis

from etl.errors import BrokerUnreachable, ConfigError
from jobs import broker
from jobs.store import dial
from tests.helpers.processes import ROOT, until
from tests.helpers.redis_server import RedisServer


@pytest.fixture
def folder(server_folder: Path, tmp_path: Path) -> Path:
    """A folder of etl.toml whose path is short enough for a socket."""
    found = server_folder / tmp_path.name
    found.mkdir()
    return found


def start_in(folder: Path) -> broker.Broker:
    found = broker.connect(None, folder)
    if found.kind != "private":
        pytest.skip("no redis-server or valkey-server on PATH")
    return found


@pytest.fixture
def private(folder: Path) -> Iterator[broker.Broker]:
    found = start_in(folder)
    yield found
    found.close()


def answers(url: str) -> bool:
    try:
        return bool(Redis.from_url(url).info("server"))
    except Exception:
        return False


def wait_until_gone(url: str) -> None:
    until(lambda: not answers(url))


# --- the one that is named ---


def test_a_named_redis_is_used(redis_server: RedisServer, tmp_path: Path) -> None:
    found = broker.connect(redis_server.url, tmp_path)
    assert (found.kind, found.url, found.owned) == ("set", redis_server.url, False)
    assert found.connection.ping()
    found.close()
    assert answers(redis_server.url)
    assert not (tmp_path / ".rq-etl").exists()


@pytest.mark.parametrize("url", ["redis://me:pa55word@localhost:1/0", "unix:///nowhere.sock?password=pa55word"])
def test_there_is_no_falling_back_from_a_redis_that_is_away(url: str, tmp_path: Path) -> None:
    with pytest.raises(BrokerUnreachable, match="can't be reached") as caught:
        broker.connect(url, tmp_path)
    assert caught.value.exit_code == 3
    assert "pa55word" not in f"{caught.value} {caught.value.cure}"
    assert caught.value.cure
    assert not (tmp_path / ".rq-etl").exists()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:port"])
def test_what_is_not_a_redis_url_is_said_to_be_wrong(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a Redis URL"):
        broker.connect(url, tmp_path)


@pytest.mark.parametrize("login", ["", "nobody:pa55word@"])
def test_a_wrong_password_is_an_error_that_does_not_show_it(login: str, folder: Path, private: broker.Broker) -> None:
    private.connection.config_set("requirepass", "right")
    url = private.url.replace("unix://", f"unix://{login}")
    with pytest.raises(BrokerUnreachable) as caught:
        broker.connect(url, folder)
    assert "password" in caught.value.what
    assert "pa55word" not in str(caught.value)


@contextlib.contextmanager
def pretended_redis(version: bytes, ping: bytes) -> Iterator[str]:
    """A server that says it is Redis of a version, answers PING as given, and anything else with OK; its URL."""
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    reply = b"redis_version:%s\r\n" % version
    code = os.fork()
    if code == 0:
        client, _ = server.accept()
        while data := client.recv(65536):
            if b"INFO" in data:
                client.sendall(b"$%d\r\n%s\r\n" % (len(reply), reply))
            elif b"PING" in data:
                client.sendall(ping)
            else:
                client.sendall(b"+OK\r\n" * max(1, data.count(b"*")))
        os._exit(0)
    server.close()
    try:
        yield f"redis://127.0.0.1:{port}?protocol=2"
    finally:
        os.kill(code, signal.SIGKILL)
        os.waitpid(code, 0)


def test_an_old_redis_is_refused(tmp_path: Path) -> None:
    """With its version."""
    with (
        pretended_redis(b"6.0.16", b"+PONG\r\n") as url,
        pytest.raises(BrokerUnreachable, match=r"version 6\.0\.16, too old"),
    ):
        broker.connect(url, tmp_path)


def test_a_redis_that_still_reads_its_data_is_not_ready(tmp_path: Path) -> None:
    """It answers INFO by then, and nothing that a run needs; a private one is waited for."""
    with (
        pretended_redis(b"7.0.15", b"-LOADING Redis is loading the dataset in memory\r\n") as url,
        pytest.raises(BrokerUnreachable, match="still reading its data"),
    ):
        broker.connect(url, tmp_path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pa55word@host:6379/1?password=x", "redis://host:6379/1"),
        ("rediss://:p@ss@host/0", "rediss://host/0"),
        ("unix://:pa55word@/run/r.sock?db=1&password=x", "unix:///run/r.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert dial.shown(url) == shown


# --- the private one ---


def test_a_private_redis_is_out_of_others_reach_and_keeps_everything(folder: Path, private: broker.Broker) -> None:
    home = folder / ".rq-etl" / "redis"
    assert private.owned
    assert stat.S_IMODE((home / "redis.sock").stat().st_mode) == 0o700
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert private.connection.config_get("port") == {"port": "0"}
    facts = broker.examine(private.connection)
    assert (facts.policy, facts.appendonly) == ("noeviction", True)
    assert facts.version >= (6, 2)
    assert abs(facts.skew) < 60


def test_a_second_command_joins_and_does_not_stop_it(folder: Path, private: broker.Broker) -> None:
    private.connection.set("k", "v")
    second = broker.connect(None, folder)
    assert (second.kind, second.owned, second.url) == ("private", False, private.url)
    assert second.connection.get("k") == b"v"
    second.close()
    assert answers(private.url)


def test_what_it_knows_is_there_at_the_next_start(folder: Path) -> None:
    first = start_in(folder)
    first.connection.set("k", "v")
    first.close()
    assert not answers(first.url)
    second = start_in(folder)
    assert second.connection.get("k") == b"v"
    second.close()


def test_a_long_path_gets_a_socket_elsewhere_that_others_find(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    first = start_in(folder)
    second = broker.connect(None, folder)
    assert len(first.url) < 108
    assert (first.owned, second.owned) == (True, False)
    second.close()
    first.close()


OWNER = """
import pathlib, sys, time
from jobs import broker
found = broker.connect(None, pathlib.Path(sys.argv[1]))
print(found.owned, found.url, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_stops_with_its_owner_however_that_ends(folder: Path, how: signal.Signals) -> None:
    start_in(folder).close()
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        owned, url = owner.stdout.readline().split()
        assert (owned, answers(url)) == ("True", True)
        owner.send_signal(how)
        owner.wait(20)
    wait_until_gone(url)


def test_two_commands_at_once_share_one(folder: Path) -> None:
    start_in(folder).close()
    command = [sys.executable, "-c", OWNER, str(folder)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        said = [process.stdout.readline().split() for process in both if process.stdout]
        assert sorted(owned for owned, _ in said) == ["False", "True"]
        assert said[0][1] == said[1][1]
    finally:
        for process in both:
            process.kill()
            process.communicate()


def test_nothing_is_started_where_that_is_not_wanted(folder: Path) -> None:
    with pytest.raises(BrokerUnreachable, match="no Redis runs"):
        broker.connect(None, folder, start=False)


def test_one_that_cannot_start_says_why(folder: Path) -> None:
    start_in(folder).close()
    log = folder / ".rq-etl" / "redis" / "appendonlydir"
    for file in log.glob("*") if log.is_dir() else [log.with_name("appendonly.aof")]:
        file.write_text("rubbish")
    with pytest.raises(BrokerUnreachable, match="does not start"):
        broker.connect(None, folder)


# --- within this process ---


def test_without_a_server_it_is_inside_this_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    found = broker.connect(None, folder)
    assert (found.kind, found.url) == ("in-process", "")
    assert found.connection.ping()
    found.close()


def test_a_given_connection_is_used_as_it_is(redis_server: RedisServer, real_redis: Redis) -> None:
    assert broker.given(fakeredis.FakeRedis()).kind == "in-process"
    found = broker.given(real_redis)
    assert (found.kind, found.url) == ("set", f"{redis_server.url}?db=0")
    assert answers(found.url)


def test_two_brokers_inside_a_process_know_nothing_of_each_other() -> None:
    one, two = broker.in_process(), broker.in_process()
    one.connection.set("k", "v")
    assert two.connection.get("k") is None


def test_a_broker_is_shown_without_its_password() -> None:
    found = broker.Broker(fakeredis.FakeRedis(), "redis://:pa55word@host", "set")
    assert "pa55word" not in repr(found)

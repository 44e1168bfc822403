"""What the doctor says of who may read rows and Redis, and that no piece of a password is ever shown."""

import csv
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.config.urls import parse_url
from etl.errors import ConfigError, EtlError
from jobs.session import Session
from jobs.store import dial
from jobs.views import rejects
from jobs.views.doctor import exposure
from tests.helpers.project import Project, etl_toml
from tests.helpers.queued_project import GOOD, QueuedProject
from tests.helpers.redis_server import RedisServer

PASSWORDS = ("qq@zz", "qq#zz", "qq/zz", "qq?zz", "qq%zz", "qq[zz", "#qq", "qq@", "q:qq@zz#s/")
PIECES = ("qq", "zz")


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["redis://:{}@127.0.0.1:1/0", "redis://me:{}@127.0.0.1:1", "unix://:{}@/none.sock"])
def test_no_piece_of_a_password_that_is_not_encoded_is_shown(password: str, form: str) -> None:
    url = form.format(password)
    said = dial.shown(url)
    with pytest.raises(EtlError) as caught:
        dial.dial(url)
    for text in (said, str(caught.value), *map(str, exposure.login("REDIS_URL", url))):
        assert [piece for piece in PIECES if piece in text] == [], text
    assert list(exposure.login("REDIS_URL", url)) != []


@pytest.mark.parametrize("url", ["redis://localhost:6379/0", "redis://:pa%40ss@h/0", "rediss://me:x@h:1", "unix:///a/b@c.sock?db=1",
                                 "postgresql://u:${PASSWORD}@h/d", "sqlite:///a.db", ""])  # fmt: skip
def test_a_password_that_is_encoded_is_fine(url: str) -> None:
    assert list(exposure.login("x", url)) == []


def test_what_is_shown_of_a_url_says_where_it_is() -> None:
    assert dial.shown("redis://me:x@localhost:6379/0?a=b") == "redis://localhost:6379/0"
    assert dial.shown("rediss://[::1]:6379") == "rediss://[::1]:6379"
    assert dial.shown("unix://:x@/a/b.sock?db=0") == "unix:///a/b.sock"
    assert dial.shown("redis://h/0?password=s@cret") == "redis://…"


def test_a_targets_password_with_an_at_sign_is_no_host() -> None:
    with pytest.raises(ConfigError, match="an @ that is not percent-encoded") as caught:
        parse_url("postgresql://me:s3@cret@host/db", "warehouse")
    assert "cret" not in str(caught.value)


def test_a_redis_without_a_password_is_named_on_anything_but_a_private_socket(
    real_redis: Redis, redis_server: RedisServer
) -> None:
    assert list(exposure.redis(redis_server.url, real_redis)) == []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    real_redis.config_set("port", port)
    url = f"redis://127.0.0.1:{port}/0"
    try:
        with Redis.from_url(url) as open_one:
            [(what, _)] = exposure.redis(url, open_one)
        assert what.startswith("asks for no password")
        real_redis.config_set("requirepass", "x")
        with Redis.from_url(f"redis://:x@127.0.0.1:{port}/0") as closed:
            assert list(exposure.redis(url, closed)) == []
    finally:
        real_redis.auth("x") if real_redis.config_get("requirepass").get("requirepass") else None
        real_redis.config_set("requirepass", "")
        real_redis.config_set("port", 0)


def test_a_targets_file_that_everybody_reads_is_named(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.db"
    file.touch()
    file.chmod(0o644)
    folder = tmp_path
    while folder != folder.parent and not (folder.stat().st_mode & 0o001):
        folder = folder.parent
    named = [what for what, _ in exposure.file(str(file))]
    reachable = all(parent.stat().st_mode & stat.S_IXOTH for parent in file.parents)
    assert bool(named) == reachable
    file.chmod(0o640)
    assert list(exposure.file(str(file))) == []
    assert list(exposure.file(str(tmp_path / "gone.db"))) == []


def test_an_export_is_its_owners_alone_from_its_first_byte(
    house: QueuedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.files("acme", GOOD.replace("1", "-1"))
    run = house.submit()
    house.work()
    file = house.root / "out.csv"
    file.write_text("older")
    file.chmod(0o644)
    modes: list[int] = []
    monkeypatch.setattr(csv, "writer", _watched(file, modes, csv.writer))
    os.umask(0o000)
    session = Session(house.path, house.connection)
    rejects.export(session, run, file)
    assert modes == [0o600]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    session.close()


def _watched(file: Path, modes: list[int], writer: Any) -> Any:
    def made(out: Any) -> Any:
        modes.append(stat.S_IMODE(file.stat().st_mode))
        return writer(out)

    return made


def test_the_folder_of_workers_and_redis_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Project(tmp_path, etl_toml({"claims": {}}))
    monkeypatch.delenv("REDIS_URL", raising=False)
    (tmp_path / ".rq-etl").mkdir(mode=0o755)
    session = Session(tmp_path / "etl.toml", workers=0)
    session.close()
    assert stat.S_IMODE((tmp_path / ".rq-etl").stat().st_mode) == 0o700

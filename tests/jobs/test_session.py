"""A session's broker and workers: what the environment names is used, and nothing is guessed beside it."""

from pathlib import Path

import pytest

from etl.errors import BrokerUnreachable
from jobs.session import Session
from tests.helpers.redis_server import RedisServer


def test_the_redis_of_the_environment_is_used(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    session = Session(tmp_path / "etl.toml", workers=0)
    try:
        assert (session.broker.kind, session.broker.url) == ("set", redis_server.url)
        assert not session.is_ours
    finally:
        session.close()


def test_a_redis_of_the_environment_that_is_away_is_not_replaced_by_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/none.sock")
    with pytest.raises(BrokerUnreachable, match="can't be reached"):
        Session(tmp_path / "etl.toml", workers=0)
    assert not (tmp_path / ".rq-etl").exists()


def test_an_option_is_heard_before_the_environment(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", f"unix://{tmp_path}/none.sock")
    session = Session(tmp_path / "etl.toml", redis_server.url, workers=0)
    session.close()
    assert session.broker.url == redis_server.url

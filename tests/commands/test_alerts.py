"""`rq-etl alerts` shows what is open; `ack` says who knows of it; `test` tries every address."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from redis import Redis

from jobs.alerts import state
from jobs.process.inprocess import InProcessWorker
from tests.helpers.addresses import Address, webhook
from tests.helpers.project import Project, is_short
from tests.helpers.redis_server import RedisServer


@pytest.fixture
def hook() -> Iterator[Address]:
    with webhook() as address:
        yield address


@pytest.fixture
def failed(etl: Project, real_redis: Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose only run has failed."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    etl.write("inbox/acme/claims-1.csv", "number,amount\nA9,1\n")
    etl("run claims --client acme")
    InProcessWorker(real_redis).work()
    return etl


def test_alerts_are_what_is_open_now_with_a_warning_where_no_cron_process_looks(failed: Project) -> None:
    said = failed("alerts --json")
    [line] = said.json
    assert (line["kind"], line["who"], line["error"], line["sent"]) == ("failed", "acme/claims", "MissingColumn", None)
    assert said.err == "rq-etl: warning: no cron process is alive: nobody is informed; start rq-etl cron\n"
    shown = failed("alerts")
    assert "acme/claims" in shown.out
    assert "a file lacks a column that the pipeline needs" in shown.out


def test_where_a_cron_process_looks_alerts_are_what_it_keeps(failed: Project, real_redis: Redis) -> None:
    state.look(failed.loaded(), real_redis, datetime.now(UTC))
    said = failed("alerts --json")
    assert [line["kind"] for line in said.json] == ["failed"]
    assert said.err == ""


def test_what_is_acknowledged_says_by_whom(failed: Project, real_redis: Redis) -> None:
    state.look(failed.loaded(), real_redis, datetime.now(UTC))
    assert failed("alerts ack globex").out == "nothing is open\n"
    assert failed("alerts ack acme/claims").out.startswith("acknowledged acme/claims: ")
    [line] = failed("alerts --json").json
    assert "@" in line["by"]
    assert line["acknowledged"] is not None
    assert failed("alerts ack --all --json").json == []


@pytest.mark.parametrize("wrong", ["alerts ack", "alerts ack acme --all", "alerts ack acmee", "alerts ack acme/claim"])
def test_what_can_not_be_acknowledged_is_said_in_two_lines(failed: Project, wrong: str) -> None:
    said = failed(wrong)
    assert said.code == 2
    assert is_short(said)


def test_every_address_is_tried_and_named_by_its_place(
    etl: Project, hook: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", hook.url)
    addresses = '[alerts]\nto = ["${HOOK}", "json://127.0.0.1:1/", "nosuch://x", "${NOT_THERE}"]\n[targets.warehouse]'
    etl.change(("[targets.warehouse]", addresses))
    said = etl("alerts test")
    assert said.code == 1
    assert said.out.splitlines() == [
        "alerts.to[0]: taken",
        "alerts.to[1]: it can't be reached",
        "alerts.to[2]: alerts.to[2] is no address that messages can be sent to",
        "alerts.to[3]: NOT_THERE is not in the environment",
    ]
    assert hook.subjects == ["[rq-etl] a test"]
    etl.change((', "json://127.0.0.1:1/", "nosuch://x", "${NOT_THERE}"', ""))
    assert etl("alerts test --json").json == [{"place": "alerts.to[0]", "ok": True, "error": None}]


def test_without_an_address_test_says_how_to_add_one(etl: Project) -> None:
    said = etl("alerts test")
    assert said.code == 2
    assert 'to = ["${ALERT_URL}"]' in said.err


def test_without_apprise_the_cure_is_said(etl: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    etl.change(("[targets.warehouse]", '[alerts]\nto = ["json://127.0.0.1:1/"]\n[targets.warehouse]'))
    assert "which is not installed" in etl("alerts test").out
    assert "pip install 'rq-etl[alerts]'" in etl("doctor").out

"""What never comes, and what is odd, is said within a minute of its grace, by the cron process itself."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis

from jobs import settings
from jobs.alerts import send
from jobs.cron import tick
from tests.helpers.addresses import Address, every_second, webhook
from tests.helpers.watched_project import ROWS, WatchedProject, config


class Said(WatchedProject):
    """A project of four clients, whose cron process ticks every ten seconds."""

    def ticks(self, until: str) -> None:
        end = self.at(until) if (begin := self.now) else self.now
        while begin < end:
            begin = min(end, begin + timedelta(seconds=10))
            self.now = begin
            tick(settings.config(), self.connection, begin)


@pytest.fixture
def hook() -> Iterator[Address]:
    with webhook() as address:
        yield address


@pytest.fixture
def said(tmp_path: Path, connection: Redis, hook: Address, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.setattr(send, "PATIENCE", 20)
    monkeypatch.setattr(send.deliver, "__defaults__", (20,))
    monkeypatch.setenv("ALERT_URL", hook.url)
    clients = ("acme", "globex", "initech", "hooli")
    text = config(clients=clients, expect={"rows": [1, 10]})
    project = Said(tmp_path, connection, text.replace("[settings]", '[alerts]\nto = ["${ALERT_URL}"]\n[settings]'))
    for client in clients:
        (tmp_path / "inbox" / client).mkdir(exist_ok=True)
    project.look()
    return project


def heard(hook: Address, said: Said) -> dict[str, datetime]:
    """Have `hook` keep when each subject came; returns where."""
    when: dict[str, datetime] = {}
    take, refuses = hook.take, hook.refuses

    def keep(subject: str, text: str) -> bool:
        taken = take(subject, text)
        if taken:
            when.setdefault(subject.removeprefix("[rq-etl] "), said.now)
        return taken

    hook.take = keep  # type: ignore[method-assign]
    assert refuses is hook.refuses
    return when


def test_deliveries_that_never_come_are_said_once_at_the_end_of_their_grace_through_flushes_and_refusals(
    said: Said, hook: Address
) -> None:
    when = heard(hook, said)
    hook.refuses = every_second
    said.ticks("26 06:20")
    for client in ("acme", "globex"):
        said.drop("claims-20261126.csv", ROWS.format(client), client=client)
    said.ticks("26 06:25")
    said.work()
    said.ticks("26 07:14:50")
    assert when == {}
    said.ticks("26 07:16")
    assert list(when) == ["2 deliveries are missing"]
    assert when["2 deliveries are missing"] <= said.at("26 07:16")
    assert (
        "initech/claims: the delivery of 2026-11-26 is missing, since 2026-11-26 06:30 America/Chicago"
        in hook.taken[0][1]
    )
    said.connection.flushall()
    said.ticks("26 07:30")
    assert hook.subjects == ["[rq-etl] 2 deliveries are missing"] * 2, "once more after a flush"
    said.drop("claims-20261126.csv", ROWS.format("x"), client="initech")
    said.ticks("26 07:35")
    assert hook.subjects[2:] == ["[rq-etl] recovered: initech/claims: the delivery of 2026-11-26 is missing"]


def test_a_delivery_that_is_not_as_expected_is_said_with_its_run(said: Said, hook: Address) -> None:
    when = heard(hook, said)
    said.ticks("26 06:20")
    many = "claim_id,amount\n" + "".join(f"A{number},1\n" for number in range(50))
    for client in ("acme", "globex", "initech", "hooli"):
        said.drop("claims-20261126.csv", many if client == "hooli" else ROWS.format(client), client=client)
    said.ticks("26 06:25")
    said.work()
    said.ticks("26 06:26")
    assert list(when) == ["hooli/claims: the delivery of 2026-11-26 is odd"]
    said.ticks("26 08:00")
    assert len(hook.taken) == 1

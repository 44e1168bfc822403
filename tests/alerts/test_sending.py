"""Messages reach a mail server and a webhook, whatever is refused, killed, flushed or away; no secret leaves."""

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from jobs.alerts import causes, send, state
from jobs.alerts.addresses import Unsent
from jobs.alerts.cause import Cause, Conditions
from jobs.store.keys import OUTBOX
from tests.helpers.addresses import PASSWORD, Address, every_second, mail_server, webhook
from tests.helpers.processes import ROOT, die_with_parent, until
from tests.helpers.project import Project
from tests.helpers.redis_server import RedisServer

START = datetime(2026, 11, 26, 8, tzinfo=UTC)


@pytest.fixture
def hook() -> Iterator[Address]:
    with webhook() as address:
        yield address


@pytest.fixture
def mail() -> Iterator[Address]:
    with mail_server() as address:
        yield address


class Night:
    """A cron process whose clock a test moves, and whose causes it says."""

    def __init__(self, etl: Project, connection: Redis, monkeypatch: pytest.MonkeyPatch, *addresses: Address) -> None:
        self.connection, self.now, self.found = connection, START, Conditions()
        self.etl = etl
        monkeypatch.setattr(causes, "current", lambda config, connection, now: self.found)
        for number, address in enumerate(addresses):
            monkeypatch.setenv(f"ALERT_{number}", address.url)
        to = ", ".join(f'"${{ALERT_{number}}}"' for number in range(len(addresses)))
        etl.change(("[targets.warehouse]", f"[alerts]\nto = [{to}]\n[targets.warehouse]"))
        self.config = etl.loaded()

    def tick(self, seconds: float = 0.0, *, patience: float = 20.0) -> None:
        self.now += timedelta(seconds=seconds)
        state.look(self.config, self.connection, self.now)
        send.deliver(self.config, self.connection, self.now, patience)

    def until_sent(self, most: int = 60, seconds: float = 5.0) -> None:
        for _ in range(most):
            if not self.connection.hlen(OUTBOX):
                return
            self.tick(seconds)
        raise AssertionError("the outbox is not empty")


def failed(client: str = "acme", **more: Any) -> Cause:
    return Cause("failed", client, "claims", "TargetUnreachable", "load", "warehouse", since=START.timestamp(), **more)


@pytest.fixture
def night(etl: Project, fake_redis: Redis, monkeypatch: pytest.MonkeyPatch, mail: Address, hook: Address) -> Night:
    return Night(etl, fake_redis, monkeypatch, mail, hook)


def test_a_message_goes_to_every_address_at_once(night: Night, mail: Address, hook: Address) -> None:
    night.found.add(failed(run="abc", detail="target warehouse refuses the connection"))
    night.tick()
    assert mail.subjects == hook.subjects == ["[rq-etl] acme/claims: target warehouse can't be reached"]
    text = hook.taken[0][1]
    assert "acme/claims: target warehouse can't be reached, since 2026-11-26 08:00 UTC, run abc" in text
    assert "rq-etl retry abc" in text
    assert "rq-etl alerts ack acme/claims" in text
    night.tick(5)
    assert (mail.calls, hook.calls) == (1, 1)


def test_addresses_that_refuse_half_of_the_calls_get_each_message_once(
    night: Night, mail: Address, hook: Address
) -> None:
    mail.refuses = hook.refuses = every_second
    for number in range(5):
        night.found.add(Cause("missing", "acme", "claims", of=f"2026-11-{20 + number}", since=START.timestamp()))
        night.tick(5)
    night.until_sent()
    for address in (mail, hook):
        assert sorted(address.subjects) == sorted(
            f"[rq-etl] acme/claims: the delivery of 2026-11-{20 + number} is missing" for number in range(5)
        )


def test_an_address_that_refuses_has_the_others_get_nothing_twice(night: Night, mail: Address, hook: Address) -> None:
    mail.refuses = lambda number: number < 40
    night.found.add(failed())
    night.tick()
    night.until_sent()
    assert len(mail.taken) == len(hook.taken) == hook.calls == 1


def test_an_address_that_hangs_holds_no_other_and_no_tick(
    night: Night, mail: Address, hook: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    ends = threading.Event()
    mail.refuses = lambda number: ends.wait(20) is None
    night.found.add(failed())
    night.tick(patience=0.5)
    until(lambda: hook.taken)  # the first to be sent waits for apprise to be imported
    assert (len(hook.taken), len(mail.taken)) == (1, 0)
    night.found.add(Cause("missing", "acme", "claims", of="2026-11-26", since=START.timestamp()))
    for _ in range(20):  # far longer than a lease: who sends it goes on having it
        night.tick(5, patience=0.1)
    assert hook.calls == 2
    ends.set()
    night.until_sent()
    assert (len(hook.taken), len(mail.taken)) == (2, 2)


def test_what_can_not_be_sent_is_tried_for_days_and_stays_few_messages(
    night: Night, mail: Address, hook: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    def brought(place: str, address: str, subject: str, body: str, *, is_good: bool) -> None:
        if not {"alerts.to[0]": mail, "alerts.to[1]": hook}[place].take(subject, body):
            raise Unsent(f"{place}: it refuses")

    monkeypatch.setattr(send, "send", brought)
    monkeypatch.setattr(send, "PAUSE", 0)
    is_away = True
    mail.refuses = lambda number: is_away
    for day in range(100):
        for kind in ("missing", "odd"):
            night.found.add(Cause(kind, "acme", "claims", of=f"d{day}", since=START.timestamp()))
        night.tick(900)
    assert night.connection.hlen(OUTBOX) <= 4
    assert len(hook.taken) == 200
    is_away = False
    night.until_sent(seconds=300)
    assert sum(text.count("is missing") + text.count("is odd") + _more(text) for _, text in mail.taken) == 200
    assert len(mail.taken) <= 4


def _more(text: str) -> int:
    import re

    found = re.search(r"… and ([\d,]+) more", text)
    return int(found[1].replace(",", "")) if found else 0


def test_after_a_flush_what_is_open_is_said_once_more_and_what_was_never_sent_is_sent(
    night: Night, mail: Address, hook: Address
) -> None:
    night.found.add(failed())
    night.tick()
    mail.refuses = lambda number: number < 10
    night.found.add(failed("globex"))
    night.tick(400)
    night.connection.flushall()
    night.tick(5)
    night.until_sent()
    said = " ".join(mail.subjects)
    assert said.count("acme") + said.count("2 clients") == 2
    assert "2 clients: target warehouse can't be reached" in said


def test_both_are_heard_of_a_cause_that_ends_before_its_message_is_sent(
    night: Night, mail: Address, hook: Address
) -> None:
    mail.refuses = hook.refuses = lambda number: number < 3
    night.found.add(failed())
    night.tick()
    night.found = Conditions(fine={("failed", "acme", "claims", "")})
    night.tick(1)
    night.until_sent()
    [(subject, text)] = mail.taken
    assert subject == "[rq-etl] recovered: acme/claims: target warehouse can't be reached"
    assert "since 2026-11-26 08:00 UTC; recovered 2026-11-26 08:00 UTC" in text


SENDER = """
import sys
from pathlib import Path
from datetime import datetime
from redis import Redis
from etl.config.read import load_config
from jobs.alerts import send
send.deliver(load_config(Path(sys.argv[1])), Redis.from_url(sys.argv[2]), datetime.fromisoformat(sys.argv[3]), 20)
"""


def test_a_process_that_is_killed_between_sending_and_saying_so_has_it_said_once_more(
    etl: Project, real_redis: Redis, redis_server: RedisServer, hook: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(etl, real_redis, monkeypatch, hook)
    night.found.add(failed())
    state.compare(night.config, real_redis, night.found, night.now.timestamp())
    about = [str(etl.path), redis_server.url, night.now.isoformat()]
    sender = subprocess.Popen([sys.executable, "-c", SENDER, *about], cwd=ROOT, preexec_fn=die_with_parent)

    def kill(number: int) -> bool:
        if number == 0:  # it has the message, and will never know it
            sender.kill()
            sender.wait()
        return False

    hook.refuses = kill
    assert sender.wait(60) == -signal.SIGKILL
    assert len(hook.taken) == 1
    night.tick(5)
    assert len(hook.taken) == 1, "who was sending it may be alive"
    night.tick(60)
    assert len(hook.taken) == 2
    for _ in range(20):
        night.tick(60)
    assert len(hook.taken) == 2


def test_the_heartbeat_goes_once_a_minute_while_causes_are_looked_for(
    night: Night, hook: Address, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    beat = f"http://127.0.0.1:{hook.url.rpartition(':')[2].partition('/')[0]}/beat-{PASSWORD}"
    monkeypatch.setenv("BEAT", beat)
    night.etl.change(("[alerts]", '[alerts]\nheartbeat = "${BEAT}"'))
    night.config = night.etl.loaded()
    send.heartbeat(night.config, night.connection, night.now)
    assert hook.calls == 0, "nobody has looked"
    for _ in range(12):
        night.tick(10)
        send.heartbeat(night.config, night.connection, night.now)
    assert hook.taken == [("GET", f"/beat-{PASSWORD}")] * 2
    night.now += timedelta(minutes=5)
    send.heartbeat(night.config, night.connection, night.now)
    assert hook.calls == 2, "what looks is dead"
    hook.refuses = lambda number: True
    for _ in range(3):
        night.tick(61)
        send.heartbeat(night.config, night.connection, night.now)
    [said] = [record.getMessage() for record in caplog.records]
    assert said == "alerts.heartbeat can't be reached: HTTPError; it is tried again"


def test_no_secret_is_anywhere_but_at_the_address(
    night: Night, hook: Address, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.refuses = lambda number: number < 8
    monkeypatch.setenv("ALERT_0", f"nosuch://ops:{PASSWORD}@127.0.0.1/{PASSWORD}")
    night.found.add(failed())
    seen = b""
    for _ in range(5):
        night.tick(5)
        seen += b"".join(key + (night.connection.dump(key) or b"") for key in night.connection.scan_iter())
    said = night.etl("alerts test --json")
    doctor = night.etl("doctor --json")
    answers = night.etl("alerts test")
    assert said.code == answers.code == 1
    assert "alerts.to[0] is no address that messages can be sent to" in doctor.out
    out, err = capfd.readouterr()
    logs = "\n".join(record.getMessage() for record in caplog.records)
    printed = [out, err, logs, seen.decode("latin1")]
    printed += [text for each in (said, doctor, answers) for text in (each.out, each.err)]
    assert [text for text in printed if PASSWORD in text] == []
    assert "alerts.to[0]" in logs
    assert len(hook.taken) == 3

"""Sending what is in the outbox, and the heartbeat: in threads, so that an address that hangs holds nothing else."""

import hashlib
import logging
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from redis import Redis
from redis.exceptions import RedisError

from etl.config.pipeline import Config
from etl.config.urls import with_secrets
from etl.errors import EtlError
from jobs.alerts import memory, outbox, texts
from jobs.alerts.addresses import CONNECT, READ, Unsent, addresses, all_addresses, plugin, send
from jobs.alerts.messages import Message

LOG = logging.getLogger("rq-etl.alerts")
PATIENCE = 2.0  # seconds that `deliver` waits for what it sends; the rest goes on by itself
LONGEST = 120.0  # seconds after which what is being sent counts as lost
QUICK, PAUSE = 3, 0.2  # so many tries at once, with so many seconds between them, where an address refuses quickly
TOGETHER = 50  # messages that are being sent at a time
BEAT = 60.0  # seconds between two heartbeats
FRESH = 60.0  # seconds after a look in which the heartbeat may be sent

_sending: dict[str, float] = {}  # ids of messages, and since when, by the monotonic clock
_silent: set[str] = set()  # places of what has failed, and was said to


@dataclass(frozen=True)
class Answer:
    """What became of a message at an address: its place in etl.toml, and why it was not taken, or None."""

    place: str
    error: str | None = None


def deliver(config: Config, connection: Redis, now: datetime, patience: float = PATIENCE) -> None:
    """Send what is due, and wait a moment for it; what an address has not taken by then goes on by itself.

    Args:
        now: In UTC.
        patience: Seconds to wait.
    """
    at, started = now.timestamp(), time.monotonic()
    outbox.renew(connection, [id for id, since in list(_sending.items()) if started - since < LONGEST], at)
    threads = []
    for id, message in outbox.take(connection, at, max(0, TOGETHER - len(_sending))).items():
        _sending[id] = started
        threads.append(_thread(_send, config, connection, id, message, at))
    for thread in threads:
        thread.join(max(0.0, started + patience - time.monotonic()))


def test(config: Config) -> list[Answer]:
    """Send a message to every address now; answers in the order of etl.toml."""
    found: dict[str, Answer] = {}
    wanted = all_addresses(config)

    def one(place: str, address: str) -> None:
        try:
            send(place, address, "[rq-etl] a test", "Alerts of rq-etl come here.", is_good=True)
            found[place] = Answer(place)
        except EtlError as exc:
            found[place] = Answer(place, exc.what.removeprefix(f"{place}: "))

    for thread in [_thread(one, place, address) for place, address in wanted.items()]:
        thread.join(LONGEST)
    return [found.get(place, Answer(place, "it does not answer")) for place in wanted]


def mistakes(config: Config) -> list[EtlError]:
    """Return what is wrong with the addresses, without sending anything."""
    found = []
    for place, address in all_addresses(config).items():
        try:
            plugin(place, address)
        except EtlError as exc:
            found.append(exc)
    return found


def heartbeat(config: Config, connection: Redis, now: datetime) -> None:
    """Ask for the URL of `alerts.heartbeat` once a minute, while causes are really being looked for."""
    kept, at = memory.recalled(connection), now.timestamp()
    if not config.alerts.heartbeat or at - kept.looked > FRESH or 0 <= at - kept.pinged < BEAT:
        return
    memory.keep(connection, pinged=now)
    _thread(_ping, config.alerts.heartbeat).join(PATIENCE)


def _ping(address: str) -> None:
    place = "alerts.heartbeat"
    try:
        url = with_secrets(address, place, where="rq-etl cron is")
        if not url.startswith(("http://", "https://")):
            raise Unsent(f"{place}: it is no http:// or https:// URL", "correct it")
        with urllib.request.urlopen(url, timeout=CONNECT + READ) as answer:
            answer.read(1)
        _silent.discard(place)
    except EtlError as exc:
        _report(place, exc.what)
    except Exception as exc:  # its words may hold the URL
        _report(place, f"{place} can't be reached: {type(exc).__name__}")


def _send(config: Config, connection: Redis, id: str, message: Message, now: float) -> None:
    """Send a message to those of its addresses that have not got it, each in a thread of its own."""
    try:
        wanted = addresses(config, message.route)
        marks = {place: _mark(place, address) for place, address in wanted.items()}
        subject, body = texts.subject(message), texts.body(config, message)

        def one(place: str) -> None:
            if _is_taken(place, wanted[place], subject, body, message.is_over):
                _keep(lambda: outbox.deliver(connection, id, marks[place], marks.values(), now))

        threads = [_thread(one, place) for place, mark in marks.items() if mark not in message.got]
        for thread in threads:
            thread.join(LONGEST)
        _keep(lambda: outbox.give_back(connection, id, marks.values(), now))
    finally:
        _sending.pop(id, None)


def _is_taken(place: str, address: str, subject: str, body: str, is_good: bool) -> bool:
    for tried in range(QUICK):
        began = time.monotonic()
        try:
            send(place, address, subject, body, is_good=is_good)
        except Unsent as exc:
            _report(place, exc.what)
            if time.monotonic() - began > 1 or tried == QUICK - 1:
                return False
            time.sleep(PAUSE)
        except EtlError as exc:
            _report(place, exc.what)
            return False
        else:
            _silent.discard(place)
            return True
    return False


def _report(place: str, what: str) -> None:
    if place not in _silent:
        LOG.warning("%s; it is tried again", what)
    _silent.add(place)


def _mark(place: str, address: str) -> str:
    """Return what stands for an address in Redis: 16 bits of a hash, from which no secret can be tried out."""
    try:
        secret = with_secrets(address, place)
    except EtlError:
        secret = address
    return f"{place} {hashlib.sha256(secret.encode()).hexdigest()[:4]}"


def _keep(write: Callable[[], None]) -> None:
    """Write to Redis; where it is away for a moment, again: else what was sent would be sent once more."""
    for _ in range(20):
        try:
            return write()
        except RedisError:
            time.sleep(1)
    return None


def _thread(do: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=do, args=arguments, daemon=True)
    thread.start()
    return thread

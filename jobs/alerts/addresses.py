"""Who is informed of what, and how: `[clients.x.alerts]` before `[pipelines.x.alerts]` before `[alerts]`, key by key.

A route is named by the place of its `to` in etl.toml, so that no address gets into Redis. An address is read from the
environment here alone, and is never printed, nor what it holds.
"""

import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from etl.config.pipeline import Config, pairs_of
from etl.config.urls import alerts_of, all_alerts, with_secrets
from etl.errors import ConfigError, EtlError

ALL = "alerts"  # the route of what concerns no client
CONNECT, READ = 5.0, 15.0  # seconds that an address has to answer
QUIET = ("urllib3", "requests_oauthlib")  # loggers of what apprise sends by, which log paths that are tokens


def kinds_of(config: Config, client: str = "", pipeline: str = "") -> tuple[str, ...]:
    """Return the kinds of which somebody wants to know, of a client's pipeline."""
    tables = [table for _, table in alerts_of(config, client, pipeline)]
    return next((table.on for table in tables if "on" in table.model_fields_set), config.alerts.on)


def addresses(config: Config, route: str) -> dict[str, str]:
    """Return the addresses of a route as they are written, by place; of one that is gone, those of `[alerts]`."""
    tables = all_alerts(config)
    place = route if route in tables else ALL
    return {f"{place}.to[{number}]": address for number, address in enumerate(tables[place].to)}


def all_addresses(config: Config) -> dict[str, str]:
    """Return every address as it is written, each once, by its place."""
    places: dict[str, str] = {}
    for place, table in all_alerts(config).items():
        for number, address in enumerate(table.to):
            places.setdefault(address, f"{place}.to[{number}]")
    return {place: address for address, place in places.items()}


def routes(config: Config) -> Mapping[tuple[str, str], str]:
    """Return the route of each client's pipeline; those of the same addresses share one."""
    places: dict[tuple[str, ...], str] = {config.alerts.to: ALL}
    found = {}
    for pair in pairs_of(config):
        given = [(place, table) for place, table in alerts_of(config, *pair) if "to" in table.model_fields_set]
        place, table = given[0] if given else (ALL, config.alerts)
        found[pair] = places.setdefault(table.to, place)
    return found


# --- through apprise ---


class Unsent(EtlError):
    """An address has not taken a message."""


class _Reasons(logging.Handler):
    """Keeps what apprise warns of in the thread that sends, instead of printing it: it may name the address."""

    said = threading.local()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.said.texts = [*getattr(self.said, "texts", ()), record.getMessage()]

    def reason(self) -> str:
        """Return why this thread's message was not taken, in words that hold nothing of the address."""
        texts, self.said.texts = getattr(self.said, "texts", []), []
        if code := next((found[1] for text in texts if (found := re.search(r"error=(\d{3})\b", text))), ""):
            return f"it answers {code}"
        return "it can't be reached" if any("onnection error" in text for text in texts) else "it refuses"


_reasons = _Reasons()


def plugin(place: str, address: str) -> Any:
    """Return what sends to an address.

    Args:
        place: Of the address in etl.toml, for errors.
        address: As it is written there.

    Raises:
        ConfigError: A name is not in the environment, or apprise does not know such an address.
        EtlError: apprise is not installed.
    """
    try:
        import apprise
    except ImportError:
        raise EtlError("alerts are sent by apprise, which is not installed", "pip install 'rq-etl[alerts]'") from None
    logger = logging.getLogger("apprise")
    logger.setLevel(logging.WARNING)
    logger.propagate, logger.handlers = False, [_reasons]
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    url = with_secrets(address, place, where="rq-etl cron is")
    try:
        found = apprise.Apprise.instantiate(url)
    except Exception:  # its words may hold the address
        found = None
    _reasons.reason()
    if not isinstance(found, apprise.NotifyBase):
        cure = "it must be a URL that apprise knows, such as mailto://user:password@host?to=ops@example.com"
        raise ConfigError(f"{place} is no address that messages can be sent to", cure)
    found.socket_connect_timeout = min(CONNECT, found.socket_connect_timeout or CONNECT)
    found.socket_read_timeout = min(READ, found.socket_read_timeout or READ)
    return found


def send(place: str, address: str, subject: str, body: str, *, is_good: bool = False) -> None:
    """Send a message to an address.

    Args:
        is_good: Whether it is a good one, which some services show in green.

    Raises:
        Unsent: It was not taken.
        EtlError: See `plugin`.
    """
    sender = plugin(place, address)
    from apprise import NotifyFormat, NotifyType

    try:
        kind = NotifyType.SUCCESS if is_good else NotifyType.FAILURE
        taken = sender.notify(body=body, title=subject, notify_type=kind, body_format=NotifyFormat.TEXT)
    except Exception as exc:  # its words may hold the address
        raise Unsent(f"{place}: it raised {type(exc).__name__}", "rq-etl alerts test tries it") from None
    reason = _reasons.reason()
    if not taken:
        raise Unsent(f"{place}: {reason}", "rq-etl alerts test tries it")

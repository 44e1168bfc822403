"""The configuration that a user would write for the simulation's clients, from the words of the documentation alone."""

from collections.abc import Iterator
from datetime import date

from benchmarks.deliveries.world import Client, World

ENVIRONMENT = ("ALERT_MAIL", "ALERT_HOOK")
"""What has to be in the environment or `.env`: apprise's addresses of an SMTP server and a webhook."""

PIPELINES = {"claims": "daily", "weekday_claims": "mon-fri", "monthly_claims": "1st"}
DUE, GRACE, NAMING = "06:30", 45, "dated"


def config_text(world: World, change: str = "50%") -> str:
    """etl.toml for these clients; `change` is from how large a change of the rows on the user wants to hear."""
    return "\n".join([*_head(), *_pipelines(change), *(line for it in world.clients for line in _client(it))]) + "\n"


def _head() -> Iterator[str]:
    yield "# Fifty clients' files of claims, each night."
    yield ""
    yield "[settings]"
    yield 'staging = "staging"'
    yield ""
    yield "[targets.shared]"
    yield 'url = "sqlite:///shared.db"'
    yield ""
    yield "[targets.own]"
    yield 'url = "sqlite:///{client}.db"'
    yield ""
    yield "[alerts]"
    yield 'to = ["${ALERT_MAIL}", "${ALERT_HOOK}"]'
    yield 'on = ["failed", "late", "missing", "odd", "rejects", "stuck", "no worker", "no scheduler", "recovered"]'


def _pipelines(change: str) -> Iterator[str]:
    for name, days in PIPELINES.items():
        yield ""
        yield f"[pipelines.{name}]"
        yield f'extract = {{ type = "csv", path = "inbox/{{client}}/{_path(NAMING, 1)}" }}'
        yield f'load = {{ target = "shared", table = "{name}", mode = "merge", key = ["claim_id"] }}'
        yield f'expect = {{ change = "{change}", period = "service_date" }}'
        yield ""
        yield f"[pipelines.{name}.delivery]"
        yield f'due = "{DUE}"'
        yield f'days = "{days}"'
        yield f'grace = "{GRACE}m"'
        yield 'run = "on arrival"'
        yield 'poll = "1m"'
        yield ""
        yield f"[pipelines.{name}.columns]"
        yield 'claim_id     = { type = "string", required = true }'
        yield 'service_date = { type = "date", required = true }'
        yield 'amount       = { type = "decimal" }'


def _path(naming: str, parts: int) -> str:
    if naming == "dated":
        return "claims-{date:%Y%m%d}" + (".csv" if parts == 1 else "-*.csv")
    return "claims.csv" if naming == "same" and parts == 1 else "claims-*.csv"


def _client(client: Client) -> Iterator[str]:
    yield ""
    yield f"[clients.{client.name}]"
    yield f'pipelines = ["{client.pipeline}"]'
    yield f'timezone = "{client.zone}"'
    changes = []
    if _path(client.naming, client.parts) != _path(NAMING, 1):
        changes.append(f'extract = {{ path = "inbox/{{client}}/{_path(client.naming, client.parts)}" }}')
    if client.own_target:
        changes.append('load = { target = "own" }')
    if changes:
        yield ""
        yield f"[clients.{client.name}.override.{client.pipeline}]"
        yield from changes
    yield ""
    yield f"[clients.{client.name}.override.{client.pipeline}.delivery]"
    yield f'due = "{client.due:%H:%M}"'
    yield f'grace = "{client.grace}m"'
    if client.habit != PIPELINES[client.pipeline]:
        yield f'days = "{client.habit}"'
    if client.calendar:
        yield f'calendar = "{client.calendar}"'
    if client.closed:
        yield f"closed = [{', '.join(_day(it) for it in client.closed)}]"
    if client.if_closed != "skip":
        yield f'if_closed = "{client.if_closed}"'
    if client.parts > 1:
        yield f"files = {client.parts}"
    if client.marker:
        yield 'complete = "*.done"'


def _day(day: date) -> str:
    return f'"{day.isoformat()}"'

"""Where a project's variables come from, for the doctor: the environment, `.env` or nowhere; names, never a secret."""

import math
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from redis import Redis
from rq import Worker
from rq.utils import utcparse

from etl.config.pipeline import Config
from etl.config.urls import secrets
from etl.env_file import read
from jobs import settings
from jobs.process.elsewhere import signs
from jobs.store.dial import shown
from jobs.views.doctor import exposure

OURS = ("REDIS_URL", "ETL_CONFIG", "ETL_MODULES", "ETL_LEASE", "ETL_DASHBOARD_PASSWORD")
_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|KEY|CREDENTIAL", re.IGNORECASE)


def origins(config: Config | None) -> Iterator[str]:
    """Yield who sets what, of our variables and those that the configuration names; nothing where nobody does."""
    names = list(dict.fromkeys([*OURS, *(secrets(config) if config else ())]))
    overruled = settings.overruled()
    by = {name: settings.origin(name) for name in names}
    for place, title in (("the environment", "the environment"), (".env", str(settings.env_path()))):
        if found := [_named(name, overruled) for name in names if by[name] == place]:
            yield f"set by {title}: {', '.join(found)}"
    if any(by.values()) and (unset := [name for name in names if by[name] is None]):
        yield f"set nowhere: {', '.join(unset)}"


def _named(name: str, overruled: set[str]) -> str:
    notes = [shown(settings.redis_url() or "")] if name == "REDIS_URL" and settings.redis_url() else []
    notes += [".env has another value, which is not used"] if name in overruled else []
    return f"{name} ({'; '.join(notes)})" if notes else name


def warnings(config: Config | None) -> Iterator[exposure.Warned]:
    """Yield what is wrong with the variables, or with who can read them, each with its cure."""
    if missing := [name for name in (secrets(config) if config else ()) if settings.origin(name) is None]:
        yield f"set nowhere: {', '.join(missing)}, which etl.toml names", f"set them in {settings.env_path()}"
    if not settings.redis_url():
        yield from signs()
    values = read(settings.env_path(), settings.environment())
    named = set(secrets(config)) if config else set()
    if any(value and (name in named or _SECRET.search(name) or "@" in value) for name, value in values.items()):
        yield from exposure.file(str(settings.env_path()))


def outdated_workers(connection: Redis) -> Iterator[exposure.Warned]:
    """Yield that workers of this machine began before `.env` was changed, of which they know nothing."""
    moment, host = settings.changed(settings.env_path()) / 1e9, socket.gethostname().encode()
    fields: list[Any] = [connection.hmget(key, "hostname", "birth") for key in Worker.all_keys(connection)]
    if count := sum(on == host and _moment(birth) < moment for on, birth in fields):
        workers = f"{count} worker{'s' if count > 1 else ''}"
        yield f"{workers} of this machine began before .env was changed", "start them again: it is read at the start"


def _moment(birth: bytes | None) -> float:
    with suppress(ValueError):  # others write to Redis, too
        return utcparse((birth or b"").decode()).timestamp()
    return math.inf

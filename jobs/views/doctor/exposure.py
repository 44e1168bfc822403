"""What others on this machine or network could read or write, for the doctor: Redis, targets' files, URLs."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from etl.config.pipeline import Config
from etl.config.urls import all_alerts

# Of apprise and others: in these an address alone is no secret; slack://… and the like are their tokens.
_PLAIN = {"mailto", "mailtos", "http", "https", "json", "jsons", "xml", "xmls", "form", "forms", "syslog", "dbus"}
ENCODE = "#/?@%[] "  # in a password they end it, or the host, where they stand in a URL as they are
Warned = tuple[str, str]  # what, cure


def redis(url: str, connection: Redis) -> Iterator[Warned]:
    """Yield what is wrong with who may use a Redis; a private socket is its owner's alone.

    Args:
        connection: To the Redis of the URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "unix":
        mode = _mode(parts.path)
        if mode is not None and mode & 0o077 == 0:
            return
        folder = _mode(os.path.dirname(parts.path))
        if folder is not None and folder & 0o077 == 0:
            return
    try:
        needs_none = _without_login(connection)
    except (RedisError, OSError):
        return
    if needs_none:
        what = "asks for no password: whoever reaches it starts runs and calls functions of settings.modules"
        yield what, "set requirepass, or users by ACL (docs/security.md), and put the password into REDIS_URL"
    elif parts.scheme == "redis" and parts.hostname not in (None, "localhost", "127.0.0.1", "::1"):
        yield "is reached without TLS: its password can be read on the way", "use rediss:// (docs/security.md)"


def _without_login(connection: Redis) -> bool:
    """Whether the server answers a client that has not logged in."""
    kwargs = {**connection.connection_pool.connection_kwargs}
    for name in ("username", "password", "credential_provider"):
        kwargs.pop(name, None)
    made = connection.connection_pool.connection_class(**{**kwargs, "socket_timeout": 5})
    try:
        made.connect()
        made.send_command("PING")
        made.read_response()
    except RedisError as error:
        if isinstance(error, ConnectionError | OSError):
            raise
        return False
    finally:
        made.disconnect()
    return True


def file(path: str) -> Iterator[Warned]:
    """Yield what is wrong with who may read a database that is a file."""
    for each in (path, f"{path}-wal", f"{path}.wal"):
        mode = _mode(each)
        if mode is not None and mode & 0o007 and _is_reachable(each):
            yield f"{each} can be read by every user of this machine", f"chmod o= {each}"
            return


def _is_reachable(path: str) -> bool:
    """Whether any user may enter the folders above a file."""
    folder = os.path.dirname(os.path.abspath(path))
    while folder != os.path.dirname(folder):
        mode = _mode(folder)
        if mode is not None and not mode & stat.S_IXOTH:
            return False
        folder = os.path.dirname(folder)
    return True


def _mode(path: str) -> int | None:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return None


def login(key: str, url: str) -> Iterator[Warned]:
    """Yield what is wrong with how a URL spells its user and password, of which nothing is ever shown.

    Args:
        key: Where the URL is written.
    """
    found = re.match(r"[a-zA-Z][\w+.-]*://(.*)", url, re.DOTALL)
    if found is None:
        return
    # Of several @ the last ends the login, unless the first / or ? comes before it; both are looked at.
    rest = re.sub(r"\$\{\w+\}", "x", found[1])
    before, mark, _ = rest.rpartition("@")
    password = before.partition(":")[2]
    bad = [sign for sign in ENCODE if sign in re.sub(r"%[0-9A-Fa-f]{2}", "", password)]
    if mark and bad:
        codes = ", ".join(f"{sign} as %{ord(sign):02X}" for sign in bad)
        yield f"{key}: its password has characters that end it there", f"write them percent-encoded: {codes}"


def logins(urls: Mapping[str, str]) -> Iterator[Warned]:
    """Yield what is wrong with several URLs, by where they are written."""
    for key, url in urls.items():
        yield from login(key, url)


def addresses(config: Config) -> Iterator[Warned]:
    """Yield which addresses of alerts hold a secret in plain, of which nothing is ever shown."""
    for where, table in all_alerts(config).items():
        secret = [f"{where}.to[{place}]" for place, url in enumerate(table.to) if _has_secret(url)]
        secret += [f"{where}.heartbeat"] if table.heartbeat and _has_secret(table.heartbeat) else []
        for key in secret:
            yield f"{key}: its password or token stands in etl.toml", "put it into the environment and write ${NAME}"


def _has_secret(address: str) -> bool:
    """Whether an address holds a password, or is of a service whose addresses are secret themselves."""
    scheme, _, rest = address.partition("://")
    if not rest or "${" in address:  # whoever names one value of the environment knows how
        return False
    if scheme.lower() in _PLAIN:
        return (
            re.match(r"[^/?#]*:[^/?#]*@", rest) is not None or re.search(r"[?&](pass|token|key)\w*=", rest) is not None
        )
    return True

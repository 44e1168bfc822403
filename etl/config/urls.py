"""URLs of databases and addresses of alerts, with the environment's values in them; and which a configuration has."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from etl.config.kinds import DATABASES, spelled
from etl.config.models import Alerts, Target
from etl.config.pipeline import Config, Pair, Pipeline, definition_of, pairs_of
from etl.config.values import fill
from etl.errors import ConfigError, EtlError

if TYPE_CHECKING:
    import sqlalchemy as sa


_NAME = re.compile(r"\$\{(\w+)\}")


def resolve_url(target: Target, client: str, root: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """Return a target's URL; see `database_url`."""
    return database_url(target.url, f"targets.{target.name}.url", client, root, environ)


def database_url(url: str, key: str, client: str, root: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """Return a URL with `${NAME}` and `{client}` filled, and a database file's path made absolute.

    A value in the place of a user or password is quoted, so that it may hold any character.

    Args:
        key: The URL's key in etl.toml, for errors.
        root: Folder of etl.toml, which relative paths are relative to.
        environ: Where values are taken from, by default this process's environment.

    Raises:
        ConfigError: A name is not in the environment, or the URL is none.
    """
    parsed = parse_url(with_secrets(fill(url, {"client": client}), key, environ), key=key)
    if DATABASES[parsed.get_backend_name()].file:
        parsed = parsed.set(database=str(Path(root, Path(parsed.database or "").expanduser())))
    return parsed.render_as_string(hide_password=False)


def with_secrets(
    url: str, key: str, environ: Mapping[str, str] | None = None, *, where: str = "the workers are"
) -> str:
    """Return a URL with `${NAME}` filled; a value in the place of a user or password is quoted.

    Args:
        key: The URL's key in etl.toml, for errors.
        environ: Where values are taken from, by default this process's environment.
        where: Who is started with them, for errors.

    Raises:
        ConfigError: A name is not in the environment.
    """
    values = os.environ if environ is None else environ
    missing = sorted({name for name in _NAME.findall(url) if name not in values})
    if missing:
        cure = f"set it where {where} started, or in .env beside etl.toml"
        raise ConfigError(f"{key}: {', '.join(missing)} is not in the environment", cure)
    authority = re.match(r"[^/]*://[^/?]*@", url)
    login = authority.end() if authority else 0
    filled = _NAME.sub(lambda found: quote(values[found[1]], safe=""), url[:login])
    return filled + _NAME.sub(lambda found: values[found[1]], url[login:])


def alerts_of(config: Config, client: str = "", pipeline: str = "") -> Iterator[tuple[str, Alerts]]:
    """Yield the tables that may say who is informed of a client's pipeline, with their places, the first first."""
    owner, general = config.clients.get(client), config.pipelines.get(pipeline)
    own = config.variants.get((client, pipeline))
    if own and own.alerts and general and own.alerts != general.alerts:
        yield f"clients.{client}.override.{pipeline}.alerts", own.alerts
    if owner and owner.alerts:
        yield f"clients.{client}.alerts", owner.alerts
    if general and general.alerts:
        yield f"pipelines.{pipeline}.alerts", general.alerts
    yield "alerts", config.alerts


def all_alerts(config: Config) -> dict[str, Alerts]:
    """Return all tables that say who is informed of what, by their places in etl.toml."""
    every = [
        ("", ""),
        *config.variants,
        *(("", name) for name in config.pipelines),
        *((name, "") for name in config.clients),
    ]
    return {place: table for pair in every for place, table in alerts_of(config, *pair)}


def secrets(config: Config) -> list[str]:
    """Return the names that a configuration's URLs have as `${NAME}`: of targets, sources, lookups and alerts."""
    definitions = [*config.pipelines.values(), *config.variants.values()]
    urls = [target.url for target in config.targets.values()]
    urls += [getattr(source, "url", "") for each in definitions for source in each.sources().values()]
    urls += [address or "" for each in all_alerts(config).values() for address in (*each.to, each.heartbeat)]
    return sorted({name for url in urls for name in _NAME.findall(url or "")})


def url_of(pipeline: Pipeline) -> str:
    """Return the URL of a pipeline's target; see `database_url`."""
    return resolve_url(pipeline.target, pipeline.client, pipeline.root)


def parse_url(url: str, name: str = "", *, key: str = "") -> "sa.URL":
    """Return a URL taken apart.

    Args:
        name: The target's, for errors.
        key: The URL's key in etl.toml, for errors; by default the target's.

    Raises:
        ConfigError: It is no URL, or of no kind of database that there is.
    """
    import sqlalchemy as sa

    where = key or (f"targets.{name}.url" if name else "the target's url")
    cure = "use postgresql://user:password@host/database, sqlite:///file.db or duckdb:///file.duckdb"
    try:
        parsed = sa.make_url(spelled(url))
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(f"{where} is no URL", cure) from None
    kind = DATABASES.get(parsed.get_backend_name())
    if kind is None:
        raise ConfigError(f"{where}: no database of kind {parsed.get_backend_name()}", cure)
    if "@" in (parsed.host or ""):  # what stands before it is a piece of the password, which a driver would print
        raise ConfigError(f"{where}: its password has an @ that is not percent-encoded", "write it as %40")
    if kind.file and parsed.database in (None, "", ":memory:"):
        raise ConfigError(f"{where}: a database of {kind.title} is a file", cure)
    return parsed


def target_places(
    config: Config, on_error: Callable[[EtlError], None], pairs: Iterable[Pair] | None = None
) -> dict[tuple[str, str], set[str | None]]:
    """Return the targets' URLs and names, each with the schemas that its tables are in.

    Args:
        on_error: Called once for each URL that lacks a value.
        pairs: Clients and their pipelines; None means all.
    """
    found: dict[tuple[str, str], set[str | None]] = {}
    reported: set[str] = set()
    for client, pipeline in pairs if pairs is not None else pairs_of(config):
        definition = definition_of(config, client, pipeline)
        target = config.targets[definition.load.target]
        try:
            url = resolve_url(target, client, config.root)
        except EtlError as exc:
            if exc.what not in reported:
                on_error(exc)
            reported.add(exc.what)
            continue
        schema, dot, _ = (fill(definition.load.table, {"client": client}) or "").partition(".")
        found.setdefault((url, target.name), set()).add(schema if dot else None)
    return found

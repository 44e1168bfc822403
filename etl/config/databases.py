"""Kinds of databases by the scheme of their URL: a new kind of target is one line here, and its module in `load`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Database:
    """What a configuration has to know of a kind of database; what its tables can do is in the kind's own module.

    Args:
        title: Its name, for messages.
        module: Its module, imported when a database of the kind is opened.
        example: A URL, for messages.
        needs: A pattern that the URL must match.
        file: Whether a database is a file, whose path is relative to etl.toml.
        extra: The extra of this package that brings the driver, or "".
        also: Other spellings of the scheme.
    """

    title: str
    module: str
    example: str
    needs: str
    file: bool = False
    extra: str = ""
    also: tuple[str, ...] = ()


_FILES, _TARGETS = "sqlite:///file.db, sqlite:////absolute/file.db", "etl.load.targets"
DATABASES = {
    "sqlite": Database("SQLite", f"{_TARGETS}.sqlite", _FILES, "sqlite:///.", file=True),
    "postgresql": Database(
        "PostgreSQL", f"{_TARGETS}.postgres", "postgresql://…, postgres://…", "postgres(ql)?://.", also=("postgres",)
    ),
    "duckdb": Database(
        "DuckDB", f"{_TARGETS}.duckdb", "duckdb:///file.duckdb", "duckdb:///.", file=True, extra="duckdb"
    ),
}
SOURCES = ("sqlite", "postgresql")  # that `extract.type = "sql"` reads


def wrong_url(url: str, kinds: Iterable[str] = DATABASES) -> str | None:
    """Return what a URL of etl.toml must be, where it is not that; `${NAME}` may be any URL."""
    accepted = [DATABASES[kind] for kind in kinds]
    if re.match("|".join([*(each.needs for each in accepted), r"\$\{\w+\}"]), url) and ":memory:" not in url:
        return None
    return f"must be {', '.join(each.example for each in accepted)} or ${{NAME}}"


def spelled(url: str) -> str:
    """Return a URL with the scheme's first spelling, and without the driver that another program is to use."""
    found = re.match(r"(\w+)(\+\w+)?(?=://)", url)
    names = [name for name, kind in DATABASES.items() if found and found[1] in (name, *kind.also)]
    return names[0] + url[found.end() :] if found and names else url

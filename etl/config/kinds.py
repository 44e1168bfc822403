"""The kinds of sources and of databases: a module each, a line here, imported where it is used."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny
from pydantic_core import PydanticCustomError

from etl.config.base import Problem
from etl.config.spellings import Spellings
from etl.config.values import Rate, Seconds, placeholders, suggest

KINDS = {
    "csv": "etl.sources.formats.csv",
    "ndjson": "etl.sources.formats.ndjson",
    "function": "etl.sources.function",
    "sql": "etl.sources.sql",
}


@dataclass(frozen=True)
class SourceFacts:
    """What a kind of source is and can, so that nobody need ask which it is.

    Args:
        files: Rows come from files, which are known again by name and content.
        typed: A column has its type whatever rows are read.
        own_code: Reading calls the user's own functions.
        repeatable: Reading once more gives the same, unless the source has changed.
        windows: What a run's window fills: names in the path, or conditions of a query.
        text: Every value is text, and what looks like a number or a date is taken for one where no type is declared.
    """

    files: bool
    typed: bool
    own_code: bool
    repeatable: bool
    windows: Literal["path", "query"] | None
    text: bool = False


class SourceConfig(Spellings):
    """What every kind of source has: how rows are given to functions, the cursor, its rate, how it spells values.

    A kind has a `Config` of its own, with its `type`, its keys and its facts.
    """

    FACTS: ClassVar[SourceFacts]

    split: Literal["rows", "file", "none"] = "rows"
    cursor: str | None = None
    overlap: Seconds = 0.0
    rate: Rate = None
    type: str

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        if self.cursor is not None and not self.cursor.strip():
            yield ("cursor",), 'is empty; name a column, such as cursor = "updated_at"'
        if self.overlap and self.cursor is None:
            yield ("overlap",), 'goes with a cursor only; add cursor = "updated_at" or drop overlap'

    def names(self) -> Iterable[tuple[str, str, str]]:
        """The names that a client's parameters or the run must give: the key, the name, and how it is written there."""
        return ()

    def functions(self) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
        """The user's functions that reading calls: the key, "module:name", and the arguments."""
        return ()

    def not_windowed(self) -> tuple[str, str] | None:
        """Why every window would read the same (what, after the key of the extract, and the cure), or None."""
        return None


def module_of(kind: str) -> Any:
    """Return the module of a kind: see `etl.sources.Source` and `etl.sources.files.Format`."""
    return import_module(KINDS[kind])


def config_of(kind: str) -> type[SourceConfig]:
    """Return the model of a kind's keys."""
    config: type[SourceConfig] = module_of(kind).Config
    return config


def source(table: Mapping[str, Any]) -> SourceConfig:
    """Return a source's table as the model of its kind."""
    return config_of(table["type"]).model_validate(table)


def _source(value: object) -> object:
    """Return a source's table as the model of its kind; what is no table is left for pydantic to refuse."""
    if not isinstance(value, Mapping):
        return value
    if "type" not in value:
        *others, last = (f'type = "{kind}"' for kind in KINDS)
        raise ValueError(f"has no type; add {', '.join(others)} or {last}")
    if not isinstance(value["type"], str) or value["type"] not in KINDS:
        what = f"must be {' or '.join(KINDS)}{suggest(value['type'], KINDS)}"
        raise PydanticCustomError("problems", "has mistakes", {"problems": [(("type",), what)]})
    return source(value)


Extract = Annotated[SerializeAsAny[SourceConfig], BeforeValidator(_source)]


@dataclass(frozen=True)
class Database:
    """What a configuration has to know of a kind of database, by the scheme of its URL; its module knows the rest.

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


def database_problems(url: str, kinds: Iterable[str] = DATABASES) -> Iterable[Problem]:
    """What is wrong with a database's URL in etl.toml; it may hold a password and is never quoted."""
    accepted = [DATABASES[kind] for kind in kinds]
    known = "|".join([*(each.needs for each in accepted), r"\$\{\w+\}"])  # ${NAME} may be any URL
    if not re.match(known, url) or ":memory:" in url:
        yield ("url",), f"must be {', '.join(each.example for each in accepted)} or ${{NAME}}"
    try:
        if set(placeholders(url)) - {"client"}:
            yield ("url",), "may hold {client}, ${NAME} and no other {name}"
    except ValueError as error:
        yield ("url",), str(error)


def spelled(url: str) -> str:
    """Return a URL with the scheme's first spelling, and without the driver that another program is to use."""
    found = re.match(r"(\w+)(\+\w+)?(?=://)", url)
    names = [name for name, kind in DATABASES.items() if found and found[1] in (name, *kind.also)]
    return names[0] + url[found.end() :] if found and names else url

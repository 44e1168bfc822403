"""The kinds of sources: each is one module, registered here by one line and imported where a pipeline has one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny
from pydantic_core import PydanticCustomError

from etl.config.base import Model, Problem
from etl.config.values import Rate, Seconds, suggest

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
    """

    files: bool
    typed: bool
    own_code: bool
    repeatable: bool
    windows: Literal["path", "query"] | None


class SourceConfig(Model):
    """What every kind of source has: how rows are handed to functions, the cursor, and how often it may be asked.

    A kind has a `Config` of its own, with its `type`, its keys and its facts.
    """

    FACTS: ClassVar[SourceFacts]

    split: Literal["rows", "file", "none"] = "rows"
    cursor: str | None = None
    overlap: Seconds = 0.0
    rate: Rate = None
    type: str

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
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
    if value["type"] not in KINDS:
        what = f"must be {' or '.join(KINDS)}{suggest(value['type'], KINDS)}"
        raise PydanticCustomError("problems", "has mistakes", {"problems": [(("type",), what)]})
    return source(value)


Extract = Annotated[SerializeAsAny[SourceConfig], BeforeValidator(_source)]

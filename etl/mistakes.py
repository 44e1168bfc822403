"""Mistakes of the configuration: what models find, and what only shows between them, each said in one line."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from etl.parts import Column, CsvExtract, FunctionExtract, Load, Model, Problem, Step
from etl.pipeline import Definition, Schedule
from etl.values import suggest

RESERVED = ("_client", "_run", "_file", "_row", "_partition", "_ord")
_SAID = {
    "missing": "is missing",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "tuple_type": "must be a list",
    "union_tag_not_found": 'has no type; add type = "csv" or type = "function"',
}
Parts = tuple[CsvExtract | FunctionExtract | None, dict[int, Step], Load | None, dict[str, Column]]
AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: the file, the key's path in it, and a sentence with the cure."""

    file: str
    key: tuple[str | int, ...]
    what: str

    def __str__(self) -> str:
        path = key_path(self.key)
        if self.what.startswith("unknown key"):
            return f"{self.file}: unknown key {path}{self.what.removeprefix('unknown key')}"
        return f"{self.file}: {path}: {self.what}" if path else f"{self.file}: {self.what}"


def key_path(key: Iterable[str | int]) -> str:
    """Return a key's path as TOML writes it; places in lists stand in brackets, from 0."""
    path = ""
    for part in key:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            path += ("." if path else "") + (part if bare else json.dumps(part, ensure_ascii=False))
    return path


def parse(model: type[AnyModel], table: Any, *, name: str | None = None) -> tuple[AnyModel | None, list[Problem]]:
    """Return a table as its model, or None, and what is wrong with it.

    Args:
        name: For models that know their own name, which TOML says in the table's header.
    """
    problems: list[Problem] = []
    if name is not None:
        if "name" in table:
            problems.append((("name",), "unknown key; the name stands in the table's header"))
        table = {**table, "name": name}
    try:
        return model.model_validate(table), problems
    except ValidationError as error:
        return None, problems + list(_told(error, model, table))


def _told(error: ValidationError, model: type[Model], table: Any) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        where, kind, context = _real(item["loc"], table), item["type"], item.get("ctx", {})
        if kind == "problems":
            yield from (((*where, *inner), what) for inner, what in context["problems"])
        elif kind == "extra_forbidden":
            known = [field.alias or name for name, field in _model_at(model, item["loc"][:-1]).model_fields.items()]
            yield where, f"unknown key{suggest(where[-1], [key for key in known if key != 'name'])}"
        elif kind == "literal_error":
            yield where, _one_of(context["expected"], item["input"])
        elif kind == "union_tag_invalid":
            yield (*where, "type"), _one_of(context["expected_tags"], context["tag"])
        elif kind == "value_error":
            yield where, str(context["error"])
        elif kind in ("greater_than_equal", "greater_than", "less_than_equal"):
            said = {"ge": "at least", "gt": "above", "le": "at most"}
            yield where, " and ".join(f"must be {said[key]} {limit:g}" for key, limit in context.items())
        else:
            yield where, _SAID.get(kind, item["msg"][:1].lower() + item["msg"][1:])


def _one_of(expected: str, given: object) -> str:
    names = re.findall(r"'([^']*)'", expected)
    return f"must be {' or '.join(names)}{suggest(given, names)}"


def _real(loc: Sequence[str | int], table: Any) -> tuple[str | int, ...]:
    """Return a place without what pydantic adds to it: the tags of unions, which are no keys of the table."""
    real: list[str | int] = []
    for part in loc[:-1]:
        if (isinstance(table, Mapping) and part in table) or (isinstance(table, list | tuple) and isinstance(part, int)):
            table = table[part]
        else:
            continue
        real.append(part)
    return (*real, *loc[-1:])


def _model_at(model: type[Model], loc: Sequence[str | int]) -> type[Model]:
    match loc:
        case ("extract", "csv"):
            return CsvExtract
        case ("extract", "function"):
            return FunctionExtract
        case ("load",):
            return Load
        case ("columns", _):
            return Column
        case ("transform", _):
            return Step
        case ("schedule", _):
            return Schedule
    return model


def combined(
    definition: Definition | None, table: Mapping[str, Any], targets: Iterable[str], modules: Iterable[str]
) -> list[Problem]:
    """What is wrong between a pipeline's parts, its targets and its modules.

    Args:
        definition: The pipeline, or None where a part is wrong: then the other parts are looked at all the same.
        table: The pipeline as written.
    """
    extract, steps, load, columns = _parts(definition) if definition else _salvage(table)
    return [
        *_references(extract, steps, load, targets, set(modules)),
        *_columns(columns, computes=bool(table.get("transform")) or isinstance(extract, FunctionExtract)),
        *(_keys(load, columns) if load else ()),
    ]


def _parts(definition: Definition) -> Parts:
    return definition.extract, dict(enumerate(definition.transform)), definition.load, definition.columns


def _salvage(table: Mapping[str, Any]) -> Parts:
    """Return those parts of a pipeline that are right by themselves."""

    def part(model: type[AnyModel], value: Any) -> AnyModel | None:
        return parse(model, value)[0] if isinstance(value, Mapping) else None

    written, listed = table.get("columns", {}), table.get("transform", [])
    steps = {
        place: part(Step, {"function": value} if isinstance(value, str) else value)
        for place, value in enumerate(listed if isinstance(listed, list) else [])
    }
    columns = (
        {name: part(Column, value) or Column() for name, value in written.items()} if isinstance(written, dict) else {}
    )
    extract = part(FunctionExtract, table.get("extract"))
    return extract, {place: step for place, step in steps.items() if step}, part(Load, table.get("load")), columns


def _references(
    extract: Any, steps: Mapping[int, Step], load: Load | None, targets: Iterable[str], modules: set[str]
) -> Iterator[Problem]:
    used: list[tuple[tuple[str | int, ...], str]] = [
        (("transform", place), step.function) for place, step in steps.items()
    ]
    if isinstance(extract, FunctionExtract):
        used.insert(0, (("extract", "function"), extract.function))
    if load and load.function:
        used.append((("load", "function"), load.function))
    for where, function in used:
        module = function.partition(":")[0]
        if module not in modules:
            yield where, f"module {module} is not in settings.modules{suggest(module, modules) or '; add it there'}"
    if load and load.target not in targets:
        yield ("load", "target"), f"there is no target {load.target}{suggest(load.target, targets)}"


def _columns(columns: Mapping[str, Column], *, computes: bool) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for name, column in columns.items():
        if not name.strip() or name in RESERVED:
            yield ("columns", name), "is a name that rq-etl keeps for itself" if name.strip() else "has no name"
        if column.computed and not computes:
            yield ("columns", name, "computed"), "no function of transform makes it; drop computed or add the function"
        for header in {name, *column.from_} if not column.computed else {name}:
            other = taken.setdefault(header.strip().casefold(), name)
            if other != name:
                yield ("columns", name), f'header "{header}" goes to {other} too; let it go to one column'


def _keys(load: Load, columns: Mapping[str, Column]) -> Iterator[Problem]:
    for key, names, always in (("key", load.key, ()), ("by", load.by, ("_file",))):
        for name in names:
            if columns and name not in (*columns, *always):
                yield ("load", key), f"there is no column {name}{suggest(name, columns) or '; declare it in columns'}"


def rename_problems(pipeline: str, rename: Any, table: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a client's `rename` of a pipeline's headers.

    Args:
        table: The pipeline as written.
    """
    problems: list[Problem] = []
    columns = table.get("columns", {})
    headers: set[str] = set()
    for header, column in rename.items() if isinstance(rename, Mapping) else ():
        where = ("rename", pipeline, header)
        declared = columns.get(column) if isinstance(columns, Mapping) else None
        if isinstance(declared, Mapping) and declared.get("computed") is True:
            problems.append((where, f"column {column} is made by a function; name another"))
        if not column.strip() or column in RESERVED:
            problems.append((where, "must be a column's name that rq-etl does not keep for itself"))
        if header.strip().casefold() in headers:
            problems.append((where, "is the same header as another one here; case and blanks do not count"))
        headers.add(header.strip().casefold())
    return problems

"""Mistakes of the configuration: what models find, and what only shows between them, each said in one line."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from etl.config.base import Model, Problem, key_path
from etl.config.delivery import Delivery
from etl.config.kinds import KINDS, SourceConfig, config_of
from etl.config.models import Alerts, Column, Expect, Load, Step
from etl.config.pipeline import Definition, Schedule
from etl.config.spellings import Spellings, clashes
from etl.config.values import header_key, suggest
from etl.context import GIVEN

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
    "too_short": "must have at least one value",
}
PIVOTS = {"type", "mode"}  # without them nothing can be said of the keys beside them
TABLES: dict[str, type[Model]] = {"load": Load, "delivery": Delivery, "expect": Expect, "alerts": Alerts}
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
            text = f"unknown key {path}{self.what.removeprefix('unknown key')}"
        else:
            text = f"{path}: {self.what}" if path else self.what
        # Names out of the file may hold anything; a mistake stays one line.
        return f"{self.file}: " + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def parse(model: type[AnyModel], table: Any, *, name: str | None = None) -> tuple[AnyModel | None, list[Problem]]:
    """Return a table as its model, and what is wrong with it.

    With mistakes, the model is what the keys without a mistake make, so that more can be looked at; or None.

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
        problems += _sentences(error, model, table)
    wrong = {where[0] for where, _ in problems if where}
    if not isinstance(table, Mapping) or wrong & PIVOTS:
        return None, problems
    try:
        return model.model_validate({key: value for key, value in table.items() if key not in wrong}), problems
    except ValidationError as error:  # what only shows when each key is right by itself
        more = [problem for problem in _sentences(error, model, table) if problem[0] and problem[0][0] not in wrong]
        return None, problems + more


def _sentences(error: ValidationError, model: type[Model], table: Any) -> Iterator[Problem]:
    for item in error.errors(include_url=False):
        loc, kind, context = item["loc"], item["type"], item.get("ctx", {})
        where = (*_real(loc[:-1], table), *loc[-1:])  # the last may be a key that isn't there
        if kind == "problems":
            where = _real(loc, table)  # a table, whose kind may come last
            yield from (((*where, *inner), what) for inner, what in context["problems"])
        elif kind == "extra_forbidden":
            known = [field.alias or name for name, field in _model_at(model, loc[:-1], table).model_fields.items()]
            yield where, f"unknown key{suggest(where[-1], [key for key in known if key != 'name'])}"
        elif kind == "literal_error":
            names = re.findall(r"'([^']*)'", context["expected"])
            yield where, f"must be {' or '.join(names)}{suggest(item['input'], names)}"
        elif kind == "value_error":
            yield where, str(context["error"])
        elif kind in ("greater_than_equal", "greater_than", "less_than_equal"):
            said = {"ge": "at least", "gt": "above", "le": "at most"}
            yield where, " and ".join(f"must be {said[key]} {limit:,.15g}" for key, limit in context.items())
        else:
            yield where, _SAID.get(kind, item["msg"][:1].lower() + item["msg"][1:])


def _real(loc: Sequence[str | int], table: Any) -> tuple[str | int, ...]:
    """Return a place without what pydantic adds to it: the tags of unions, which are no keys of the table."""
    real: list[str | int] = []
    for part in loc:
        inside: Any = table  # a list takes an int, a table takes a key
        if part in table if isinstance(table, Mapping) else isinstance(table, list | tuple) and isinstance(part, int):
            table = inside[part]
            real.append(part)
    return tuple(real)


def _model_at(model: type[Model], loc: Sequence[str | int], table: Any) -> type[Model]:
    match loc:
        case ("extract",):
            return config_of(table["extract"]["type"])
        case ("lookups", name):
            return config_of(table["lookups"][name]["type"])
        case (("load" | "delivery" | "expect" | "alerts") as part,):
            return TABLES[part]
        case ("columns", _):
            return Column
        case ("transform", _):
            return Step
        case ("schedule", _):
            return Schedule
    return model


def define(
    table: Mapping[str, Any], targets: Iterable[str], modules: Iterable[str]
) -> tuple[Definition | None, list[Problem]]:
    """Return a pipeline's table as its model, or None, and what is wrong in its parts and between them."""
    load: Load | None
    definition, problems = parse(Definition, table)
    if definition and not problems:
        extract: Any = definition.extract
        steps, load, columns = dict(enumerate(definition.transform)), definition.load, definition.columns
        delivery, expect = definition.delivery, definition.expect
    else:
        definition = None
        parts, found = _salvage(table)
        problems += [problem for problem in found if problem not in problems]
        extract, load = parts.get(("extract",)), parts.get(("load",))
        delivery, expect = parts.get(("delivery",)), parts.get(("expect",))
        steps = {where[1]: part for where, part in parts.items() if where[0] == "transform"}
        columns = {where[1]: part for where, part in parts.items() if where[0] == "columns"}
    problems += _references(extract, steps, load, targets, set(modules))
    problems += _columns(columns, computes=bool(table.get("transform") or (extract and extract.FACTS.own_code)))
    wrong = {where[:2] for where, _ in problems}  # of these some keys are left out here
    problems += [problem for problem in clashes(extract, columns) if problem[0][:2] not in wrong] if extract else ()
    problems += _keys(load, columns) if load else ()
    problems += _cursor(extract, load, columns) if load and extract and extract.cursor else ()
    problems += _delivery(extract, load, delivery, expect, columns)
    if expect and expect.period is not None and "delivery" not in table:
        cure = 'add delivery = { due = "06:30" }'
        problems.append((("expect", "period"), f"is compared with the days of the pipeline's delivery; {cure}"))
    for name, lookup in definition.lookups.items() if definition else ():
        problems += _lookup(name, lookup, set(modules))
    return definition, problems


def _salvage(table: Mapping[str, Any]) -> tuple[dict[tuple[Any, ...], Any], list[Problem]]:
    """Return the parts of a wrong pipeline that are right by themselves, by place, and what is wrong in each."""
    extract, columns, steps = (table.get(key) for key in ("extract", "columns", "transform"))
    models: list[tuple[tuple[Any, ...], Any, Any]] = [((key,), model, table.get(key)) for key, model in TABLES.items()]
    if isinstance(extract, Mapping) and str(extract.get("type")) in KINDS:
        models.append((("extract",), config_of(extract["type"]), extract))
    for name, value in columns.items() if isinstance(columns, Mapping) else ():
        models.append((("columns", name), Column, value))
    for place, value in enumerate(steps) if isinstance(steps, list) else ():
        models.append((("transform", place), Step, {"function": value} if isinstance(value, str) else value))
    parts: dict[tuple[Any, ...], Any] = {}
    problems: list[Problem] = []
    for where, model, value in models:
        if isinstance(value, Mapping):
            part, found = parse(model, value)
            problems += [((*where, *inner), what) for inner, what in found]
            if part or model is Column:
                parts[where] = part or Column()
    return parts, problems


def _references(
    extract: Any, steps: Mapping[int, Step], load: Load | None, targets: Iterable[str], modules: set[str]
) -> Iterator[Problem]:
    used: list[tuple[tuple[str | int, ...], str]] = [
        *((("extract", key), function) for key, function, _ in (extract.functions() if extract else ())),
        *((("transform", place), step.function) for place, step in steps.items()),
    ]
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
    made: dict[str, str] = {}
    for name, column in columns.items():
        if not name.strip() or name in RESERVED:
            yield ("columns", name), "is a name that rq-etl keeps for itself" if name.strip() else "has no name"
        if column.computed and not computes:
            yield ("columns", name, "computed"), "no function of transform makes it; drop computed or add the function"
        if column.computed:  # another column may take its header, so that a function makes it anew
            other = made.setdefault(header_key(name), name)
            if other != name:
                yield ("columns", name), f"differs from {other} by case or blanks only; keep one of the two"
            continue
        for header in {name, *column.from_}:
            other = taken.setdefault(header_key(header), name)
            if other != name:
                yield ("columns", name), f'header "{header}" goes to {other} too; let it go to one column'
    given = {header_key(name): name for name, column in columns.items() if not column.computed}
    for name in made.values():
        if other := given.get(header_key(name), ""):
            yield ("columns", name), f"differs from {other} by case or blanks only; keep one of the two"


def _keys(load: Load, columns: Mapping[str, Column]) -> Iterator[Problem]:
    for key, names, always in (("key", load.key, ()), ("by", load.by, ("_file",))):
        for name in names:
            if columns and name not in (*columns, *always):
                yield ("load", key), f"there is no column {name}{suggest(name, columns) or '; declare it in columns'}"


def _cursor(extract: SourceConfig, load: Load, columns: Mapping[str, Column]) -> Iterator[Problem]:
    """What would lose rows, or load them twice."""
    name, where = extract.cursor, ("extract", "cursor")
    column = columns.get(name or "")
    if column and column.type == "boolean":
        yield where, f"column {name} is a boolean, which says nothing of what is newer"
    if not extract.FACTS.typed and (column is None or column.computed):
        yield where, f'the type of {name} must be known; declare it, such as columns.{name} = {{ type = "timestamp" }}'
    if load.function:
        return
    if load.mode == "replace":
        yield where, 'mode "replace" would drop the rows that a cursor leaves out; use mode = "merge", or drop cursor'
    if load.mode == "append" and not (column and column.unique):
        yield (
            where,
            "an append can't tell rows that have the same value from rows loaded before; "
            'use mode = "merge" with a key, '
            f"or say unique = true for columns.{name} where no two rows ever have the same",
        )
    if load.mode == "append" and extract.overlap:
        yield ("extract", "overlap"), 'an append would load rows twice; use mode = "merge" with a key, or drop overlap'


def _lookup(name: str, lookup: SourceConfig, modules: set[str]) -> Iterator[Problem]:
    if name in GIVEN or not name.isidentifier():
        yield ("lookups", name), f"is no name for a lookup; functions are given {', '.join(GIVEN)} by these names"
    if lookup.cursor:
        yield ("lookups", name, "cursor"), "a lookup is read whole; drop cursor"
    for key in Spellings.model_fields:
        if getattr(lookup, key) is not None:
            yield ("lookups", name, key), f"a lookup's values are given as they are; drop {key}"
    if lookup.rate is not None:
        yield ("lookups", name, "rate"), "a lookup is read once for all; drop rate"
    for key, function, _ in lookup.functions():
        if (module := function.partition(":")[0]) not in modules:
            cure = suggest(module, modules) or "; add it there"
            yield ("lookups", name, key), f"module {module} is not in settings.modules{cure}"


def _delivery(
    extract: SourceConfig | None,
    load: Load | None,
    delivery: Delivery | None,
    expect: Expect | None,
    columns: Mapping[str, Column],
) -> Iterator[Problem]:
    """Yield what is wrong between a pipeline's delivery, what is expected of it, its source and its load.

    Args:
        extract, load, delivery, expect: None where there is none, or it is wrong by itself.
    """
    if delivery and extract:
        yield from _of_source(delivery, extract)
    if delivery and load and extract and extract.FACTS.files and delivery.run != "no":
        is_whole = load.mode == "replace" and load.by != ("_file",)
        if is_whole and delivery.files is None and delivery.complete is None:
            what = f'run = "{delivery.run}" may start on a part of the delivery, and mode "replace" would drop the rest'
            yield ("delivery", "run"), f'{what}; say when it is complete: files = 3, or complete = "*.done"'
    if expect and expect.period is not None:
        column = columns.get(expect.period)
        if column is None:
            cure = suggest(expect.period, columns) or "; declare it in columns"
            yield ("expect", "period"), f"there is no column {expect.period}{cure}"
        elif column.type not in ("date", "timestamp"):
            cure = f'declare columns.{expect.period} = {{ type = "date" }}'
            yield ("expect", "period"), f"column {expect.period} is a {column.type}, which has no day; {cure}"


def _of_source(delivery: Delivery, extract: SourceConfig) -> Iterator[Problem]:
    if extract.FACTS.files:
        windows = [written for _, name, written in extract.names() if name in ("start", "end")]
        if windows and delivery.run != "no":
            cure = 'put {date} into it, or write run = "no"'
            yield ("delivery", "run"), f"starts runs that have no window, which {windows[0]} in the path needs; {cure}"
        return
    kind = f'a source of type "{extract.type}" has none'
    if delivery.run == "on arrival":
        yield ("delivery", "run"), f'looks for files, and {kind}; write run = "when due"'
    for key in ("files", "complete"):
        if getattr(delivery, key) is not None:
            yield ("delivery", key), f"is for files, and {kind}; drop it"


def started_twice(own: Mapping[str, Any], runs: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what both a schedule and a delivery would start, where one of the two is written in a client's table.

    Args:
        own: The table; what stands beneath it has been looked at by itself.
        runs: What `delivery.run` says, by each pipeline of the client that has a schedule and a delivery.
    """
    for name, run in runs.items():
        if run != "no" and name in (own.get("schedule") or {}):
            cure = 'drop the schedule, or say delivery.run = "no"'
            yield ("schedule", name), f'its delivery starts it already (run = "{run}"); {cure}'
        elif run != "no" and "delivery" in (own.get("override") or {}).get(name, {}):
            cure = 'drop the schedule, or say run = "no"'
            yield ("override", name, "delivery", "run"), f"its schedule starts it already; {cure}"


def rename_problems(pipeline: str, rename: Mapping[str, str], table: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a client's `rename` of a pipeline's headers.

    Args:
        table: The pipeline as written.
    """
    problems: list[Problem] = []
    columns = table.get("columns", {})
    headers: set[str] = set()
    for header, column in rename.items():
        where = ("rename", pipeline, header)
        declared = columns.get(column) if isinstance(columns, Mapping) else None
        if isinstance(declared, Mapping) and declared.get("computed") is True:
            problems.append((where, f"column {column} is made by a function; name another"))
        if not column.strip() or column in RESERVED:
            problems.append((where, "must be a column's name that rq-etl does not keep for itself"))
        if header_key(header) in headers:
            problems.append((where, "is the same header as another one here; case and blanks do not count"))
        headers.add(header_key(header))
    return problems

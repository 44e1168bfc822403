"""Whether the user's functions can be called as etl.toml says, found out before any row is read."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etl.config.mistakes import Mistake
from etl.config.pipeline import Config, Definition
from etl.context import Context
from etl.errors import ConfigError
from etl.functions import _keywords, load_function

# What a function is called with before anything is filled by name: the frame, and for a load the connection.
FIRST = {"extract": 0, "lookups": 0, "transform": 1, "load": 2}
Call = tuple[tuple[str | int, ...], str, Mapping[str, Any]]  # key path, "module:name", args


def check_functions(config: Config) -> list[Mistake]:
    """Import every function that a pipeline names, and compare its parameters with what it will be given.

    This runs the user's modules, as a worker would.

    Returns:
        A mistake for each function that is not there, or can't be called.
    """
    places: dict[tuple[str, ...], Definition] = {
        ("pipelines", name): definition for name, definition in config.pipelines.items()
    }
    places |= {("clients", client, "override", name): d for (client, name), d in config.variants.items()}
    told: dict[str, str] = {}  # by call: the same one is checked and told once, however many clients have it
    mistakes = []
    for prefix, definition in places.items():
        for where, function, args in _calls(definition):
            lookups = definition.lookups if where[0] in ("extract", "transform") else {}
            call = f"{where[0]} {function} {sorted(args)} {sorted(lookups)}"
            if call not in told:
                told[call] = _problem(config, function, args, FIRST[str(where[0])], lookups)
                if told[call]:
                    mistakes.append(_mistake(config, (*prefix, *where), told[call]))
    return mistakes


def _mistake(config: Config, key: tuple[str | int, ...], what: str) -> Mistake:
    own = Path("clients", f"{key[1]}.toml")
    if key[0] == "clients" and (config.root / own).is_file():
        return Mistake(str(own), key[2:], what)
    return Mistake(config.path.name, key, what)


def _calls(definition: Definition) -> Iterator[Call]:
    for key, function, args in definition.extract.functions():
        yield ("extract", key), function, args
    for name, lookup in definition.lookups.items():
        for key, function, args in lookup.functions():
            yield ("lookups", name, key), function, args
    for place, step in enumerate(definition.transform):
        yield ("transform", place), step.function, step.args
    if definition.load.function:
        yield ("load", "function"), definition.load.function, {}


def _problem(config: Config, name: str, args: Mapping[str, Any], first: int, lookups: Iterable[str]) -> str:
    try:
        function = load_function(name, root=str(config.root), modules=config.settings.modules)
        given: dict[str, Any] = dict.fromkeys(lookups)
        context = Context(client="", run="", lookups=given)
        _keywords(function, [None] * first, context, dict(args), name)
    except ConfigError as error:
        return f"{error.what}; {error.cure}" if error.cure else error.what
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return f"{name} is async; write it with a plain def"
    if first and inspect.isgeneratorfunction(function):
        return f"{name} yields; return one DataFrame instead"
    return ""

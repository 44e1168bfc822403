"""The user's code: a fingerprint of what a pipeline runs, and whether its functions can be called as etl.toml says."""

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from etl.config.mistakes import Mistake
from etl.config.pipeline import Config, Definition, Pipeline
from etl.context import Context
from etl.errors import ConfigError
from etl.functions import _keywords, load_function

# What a function is called with before anything is filled by name: the frame, and for a load the connection.
FIRST = {"extract": 0, "lookups": 0, "transform": 1, "load": 2}
Call = tuple[tuple[str | int, ...], str, Mapping[str, Any]]  # key path, "module:name", args


def fingerprint(pipeline: Pipeline) -> str:
    """Return the sha256 over the source files of the pipeline's modules, or "" where it calls no function.

    What they import from etl.toml's folder counts too, and what that imports.
    """
    if not (pipeline.transform or pipeline.load.function or pipeline.extract.FACTS.own_code):
        return ""
    return _hashed(tuple((str(file), file.stat().st_mtime_ns) for file in _all_files(pipeline)))


def asks_for_window(pipeline: Pipeline) -> bool:
    """Whether a function that rows go through has a parameter `start` or `end`, which the run's window fills."""
    given = {step.function.partition(":")[2]: {"start", "end"} - step.args.keys() for step in pipeline.transform}
    files = _all_files(pipeline) if given else []
    return any(
        given.get(name, set()).intersection(parameters)
        for file in files
        for name, parameters in _functions(str(file), file.stat().st_mtime_ns)
    )


def _all_files(pipeline: Pipeline) -> list[Path]:
    files = [file for module in pipeline.modules for file in _files(module, pipeline.root)]
    return files + _helpers(pipeline.modules, files, Path(pipeline.root))


@lru_cache(maxsize=1024)
def _functions(file: str, modified: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the functions of a file, each with its parameters; none is imported for that."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):
        return ()
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return tuple(
        (node.name, tuple(each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)))
        for node in found
    )


def _helpers(modules: Iterable[str], files: Iterable[Path], root: Path) -> list[Path]:
    """Return the files below a root that some files import, however far away, sorted; without those themselves."""
    seen, found = set(files), set[Path]()
    waiting = [name for module in modules for name in _outer(module)]
    waiting += [name for file in seen for name in _imported(file, root)]
    asked = set[str]()
    while waiting:
        if (name := waiting.pop()) in asked:
            continue
        asked.add(name)
        place = root.joinpath(*name.split("."))
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file not in seen and file.is_file():
                seen.add(file)
                waiting += _imported(file, root)
                if file.stat().st_size:  # an empty one says nothing, as if it were not there
                    found.add(file)
    return sorted(found)


def _imported(file: Path, root: Path) -> list[str]:
    """Return the modules that a file may import, with the packages that they are in."""
    within = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else None
    return [name for each in _names(str(file), file.stat().st_mtime_ns, within) for name in _outer(each)]


def _outer(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


@lru_cache(maxsize=1024)
def _names(file: str, modified: int, package: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the names that a file's imports may mean, wherever in it they stand; `package` None knows no relatives."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):
        return ()  # importing it says what is wrong
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (package is not None or not node.level):
            base = (package or ())[: len(package or ()) - node.level + 1] if node.level else ()
            base += (node.module,) if node.module else ()
            # What is imported from a package may be a module in it.
            found |= dict.fromkeys(
                [*([".".join(base)] if base else []), *(".".join((*base, a.name)) for a in node.names)]
            )
    return tuple(found)


def _files(module: str, root: str) -> list[Path]:
    """Return a module's source file, or all of a package's, sorted; none where it isn't found."""
    place = Path(root, *module.split("."))
    if place.with_suffix(".py").is_file():
        return [place.with_suffix(".py")]
    if not place.is_dir():
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.origin:
            return []
        place = Path(spec.origin)
        if place.name != "__init__.py":
            return [place] if place.is_file() else []
        place = place.parent
    return sorted(place.rglob("*.py"))


@lru_cache(maxsize=256)
def _hashed(files: tuple[tuple[str, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _ in files:
        content = Path(name).read_bytes()
        digest.update(f"{Path(name).name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


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
    found: dict[str, str] = {}  # by call: the same one is checked and reported once, however many clients have it
    mistakes = []
    for prefix, definition in places.items():
        for where, function, args in _calls(definition):
            lookups = definition.lookups if where[0] in ("extract", "transform") else {}
            call = f"{where[0]} {function} {sorted(args)} {sorted(lookups)}"
            if call not in found:
                found[call] = _problem(config, function, args, FIRST[str(where[0])], lookups)
                if found[call]:
                    mistakes.append(_mistake(config, (*prefix, *where), found[call]))
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

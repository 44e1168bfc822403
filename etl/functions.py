"""The user's own functions: found by name, called by parameter names, and their errors placed without quoting a row."""

import importlib
import importlib.util
import inspect
import linecache
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from etl.context import GIVEN, Context
from etl.errors import ConfigError, EtlError, FunctionFailed
from etl.safe_message import is_ours, raised_at

OURS = ("etl", "jobs", "cli", "rq_etl")
NOT_UNICODE = 'read its source in the right encoding, or with errors="replace"'  # the cure for half a surrogate pair


# Raised by code that is wrong: trying again gives the same.
_BUGS: tuple[type[BaseException], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError),
    *(RecursionError, SyntaxError, SystemExit, TypeError, ValueError),
)


class FunctionInterrupted(FunctionFailed):
    """A function of the user's own raised what another try may cure, such as an error of the network."""

    retryable = True


@dataclass
class _Code:
    """What has been imported for the user: from which root, and how its files looked then (path, mtime in ns)."""

    root: str = ""
    files: dict[str, tuple[str, int]] = field(default_factory=dict)


_code = _Code()


def load_function(name: str, *, root: str, modules: Sequence[str]) -> Callable[..., Any]:
    """Return the user's function `module:name`.

    Files that changed since they were imported are imported again, so that a long-lived worker runs today's code.

    Args:
        name: "module:name".
        root: Absolute folder of etl.toml, the first place where modules are looked for.
        modules: The modules whose functions may be called.

    Raises:
        ConfigError: The module isn't listed, can't be imported, or has no such function.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute.isidentifier():
        raise ConfigError(f"{name} isn't the name of a function", 'write it as "module:function"')
    if module_name not in modules:
        raise ConfigError(f"{name}: module {module_name} isn't listed", "add it to `modules` under [settings]")
    if module_name.partition(".")[0] in OURS:
        raise ConfigError(f"{name}: module {module_name} has the name of a part of rq-etl", "rename your module")
    module = _import(module_name, str(Path(root).resolve()))
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise ConfigError(
            f"{name}: {module_name} has no function {attribute}",
            f"it has {', '.join(known)}" if known else f"look into {module.__file__}",
        )
    return function  # type: ignore[no-any-return]


def call_by_name(
    function: Callable[..., Any],
    first_args: Sequence[Any],
    context: Context,
    args: Mapping[str, Any] | None = None,
    *,
    name: str = "",
) -> Any:
    """Call a user's function with `first_args` by position and the rest by the names of its parameters.

    A parameter is filled from `args`, else from what `GIVEN` names, else from the lookups.

    Args:
        name: "module:name" as configured, for errors.

    Raises:
        ConfigError: A parameter has no default and nothing to fill it, or `args` has a key that isn't a parameter.
        FunctionFailed: The function raised; the cause is kept as `__cause__`.
    """
    name = name or f"{function.__module__}:{getattr(function, '__qualname__', function)}"
    given = [*first_args]
    keywords = _keywords(function, given, context, dict(args or {}), name)
    with blame(name):
        return function(*given, **keywords)


@contextmanager
def one_process() -> Iterator[None]:
    """End a process that the user's code inside the block has forked and that comes out of it.

    The work is its parent's, with whose files, transactions and sockets it would go on. One that ends by itself inside
    the block is left alone.
    """
    pid, code = os.getpid(), 0
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        raise
    finally:
        if os.getpid() != pid:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(code & 0xFF)


@contextmanager
def blame(name: str) -> Iterator[None]:
    """Turn whatever the user's function raises inside the block into a FunctionFailed that quotes no value.

    Raises:
        FunctionFailed: With the exception's type and the innermost line of the user's code. It is a
            FunctionInterrupted, which is tried again, unless the exception says that the code is wrong.
    """
    try:
        with one_process():
            yield
    except (Exception, SystemExit) as error:
        if isinstance(error, EtlError) and is_ours(error):
            raise
        bug = isinstance(error, (*_BUGS, EtlError)) and not isinstance(error, OSError)  # some of `requests` are both
        raise (FunctionFailed if bug else FunctionInterrupted)(
            f"{name} raised {_place(error)}", "fix the function and retry the run; what is loaded stays loaded"
        ) from error


def _keywords(
    function: Callable[..., Any], given: list[Any], context: Context, args: dict[str, Any], name: str
) -> dict[str, Any]:
    """Return the keyword arguments of a call; those that are positional only are appended to `given`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some builtins have no signature
        return args
    values = {
        **context.lookups,
        **{key: getattr(context, key) for key in GIVEN},
        **args,
    }
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < len(given) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ConfigError(f"{name} takes {len(positional)} arguments, it is called with {len(given)}")
    taken = {p.name for p in positional[: len(given)]}
    keywords: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in taken or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in values:
            if parameter.kind is parameter.POSITIONAL_ONLY:
                given.append(values[parameter.name])
            else:
                keywords[parameter.name] = values[parameter.name]
        elif parameter.default is parameter.empty:
            raise ConfigError(
                f"{name} asks for {parameter.name}, which nothing gives it",
                f"give it in `args`; {', '.join(GIVEN)} and lookups are given by name",
            )
    names = {p.name for p in parameters} - taken
    unknown = {key: value for key, value in args.items() if key not in names}
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise ConfigError(f"{name} has no parameter {', '.join(unknown)}", "take it out of `args`")
    return keywords | unknown


def _import(name: str, root: str) -> ModuleType:
    _forget_changed(root)
    if sys.path[:1] != [root]:
        _import_hidden(root)
        sys.path[:] = [root, *(entry for entry in sys.path if entry not in (root, _code.root))]
    _code.root = root
    cached = sys.modules.get(name)
    if cached is not None and not _inside(getattr(cached, "__file__", None) or root, root) and _exists(root, name):
        del sys.modules[name]  # another root's module of the same name
    before = set(sys.modules)
    try:
        with one_process():
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"there is no module {name} in {root}", "write it, or correct its name") from error
        raise ConfigError(f"module {name} can't be imported: {_place(error)}") from error
    finally:
        for key in set(sys.modules) - before:
            path = getattr(sys.modules[key], "__file__", None)
            if path and _inside(path, root):
                with suppress(OSError):
                    _code.files[key] = (path, Path(path).stat().st_mtime_ns)


def _forget_changed(root: str) -> None:
    """Forget the user's modules if one of them changed since its import, or if they came from another root."""

    def changed(path: str, stamp: int) -> bool:
        try:
            return Path(path).stat().st_mtime_ns != stamp
        except OSError:
            return True

    if root == _code.root and not any(changed(*file) for file in _code.files.values()):
        return
    for key, (path, _) in _code.files.items():
        sys.modules.pop(key, None)
        with suppress(OSError, NotImplementedError):  # Python compares whole seconds only
            Path(importlib.util.cache_from_source(path)).unlink()
    _code.files = {}
    importlib.invalidate_caches()
    linecache.checkcache()


def _import_hidden(root: str) -> None:
    """Import those parts of rq-etl that a module of the user's would hide, while ours are found first."""
    for name in OURS:
        if _exists(root, name):
            with suppress(ImportError):
                importlib.import_module(name)


def _exists(root: str, name: str) -> bool:
    path = Path(root, *name.split("."))
    return path.is_dir() or path.with_name(f"{path.name}.py").is_file()


def _inside(path: str, root: str) -> bool:
    if not path or path.startswith("<"):
        return False  # of code that a library made: no file, whatever folder this process is in
    where = Path(path).resolve()
    return where.is_relative_to(root) and "site-packages" not in where.parts


def _place(error: BaseException) -> str:
    return raised_at(error, lambda path: bool(_code.root) and _inside(path, _code.root), but=__file__)

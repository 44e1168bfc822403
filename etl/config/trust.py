"""What a pipeline reaches: files, databases and code. A run's are compared with the worker's own before it is believed.

Whoever can write to Redis can name a run, and whoever can write a file may write a spec; neither decides what is read,
which code runs, or where rows go. Nor do clients' files, where `settings.trust_clients` is false.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etl.config.base import Problem
from etl.config.pipeline import Client, Definition, Pipeline
from etl.config.values import NAME

LEADING = ("type", "path", "url", "table", "query", "function", "args")  # keys of a source that say where rows are
PATIENCE = (
    "timeout",
    "retries",
    "retry_delays",
)  # keys of a pipeline that say how long a worker is held, and how often
PACE = ("settle", "rate", "rows")  # and those of a source
_VARIES = re.compile(r"\{([^{}:]*)(?::[^{}]*)?\}|\*+|\?|\[[^\]/]+\]")
_PART = r"(?!\.\.?(?:/|$))[^/]+"  # a name of a folder or file, which is not . or ..
_MOMENT = r"(?:(?!\.\.)[\w:+. /-])*"


def reach(pipeline: Pipeline) -> dict[str, Any]:
    """Return what a pipeline reads, which code it runs, and where and how it writes, by key."""
    dumped = {key: source.model_dump(mode="json") for key, source in pipeline.sources().items()}
    sources = {
        key: {name: value[name] for name in LEADING if name in value} | {"inside": pipeline.inside.get(key)}
        for key, value in dumped.items()
    }
    steps = [step.model_dump(mode="json") for step in pipeline.transform]
    return {**sources, "transform": steps, "load": pipeline.load.model_dump(mode="json")}


def is_own(given: Pipeline, own: Pipeline) -> bool:
    """Whether a run's pipeline reaches what the worker's own does, and nothing else.

    Args:
        given: As it was submitted, perhaps with keys of the run's own (`given`).
        own: Of the same name and client, by the worker's configuration.
    """
    whole = [
        (pipeline.name, pipeline.client, {*pipeline.modules}, pipeline.staging, pipeline.target)
        for pipeline in (given, own)
    ]
    reached, known = reach(given), reach(own)
    if "extract" in given.given:  # fixed rejects, which are in staging: their path is compared with the pieces
        reached["extract"] = known["extract"]
    if "load" in given.given:
        fixed = {"mode": "append", "by": []}
        reached["load"] = known["load"] if {**known["load"], **fixed} == reached["load"] else reached["load"]
    return whole[0] == whole[1] and reached == known


def strays(pipeline: Pipeline, files: Iterable[tuple[str, str]]) -> list[str]:
    """Return the paths of those of a run's files that the pipeline's path doesn't name for its client.

    Args:
        pipeline: The run's, in this worker's own folder.
        files: Name and absolute path of each; they differ where the name is a link.
    """
    if not pipeline.extract.FACTS.files:
        return []
    if "extract" in pipeline.given:
        folder, form = f"{pipeline.staging.rstrip('/')}/{pipeline.client}/", re.compile(rf"{NAME.pattern}/[^/]+")
        return [path for _, path in files if not path.startswith(folder) or not form.fullmatch(path[len(folder) :])]
    forms = _forms(pipeline)
    return [
        path
        for name, path in files
        if not any(form.fullmatch(path) for form in forms) and not _is_linked(pipeline, forms, name, path)
    ]


def _is_linked(pipeline: Pipeline, forms: Iterable[re.Pattern[str]], name: str, path: str) -> bool:
    """Whether a name that the pipeline's path matches is a link to a file where such links may lead.

    They stay in the folders before the first wildcard; a file that the operator names whole may be anywhere.
    """
    named, real = os.path.join(pipeline.root, name), os.path.realpath(path)
    if not any(form.fullmatch(named) for form in forms) or os.path.realpath(named) != real:
        return False
    given, own = str(pipeline.extract.model_dump()["path"]), pipeline.inside.get("extract")
    if own is not None:  # a client's file says the path
        inside = os.path.join(pipeline.root, fixed_folder(own, pipeline.client))
    elif "{" not in given and not _has_wildcard(given):
        return True
    else:
        parts = os.path.normpath(os.path.join(pipeline.root, _whole(given, pipeline.client))).split("/")[:-1]
        chosen = next((at for at, part in enumerate(parts) if _has_wildcard(part)), len(parts))
        inside = "/".join(os.path.normpath(named).split("/")[:chosen]) or "/"
    inside = os.path.realpath(inside)
    return os.path.commonpath((inside, real)) == inside


def _has_wildcard(path: str) -> bool:
    return glob.has_magic(re.sub(r"\{[^{}]*\}|\[[*?[]\]", "", path))


def fixed_folder(path: str, client: str) -> str:
    """Return the folder that all files of a client's path lie in: up to its first part that differs among them."""
    parts = _whole(path, client).split("/")
    varies = [bool(_VARIES.search(part)) for part in parts[:-1]]
    return "/".join(parts[: varies.index(True) if True in varies else -1])


def inside(table: Mapping[str, Any], pipelines: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return the operator's own path of each source for which a client's file names another, by pipeline and key.

    Links are followed where the operator's path leads; a client's may not have another folder's files in by one.
    """
    found: dict[str, dict[str, str]] = {}
    for name, override in table.get("override", {}).items():
        for where, source, known in _sources(override, pipelines.get(name, {})):
            if isinstance(source, Mapping) and "path" in source and isinstance(known, Mapping):
                found.setdefault(name, {})[".".join(where)] = str(known.get("path", ""))
    return found


def _whole(path: str, client: str) -> str:
    """Return a path whose / divide its parts alone: not those in `{date:%Y/%m}`."""
    path = os.path.expanduser(path).replace("{client}", client)
    return re.sub(r"\{[^{}]*\}", lambda found: found[0].replace("/", "-"), path)


def _forms(pipeline: Pipeline) -> list[re.Pattern[str]]:
    path = _whole(str(pipeline.extract.model_dump()["path"]), pipeline.client)
    folder = fixed_folder(path, pipeline.client)
    absolute = os.path.join(pipeline.root, folder)
    form = _form(path[len(folder) :].lstrip("/"), {name: str(value) for name, value in pipeline.params.items()})
    places = {place.rstrip("/") for place in (absolute, os.path.normpath(absolute), os.path.realpath(absolute))}
    return [re.compile(f"{re.escape(place)}/{form}") for place in places]


def _form(path: str, values: Mapping[str, str]) -> str:
    """Return the expression of the part of a path that differs from file to file."""
    parts = path.split("/")
    made = [rf"(?:{_PART}/)*" if part == "**" else f"{_part(part, values)}/" for part in parts[:-1]]
    return "".join(made) + (rf"(?:{_PART}/)*{_PART}" if parts[-1] == "**" else _part(parts[-1], values))


def _part(part: str, values: Mapping[str, str]) -> str:
    made, at = "", 0
    for found in _VARIES.finditer(part):
        made += re.escape(part[at : found.start()])
        at = found.end()
        if found[1] is not None:
            made += re.escape(values[found[1]]) if found[1] in values else _MOMENT
        else:
            made += "[^/]*" if found[0][0] == "*" else "[^/]"
    return (r"(?!\.\.?(?:/|$))" if at else "") + made + re.escape(part[at:])


# --- clients' files ---


_NOT = "which a client's file may not while settings.trust_clients is false; write it in etl.toml"


def foreign(
    table: Mapping[str, Any],
    client: Client,
    pipelines: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Any],
    definitions: Mapping[str, Definition],
) -> list[Problem]:
    """Return what a client's file may not say where clients aren't trusted.

    Args:
        table: The file's keys, those without a mistake of their own.
        client: What they make of the client.
        pipelines: As written in etl.toml.
        defaults: Those of etl.toml.
        definitions: What the pipelines are without the client.
    """
    found = [(where, f"{what}, {_NOT}") for where, what in (*_words(table), *_shares(table, defaults))]
    if "alerts" in table:
        found.append((("alerts",), f"says who is informed of what, {_NOT}"))
    found += [
        (("params", name), f"is in {where}, {_NOT}") for name, where in _given(table, client, defaults, definitions)
    ]
    for name, override in table.get("override", {}).items():
        reached = _overridden(override, pipelines.get(name, {}), client.name)
        found += [(("override", name, *where), f"{what}, {_NOT}") for where, what in reached]
    return found


def _words(value: Any, where: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Yield what no text of a client's file may hold."""
    if isinstance(value, str) and "${" in value:
        yield where, "reads the environment"
    elif isinstance(value, str) and "://" in value:
        yield where, "names a URL"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _words(inner, (*where, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _words(inner, (*where, place))


def _shares(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what would give a client more of the workers than etl.toml gives everyone."""
    for key in ("max_active", "weight"):
        most = defaults.get(key, Client.model_fields[key].default)
        value = table.get(key)
        if isinstance(value, int) and value > most:
            yield (key,), f"is more than {most}, the {key} of [defaults]"


def _given(
    table: Mapping[str, Any], client: Client, defaults: Mapping[str, Any], definitions: Mapping[str, Definition]
) -> Iterator[tuple[str, str]]:
    """Yield the client's parameters that say where rows are, and which key of a pipeline has them."""
    overrides = defaults.get("override"), table.get("override")
    used = {
        match[1]: "a path of override" for text in _texts(overrides) for match in _VARIES.finditer(text) if match[1]
    }
    for pipeline in client.pipelines:
        sources = definitions[pipeline].sources() if pipeline in definitions else {}
        for where, source in sources.items():
            used |= {name: f"pipelines.{pipeline}.{where}.{key}" for key, name, _ in source.names()}
    yield from ((name, where) for name, where in used.items() if name in table.get("params", {}))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for each in inner:
        yield from _texts(each)


def _overridden(override: Mapping[str, Any], pipeline: Mapping[str, Any], client: str) -> Iterator[Problem]:
    if "transform" in override:
        yield ("transform",), "names functions"
    for key in PATIENCE:
        if key in override:
            yield (key,), "says how long workers are held"
    if "alerts" in override:
        yield ("alerts",), "says who is informed of what"
    delivery = override.get("delivery")
    for key, what in (("run", "says when workers begin"), ("poll", "says how often files are looked for")):
        if isinstance(delivery, Mapping) and key in delivery:
            yield ("delivery", key), what
    load = override.get("load")
    for key, what in (("function", "names a function"), ("target", "names a target"), ("table", "names a table")):
        if isinstance(load, Mapping) and key in load:
            yield ("load", key), what
    for where, source, known in _sources(override, pipeline):
        if not isinstance(source, Mapping):
            continue
        for key in LEADING[2:]:
            if key in source:
                yield (*where, key), f"names a {'function' if key in ('function', 'args') else 'database'}"
        for key in PACE:
            if key in source:
                yield (*where, key), "says how long workers are held"
        base = known.get("path") if isinstance(known, Mapping) else None
        if "path" in source and not (isinstance(base, str) and _lies_in(str(source["path"]), base, client)):
            yield (*where, "path"), "leads out of the pipeline's folder"


def _sources(override: Mapping[str, Any], pipeline: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield an override's sources: the key, what it says, and what the pipeline says."""
    yield ("extract",), override.get("extract"), pipeline.get("extract")
    lookups, below = override.get("lookups"), pipeline.get("lookups", {})
    if isinstance(lookups, Mapping) and isinstance(below, Mapping):
        yield from ((("lookups", name), lookup, below.get(name)) for name, lookup in lookups.items())


def _lies_in(path: str, base: str, client: str) -> bool:
    """Whether a client's path stays where its pipeline's leads, and doesn't name another client where that names it."""
    if ".." in path.split("/") or path.startswith("~"):
        return False
    tree, folder = (os.path.normpath(fixed_folder(each, client)) for each in (base, path))
    if os.path.isabs(path) != os.path.isabs(os.path.expanduser(base)) or os.path.commonpath([tree, folder]) != tree:
        return False
    named, mark, rest = base.partition("{client}")
    if not mark:
        return True
    prefix, after = os.path.normpath(named + client), os.path.normpath(path.replace("{client}", client))
    return after.startswith(prefix) and after[len(prefix) : len(prefix) + 1] in {"", "/", ".", "-", rest[:1]}

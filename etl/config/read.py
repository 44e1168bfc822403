"""Reading etl.toml and clients/*.toml: every mistake is found before any is reported."""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import etl
from etl.config import trust
from etl.config.base import Problem
from etl.config.mistakes import Mistake, define, parse, rename_problems, started_twice
from etl.config.models import Alerts, Target
from etl.config.pipeline import Client, Config, Definition, Settings, mistaken
from etl.config.values import NAME, deep_merge, suggest
from etl.errors import ConfigError
from etl.functions import OURS

SECTIONS = ("settings", "alerts", "targets", "defaults", "pipelines", "clients")


def load_config(path: Path | None = None) -> Config:
    """Read etl.toml and the clients/*.toml beside it.

    Args:
        path: The file; None means etl.toml in the working directory.

    Raises:
        ConfigError: There is no such file, or something in it is wrong; `mistakes` has a line for each. What is wrong
            in a client's file is no error: it stops that client alone (`Config.broken`).
    """
    path = path or Path("etl.toml")
    if not path.is_file():
        raise ConfigError(f"there is no {path}", "make one with rq-etl init, or name it with --config or ETL_CONFIG")
    reader = _Reader(path)
    config = reader.read()
    folder = path.parent / "clients"
    if any(Path(mistake.file).parent != folder for mistake in reader.mistakes):
        raise mistaken(tuple(map(str, reader.mistakes)), path)
    broken: dict[str, tuple[str, ...]] = {}
    for mistake in reader.mistakes:
        file = Path(mistake.file)
        # Who isn't trusted stops no client of etl.toml by a file of that name.
        name = file.name if file.stem in reader.own and not config.settings.trust_clients else file.stem
        broken[name] = (*broken.get(name, ()), str(mistake))
    clients = {name: client for name, client in config.clients.items() if name not in broken}
    variants = {pair: definition for pair, definition in config.variants.items() if pair[0] not in broken}
    return config.model_copy(update={"clients": clients, "variants": variants, "broken": broken})


@dataclass(frozen=True)
class _Written:
    """A client's table as it stands in a file, and what its keys are called there."""

    file: Path
    prefix: tuple[str, ...]
    table: Mapping[str, Any]


class _Reader:
    """One reading of the configuration, which collects mistakes as it goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = path.parent.resolve()
        self.mistakes: list[Mistake] = []
        self.settings = Settings()
        self.alerts = Alerts()
        self.targets: dict[str, Target] = {}
        self.target_names: set[str] = set()
        self.raw: dict[str, Mapping[str, Any]] = {}
        self.own: set[str] = set()  # the clients of etl.toml
        self.inside: dict[tuple[str, str], dict[str, str]] = {}
        self.cache: dict[tuple[str, str], tuple[Definition | None, list[Problem]]] = {}

    def wrong(self, file: Path, key: Iterable[str | int], what: str) -> None:
        self.mistakes.append(Mistake(str(file), tuple(key), what))

    def read(self) -> Config:
        raw = self.toml(self.path)
        written = self.client_files()
        if raw is None:
            return Config(root=self.root, path=self.root / self.path.name)
        for key in raw.keys() - set(SECTIONS):
            self.wrong(self.path, (key,), f"unknown key{suggest(key, SECTIONS)}")
        self.read_settings(raw)
        self.read_alerts(raw)
        self.read_targets(raw)
        pipelines = self.read_pipelines(raw)
        for name, what in self.needs_problems({}):
            self.wrong(self.path, ("pipelines", name, "needs"), what)
        defaults = self.read_defaults(raw)
        for name, table in self.tables(raw, "clients").items():
            if name in written:
                self.wrong(written[name].file, (), f"client {name} is in {self.path.name} too; keep one of the two")
            written[name] = _Written(self.path, ("clients", name), table)
            self.own.add(name)
        clients = {name: self.read_client(name, table, defaults, pipelines) for name, table in sorted(written.items())}
        known = {name: client for name, client in clients.items() if client}
        variants = [self.variants(client) for client in known.values()]
        return Config.model_construct(
            root=self.root,
            path=self.root / self.path.name,
            settings=self.settings,
            alerts=self.alerts,
            targets=self.targets,
            defaults=defaults,
            pipelines=pipelines,
            clients=known,
            variants={key: value for variant in variants for key, value in variant.items()},
            inside=self.inside,
        )

    def toml(self, file: Path) -> dict[str, Any] | None:
        if file.exists() and not file.is_file():  # a FIFO would be waited for
            self.wrong(file, (), "is no plain file")
            return None
        try:
            text = file.read_bytes().decode("utf-8-sig")
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self.wrong(file, (), _syntax(str(error), text))
        except RecursionError:
            self.wrong(file, (), "has lists or tables inside each other, deeper than can be read")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self.wrong(file, (), f"line {line}: is not UTF-8; save the file as UTF-8")
        except ValueError:  # of Python, which reads no number of more than 4,300 digits
            self.wrong(file, (), "has a number with more digits than can be read")
        except OSError as error:
            self.wrong(file, (), f"can't be read: {error.strerror}")
        return None

    def client_files(self) -> dict[str, _Written]:
        found, folder = {}, self.path.parent / "clients"
        try:
            names = sorted(os.listdir(folder)) if os.path.lexists(folder) else []
        except OSError as error:  # without a word all its clients would be gone
            self.wrong(folder, (), f"can't be read: {error.strerror}")
            return {}
        for file in (folder / name for name in names if name.endswith(".toml") and not name.startswith(".")):
            table = self.toml(file)
            if not NAME.fullmatch(file.stem):
                self.wrong(file, (), "a client's name has small letters, digits and _ only; rename the file")
            elif table is not None:
                found[file.stem] = _Written(file, (), table)
        return found

    def table(self, raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = raw.get(key, {})
        if isinstance(value, Mapping):
            return value
        self.wrong(self.path, (key,), f"must be a table; write [{key}]")
        return {}

    def tables(self, raw: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
        """Return a section's tables by name, those with a proper name."""
        found = {}
        for name, value in self.table(raw, key).items():
            if not NAME.fullmatch(name):
                self.wrong(self.path, (key, name), "a name has small letters, digits and _ only; rename it")
            elif not isinstance(value, Mapping):
                self.wrong(self.path, (key, name), f"must be a table; write [{key}.{name}]")
            else:
                found[name] = value
        return found

    def read_settings(self, raw: Mapping[str, Any]) -> None:
        settings, problems = parse(Settings, self.table(raw, "settings"))
        for where, what in problems:
            self.wrong(self.path, ("settings", *where), what)
        self.settings = settings or Settings()
        for module in self.settings.modules:
            if module.partition(".")[0] in OURS:
                what = f"{module} has the name of a part of rq-etl; rename your module"
                self.wrong(self.path, ("settings", "modules"), what)
        for name in ("etl", "jobs"):
            ours = Path(etl.__file__).parent.parent / name
            for file in (self.root / name / "__init__.py", self.root / f"{name}.py"):
                if file.is_file() and file.resolve().parent != ours.resolve():
                    what = f"{file.relative_to(self.root)} hides a part of rq-etl; rename it or move it elsewhere"
                    self.wrong(self.path, (), what)

    def read_alerts(self, raw: Mapping[str, Any]) -> None:
        alerts, problems = parse(Alerts, self.table(raw, "alerts"))
        for where, what in problems:
            self.wrong(self.path, ("alerts", *where), what)
        self.alerts = alerts or Alerts()

    def read_targets(self, raw: Mapping[str, Any]) -> None:
        tables = self.tables(raw, "targets")
        self.target_names = set(tables)
        for name, table in tables.items():
            target, problems = parse(Target, table, name=name)
            if target:
                self.targets[name] = target
            for where, what in problems:
                self.wrong(self.path, ("targets", name, *where), what)

    def read_pipelines(self, raw: Mapping[str, Any]) -> dict[str, Definition]:
        self.raw = dict(self.tables(raw, "pipelines"))
        definitions = {}
        for name in self.raw:
            definition, problems = self.definition(name, {})
            if definition:
                definitions[name] = definition
            for where, what in problems:
                self.wrong(self.path, ("pipelines", name, *where), what)
        return definitions

    def needs_problems(self, overrides: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return needed pipelines that there are not, and ones that need themselves in the end.

        Args:
            overrides: By pipeline, what is laid over it.
        """
        definitions = {name: self.definition(name, overrides.get(name, {}))[0] for name in self.raw}
        needs = {name: definition.needs for name, definition in definitions.items() if definition}
        found = [
            (name, f"there is no pipeline {other}{suggest(other, self.raw)}")
            for name, others in needs.items()
            for other in others
            if other not in self.raw
        ]
        for name, others in needs.items():
            reached: set[str] = set()
            ahead = list(others)
            while ahead:
                other = ahead.pop()
                if other in needs and other not in reached:
                    reached.add(other)
                    ahead += needs[other]
            if name in reached:
                found.append((name, "leads back to itself; take one of the needs away"))
        return found

    def definition(self, pipeline: str, override: Mapping[str, Any]) -> tuple[Definition | None, list[Problem]]:
        """Return a pipeline with an override laid over it; the same override is checked once for all clients."""
        key = (pipeline, repr(override) if override else "")
        if key not in self.cache:
            raw = self.raw[pipeline]
            merged = deep_merge(raw, override)
            if _kind(override) not in (None, _kind(raw)):
                merged["extract"] = override["extract"]  # another kind of source has other keys
            self.cache[key] = define(merged, self.target_names, self.settings.modules)
        return self.cache[key]

    def read_defaults(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return `[defaults]` without the keys that are wrong, so that a mistake is reported once, not per client."""
        table = self.table(raw, "defaults")
        _, problems = parse(Client, table, name="defaults")
        defaults = _without(table, problems)
        problems += self.name_problems(defaults, self.raw)
        defaults = _without(table, problems)
        if "pipelines" not in defaults:
            defaults["pipelines"] = list(self.raw)  # a client that lists none has them all
        overrides = defaults.get("override", {})
        for pipeline, override in overrides.items():
            problems += self.override_problems(pipeline, override, override, {})
        problems += self.added_needs(defaults, {})
        problems += started_twice(defaults, self.started(defaults.get("schedule", {}), overrides))
        for pipeline, rename in defaults.get("rename", {}).items():
            problems += rename_problems(pipeline, rename, self.raw.get(pipeline, {}))
        for where, what in problems:
            self.wrong(self.path, ("defaults", *where), what)
        return defaults

    def added_needs(self, table: Mapping[str, Any], below: Mapping[str, Any]) -> list[Problem]:
        """What overrides make wrong with needs that was right beneath them."""
        overrides, known = (
            {name: each for name, each in (of.get("override") or {}).items() if name in self.raw}
            for of in (table, below)
        )
        if not any("needs" in override for override in overrides.values()):
            return []
        wrong = self.needs_problems(known)
        return [
            (("override", name, "needs"), what)
            for name, what in self.needs_problems(overrides)
            if (name, what) not in wrong
        ]

    def started(self, schedule: Iterable[str], overrides: Mapping[str, Any]) -> dict[str, str]:
        """Return what `delivery.run` says of each pipeline that has a schedule and a delivery."""
        found = {name: self.definition(name, overrides.get(name, {}))[0] for name in schedule if name in self.raw}
        return {name: each.delivery.run for name, each in found.items() if each and each.delivery}

    def read_client(
        self, name: str, written: _Written, defaults: Mapping[str, Any], pipelines: Mapping[str, Definition]
    ) -> Client | None:
        client, problems = parse(Client, deep_merge(defaults, written.table), name=name)
        own = _without(written.table, problems)
        if client:
            problems += self.name_problems(
                own, self.raw if "pipelines" in written.table.keys() - own.keys() else client.pipelines
            )
            if written.file != self.path and not self.settings.trust_clients:
                problems += trust.foreign(own, client, self.raw, defaults, pipelines)
                places = trust.inside(own, self.raw)
                self.inside |= {(name, pipeline): found for pipeline, found in places.items()}
            problems += self.added_needs({"override": client.override}, defaults)
            problems += started_twice(own, self.started(client.schedule, client.override))
            for pipeline in client.pipelines:
                definition = (
                    self.definition(pipeline, client.override.get(pipeline, {}))[0] if pipeline in self.raw else None
                )
                for other in definition.needs if definition else ():
                    if other in self.raw and other not in client.pipelines:
                        problems.append(
                            (("pipelines",), f"{pipeline} needs {other}, which the client doesn't have; add it")
                        )
            for pipeline, override in own.get("override", {}).items():
                below = defaults.get("override", {}).get(pipeline, {})
                problems += self.override_problems(pipeline, override, client.override[pipeline], below)
            for pipeline, rename in own.get("rename", {}).items():
                problems += rename_problems(pipeline, rename, self.raw.get(pipeline, {}))
        for where, what in problems:
            self.wrong(written.file, (*written.prefix, *where), what)
        return client

    def name_problems(self, table: Mapping[str, Any], having: Iterable[str]) -> list[Problem]:
        """What is wrong with the names of pipelines in a client's table, given the pipelines it has."""
        listed = table.get("pipelines", ())
        problems: list[Problem] = [
            (("pipelines",), f"there is no pipeline {name}{suggest(name, self.raw)}")
            for name in ([listed] if isinstance(listed, str) else listed)
            if name not in self.raw
        ]
        for key in ("override", "rename", "schedule"):
            for name in table.get(key, {}):
                if name not in self.raw:
                    problems.append(((key, name), f"there is no pipeline {name}{suggest(name, self.raw)}"))
                elif name not in having:
                    problems.append(((key, name), f"the client does not have pipeline {name}; add it to its pipelines"))
        return problems

    def override_problems(
        self, pipeline: str, own: Mapping[str, Any], whole: Mapping[str, Any], below: Mapping[str, Any]
    ) -> list[Problem]:
        """What an override makes wrong that was right beneath it."""
        if pipeline not in self.raw:
            return []
        known = self.definition(pipeline, below)[1]
        problems = [problem for problem in self.definition(pipeline, whole)[1] if problem not in known]
        load = own.get("load")
        problems += [
            (("load", key), "can't be overridden, it is one for all clients; drop it")
            for key in ("table", "key")
            if isinstance(load, Mapping) and key in load
        ]
        return [(("override", pipeline, *where), what) for where, what in problems]

    def variants(self, client: Client) -> dict[tuple[str, str], Definition]:
        """Return the client's pipelines that its overrides change."""
        found = {}
        for pipeline, override in client.override.items():
            if pipeline in client.pipelines and pipeline in self.raw:
                definition, _ = self.definition(pipeline, override)
                if definition:
                    found[client.name, pipeline] = definition
        return found


def _without(table: Mapping[str, Any], problems: Iterable[Problem]) -> dict[str, Any]:
    wrong = {where[0] for where, _ in problems}
    return {key: value for key, value in table.items() if key not in wrong}


def _kind(definition: Mapping[str, Any]) -> object:
    extract = definition.get("extract")
    return extract.get("type") if isinstance(extract, Mapping) else None


def _syntax(message: str, text: str) -> str:
    """Return what tomllib says with the place first."""
    what, _, place = message.rpartition(" (at ")
    if match := re.search(r"line (\d+), column (\d+)", place):
        line, column = match.groups()
    else:  # "at end of document"
        line, column = str(text.count("\n") + 1), str(len(text) - text.rfind("\n"))
    return f"line {line}, column {column}: {what[:1].lower()}{what[1:]}"

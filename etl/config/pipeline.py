"""What a pipeline is, whose it is, and `resolve`, which makes one a client's. `etl.config` reads the files."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, StrictBool

from etl.calendar.cron import check_cron
from etl.calendar.dues import Due
from etl.config.base import Model, Problem, Strings
from etl.config.delivery import Delivery
from etl.config.kinds import Extract, SourceConfig
from etl.config.models import Alerts, Column, Expect, Load, Step, Target
from etl.config.values import (
    Plain,
    Positive,
    Seconds,
    Share,
    Whole,
    Zone,
    fill,
    placeholders,
    plain,
    share,
    suggest,
)
from etl.errors import ConfigError, UnknownName

RUN_VALUES = ("client", "date", "start", "end")  # what a path's {name}s may be, besides params
SPAN = ("since", "until")  # what a query's :name may be, besides those


def _short(key: str) -> BeforeValidator:
    """Accept the text of one key in place of the whole table."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class Definition(Model):
    """A pipeline as it is written in etl.toml, for any client."""

    extract: Extract
    transform: tuple[Annotated[Step, _short("function")], ...] = ()
    load: Load
    needs: Strings = ()
    expect: Expect | None = None
    delivery: Delivery | None = None
    alerts: Alerts | None = None
    lookups: dict[str, Extract] = Field(default_factory=dict)
    retries: Annotated[Whole, Field(le=100)] = 3
    retry_delays: Annotated[tuple[Seconds, ...], Field(min_length=1)] = (5.0, 30.0, 120.0)
    timeout: Annotated[Seconds, Field(gt=0)] = 600.0
    max_rejects: Share = None
    all_rejected: Literal["fail", "warn"] = "fail"
    new_columns: Literal["add", "ignore", "fail"] = "add"
    type_changes: Literal["widen", "fail"] = "widen"
    columns: dict[str, Column] = Field(default_factory=dict)

    def sources(self) -> dict[str, SourceConfig]:
        """Return where rows come from, the pipeline's own and the lookups', by the key in the pipeline's table."""
        return {"extract": self.extract} | {f"lookups.{name}": lookup for name, lookup in self.lookups.items()}


class Pipeline(Definition):
    """A pipeline resolved for one client: defaults, overrides, renames and params are in it.

    `Pipeline.model_validate_json(pipeline.model_dump_json())` gives an equal one.
    """

    name: str
    client: str
    root: str
    staging: str
    modules: tuple[str, ...]
    target: Target
    rename: dict[str, str] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    timezone: str = "UTC"
    max_active: int = 4
    weight: int = 1
    max_unpacked: int = 100
    inside: dict[str, str] = Field(default_factory=dict)  # see `Config`
    given: tuple[str, ...] = ()  # keys that were given for one run alone: a retry keeps them

    @property
    def shared(self) -> bool:
        """Whether clients share the table, so that a `_client` column tells them apart."""
        return "client" not in placeholders(self.load.table) + placeholders(self.target.url)

    @property
    def table(self) -> str:
        """The table's name, with `{client}` filled."""
        return fill(self.load.table, {"client": self.client}) or self.name

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when anything changes that shapes the rows."""
        shape = {"extract", "lookups", "transform", "load", "columns", "rename", "params", "timezone", "new_columns"}
        # Defaults are left out, so that a key added to rq-etl later changes no fingerprint.
        text = self.model_dump_json(include=shape, exclude={"extract": {"rate"}}, exclude_defaults=True)
        return hashlib.sha256(f"{self.extract.type} {text}".encode()).hexdigest()[:16]

    def day_of(self, start: datetime | None, today: datetime | None) -> tuple[date, Due | None]:
        """Return the day that a run is for, and the delivery, where deliveries are expected.

        That is the delivery of the date in the path, or of the window; of a run that its delivery has started the one
        whose moment it has, or in whose span that is; of any other run the one that was due last.

        Args:
            start: Of the run's window.
            today: The moment that `{date}` means; None means now.
        """
        zone = ZoneInfo(self.timezone)
        moment = start or today or datetime.now(zone)
        moment = moment.astimezone(zone) if moment.tzinfo else moment.replace(tzinfo=zone)
        if self.delivery is None:
            return moment.date(), None
        table = self.delivery.timetable(self.timezone)
        due = table.of_day(moment.date())
        is_dated = start is not None or any(name == "date" for _, name, _ in self.extract.names())
        if not is_dated and (due is None or due.at != moment):
            due = table.last(moment) if self.delivery.run == "no" else table.at(moment)
        return (due.day if due else moment.date()), due

    def reject_limit(self, read: int) -> int | None:
        """Return how many of `read` rows may be rejected, or None where any number may."""
        if isinstance(self.max_rejects, str):
            return int(Fraction(self.max_rejects.rstrip("% ")) * read / 100)
        return self.max_rejects


class Schedule(Model):
    """When a client's pipeline runs: a cron line in the client's time zone, and what becomes of missed moments."""

    cron: str
    catchup: Literal["none", "last", "all"] = "last"

    def problems(self) -> Iterable[Problem]:
        try:
            check_cron(self.cron)
        except ValueError as error:
            yield ("cron",), str(error)


class Client(Model):
    """Whose data it is; the client's own keys laid over `[defaults]`."""

    name: str
    pipelines: Strings = ()
    timezone: Zone = "UTC"
    max_active: Positive = 4
    weight: Positive = 1
    params: Plain = Field(default_factory=dict)
    schedule: dict[str, Annotated[Schedule, _short("cron")]] = Field(default_factory=dict)
    alerts: Alerts | None = None
    override: dict[str, dict[str, Any]] = Field(default_factory=dict)
    rename: dict[str, dict[str, str]] = Field(default_factory=dict)

    def problems(self) -> Iterable[Problem]:
        for name in self.params:
            if problem := _param_problem(name):
                yield ("params", name), problem
        for name in {name for name in self.pipelines if self.pipelines.count(name) > 1}:
            yield ("pipelines",), f"names {name} twice"


class Settings(Model):
    """What holds for every run."""

    staging: str = "staging"
    modules: Strings = ()
    history: Seconds = 90 * 86400.0
    keep_failed: Seconds = 7 * 86400.0
    max_unpacked: Positive = 100
    trust_clients: StrictBool = True

    def problems(self) -> Iterable[Problem]:
        if not self.staging or "${" in self.staging or ("://" in self.staging and not self.staging.startswith("s3://")):
            yield ("staging",), "must be a folder or s3://bucket/prefix"


class Config(Model):
    """All of etl.toml and clients/*.toml, checked.

    Args:
        root: Absolute folder of etl.toml.
        path: etl.toml itself, absolute.
        defaults: `[defaults]` as written; every client in `clients` has it beneath its own keys.
        variants: By (client, pipeline), pipelines that a client's `override` changes.
        inside: By (client, pipeline), the operator's own path of each source, by key, for which the file of a client
            that isn't trusted names another: what is read lies in the folder of the former, links followed.
        broken: The mistakes of clients' files, by client: these clients are not in `clients`, and stop no others. By
            the file's name where the client is etl.toml's own, and goes on.
    """

    root: Path
    path: Path
    settings: Settings = Settings()
    alerts: Alerts = Alerts()
    targets: dict[str, Target] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    pipelines: dict[str, Definition] = Field(default_factory=dict)
    clients: dict[str, Client] = Field(default_factory=dict)
    variants: dict[tuple[str, str], Definition] = Field(default_factory=dict)
    inside: dict[tuple[str, str], dict[str, str]] = Field(default_factory=dict)
    broken: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @property
    def staging(self) -> str:
        """Absolute folder of staging, or its s3:// URL."""
        if self.settings.staging.startswith("s3://"):
            return self.settings.staging
        return os.path.normpath(self.root / Path(self.settings.staging).expanduser())


def pipelines_of(config: Config, client: str) -> tuple[str, ...]:
    """Return the names of a client's pipelines.

    Raises:
        UnknownName: There is no such client.
        ConfigError: Its file has mistakes.
    """
    if client in config.broken:
        raise mistaken(config.broken[client], config.path)
    if client not in config.clients:
        raise _unknown("client", client, config.clients)
    return config.clients[client].pipelines


def definition_of(config: Config, client: str, pipeline: str) -> Definition:
    """Return a pipeline as it is for a client, whose overrides may change it."""
    return config.variants.get((client, pipeline), config.pipelines[pipeline])


def needed_first(config: Config, client: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return pipelines of a client in an order that puts each behind those of them that it needs."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for other in definition_of(config, client, name).needs:
                if other in names:
                    visit(other)
            order.append(name)

    for name in names:
        visit(name)
    return tuple(order)


def resolve(
    config: Config,
    pipeline: str,
    client: str,
    params: Mapping[str, Any] | None = None,
    max_rejects: str | int | None = None,
) -> Pipeline:
    """Return a pipeline as it is for a client: defaults, the client's keys, `override`, `rename`, then `params`.

    Args:
        params: The run's own parameters; they win over the client's.
        max_rejects: Takes the place of the pipeline's where given: a number of rows (as text too), or "5%".

    Raises:
        UnknownName: There is no such pipeline or client, or the client doesn't have the pipeline.
        ConfigError: A parameter is wrong, or the path asks for one that nothing gives.
    """
    if pipeline not in config.pipelines:
        raise _unknown("pipeline", pipeline, config.pipelines)
    if pipeline not in (names := pipelines_of(config, client)):
        what = f"client {client} does not have pipeline {pipeline}"
        raise UnknownName(what, f"add it to clients.{client}.pipelines; it has {', '.join(names) or 'none'}")
    owner = config.clients[client]
    definition = definition_of(config, client, pipeline)
    values = {**owner.params, **_checked(params or {})}
    _check_names(definition, pipeline, client, values)
    fields = dict(definition)
    if max_rejects is not None:
        try:
            fields["max_rejects"] = share(int(max_rejects) if str(max_rejects).isdecimal() else max_rejects)
        except ValueError as error:
            raise ConfigError(f"max_rejects: {error}") from None
    # Every part has been validated when it was read; doing it again would cost most of `plan --all-clients`.
    return Pipeline.model_construct(
        **fields,
        name=pipeline,
        client=client,
        root=str(config.root),
        staging=config.staging,
        modules=config.settings.modules,
        target=config.targets[definition.load.target],
        rename=owner.rename.get(pipeline, {}),
        params=values,
        timezone=owner.timezone,
        max_active=owner.max_active,
        weight=owner.weight,
        max_unpacked=config.settings.max_unpacked,
        inside=config.inside.get((client, pipeline), {}),
        given=() if max_rejects is None else ("max_rejects",),
    )


def known_client(config: Config, client: str) -> None:
    """Raise UnknownName where there is no such client; one whose file has mistakes is one."""
    if client not in config.broken:
        pipelines_of(config, client)


def refuse_broken(config: Config) -> None:
    """Raise a ConfigError where clients' files have mistakes."""
    lines = tuple(line for lines in config.broken.values() for line in lines)
    if lines:
        raise mistaken(lines, config.path)


def mistaken(lines: tuple[str, ...], path: Path) -> ConfigError:
    """Return the error for mistakes of the configuration.

    Args:
        lines: One for each.
        path: Of etl.toml.
    """
    return ConfigError(lines[0] if len(lines) == 1 else f"{len(lines)} mistakes in {path}", mistakes=lines)


def _unknown(kind: str, name: str, known: Mapping[str, object]) -> UnknownName:
    some = ", ".join(list(known)[:10]) + (", …" if len(known) > 10 else "")
    return UnknownName(
        f"no {kind} {name}{suggest(name, known)}", f"known: {some}" if known else f"there is no {kind} yet"
    )


def _checked(params: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in params.items():
        if problem := _param_problem(name):
            raise ConfigError(f"param {name}: {problem}")
        try:
            json.dumps(plain(value))
        except (TypeError, ValueError):
            raise ConfigError(
                f"param {name} is of type {type(value).__name__}, which JSON can't carry",
                "pass text, numbers, dates or lists",
            ) from None
    return dict(plain(params))


def _param_problem(name: str) -> str:
    if name in RUN_VALUES:
        return f"is a name of rq-etl's own ({', '.join(RUN_VALUES)}); choose another"
    return "" if name.isidentifier() else "is no name; use letters, digits and _"


def _check_names(definition: Definition, pipeline: str, client: str, params: Mapping[str, Any]) -> None:
    known = (*params, *RUN_VALUES)
    for where, extract in definition.sources().items():
        for key, name, written in extract.names():
            if name not in known:
                raise ConfigError(
                    f"pipelines.{pipeline}.{where}.{key}: {written} is no parameter of client {client}"
                    f"{suggest(name, known)}",
                    f"give it with --param {name}=…, or add it to clients.{client}.params",
                )


Pair = tuple[str, str]


def pairs_of(config: Config, client: str | None = None) -> list[Pair]:
    """Return every client with each of its pipelines."""
    return [
        (name, pipeline) for name in ([client] if client else config.clients) for pipeline in pipelines_of(config, name)
    ]

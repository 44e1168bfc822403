"""The tables of etl.toml as models. Each knows what can be wrong inside it; `etl.config` knows what can be between."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool

from etl.config.base import Model, Problem, Strings, listed
from etl.config.kinds import database_problems
from etl.config.spellings import Spellings, misplaced
from etl.config.values import (
    Plain,
    Reference,
    Scalar,
    Scalars,
    Seconds,
    Whole,
    placeholders,
    reads_whole_date,
    typed,
    zoned,
)


class Column(Spellings):
    """A column of the pipeline: its type, where it comes from and what its values must be."""

    type: Literal["string", "integer", "number", "decimal", "boolean", "date", "timestamp"] = "string"
    required: StrictBool = False
    unique: StrictBool = False
    computed: StrictBool = False
    from_: Strings = Field((), alias="from")
    format: Strings = ()
    decimal: Literal[".", ","] = "."
    allowed: Scalars = None
    min: Scalar = None
    max: Scalar = None
    pattern: str | None = None

    def typed(self, value: int | float | str) -> Any:
        """Return a value of `allowed`, `min` or `max` as this column's Python type.

        A timestamp may be naive: it is then meant in the pipeline's time zone.

        Raises:
            ValueError: It is not of the column's type; the message says what was expected.
        """
        return typed(self.type, value)

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        yield from misplaced(self, self.type)
        when, numeric = self.type in ("date", "timestamp"), self.type in ("number", "decimal")
        if self.format and not when:
            yield ("format",), f"is for date and timestamp columns, this one is {self.type}"
        for text in self.format if when else ():
            if not reads_whole_date(text):
                yield ("format",), f'"{text}" does not read a whole date; use %Y, %m, %d and so on'
        if self.decimal == "," and not numeric:
            yield ("decimal",), f"is for number and decimal columns, this one is {self.type}"
        if self.computed and self.from_:
            yield ("from",), "a computed column comes from a function, not from the source; drop from or computed"
        if self.pattern is not None:
            if self.type != "string":
                yield ("pattern",), f"is for string columns, this one is {self.type}"
            try:
                re.compile(self.pattern)
            except re.error as error:
                yield ("pattern",), f"is no regular expression: {error.msg} at position {error.pos}"
        if self.type == "boolean" and self.allowed is not None:
            yield ("allowed",), "is not for boolean columns"
        yield from self._value_problems()

    def _value_problems(self) -> Iterable[Problem]:
        limits: dict[str, Any] = {}
        for key, limit in (("min", self.min), ("max", self.max)):
            if limit is None:
                continue
            if self.type in ("string", "boolean"):
                yield (key,), f"is not for {self.type} columns"
                continue
            try:
                limits[key] = self.typed(limit)
            except ValueError as error:
                yield (key,), str(error)
        if len(limits) == 2 and zoned(limits["min"]) > zoned(limits["max"]):
            yield ("min",), "is above max"
        for value in self.allowed or () if self.type != "boolean" else ():
            try:
                self.typed(value)
            except ValueError as error:
                yield ("allowed",), str(error)
                break


class Step(Model):
    """A function that rows go through, and its arguments."""

    function: Reference
    args: Plain = Field({})


def _change(value: object) -> object:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value) if isinstance(value, str) else None
    if value is None or (found and 0 < float(found[1]) <= 100):
        return value
    raise ValueError('must be a share of the usual rows such as "50%"')


class Expect(Model):
    """What a delivery should be like, and what becomes of one that isn't."""

    rows: Annotated[tuple[Whole, Whole], Field(strict=False)] | None = None
    fresh: Seconds | None = None
    change: Annotated[str | None, BeforeValidator(_change)] = None
    period: str | None = None
    otherwise: Literal["warn", "fail"] = "warn"

    def problems(self) -> Iterable[Problem]:
        if self.rows is not None and self.rows[0] > self.rows[1]:
            yield ("rows",), "says more for the least than for the most; write rows = [1000, 100000]"
        if self.rows is None and self.fresh is None and self.change is None and self.period is None:
            yield (), 'expects nothing; give rows = [1000, 100000], fresh = "26h", change = "50%" or period = "column"'


class Load(Model):
    """Where rows go, and how they meet the rows that are there."""

    target: str
    table: str = ""
    mode: Literal["append", "merge", "replace"] = "append"
    key: Strings = ()
    newest: str | None = None
    by: Strings = ()
    atomic: StrictBool = False
    function: Reference | None = None

    def problems(self) -> Iterable[Problem]:
        if not self.table and self.function is None:
            yield ("table",), 'is missing; name the table, such as table = "claims"'
        try:
            if set(placeholders(self.table)) - {"client"}:
                yield ("table",), "may hold {client} and no other {name}"
        except ValueError as error:
            yield ("table",), str(error)
        if self.table.startswith(("_etl_", "sqlite_")) or any(ord(letter) < 32 for letter in self.table):
            yield ("table",), "must not begin with _etl_ or sqlite_, nor hold control characters"
        if self.mode == "merge" and not self.key:
            yield ("key",), 'mode "merge" needs a key; add key = ["column"]'
        if self.by and self.mode != "replace":
            yield ("by",), 'goes with mode = "replace" only; change the mode or drop by'
        for key, names in (("key", self.key), ("by", self.by)):
            if len(set(names)) < len(names):
                yield (key,), "names a column twice"


class Target(Model):
    """A named database; `${NAME}` in its URL is read from the environment, in workers only."""

    name: str
    url: str

    def problems(self) -> Iterable[Problem]:
        yield from database_problems(self.url)


KINDS_OF_ALERTS = (
    "failed", "late", "missing", "odd", "rejects", "stuck", "no worker", "no scheduler", "recovered",
)  # fmt: skip


def _address(value: str) -> str:
    """Return an address, or raise ValueError; it may hold a password and is never quoted."""
    if re.search(r"\$\{(?!\w+\})", value) or re.fullmatch(r"\$\w+", value):
        raise ValueError("names a value of the environment as ${NAME}, with letters, digits and _; write it so")
    if not re.match(r"[a-zA-Z][\w+.-]*://[^/\s]|\$\{\w+\}", value):
        raise ValueError('must be an address such as "${ALERT_URL}", "mailtos://…" or "slack://…"')
    return value


class Alerts(Model):
    """Who is to be informed of what; addresses may hold `${NAME}`, which only the process that sends them reads."""

    to: Annotated[tuple[Annotated[str, AfterValidator(_address)], ...], BeforeValidator(listed)] = ()
    on: Annotated[tuple[Literal[KINDS_OF_ALERTS], ...], BeforeValidator(listed)] = KINDS_OF_ALERTS  # type: ignore[valid-type]
    heartbeat: Annotated[str, AfterValidator(_address)] | None = None

    def problems(self) -> Iterable[Problem]:
        if self.heartbeat and not re.match(r"https?://|\$\{", self.heartbeat):
            yield ("heartbeat",), 'is asked by HTTP each minute; write "https://…" or "${HEARTBEAT_URL}"'

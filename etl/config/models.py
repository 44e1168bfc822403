"""The tables of etl.toml as models. Each knows what can be wrong inside it; `etl.config` knows what can be between."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from etl.config.databases import DATABASES, SOURCES, wrong_url
from etl.config.values import (
    Header,
    Plain,
    Positive,
    Rate,
    Reference,
    Scalar,
    Scalars,
    Seconds,
    Strings,
    Whole,
    parameters,
    placeholders,
    reads_whole_date,
    typed,
    zoned,
)

Split = Literal["rows", "file", "none"]
Problem = tuple[tuple[str | int, ...], str]  # the key's path inside the table, and one sentence with the cure


class Model(BaseModel):
    """A frozen table of the configuration that knows only its own keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if found := list(self.problems()):
            raise PydanticCustomError("problems", "has mistakes", {"problems": found})
        return self

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        return ()


class Column(Model):
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
        """What is wrong with these keys taken together."""
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


class Source(Model):
    """What every kind of source has: how rows are handed to functions, the cursor, and how often it may be asked."""

    split: Split = "rows"
    cursor: str | None = None
    overlap: Seconds = 0.0
    rate: Rate = None

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        if self.cursor is not None and not self.cursor.strip():
            yield ("cursor",), 'is empty; name a column, such as cursor = "updated_at"'
        if self.overlap and self.cursor is None:
            yield ("overlap",), 'goes with a cursor only; add cursor = "updated_at" or drop overlap'


class CsvExtract(Source):
    """Rows come from CSV files."""

    type: Literal["csv"] = "csv"
    path: str
    delimiter: str = ","
    encoding: str = "utf-8"
    quote: str = '"'
    header: Header = True
    skip: Whole = 0
    settle: Seconds = 2.0
    missing: Literal["fail", "warn", "ok"] = "fail"

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        yield from super().problems()
        try:
            if not self.path.strip():
                yield ("path",), 'is empty; name files, such as "inbox/{client}/claims-*.csv"'
            placeholders(self.path)
        except ValueError as error:
            yield ("path",), str(error)
        if self.delimiter != "auto" and (len(self.delimiter) != 1 or self.delimiter in "\r\n"):
            yield ("delimiter",), 'must be one character, or "auto"'
        if len(self.quote) > 1 or self.quote in ("\r", "\n", self.delimiter):
            yield ("quote",), 'must be one character that is not the delimiter, or "" for none'
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            yield ("encoding",), 'is no text encoding Python knows; use "utf-8", "cp1252", "latin-1" and so on'
        if isinstance(self.header, tuple) and len(set(self.header)) < len(self.header):
            yield ("header",), "names a column twice"


class FunctionExtract(Source):
    """Rows come from a function of the user's own."""

    type: Literal["function"] = "function"
    function: Reference
    args: Plain = {}


class SqlExtract(Source):
    """Rows come from a table or a query of a database; `${NAME}` in its URL is read where the database is opened."""

    type: Literal["sql"] = "sql"
    url: str
    table: str = ""
    query: str = ""
    partition: str | None = None
    rows: Positive = 100_000

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together. The URL may hold a password, so it is never quoted."""
        yield from super().problems()
        yield from database_problems(self.url, SOURCES)
        if bool(self.table.strip()) == bool(self.query.strip()):
            yield ("table",), 'give either table = "claims" or query = "select …", and not both'
        try:
            placeholders(self.table)
        except ValueError as error:
            yield ("table",), str(error)
        if self.query and self.cursor and "since" not in parameters(self.query):
            yield ("query",), f"reads every row each time; say … where {self.cursor} >= :since, or drop cursor"
        if self.partition is not None and not self.partition.strip():
            yield ("partition",), 'is empty; name a column of whole numbers, such as partition = "id"'


Extract = Annotated[CsvExtract | FunctionExtract | SqlExtract, Field(discriminator="type")]


class Step(Model):
    """A function that rows go through, and its arguments."""

    function: Reference
    args: Plain = {}


class Expect(Model):
    """What a delivery should be like, and what becomes of one that isn't."""

    rows: Annotated[tuple[Whole, Whole], Field(strict=False)] | None = None
    fresh: Seconds | None = None
    otherwise: Literal["warn", "fail"] = "warn"

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        if self.rows is not None and self.rows[0] > self.rows[1]:
            yield ("rows",), "says more for the least than for the most; write rows = [1000, 100000]"
        if self.rows is None and self.fresh is None:
            yield (), 'expects nothing; give rows = [1000, 100000] or fresh = "26h"'


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
        """What is wrong with these keys taken together."""
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
        """What is wrong with the URL. It may hold a password, so it is never quoted."""
        yield from database_problems(self.url)


def database_problems(url: str, kinds: Iterable[str] = DATABASES) -> Iterable[Problem]:
    """What is wrong with a database's URL, which may hold a password and is never quoted."""
    if wrong := wrong_url(url, kinds):
        yield ("url",), wrong
    try:
        if set(placeholders(url)) - {"client"}:
            yield ("url",), "may hold {client}, ${NAME} and no other {name}"
    except ValueError as error:
        yield ("url",), str(error)

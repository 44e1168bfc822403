"""The small languages of the configuration: spans of time, `{name}`s, references, column values."""

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from etl.errors import ConfigError

NAME = re.compile(r"[a-z0-9_]+")  # of clients, pipelines, targets
MOMENTS = ("date", "start", "end")  # of a run, in paths
_STRFTIME = re.compile("(?:[^%]|%-?[YymdHIMSjUWVGupbBaAf]|%%)*")
_PLACEHOLDER = re.compile(r"(?<!\$)\{([^{}]*)\}")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_AROUND = re.compile(r"^[\s\u200b\u2060\ufeff]+|[\s\u200b\u2060\ufeff]+$")
LONGEST = 36525 * 86400.0  # seconds: a hundred years


def duration(value: object) -> float:
    """Return a span of time in seconds.

    Args:
        value: A number of seconds, or text such as "500ms", "2s", "10m", "26h", "1d".

    Raises:
        ValueError: It is neither, below zero, or more than a hundred years, which no clock adds to its time.
    """
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", value.strip())):
        value = float(match[1]) * _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and value > LONGEST:
        raise ValueError("must be at most a hundred years")
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ValueError('must be a span of time such as "500ms", "2s", "10m", "26h" or "1d", or a number of seconds')


def rate(value: object) -> float | None:
    """Return how often something may be done, in times a second.

    Args:
        value: A number of times a second, or text such as "10/s", "600/m", "1000/h"; None means as often as one likes.

    Raises:
        ValueError: It is neither, or not above zero.
    """
    if value is None:
        return None
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h|d)", value.strip())):
        value = float(match[1]) / _SECONDS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf:
        return float(value)
    raise ValueError('must be a number of times such as "10/s", "600/m" or "1000/h"')


def is_header(names: Collection[str], known: Collection[str]) -> bool:
    """Whether names are a header for sure, so that they may be quoted: half of them are known, and half of the known.

    Of a file without a header, the first row is taken for one.

    Args:
        names: Of the source's columns, as the pipeline or its table would call them.
        known: Names in etl.toml or in the table.
    """
    return 2 * len({header_key(name) for name in names} & {header_key(name) for name in known}) >= max(
        len(names), len(known)
    )


def shown(name: str, names: Sequence[str], known: Collection[str]) -> str:
    """Return a column of a source for an error: `column x`, or its place where the names may be a row's values."""
    if header_key(name) in map(header_key, known) or is_header(names, known):
        return f"column {name}"
    return f"column {names.index(name) + 1}"


def trimmed(name: str) -> str:
    """Return a header without blanks around it, nor marks of no width, which nobody sees."""
    return _AROUND.sub("", name)


def header_key(name: str) -> str:
    """Return what spellings of one header share: blanks around it, case and how accents are encoded make no other."""
    return unicodedata.normalize("NFC", trimmed(unicodedata.normalize("NFC", name)).casefold())


# What others call the words of etl.toml; - and _ don't matter.
_CALLED = {
    "string": "text str varchar nvarchar char character clob uuid json object",
    "integer": "int int2 int4 int8 int16 int32 int64 bigint smallint tinyint short long serial",
    "number": "float float4 float8 float32 float64 double real",
    "decimal": "numeric money currency bigdecimal dec percent",
    "boolean": "bool bit flag",
    "timestamp": "datetime datetime64 datetime2 timestamptz instant time",
    "date": "day date32",
    "append": "insert add",
    "merge": "upsert update incremental insert_or_update",
    "replace": "overwrite truncate full snapshot full_refresh",
    "ndjson": "json jsonl jsonlines ldjson",
    "csv": "tsv text file excel xlsx",
    "sql": "database db query table postgres postgresql sqlite mysql odbc jdbc",
    "function": "python callable script",
    "fail": "error raise abort",
    "warn": "warning warn_only",
    "ok": "pass skip ignore",
    "ignore": "drop skip",
    "delimiter": "sep separator seperator field_separator",
    "encoding": "charset codepage codec",
    "quote": "quotechar",
    "skip": "skiprows skip_lines",
    "path": "file files glob filename folder directory",
    "url": "dsn connection",
    "null": "na_values null_values nulls na nan missing_values",
    "true": "true_values",
    "false": "false_values",
    "thousands": "thousands_separator grouping",
    "parentheses": "brackets accounting",
    "trailing": "suffix",
    "percent": "pct percentage",
    "none": "all run",
    "required": "not_null notnull mandatory nullable",
    "unique": "distinct",
    "allowed": "enum values choices accepted",
    "pattern": "regex regexp match",
    "format": "date_format datetime_format",
    "from": "alias aliases rename source header",
    "min": "minimum ge gte",
    "max": "maximum le lte",
    "computed": "calculated derived",
    "truncate": "round",
    "type": "kind dtype datatype data_type",
    "key": "primary_key pk unique_key",
    "table": "target_table table_name",
    "target": "database db destination",
    "newest": "latest order_by",
    "atomic": "transaction",
    "mode": "write_disposition write_mode if_exists strategy",
    "extract": "source sources input",
    "load": "sink destination output",
    "transform": "steps functions",
    "columns": "schema fields mapping",
    "needs": "requires depends depends_on dependencies after upstream",
    "max_rejects": "max_errors",
    "timezone": "tz",
    "trust_clients": "trust",
    "delivery": "deliveries arrival arrivals sla",
    "due": "deadline cutoff cut_off at time expected_at expected_by arrives",
    "days": "weekdays dates on_days schedule",
    "calendar": "holidays holiday country",
    "closed": "closures closed_days exceptions blackout",
    "if_closed": "on_closed if_holiday on_holiday holiday_policy",
    "grace": "tolerance slack late_after grace_period allowed_delay",
    "files": "file_count number_of_files count",
    "complete": "done done_file marker marker_file trigger_file ready_file",
    "run": "start trigger starts",
    "poll": "interval every check_every polling poll_interval",
    "expect": "expectations expected checks",
    "rows": "row_count volume",
    "fresh": "freshness max_age",
    "change": "deviation variation anomaly delta difference",
    "period": "date_column day_column dates",
    "otherwise": "else on_fail if_not action severity",
    "alerts": "alert alerting notifications notify",
    "to": "recipients emails addresses urls channels notify",
    "on": "events kinds when triggers",
    "heartbeat": "ping healthcheck deadman dead_man_switch",
    "daily": "everyday each_day day",
    "business": "workdays working_days businessdays banking_days bank_days",
    "mon-fri": "weekday weekdays monday-friday mo-fr",
    "1st": "first monthly bom month_start",
    "last": "eom month_end end_of_month last_day ultimo",
    "1st business": "first_business first_business_day 1st_business_day",
    "last business": "last_business_day last_working_day",
    "on arrival": "arrival arrive arrives yes true",
    "when due": "due scheduled",
    "no": "never off false manual",
    "next": "following after forward",
    "previous": "before preceding prior backward",
    "failed": "failure failures error errors",
    "late": "delay delayed",
    "missing": "absent never_came not_delivered",
    "odd": "unexpected anomaly anomalies",
    "stuck": "hanging hung",
    "no worker": "workers worker",
    "no scheduler": "scheduler cron",
    "recovered": "resolved ok recovery",
}


def suggest(word: object, known: Iterable[str]) -> str:
    """Return "; did you mean …?" with the name nearest to `word`, in meaning before spelling, or nothing."""
    names, other = {name.lower(): name for name in reversed(list(known))}, str(word).lower().partition("(")[0].strip()
    near = [name for lower, name in names.items() if _plain(other) in map(_plain, _CALLED.get(lower, "").split())]
    near = near or [names[lower] for lower in get_close_matches(other, names, n=1, cutoff=0.65)]
    return f"; did you mean {near[0]}?" if near else ""


def _plain(word: str) -> str:
    return re.sub("[-_ ]", "", word)


def placeholders(text: str) -> list[str]:
    """Return the names in the `{name}`s of `text`; `${NAME}` is not one.

    Raises:
        ValueError: A brace is alone, or what it holds is no name.
    """
    found = dated_placeholders(text)
    if formats := [name for name, form in found if form is not None]:
        raise ValueError(f"may not say how {{{formats[0]}}} is written, which only paths do")
    return [name for name, _ in found]


def dated_placeholders(text: str) -> list[tuple[str, str | None]]:
    """Return the names in the `{name}`s of a path, and what `{date:…}`, `{start:…}` and `{end:…}` say of the moment.

    Raises:
        ValueError: A brace is alone, what it holds is no name, or no moment is written so.
    """
    inside = _PLACEHOLDER.findall(text)
    rest = _PLACEHOLDER.sub("", re.sub(r"\$\{[^{}]*\}", "", text))
    found = [(name, form if colon else None) for name, colon, form in (each.partition(":") for each in inside)]
    if "{" in rest or "}" in rest or not all(name.isidentifier() for name, _ in found):
        raise ValueError("has a { or } that is not part of a {name}")
    for name, form in found:
        if form is not None and name not in MOMENTS:
            raise ValueError(f"may say how {{date}}, {{start}} and {{end}} are written, not how {{{name}}} is")
        if form is not None and ("%" not in form or not _STRFTIME.fullmatch(form)):
            raise ValueError(f'says "{form}" of {{{name}}}: write a date as %Y%m%d, %d.%m.%Y, %Y/%m and so on')
    return found


# What in a statement is no parameter although it may look like one comes first: texts, names, comments, casts.
STATEMENT = re.compile(
    r"""[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | :: | (?<!\w):(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL | re.VERBOSE,
)


def a_type(kind: str) -> str:
    """Return the word of a type with its article."""
    return f"{'an' if kind == 'integer' else 'a'} {kind}"


def parameters(statement: str) -> list[str]:
    """Return the names of the `:name`s of an SQL statement, each once."""
    return list(dict.fromkeys(found["name"] for found in STATEMENT.finditer(statement) if found["name"]))


def fill(text: str, values: Mapping[str, object]) -> str:
    """Return `text` with each `{name}` replaced by its value.

    Raises:
        ConfigError: A name has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ConfigError(
                f"{{{match[1]}}} has no value{suggest(match[1], values)}",
                f"give it with --param {match[1]}=…, or in the client's params",
            )
        return str(values[match[1]])

    return _PLACEHOLDER.sub(value, text)


def plain(value: Any) -> Any:
    """Return a TOML value as JSON keeps it: dates as ISO text."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def reference(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise ValueError('must be "module:function"')
    return value


def share(value: object) -> object:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)) and float(match[1]) <= 100:
        return value
    raise ValueError('must be a number of rows, or a share of the rows read such as "5%"')


def header(value: object) -> object:
    if isinstance(value, bool) or (
        isinstance(value, list | tuple) and value and all(isinstance(n, str) for n in value)
    ):
        return value
    raise ValueError("must be true, false or a list of column names")


def scalar(value: object) -> object:
    if value is None or (isinstance(value, int | float | str | date) and not isinstance(value, bool)):
        return plain(value)
    raise ValueError("must be a number, text or a date")


def scalars(value: object) -> object:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of values")
    return [scalar(item) for item in value]


def typed(kind: str, value: int | float | str) -> Any:
    number = isinstance(value, int | float)
    try:
        if kind == "string" and not number:
            return value
        if kind == "integer" and isinstance(value, int):
            return value
        if kind == "number" and number:
            return float(value)
        if kind == "decimal" and (exact := Decimal(str(value))).is_finite():
            return exact
        if kind == "date" and not number:
            return date.fromisoformat(str(value))
        if kind == "timestamp" and not number:
            return datetime.fromisoformat(str(value))
    except (ValueError, InvalidOperation):
        pass
    wanted = {"string": "text", "integer": "a whole number", "date": "a date such as 2024-01-31"}
    wanted |= {"timestamp": "a time such as 2024-01-31T08:00:00"}
    raise ValueError(f"must be {wanted.get(kind, 'a number')} in {a_type(kind)} column")


def zoned(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


@lru_cache
def reads_whole_date(text: str) -> bool:
    probe = datetime(2023, 11, 25, 10, 11, 12, tzinfo=UTC)
    try:
        return datetime.strptime(probe.strftime(text), text).date() == probe.date()
    except (ValueError, re.error):
        return False


@lru_cache
def zone(value: str) -> str:
    """Return the name of a time zone, or raise ValueError."""
    try:
        ZoneInfo(value)
    except (ValueError, OSError, LookupError):
        near = suggest(value, available_timezones())
        raise ValueError(f"is no time zone{near or '; use a name such as America/Chicago'}") from None
    return value


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` laid over it, table by table; lists and values are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        tables = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = deep_merge(below or {}, value) if tables else value
    return merged


Seconds = Annotated[float, BeforeValidator(duration)]
Rate = Annotated[float | None, BeforeValidator(rate)]
Reference = Annotated[str, BeforeValidator(reference)]
Plain = Annotated[dict[str, Any], BeforeValidator(plain)]
Scalar = Annotated[int | float | str | None, BeforeValidator(scalar)]
Scalars = Annotated[tuple[int | float | str, ...] | None, BeforeValidator(scalars)]
Share = Annotated[int | str | None, BeforeValidator(share)]
Header = Annotated[bool | tuple[str, ...], BeforeValidator(header)]
Zone = Annotated[str, AfterValidator(zone)]
Whole = Annotated[int, Field(strict=True, ge=0, le=10**9)]
Positive = Annotated[int, Field(strict=True, ge=1, le=10**9)]

"""Names that have a date: the glob that matches them whatever the date is, and the date that a name says."""

import calendar
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, lru_cache

HOLE = "\0"  # in a pattern, where a moment is written; no file's name has it
PLAIN = "%Y-%m-%d"  # how `{date}` is written where nothing says
_TIME = "(?:T[0-9]{6})?"  # which `{start}` and `{end}` have behind it where it isn't midnight
_DIGITS = {"Y": 4, "G": 4, "j": 3, "f": 6, "u": 1} | dict.fromkeys("ymdHIMSUWV", 2)
_WORDS = {
    "B": calendar.month_name[1:],
    "b": calendar.month_abbr[1:],
    "A": calendar.day_name[:],
    "a": calendar.day_abbr[:],
    "p": ["AM", "PM"],
}
_OF_DAY = frozenset("HIMSpf")  # what says when on a day, not which
_DIRECTIVE = re.compile(r"%(-?)(.)", re.DOTALL)
_SPAN = timedelta(days=366)

Field = tuple[str, str]  # a directive such as "%Y", and how it is written


@dataclass(frozen=True)
class Moment:
    """A `{date}`, `{start}` or `{end}` of a path.

    Args:
        form: How it is written, as `strftime` takes it; None where the path doesn't say.
    """

    name: str
    form: str | None = None


@dataclass(frozen=True)
class Names:
    """The names that a path stands for.

    Args:
        pattern: A glob, with a `HOLE` for each moment.
        moments: What stands there, in their order.
    """

    pattern: str
    moments: tuple[Moment, ...] = ()

    @property
    def glob(self) -> str:
        """A glob that matches them whatever their moments are; other names too, which `day` knows."""
        parts = self.pattern.split(HOLE)
        return parts[0] + "".join(
            f"{_glob(moment)}{rest}" for moment, rest in zip(self.moments, parts[1:], strict=True)
        )

    @cached_property
    def telling(self) -> str | None:
        """Which moment says whose file it is: its `date`, else its `start`, which is the date of a window, or `end`."""
        named = {moment.name for moment in self.moments}
        return next((name for name in ("date", "start", "end") if name in named), None)

    def day(self, name: str, near: date) -> date | None:
        """Return the date in a name; None where there is none, or none of the calendar.

        Of a form that names no day, such as `%Y-%m`, it is the first that is written so.

        Args:
            near: Of a form without a year, it is the date that is nearest to this one.
        """
        found = self._expression.fullmatch(name)
        if found is None or self.telling is None:
            return None
        fields: list[Field] = []
        texts = iter(found.groups())
        for moment in self.moments:
            form, mine = moment.form or PLAIN, moment.name == self.telling
            some = [(directive, next(texts)) for directive in _directives(form)]
            fields += some if mine else []
        return _date(tuple(fields), near if not _has_year(fields) else None)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile("".join(_expressions(self.pattern, self.moments)), re.DOTALL)


def found_in(text: str, forms: Sequence[str], near: date) -> date | None:
    """Return the date that a text holds anywhere, written in one of some forms; None where there is none."""
    for form in forms:
        for match in re.finditer(rf"(?<![0-9])(?={_written(form)}(?![0-9]))", text):
            fields = tuple(zip(_directives(form), match.groups(), strict=True))
            if day := _date(fields, near if not _has_year(fields) else None):
                return day
    return None


def _glob(moment: Moment) -> str:
    form = moment.form or PLAIN
    parts = re.split(r"%-?.", form)
    found = parts[0]
    for (flag, letter), rest in zip(_DIRECTIVE.findall(form), parts[1:], strict=True):
        digits = 0 if flag else _DIGITS.get(letter, 0)
        found += ("%" if letter == "%" else "[0-9]" * digits or "*") + _literal(rest)
    return found if moment.form or moment.name == "date" else f"{found}*"


def _literal(text: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", text)


def _directives(form: str) -> list[str]:
    return [f"%{flag}{letter}" for flag, letter in _DIRECTIVE.findall(form) if letter != "%"]


def _written(form: str) -> str:
    """Return a regular expression of what a form writes, a group for each directive."""
    parts, at = [], 0
    for match in _DIRECTIVE.finditer(form):
        parts.append(re.escape(form[at : match.start()]))
        flag, letter = match.groups()
        if letter == "%":
            parts.append("%")
        elif letter in _WORDS:
            parts.append(f"({'|'.join(sorted(_WORDS[letter], key=len, reverse=True))})")
        else:
            parts.append(f"([0-9]{{{'1,' if flag else ''}{_DIGITS[letter]}}})")
        at = match.end()
    return "".join([*parts, re.escape(form[at:])])


def _expressions(pattern: str, moments: Sequence[Moment]) -> Iterator[str]:
    """Yield a regular expression for each part of a glob with holes."""
    left = iter(moments)
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        end = pattern.find("]", at + 2 + (pattern[at + 1 : at + 2] == "!")) if letter == "[" else -1
        if letter == HOLE:
            moment = next(left)
            yield _written(moment.form or PLAIN) + (_TIME if moment.form is None and moment.name != "date" else "")
        elif pattern.startswith("**/", at) and pattern[at - 1 : at] in ("", "/"):
            yield "(?:[^/]+/)*"
            at += 2
        elif letter in "*?":
            yield "[^/]*" if letter == "*" else "[^/]"
        elif end > 0:
            inside = pattern[at + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            yield f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]".replace("[^", r"[\^")
            at = end
        else:
            yield re.escape(letter)
        at += 1


def _has_year(fields: Sequence[Field]) -> bool:
    return any(directive[-1] in "YyG" for directive, _ in fields)


@lru_cache(4096)
def _date(fields: tuple[Field, ...], near: date | None) -> date | None:
    """Return the first date that is written so; where nothing says the year, the nearest to a date."""
    fields = tuple(field for field in fields if field[0][-1] not in _OF_DAY)
    known = {directive[-1]: text for directive, text in fields}
    if not fields or (near is None) != _has_year(fields):
        return None
    if near is not None:
        days = (near + sign * timedelta(days=count) for count in range(_SPAN.days) for sign in (-1, 1))
        return next((day for day in days if _is_written(day, fields)), None)
    year = int(known["Y"]) if "Y" in known else int(known.get("y") or 0)
    if "Y" not in known and "y" in known:
        year += 1900 if year > 68 else 2000  # as strptime reads it
    elif "Y" not in known:
        year = int(known["G"])
    if not 1 < year < 9999:  # around which there are days
        return None
    month = int(known["m"]) if "m" in known else _month(known)
    try:
        if month is not None and "d" in known:
            day = date(year, month, int(known["d"]))
            return day if _is_written(day, fields) else None
        first = date(year, 1, 1) - timedelta(days=7)
    except (ValueError, OverflowError):
        return None
    days = (first + timedelta(days=count) for count in range(_SPAN.days + 14))
    return next((day for day in days if _is_written(day, fields)), None)


def _month(known: dict[str, str]) -> int | None:
    for directive in "bB":
        if directive in known:
            return [*_WORDS[directive]].index(known[directive]) + 1
    return None


def _is_written(day: date, fields: Sequence[Field]) -> bool:
    try:
        return all(day.strftime(directive) == text for directive, text in fields)
    except ValueError:
        return False

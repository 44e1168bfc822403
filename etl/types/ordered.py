"""Text whose order, by code points, is that of time: dates and times of one form of ISO 8601."""

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from etl.types.times import DAY, ISO_DATE, MONTH

_PLAIN_DATE = f"[0-9]{{4}}{MONTH}{DAY}"
_PLAIN = (_PLAIN_DATE, f"{_PLAIN_DATE}[0-9]{{6}}", f"{_PLAIN_DATE}T[0-9]{{6}}")
_TIME = re.compile(
    rf"{ISO_DATE}(?P<between>[T ])[0-9]{{2}}:[0-9]{{2}}(?P<seconds>:[0-9]{{2}}(?P<part>[.][0-9]+)?)?"
    r"(?P<zone>Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
)


def form_of(text: str) -> str | None:
    """Return a regular expression, for databases too, of all texts in a date's or time's form; None for other text.

    Texts of one form have the same offset. Parts of a second may be missing, but not before a Z, as it follows a point.
    """
    for form in (ISO_DATE, *_PLAIN):
        if re.fullmatch(form, text):
            return form
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    part, zone = found["part"] or "", found["zone"] or ""
    parts = "([.][0-9]+)?"
    if zone == "Z":
        parts = f"[.][0-9]{{{len(part) - 1}}}" if part else ""
    seconds = f":[0-9]{{2}}{parts}" if found["seconds"] else ""
    return f"{ISO_DATE}{found['between']}[0-9]{{2}}:[0-9]{{2}}{seconds}{zone.replace('+', '[+]')}"


def common_form(values: pa.ChunkedArray) -> str | None:
    """Return the form that all texts have, None where there is none; values that are null don't count."""
    texts = values.drop_null()
    form = form_of(texts[0].as_py()) if len(texts) else None
    if form is None or not pc.all(pc.match_substring_regex(texts, f"^(?:{form})$")).as_py():
        return None
    return form


def is_in_order(texts: Iterable[Sequence[str]]) -> bool:
    """Whether all texts, given many at once, have one form; blank ones don't count."""
    form: str | None = None
    for some in texts:
        values = pa.chunked_array([pa.array([text for text in some if text.strip()], pa.string())])
        if not len(values):
            continue
        found = common_form(values)
        if found is None or form not in (None, found):
            return False
        form = found
    return True


def is_comparable(since: str, form: str) -> bool:
    """Whether texts of a form are newer than another date or time exactly where they are greater."""
    if form_of(since) is None:
        return False
    found = _TIME.fullmatch(since)
    zone = found["zone"] if found else None
    return not zone or form.endswith(zone.replace("+", "[+]"))

"""What may be written of an exception outside the worker: its type and place, never its words.

Exceptions carry values ("could not convert 'Jane Roe'"). Only the messages of errors that our own code raises are safe,
by contract: one of our classes that a user's function raises has the user's words.
"""

import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

from etl.errors import EtlError

MADE = "?"  # in the place of a name that was made as the code ran: it may be a row's value
_OURS = Path(__file__).resolve().parents[1]
_PARTS = (f"{_OURS / 'etl'}{os.sep}", f"{_OURS / 'jobs'}{os.sep}", str(_OURS / "cli.py"), str(_OURS / "rq_etl.py"))
# What could move the cursor of a terminal, forge a line of a log, or turn the direction of what follows.
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """Return a text with control characters spelled out, so that it does nothing to a terminal and stays in its line.

    Args:
        keep: Control characters that stay, such as the ends of lines.
    """

    def spelled(found: re.Match[str]) -> str:
        if found[0] in keep:
            return found[0]
        return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")

    return _HIDDEN.sub(spelled, text)


def is_ours(exc: BaseException) -> bool:
    """Whether our own code raised it, whose errors quote no value; what has not been raised yet is ours to raise."""
    step = exc.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step is None or step.tb_frame.f_code.co_filename.startswith(_PARTS)


def safe_message(exc: BaseException, modules: Iterable[str] = ()) -> str:
    """Return the text about an exception that may be in Redis and logs.

    Args:
        modules: Users' modules; a place in one of them is named rather than one deep in a library.
    """
    if isinstance(exc, EtlError) and is_ours(exc):
        return str(exc)
    kind = _known_kind(exc)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    users = set(modules)
    places = list(traceback.walk_tb(exc.__traceback__))
    places = [each for each in places if _module(each[0]).partition(".")[0] in users] or places
    if not places:
        return name
    frame, line = places[-1]
    return f"{name} at {_module(frame)}:{_written_name(frame) or MADE}:{line}"


def kind_of(exc: BaseException) -> str:
    """Return the name of an exception's class, or of the nearest above it whose name is no value; never its words."""
    return _known_kind(exc).__name__


def raised_at(exc: BaseException, is_users: Callable[[str], bool], *, but: str) -> str:
    """Return the type and place of what the user's code raised, for its author: the file and line, and the function.

    Of the exception's text it has only a name that is written in that line, such as that of a missing column.

    Args:
        is_users: Whether a file is the user's own; a line in one is named rather than one deep in a library.
        but: A file whose lines are not named where there are others: the caller's.
    """
    kind = _known_kind(exc).__name__
    if (
        isinstance(exc, SyntaxError) and exc.filename and is_users(exc.filename)
    ):  # else its words are of what was evaluated
        return f"{kind} ({exc.msg}) in {Path(exc.filename).name} line {exc.lineno}"
    places = list(traceback.walk_tb(exc.__traceback__))
    places = [each for each in places if _file(each[0]) != but] or places
    users = [each for each in places if is_users(_file(each[0]))]
    places = users or [each for each in places if not _file(each[0]).startswith("<frozen")]
    places = [each for each in places if linecache.getlines(_file(each[0]))]  # else its name may be a value
    if not places:
        return kind
    code, line = places[-1][0].f_code, places[-1][1]
    text = linecache.getline(code.co_filename, line)
    named = getattr(exc, "name", None) or (exc.args[0] if isinstance(exc, KeyError) and exc.args else None)
    quoted = isinstance(named, str) and bool(re.search(rf"(?<!\w){re.escape(named)}(?!\w)", text))
    name = _written_name(places[-1][0])
    where = f", in {name}" if name and name != "<module>" else ""
    return f"{kind}{f' {named}' if quoted else ''} in {Path(code.co_filename).name} line {line}{where}"


def _known_kind(exc: BaseException) -> type:
    """Return the exception's class, or the nearest above it that its module has: another's name may be a value."""
    for kind in type(exc).__mro__:
        found: object = sys.modules.get(str(kind.__module__))
        for part in kind.__qualname__.split("."):
            found = getattr(found, "__dict__", {}).get(part)
        if found is kind:
            return kind
    return BaseException


def _written_name(frame: FrameType) -> str:
    """Return the name of a frame's function, where it is written in its file; "" where it was made as the code ran."""
    name = frame.f_code.co_name
    if name.startswith("<"):
        return name
    text = "".join(linecache.getlines(_file(frame)))
    return name if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) else ""


def _file(frame: FrameType) -> str:
    return frame.f_code.co_filename


def _module(frame: FrameType) -> str:
    name = str(frame.f_globals.get("__name__", "?"))
    return name if name in sys.modules else MADE

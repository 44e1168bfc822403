"""What may be told of an exception outside the worker: its type and place, never its words.

Exceptions carry values ("could not convert 'Jane Roe'"). Only our own errors' messages are safe, by contract.
"""

import traceback
from collections.abc import Iterable
from types import FrameType

from etl.errors import EtlError


def safe_message(exc: BaseException, modules: Iterable[str] = ()) -> str:
    """Return the text about an exception that may stand in Redis and logs.

    Args:
        modules: Users' modules; a place in one of them is told rather than one deep in a library.
    """
    if isinstance(exc, EtlError):
        return str(exc)
    kind = type(exc)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    places = [(frame, line) for frame, line in traceback.walk_tb(exc.__traceback__)]
    theirs = [place for place in places if _module(place[0]).partition(".")[0] in set(modules)]
    for frame, line in reversed(theirs or places):
        return f"{name} at {_module(frame)}:{frame.f_code.co_name}:{line}"
    return name


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))

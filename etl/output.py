"""What a stage's functions print goes into a private file of its run, not into workers' logs: it may quote rows.

The file descriptors are turned, so that libraries, warnings, loggers, threads and other processes are in it, too.
They stay turned until the next stage: a thread that outlives its stage has no other place to print to.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Protocol

from etl.errors import EtlError

ENDING = ".output.txt"
MOST = 1 << 20  # bytes that are kept of what one stage printed: the last


class Place(Protocol):
    """What this needs of `etl.staging`, which is too heavy for a process that only waits for jobs."""

    local: bool
    folder: str

    def path(self, name: str) -> str:
        """Return the full path of one file of this run."""

    def remove_files(self, names: Iterable[str]) -> None:
        """Remove files of this run."""

    def keep_private(self, name: str, text: str) -> None:
        """Write a text that may hold row values, readable by the owner alone."""


_own: list[int] = []  # this process's own stdout and stderr; none where nothing is captured


def capture_from_now_on() -> None:
    """Have stages of this process captured; one that runs in a terminal of its user prints there."""
    if not _own:
        _own.extend(os.dup(number) for number in (1, 2))


def give_back() -> None:
    """Turn this process's output back to its own, before a job that is no stage."""
    for number, own in zip((1, 2), _own, strict=False):
        os.dup2(own, number)


@contextmanager
def kept(place: Callable[[], Place], name: str) -> Iterator[None]:
    """Keep what is printed inside the block as a file of a run in staging, where captured at all.

    Args:
        place: Returns the run's staging.
        name: Of the file.
    """
    if not _own:
        yield
        return
    try:
        staging = place()
        file = _opened(staging, name)
    except (EtlError, OSError):  # the stage says what is wrong with staging
        _turn_to(os.devnull)
        yield
        return
    with file:
        try:
            flush()
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        finally:
            flush()
            with suppress(EtlError, OSError):
                _keep(staging, name, file)


def _opened(staging: Place, name: str) -> BinaryIO:
    """Return the file itself in a run's folder, so that a killed stage's output is there; else a temporary one."""
    if not staging.local or not os.path.isdir(staging.folder):
        return tempfile.TemporaryFile()
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.fdopen(os.open(staging.path(name), flags, 0o600), "r+b", buffering=0)


def _keep(staging: Place, name: str, file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    is_there = staging.local and os.path.exists(staging.path(name))  # the end of a run removes its folder
    if not size and is_there:
        staging.remove_files([name])
    elif size and (size > MOST or not (is_there or staging.local)):
        file.seek(max(0, size - MOST))
        staging.keep_private(name, file.read(MOST).decode("utf-8", "replace"))


def _turn_to(path: str) -> None:
    flush()
    with open(path, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def flush() -> None:
    """Write what Python holds back of stdout and stderr, whatever the user's code has made of them."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()

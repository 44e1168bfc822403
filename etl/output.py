"""What a stage's functions print goes into a private file of its run, not into workers' logs: it may quote rows.

The file descriptors are turned, so that libraries, warnings, loggers, threads and other processes are in it, too.
They stay turned until the next stage: a thread that outlives its stage has no other place to print to.
"""

import fcntl
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from etl.errors import EtlError

ENDING = ".output.txt"
MOST = 1 << 20  # bytes that are kept of what one stage printed: the last; twice as many while it prints
CUT = b"[rq-etl: what was printed before this is not kept]\n"
LOOK = 0.25  # seconds between looks at how much was printed


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
    pid = os.getpid()
    try:
        staging = place()
        file = _opened(staging, name)
    except (EtlError, OSError):  # the stage says what is wrong with staging
        _turn_to(os.devnull)
        yield
        return
    try:
        flush()
        os.dup2(file.written, 1)
        os.dup2(file.written, 2)
        _watch(file)
        yield
    finally:
        flush()
        if os.getpid() == pid:  # not in a child that the user's code has forked
            with suppress(EtlError, OSError):
                _keep(staging, name, file)
            os.close(file.written)


def _opened(staging: Place, name: str) -> "_File":
    """Return the file itself in a run's folder, so that a killed stage's output is there; else a temporary one."""
    if staging.local and os.path.isdir(staging.folder):
        return _File(staging.path(name))
    number, path = tempfile.mkstemp()
    os.close(number)
    try:
        return _File(path)
    finally:
        os.unlink(path)


def _keep(staging: Place, name: str, file: "_File") -> None:
    is_there = staging.local and os.path.exists(staging.path(name))  # the end of a run removes its folder
    if not file.size and is_there:
        staging.remove_files([name])
    else:
        file.cut(MOST)
        if file.size and not (is_there or staging.local):
            staging.keep_private(name, os.pread(file.watched, MOST, 0).decode("utf-8", "replace"))


class _File:
    """A file that is written by whoever has its descriptor, and cut by this process alone.

    Who writes has it locked, by the lock of an open file: it is gone with the last process that writes.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        self.written = os.open(path, flags, 0o600)
        try:
            self.watched = os.open(path, flags & ~os.O_CREAT)
        except OSError:
            os.close(self.written)
            raise
        self._one = threading.Lock()
        self._lock(self.written)

    @property
    def size(self) -> int:
        """Bytes in it."""
        return os.fstat(self.watched).st_size

    def cut(self, above: int) -> None:
        """Keep the last MOST bytes where there are more than so many; what is written meanwhile may be lost."""
        with self._one:
            if (size := self.size) > above:
                kept = MOST - len(CUT)
                end = os.pread(self.watched, kept, size - kept)
                os.ftruncate(self.watched, 0)
                os.write(self.watched, CUT + end)

    def is_over(self) -> bool:
        """Whether no process can write to it any more."""
        return self._lock(self.watched)

    def _lock(self, number: int) -> bool:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: it is looked at until the next stage
            return self in _watched[:-1]
        return True


_watched: list[_File] = []  # the last is that of the current stage, or of the one before
_watchers: list[threading.Thread] = []  # one, from the first stage on


def _watch(file: _File) -> None:
    """Have a file cut down while it grows, as long as any process may write to it."""
    _watched.append(file)
    if not _watchers:
        _watchers.append(threading.Thread(target=_look_often, name="output", daemon=True))
        _watchers[0].start()


def _look_often() -> None:
    while True:
        time.sleep(LOOK)
        for file in list(_watched):
            is_over = file.is_over()  # asked first: what is written before its writer ends is cut as well
            with suppress(OSError):  # a full disk takes no more either
                file.cut(2 * MOST)
            if is_over:
                _watched.remove(file)
                os.close(file.watched)


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

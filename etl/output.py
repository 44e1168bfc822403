"""What a stage's functions print goes into a private file of its run, not into workers' logs: it may quote rows.

In workers the file descriptors are turned, so that libraries, warnings, loggers, threads and other processes are in it,
too. They stay turned until the next stage: a thread that outlives its stage has no other place to print to. In a
process of its user (`--inline`, a test) what Python prints goes to both, the terminal and the file.
"""

import fcntl
import logging
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

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
    """Have stages of this process captured; one that runs in a process of its user prints there, too."""
    if not _own:
        _own.extend(os.dup(number) for number in (1, 2))


def give_back() -> None:
    """Turn this process's output back to its own, before a job that is no stage."""
    for number, own in zip((1, 2), _own, strict=False):
        os.dup2(own, number)


@contextmanager
def kept(place: Callable[[], Place], name: str) -> Iterator[None]:
    """Keep what is printed, warned and logged inside the block as a file of a run in staging.

    Args:
        place: Returns the run's staging.
        name: Of the file.
    """
    pid = os.getpid()
    with _logging():
        try:
            staging = place()
            file = _opened(staging, name)
        except (EtlError, OSError):  # the stage says what is wrong with staging
            if _own:
                _turn_to(os.devnull)
            yield
            return
        try:
            flush()
            with _turned(file) if _own else _copied(file):
                yield
        finally:
            flush()
            if os.getpid() == pid:  # not in a child that the user's code has forked
                with suppress(EtlError, OSError):
                    _keep(staging, name, file)
                os.close(file.written)
                if not _own:
                    os.close(file.watched)


@contextmanager
def _turned(file: "_File") -> Iterator[None]:
    os.dup2(file.written, 1)
    os.dup2(file.written, 2)
    _watch(file)
    yield


@contextmanager
def _copied(file: "_File") -> Iterator[None]:
    """Have what Python prints inside the block written to a file, too; breakpoints keep their terminal."""
    before = sys.stdout, sys.stderr
    copies = _Copy(before[0]), _Copy(before[1])
    _copying.append(file)
    sys.stdout, sys.stderr = copies
    _redirect_loggers(before, copies)
    try:
        yield
    finally:
        _copying.remove(file)
        _redirect_loggers(copies, before)
        if (sys.stdout, sys.stderr) == copies:  # or the function has others that it goes on with
            sys.stdout, sys.stderr = before


def _redirect_loggers(streams: tuple[Any, Any], others: tuple[Any, Any]) -> None:
    """Have what loggers write to some streams go to others."""
    manager = logging.getLogger().manager
    for logger in (logging.getLogger(), *manager.loggerDict.values()):
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            for stream, other in zip(streams, others, strict=True):
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(other)


_copying: "list[_File]" = []  # where copies go: to the last


class _Copy:
    """A stream that also writes to the file of the current stage, if there is one: a logger may keep it for longer."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write to both."""
        count: int = self._stream.write(text)
        for file in _copying[-1:]:
            with suppress(OSError):  # a full disk
                os.write(file.written, text.encode("utf-8", "backslashreplace"))
                file.cut(2 * MOST)
        return count

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several to both."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _logging() -> Iterator[None]:
    """Show each stage's warnings, also those of one before; and log from INFO on, where nobody has said how to log."""
    with warnings.catch_warnings():
        pass  # Python forgets then what it has warned of
    root, last = logging.getLogger(), logging.lastResort
    if last is None or root.handlers or root.level != logging.WARNING:
        yield
        return
    engine = logging.getLogger("sqlalchemy")  # it would log each statement, with its values
    was = last.level, last.formatter, engine.level
    engine.setLevel(was[2] or logging.WARNING)
    root.setLevel(logging.INFO)
    last.setLevel(logging.INFO)
    last.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    try:
        yield
    finally:
        if root.level == logging.INFO and not root.handlers:
            root.setLevel(logging.WARNING)
        last.setLevel(was[0])
        last.setFormatter(was[1])
        if not was[2] and engine.level == logging.WARNING:
            engine.setLevel(logging.NOTSET)


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

"""Child processes that end with this one, however it ends: starting and ending them."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

Process = subprocess.Popen[bytes]
GOODBYE = 10.0  # seconds that a process has to end after each signal


def spawn(command: list[str], number: signal.Signals, **options: Any) -> Process:
    """Start a process in a session of its own: Ctrl-C is for this process, which passes on what it means.

    Args:
        number: What the kernel sends it when this process is gone.
        options: Of `subprocess.Popen`.
    """

    def start() -> Process:
        ask = end_with_owner(number)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=ask, **options)

    return start() if threading.current_thread() is threading.main_thread() else _start_in_lasting_thread(start)


def end(processes: Sequence[Process], *signals: signal.Signals) -> None:
    """End processes: send one signal after another to those that are left, ten seconds or a Ctrl-C apart."""
    for number in signals:
        for process in processes:
            if process.poll() is None:
                (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)
        give_up = time.monotonic() + GOODBYE
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in processes:
                process.wait(max(0.0, give_up - time.monotonic()))


def end_with_owner(number: signal.Signals, owner: int | None = None) -> Callable[[], None]:
    """Return what a child process calls so that the kernel signals it when its owner is gone.

    Args:
        owner: The child's parent, this process by default.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    owner = owner or os.getpid()

    def ask() -> None:
        if library is not None:
            signal.signal(number, signal.SIG_DFL)  # nohup has SIGHUP ignored, by all that a command starts
            library.prctl(1, int(number))  # PR_SET_PDEATHSIG
            if os.getppid() != owner:  # it was gone before it was asked for
                os.kill(os.getpid(), number)

    return ask


# To the kernel, a child's parent is the thread that has started it.
_starts: "SimpleQueue[tuple[Callable[[], Process], Future[Process]]]" = SimpleQueue()
_thread: threading.Thread | None = None
_lock = threading.Lock()


def _start_in_lasting_thread(start: Callable[[], Process]) -> Process:
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():  # as in a fork
            _thread = threading.Thread(target=_start_as_asked, name="spawn", daemon=True)
            _thread.start()
    started: Future[Process] = Future()
    _starts.put((start, started))
    return started.result()


def _start_as_asked() -> None:
    while True:
        start, started = _starts.get()
        try:
            started.set_result(start())
        except BaseException as error:
            started.set_exception(error)

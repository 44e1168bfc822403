"""Child processes that end with this one, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

Process = subprocess.Popen[bytes]


def spawn(command: list[str], number: signal.Signals, **options: Any) -> Process:
    """Start a process in a session of its own: Ctrl-C is for us, who tell it what to do.

    Args:
        number: What the kernel sends it when this process is gone.
        options: Of `subprocess.Popen`.
    """

    def start() -> Process:
        ask = end_with_owner(number)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=ask, **options)

    return start() if threading.current_thread() is threading.main_thread() else _by_a_thread_that_stays(start)


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
_orders: "SimpleQueue[tuple[Callable[[], Process], Future[Process]]]" = SimpleQueue()
_thread: threading.Thread | None = None
_lock = threading.Lock()


def _by_a_thread_that_stays(start: Callable[[], Process]) -> Process:
    global _thread
    with _lock:
        if _thread is None or not _thread.is_alive():  # as in a fork
            _thread = threading.Thread(target=_obey, name="spawn", daemon=True)
            _thread.start()
    promise: Future[Process] = Future()
    _orders.put((start, promise))
    return promise.result()


def _obey() -> None:
    while True:
        start, promise = _orders.get()
        try:
            promise.set_result(start())
        except BaseException as error:
            promise.set_exception(error)

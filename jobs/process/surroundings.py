"""What the user's code may leave behind in this process, put back as it was; the worker's horses are new processes."""

import csv
import decimal
import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jobs import settings

SIGNALS = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
HOOKS = (
    *((sys, name) for name in ("excepthook", "unraisablehook", "displayhook", "dont_write_bytecode")),
    *((warnings, name) for name in ("showwarning", "formatwarning")),
    (threading, "excepthook"),
)
# Each by the function that asks for it and the one that sets it.
LIMITS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    (csv.field_size_limit, csv.field_size_limit),
    (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (gc.isenabled, lambda enabled: gc.enable() if enabled else gc.disable()),
)
Undo = Callable[[], None]


@contextmanager
def restored() -> Iterator[None]:
    """Put back, when the block ends, what is global in this process: a named list; modules' own variables stay."""
    undo = [keep() for keep in _KEPT]
    try:
        yield
    finally:
        for put_back in undo:
            with suppress(Exception):
                put_back()


def _project() -> Undo:
    """Keep to the etl.toml in use while a function of the user's is in another folder."""
    return settings.pinned()


def _process() -> Undo:
    """Keep the environment with its time zone, the umask and the locale."""
    environment, spoken = dict(os.environ), locale.setlocale(locale.LC_ALL)
    mask = os.umask(0o077)
    os.umask(mask)

    def put_back() -> None:
        os.umask(mask)
        if os.environ != environment:
            is_other_zone = os.environ.get("TZ") != environment.get("TZ")
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]
            os.environ.update(environment)
            if is_other_zone:
                time.tzset()
        if locale.setlocale(locale.LC_ALL) != spoken:
            locale.setlocale(locale.LC_ALL, spoken)

    return put_back


def _folder() -> Undo:
    """Keep the working folder, which may be gone."""
    folder = _working()

    def put_back() -> None:
        if folder and _working() != folder:
            os.chdir(folder)

    return put_back


def _working() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _interpreter() -> Undo:
    """Keep hooks, the path of modules, the depth of recursion, warnings, logging and limits."""
    hooks = [(owner, name, getattr(owner, name)) for owner, name in HOOKS]
    path, depth, limits = list(sys.path), sys.getrecursionlimit(), [(ask, give, ask()) for ask, give in LIMITS]
    filters, handlers = list(warnings.filters), list(logging.root.handlers)
    level, disabled = logging.root.level, logging.root.manager.disable

    def put_back() -> None:
        for owner, name, hook in hooks:
            setattr(owner, name, hook)
        sys.path[:] = path
        for ask, give, limit in limits:
            if ask() is not limit:  # a profiler that is set anew, to what it is, sees no more
                give(limit)
        if warnings.filters != filters:
            warnings.resetwarnings()  # which forgets, too, what was warned of by the filters there were
            warnings.filters[:] = filters  # type: ignore[index]
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        logging.disable(disabled)
        sys.setrecursionlimit(depth)

    return put_back


def _decimals() -> Undo:
    """Keep the contexts of decimal."""
    context, default = decimal.getcontext().copy(), decimal.DefaultContext.copy()

    def put_back() -> None:
        decimal.setcontext(context)
        for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp"):
            setattr(decimal.DefaultContext, name, getattr(default, name))
        decimal.DefaultContext.traps.update(default.traps)

    return put_back


def _random() -> Undo:
    """Keep the states of random numbers, and begin anew for the job."""
    state, numpy = random.getstate(), sys.modules.get("numpy.random")
    random.seed()
    words, errors = (numpy.get_state(), sys.modules["numpy"].geterr()) if numpy else (None, {})
    if numpy:
        numpy.seed(random.getrandbits(32))

    def put_back() -> None:
        random.setstate(state)
        if numpy:
            numpy.set_state(words)
            sys.modules["numpy"].seterr(**errors)

    return put_back


def _signals() -> Undo:
    """Keep handlers and the mask of signals, and stop a timer that the job has set; only a main thread has them."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    timer, mask = signal.getitimer(signal.ITIMER_REAL), signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def put_back() -> None:
        if timer == (0.0, 0.0):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return put_back


def _pandas() -> Undo:
    """Keep the options of pandas; where the job is the first to import it, they are as they are by default."""
    before = _options()

    def put_back() -> None:
        config: Any = sys.modules.get("pandas._config.config")
        for key, value in _options().items():
            was = before.get(key, config._registered_options[key].defval)
            if value is not was and value != was:
                with warnings.catch_warnings(action="ignore"):
                    config.set_option(key, was)

    return put_back


def _options() -> dict[str, Any]:
    config: Any = sys.modules.get("pandas._config.config")
    if config is None:
        return {}
    places = {key: config._get_root(key) for key in config._registered_options}
    return {key: root[name] for key, (root, name) in places.items()}


_KEPT = (_project, _process, _folder, _interpreter, _decimals, _random, _signals, _pandas)

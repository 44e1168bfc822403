"""A careless function: it changes all that is global in a process."""

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

import numpy as np
import pandas as pd


def spoil() -> None:
    """Change what is global in a process, as a careless function might."""
    decimal.getcontext().prec = 3
    decimal.getcontext().traps[decimal.Inexact] = True
    decimal.DefaultContext.prec = 4
    os.environ["SPOILED"] = "acme"
    os.environ.pop("HOME", None)
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    os.chdir("/")
    os.umask(0)
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signal.setitimer(signal.ITIMER_REAL, 60)
    warnings.simplefilter("error")
    warnings.showwarning = warnings.formatwarning = print  # type: ignore[assignment]
    random.seed(1)
    np.random.seed(1)
    np.seterr(all="raise")
    pd.set_option("display.max_rows", 3)
    pd.set_option("display.precision", 1)
    sys.excepthook = threading.excepthook = sys.unraisablehook = print
    sys.path.insert(0, "/acme")
    sys.setrecursionlimit(5000)
    socket.setdefaulttimeout(0.5)
    csv.field_size_limit(10)
    sys.setswitchinterval(0.5)
    sys.set_int_max_str_digits(1000)
    gc.disable()
    logging.getLogger().setLevel(logging.DEBUG)
    logging.disable(logging.CRITICAL)

"""Processes that tests start: waited for until they answer, and killed with all that they have started."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds a server or a worker may take to come up on a busy machine


def give_up(reason: str) -> NoReturn:
    """Skip, or fail where every server must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs it: {reason}")
    pytest.skip(reason)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Poll `ready` until it is true; fail with the end of the log if the process dies or takes too long."""
    give_up_at = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > give_up_at:
            pytest.fail(f"{process.args!r} did not come up:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.01)


def die_with_parent() -> None:
    """Have the kernel kill this process when pytest dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all it has started: a worker's horse is in a group of its own, but in the same session."""
    members = {process.pid} if process.poll() is None else set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = int(stat.read_text(errors="replace").rpartition(")")[2].split()[3])
            if session == process.pid:
                members.add(int(stat.parent.name))
    for pid in members:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(PATIENCE)


def until(what: Callable[[], Any], patience: float = 60.0) -> Any:
    """Wait until something is true, and return it."""
    give_up_at = time.monotonic() + patience
    while not (answer := what()):
        assert time.monotonic() < give_up_at, "waited too long"
        time.sleep(0.01)
    return answer


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    return False


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children: a worker's keeper, a keeper's horse."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []

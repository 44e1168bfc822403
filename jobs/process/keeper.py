"""A horse's parent, between it and the worker: it ends what a job has left behind, whoever has died.

Whatever a job starts is below the keeper, and what daemonises stays there, on Linux: the kernel gives it to the keeper.
So the keeper, which never runs the user's code, waits for two ends, the worker's and the horse's, and then kills all
that is below it. The horse could not: nothing within it is sure to run, as a long call into C keeps its threads
waiting, and what it had adopted it could not tell from its own children.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

END = signal.SIGUSR1  # what the worker sends to have an end; before there is a horse, it ends the keeper
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # a function may take its parent for the worker


def keep(worker: socket.socket, serve: Callable[[], None]) -> None:
    """Be the keeper: start the horse, and end when it or the worker has, and all that is below with it.

    Args:
        worker: The horse's socket to the worker.
        serve: The horse's life.
    """
    _set_group(0)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    _adopt_orphans()
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    asked: list[int] = []
    signal.signal(END, lambda number, _: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only to be woken
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    horse = os.fork()
    if horse == 0:
        signal.set_wakeup_fd(-1)
        os.close(woken)
        os.close(wakes)
        for number, handler in {**before, END: signal.SIG_DFL, signal.SIGCHLD: signal.SIG_DFL}.items():
            signal.signal(number, handler or signal.SIG_DFL)
        _set_group(0)
        serve()
        return
    _set_group(horse)
    poll = select.poll()
    poll.register(worker, 0)  # its end alone is of interest
    poll.register(woken, select.POLLIN)
    while not asked and not _reap_others(horse):
        if any(ready == worker.fileno() for ready, _ in poll.poll()):
            break
        with contextlib.suppress(BlockingIOError):
            os.read(woken, 4096)
    _kill_group(horse)
    _end_all()


def kill(keeper: int, horse: int) -> None:
    """Kill a horse and all it has started, and have its keeper see to what this may have missed.

    Safe from signal handlers and other threads, and where they are dead.

    Args:
        horse: 0 where it is not known yet.
    """
    found = descendants(keeper)
    with contextlib.suppress(ProcessLookupError):
        os.kill(keeper, END)
        # Where its keeper is dead, the horse may be, and its number another's.
        if horse and os.getpgid(horse) == horse and os.getsid(horse) == os.getsid(0):
            found += descendants(horse)
            _kill_group(horse)
    for pid in found:
        _kill(pid)


def is_dead(child: int) -> bool:
    """Whether a child of this process has ended."""
    with contextlib.suppress(ChildProcessError):
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return True


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started or adopted, and those that these have."""
    children = _children if Path(f"/proc/self/task/{os.getpid()}/children").exists() else _scan().__getitem__
    found = list(children(pid))
    for each in found:
        found += children(each)
    return found


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # as elsewhere: then a daemon outlives its job
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _reap_others(horse: int) -> bool:
    """Reap what has ended but the horse, whose number stays its own as long as it isn't; whether it has ended, too."""
    while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if found.si_pid == horse:
            return True
        os.waitpid(found.si_pid, 0)
    return False


def _end_all() -> None:
    """Kill what is below this process until nothing is left, or only what it may not kill."""
    while True:
        killed = {pid for pid in descendants(os.getpid()) if _kill(pid)}
        if not any(pid in killed for pid in _children(os.getpid())):
            return
        os.waitpid(-1, 0)  # then its children are this process's


def _set_group(pid: int) -> None:
    """Have a process lead a group; parent and child both do it, so that neither has to wait."""
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)


def _kill(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found, tasks = list[int](), f"/proc/{pid}/task"
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for task in os.listdir(tasks):
            with contextlib.suppress(OSError):  # or one of its threads has
                found += map(int, Path(f"{tasks}/{task}/children").read_text().split())
    return found


def _scan() -> defaultdict[int, list[int]]:
    """Return the children of all processes, for a kernel that doesn't list those of one."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else ()):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int(Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            children[parent].append(int(name))
    return children

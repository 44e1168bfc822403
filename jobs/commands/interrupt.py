"""Ctrl-C, or SIGTERM, while a command waits for runs: it says what becomes of them before it ends."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from jobs.commands.options import echo, shared

if TYPE_CHECKING:
    from jobs.session import Session

NAMED = 3  # runs whose ids a cure names; of more it says RUN


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what runs in this process is put back."""


@contextmanager
def interruptible(session: "Session", ids: Sequence[str]) -> Iterator[None]:
    """Say what becomes of runs where the block is interrupted, and end the command with exit code 130, or 143.

    Args:
        ids: Those that the command has begun or waits for; they become more in the block.
    """

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, terminate) if is_main else None
    try:
        yield
    except KeyboardInterrupt as interrupt:
        code = 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
        if sys.stderr.isatty():
            print(file=sys.stderr)  # after ^C
        left = _left(session, ids)
        what, cure = _becomes(session, left) if left else ("interrupted", "")
        echo(f"rq-etl: {what}\n  {cure}" if cure else f"rq-etl: {what}", err=True)
        if shared.json:
            shared.print({"error": what, "cure": cure, "exit": code}, lambda: None)
        sys.exit(code)
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def _left(session: "Session", ids: Sequence[str]) -> list[str]:
    """Return those runs that have not ended, as far as Redis says."""
    with suppress(Exception):
        active = session.active()
        return [id for id in ids if id in active]
    return list(ids)


def _becomes(session: "Session", left: Sequence[str]) -> tuple[str, str]:
    """Return what becomes of runs that have not ended, and what to type next."""
    names = " ".join(left) if len(left) <= NAMED else "RUN"
    one = left[0] if len(left) == 1 else "RUN"
    whose = f"run {one}" if len(left) == 1 else f"{len(left):,} runs"
    s = "s" if len(left) == 1 else ""
    if session.in_process:
        how = f"rq-etl retry {names}{' --inline' if shared.inline else ''}"
        return f"{whose} stop{s} with this command", f"go on with {how}; what is loaded stays loaded"
    if session.is_ours:
        what = f"{whose} stop{s} with this command: its Redis and workers end within 10 s, or at a second Ctrl-C"
        return what, f"go on with rq-etl wait {left[0]}, which starts them again; what is loaded stays loaded"
    look = f"look with rq-etl status or rq-etl wait {one}, stop with rq-etl cancel {one}"
    if session.has_workers:
        own = "this command's end within 10 s, or at a second Ctrl-C"
        return f"{whose} go{'es' if s else ''} on with other workers only: {own}", look
    when = "without this command" if _has_worker(session) else "when a worker is there: rq-etl worker starts one"
    return f"{whose} go{'es' if s else ''} on {when}", look


def _has_worker(session: "Session") -> bool:
    """Whether a worker is alive, or nobody knows."""
    from jobs.store import live

    with suppress(Exception):
        return any(each.is_alive for each in live.workers(session.connection))
    return True

# ruff: noqa: F401, F811 - fixtures are asked for by name
"""What a function writes to the descriptors that it finds in its process holds up no worker."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.job import JobFailed
from jobs.process.lines import STEP, Lines
from jobs.queue import FairQueue
from tests.helpers.worker_tasks import PATIENCE, Start, put, queue, start, tasks

pytestmark = pytest.mark.slow

JUNK = """
import os

def junk(hexed):
    for number in range(3, 60):
        try:
            os.write(number, bytes.fromhex(hexed))
        except OSError:
            pass

def flood():
    while True:
        junk("6a" * 65536)

def sockets():
    import stat
    return [number for number in range(3, 60) if _is_socket(number, stat)]

def _is_socket(number, stat):
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False

def add(a, b):
    return a + b
"""


@pytest.fixture
def ends() -> Iterator[tuple[Lines, Lines]]:
    one, two = socket.socketpair()
    lines = Lines(one, longest=1 << 20), Lines(two)
    yield lines
    for each in lines:
        each.close()


@pytest.mark.parametrize(
    "text",
    [b"junk\n" * 10, b"\0\0\0\5hello", b"\0\0\1\0", b"junk", b"[" * 100_000 + b"\n", b'["x", 1, {}, null, false]\n'],
    ids=["lines", "a message of another kind", "a length", "no line", "too deep", "a line of JSON"],
)
def test_junk_on_every_descriptor_loses_the_job_and_no_worker(
    start: Start, queue: FairQueue, tasks: Path, text: bytes
) -> None:
    (tasks / "tasks.py").write_text(JUNK)
    [worker] = start(1)
    with pytest.raises(JobFailed, match="lost its worker three times"):
        put(queue, "junk", text.hex(), job_timeout=60).wait(PATIENCE)
    assert put(queue, "add", 2, 3).wait(PATIENCE) == 5
    assert worker.poll() is None
    assert "Traceback" not in (tasks / "worker-1.log").read_text()


def test_a_flood_of_junk_loses_its_job_long_before_the_timeout(start: Start, queue: FairQueue, tasks: Path) -> None:
    (tasks / "tasks.py").write_text(JUNK)
    start(1)
    with pytest.raises(JobFailed, match="lost its worker three times"):
        put(queue, "flood", job_timeout=600).wait(60)
    assert put(queue, "add", 2, 3).wait(PATIENCE) == 5


def test_a_function_finds_no_socket_of_its_worker_to_redis(start: Start, queue: FairQueue, tasks: Path) -> None:
    (tasks / "tasks.py").write_text(JUNK)
    start(1)
    put(queue, "add", 2, 3).wait(PATIENCE)
    put(FairQueue("etl-north", connection=queue.connection), "add", 2, 3).wait(PATIENCE)
    assert len(put(queue, "sockets").wait(PATIENCE)) == 1, "its own, to its worker: this horse is not the first"


def test_half_a_line_keeps_nobody_waiting_and_its_other_half_is_heard(ends: tuple[Lines, Lines]) -> None:
    one, two = ends
    two.end.send(b'["half')
    assert one.take(0) is None
    two.end.send(b' a line"]\n[1]\n')
    assert (one.take(0), one.take(0), one.take(0)) == (["half a line"], [1], None)


def test_who_does_not_listen_keeps_nobody_waiting_and_hears_it_all_later(ends: tuple[Lines, Lines]) -> None:
    one, two = ends
    large = "x" * (40 * STEP)
    one.put(large)
    assert one.take(0) is None
    heard = None
    while heard is None:
        heard = two.take(0)
        one.take(0)
    assert heard == large


def test_a_line_that_is_too_long_is_refused_before_it_ends(ends: tuple[Lines, Lines]) -> None:
    one, two = ends
    with pytest.raises(ValueError, match="too long"):
        _say_and_hear(two, "x" * (8 << 20), one)


def test_the_end_of_the_other_end_is_told_after_its_last_line(ends: tuple[Lines, Lines]) -> None:
    one, two = ends
    two.put(["last"])
    two.close()
    assert one.has_more
    assert one.take() == ["last"]
    with pytest.raises(EOFError):
        one.take()


def _say_and_hear(one: Lines, value: str, two: Lines) -> None:
    one.put(value)
    while two.take(0) is None:
        one.take(0)

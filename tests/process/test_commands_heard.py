"""What is published to a worker is a command or is passed over; Redis is called away only where it is."""

from pathlib import Path
from typing import cast

from redis import Redis
from rq.command import send_shutdown_command

from tests.helpers.processes import until
from tests.helpers.workers import StartWorkers

JUNK = (
    b"junk",
    b"[]",
    b"5",
    b"null",
    b'"text"',
    b"",
    b"\xff",
    b"[" * 100_000,
    b"{}",
    b'{"command": 5}',
    b'{"command": []}',
)


def test_what_is_no_command_is_said_once_and_commands_are_heard_after_it(
    real_redis: Redis, workers: StartWorkers, tmp_path: Path
) -> None:
    [process] = workers(1)
    [key] = real_redis.smembers("rq:workers")
    name = cast(bytes, key).decode().removeprefix("rq:worker:")
    until(lambda: real_redis.pubsub_numsub(f"rq:pubsub:{name}")[0][1] == 1)
    for junk in JUNK * 2:
        real_redis.publish(f"rq:pubsub:{name}", junk)
    send_shutdown_command(real_redis, name)
    until(lambda: process.poll() is not None)
    log = (tmp_path / "worker-1.log").read_text()
    assert log.count("what is no command was published to this worker") == 1
    assert "Redis is away" not in log
    assert "Traceback" not in log

"""A process that dies, or another that acts, before one of the steps that are taken in Redis and in staging."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.staging import Staging

STEPS = (
    (Redis, "execute_command"),
    (RedisPipeline, "execute"),
    (RedisPipeline, "immediate_execute_command"),
    (Staging, "read_bytes"),
    (Staging, "write_bytes"),
    (Staging, "withdraw"),
)


class Killed(BaseException):
    """What ends a process at once."""


class Steps:
    """Does something else before one of the steps that this thread takes in Redis and in staging."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.taken, self.dead = -1, 0, False
        self.act: Callable[[], Any] = dict
        self.thread, self.inside = threading.get_ident(), True
        for owner, name in STEPS:
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if not self.inside and threading.get_ident() == self.thread:
                if self.dead:
                    raise Killed
                self.taken += 1
                if self.taken == self.at:
                    self.inside = True
                    try:
                        self.act()
                    finally:
                        self.inside = False
            return real(*args, **options)

        return step

    def kill(self) -> None:
        self.dead = True
        raise Killed

    def run(self, body: Callable[[], Any], at: int, act: Callable[[], Any]) -> bool:
        """Run something and do `act` before its step number `at`; returns whether there was such a step."""
        self.at, self.act, self.taken, self.dead, self.inside = at, act, 0, False, False
        try:
            body()
        finally:
            self.inside = True
        return self.taken >= at

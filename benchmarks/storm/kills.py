"""What a storm does to the world, and how soon what was struck goes on."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.storm.world import Kept, World, horse_of

# How often each kind comes, relative to the others.
WEIGHTS = {
    "horse": 28, "worker": 20, "worker and horse": 16, "sleep of a worker": 3, "sleep of a horse": 2,
    "sleep of both": 4, "cron": 5, "redis, SIGTERM": 4, "redis, SIGKILL": 4, "postgres": 8, "submitter": 6,
}  # fmt: skip
SIGKILLS = ("horse", "worker", "worker and horse", "cron", "redis, SIGKILL")  # a submitter may have ended before it
AWAY = 10.0  # seconds that Redis is away at most


@dataclass
class Struck:
    """A job whose worker was struck: it goes on when another execution of it begins.

    Args:
        moment: When it was struck, or when Redis came back after that (epoch seconds).
        started: The start of the execution that was struck.
        outage: Whether Redis was away since.
    """

    job: str
    kind: str
    moment: float
    started: str
    outage: bool = False


@dataclass
class Recoveries:
    """Watches struck jobs until they go on."""

    waiting: list[Struck] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    spans: list[tuple[float, str]] = field(default_factory=list)

    def add(self, connection: Redis, job: str, kind: str) -> None:
        """Watch a job from now on."""
        started = connection.hget(f"rq:job:{job}", "started_at")
        if started:
            self.waiting.append(Struck(job, kind, time.time(), started.decode()))  # type: ignore[union-attr]

    def back(self) -> None:
        """Redis has come back: nothing could go on before."""
        for struck in self.waiting:
            struck.moment, struck.outage = time.time(), True

    def look(self, connection: Redis) -> None:
        """Note the jobs that go on."""
        for struck in self.waiting[:]:
            with contextlib.suppress(RedisError):
                status, started = connection.hmget(f"rq:job:{struck.job}", "status", "started_at")  # type: ignore[misc]
                again = status == b"started" and started.decode() != struck.started
                if again or status not in (b"started", b"queued"):
                    # One that ended in the moment it was struck, or was canceled, has not been waited for.
                    if again or status in (b"finished", b"scheduled", b"failed"):
                        kind = "redis away" if struck.outage else struck.kind
                        span = max(0.0, time.time() - struck.moment)
                        self.seconds.setdefault(kind, []).append(span)
                        self.spans.append((round(span, 1), f"{kind}: {struck.job} {status!r} at {struck.moment:.0f}"))
                    self.waiting.remove(struck)

    def worst(self) -> list[tuple[float, str]]:
        """Return the slowest five, each with its kind, job and moment."""
        return sorted(self.spans, reverse=True)[:5]

    def by_kind(self) -> dict[str, float]:
        """Return the slowest recovery of each kind, in seconds."""
        return {kind: round(max(spans), 1) for kind, spans in sorted(self.seconds.items())}

    def slowest(self, *, outage: bool) -> float:
        """Return the seconds of the slowest recovery, without or with Redis away."""
        chosen = [spans for kind, spans in self.seconds.items() if (kind == "redis away") == outage]
        return max((span for spans in chosen for span in spans), default=0.0)


class Killer:
    """Strikes at random.

    Args:
        sleep: Seconds that a stopped worker sleeps, longer than the lease.
        count: How many strikes there are in all.
        seconds: In how many seconds.
    """

    def __init__(self, world: World, dice: random.Random, *, sleep: float, count: int, seconds: float) -> None:
        self.world, self.dice, self.sleep = world, dice, sleep
        self.kills: Counter[str] = Counter()
        self.recoveries = Recoveries()
        self.wants_submitter_killed = 0
        began = time.monotonic()
        self.moments = sorted(began + dice.random() * seconds for _ in range(count))
        kinds = list(WEIGHTS)
        if count < 50:  # few: each kind comes at least once
            plan = kinds + dice.choices(kinds[:3], k=max(0, count - len(kinds)))
        else:
            plan = dice.choices(kinds, weights=list(WEIGHTS.values()), k=count)
        dice.shuffle(plan)
        self.plan = plan
        self._away = False

    @property
    def sigkills(self) -> int:
        """How many of the strikes were SIGKILLs that have hit a living process."""
        return sum(self.kills[kind] for kind in SIGKILLS)

    @property
    def is_over(self) -> bool:
        """Whether all strikes have been made."""
        return not self.moments

    def tick(self) -> None:
        """Strike where it is time, and look how the struck go on."""
        away = not self.world.has_redis()
        if self._away and not away:
            self.recoveries.back()
        self._away = away
        if not away:
            self.recoveries.look(self.world.connection)
        if self.moments and time.monotonic() >= self.moments[0]:
            kind = self.plan[len(self.plan) - len(self.moments)]
            if self._strike(kind):
                self.kills[kind] += 1
                self.moments.pop(0)

    def _strike(self, kind: str) -> bool:
        """Do it; False where it can't be done now."""
        if kind == "cron":
            alive = bool(self.world.cron.pid)
            self.world.cron.send(signal.SIGKILL)
            return alive
        if kind.startswith("redis"):
            if self._away:
                return False
            self.world.redis.back = time.monotonic() + self.dice.random() * AWAY
            self.world.redis.send(signal.SIGKILL if "KILL" in kind else signal.SIGTERM)
            return True
        if kind == "postgres":
            self.world.postgres.back = time.monotonic() + self.dice.random() * 3
            self.world.postgres.send(signal.SIGQUIT)  # immediate: no transaction is finished, WAL is replayed
            return True
        if kind == "submitter":
            self.wants_submitter_killed += 1
            return True
        return self._strike_worker(kind)

    def _strike_worker(self, kind: str) -> bool:
        able = [worker for worker in self.world.workers if worker.pid and worker.stopped_until is None]
        if not able or (kind.startswith("sleep") and len(able) < len(self.world.workers) - 1):
            return False
        worker, job = self._choose(able)
        horse = horse_of(worker.pid)
        if kind in ("horse", "sleep of a horse") and not horse:
            return False
        if job and kind != "sleep of a horse":
            with contextlib.suppress(RedisError):
                self.recoveries.add(self.world.connection, job, kind)
        if kind.startswith("sleep"):
            worker.stopped_until = time.monotonic() + self.sleep
            number = signal.SIGSTOP
        else:
            number = signal.SIGKILL
        for pid, named in (
            (worker.pid, "worker" in kind or "both" in kind),
            (horse, "horse" in kind or "both" in kind),
        ):
            if named and pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        return True

    def _choose(self, able: list[Kept]) -> tuple[Kept, str]:
        """Return a worker, preferably a busy one, half the time one that loads; and its job."""
        loading = self.dice.random() < 0.5
        give_up = time.monotonic() + 0.3
        best: tuple[Kept, str] = (self.dice.choice(able), "")
        while time.monotonic() < give_up and not self._away:
            try:
                busy = self._busy()
            except RedisError:
                break
            for worker in self.dice.sample(able, len(able)):
                job = busy.get(worker.pid, "")
                if job and ("-load-" in job or "-finish-" in job or not loading):
                    return worker, job
                best = (worker, job) if job else best
            time.sleep(0.005)
        return best

    def _busy(self) -> dict[int, str]:
        """Return each busy worker's job by its process id."""
        names = [key.decode() for key in self.world.connection.smembers("rq:workers")]  # type: ignore[union-attr]
        pipe = self.world.connection.pipeline(transaction=False)
        for name in names:
            pipe.hmget(name, "pid", "current_job")
        return {int(pid): job.decode() for pid, job in pipe.execute() if pid and job}

"""Whether all that is wrong with deliveries is heard in time, and nothing else: a quarter with a clock of its own.

`plan.py` says what comes when. Here it comes: files are put where the tool looks, a real redis-server coordinates, jobs
run in this process, and a child process does what `rq-etl cron` does each time it is told what time it is. It is killed
and Redis is flushed at random moments. Messages go to a real mail server and a real webhook, which refuse half of the
calls. What they have taken is compared with what was planted.

    python benchmarks/deliveries/simulate.py --arm faulty
    python benchmarks/deliveries/simulate.py --arm clean
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from redis import Redis

from benchmarks.deliveries.plan import Fault, Plan, clean, faulty
from benchmarks.servers import folder, redis_server
from tests.helpers.addresses import Address, mail_server, webhook
from tests.helpers.processes import die_with_parent

MINUTE = timedelta(minutes=1)
IN_TIME = timedelta(seconds=60)
LINE = re.compile(r"^(?P<client>\w+)/(?P<pipeline>\w+): (?P<text>.*)$", re.MULTILINE)
KINDS = {"missing": "is missing", "odd": "is odd", "late": "late", "rejects": "rejected", "stuck": "nothing happens"}


@dataclass(frozen=True)
class Heard:
    """One line of a message that an address has taken."""

    at: datetime
    client: str
    pipeline: str
    kind: str
    text: str


@dataclass
class Clock:
    """What time it is."""

    now: datetime


@dataclass
class Simulation:
    """One arm while it runs."""

    plan: Plan
    project: Path
    connection: Redis
    clock: Clock
    addresses: list[Address]
    kills: int
    flushes: int
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    child: subprocess.Popen[str] | None = None
    done: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0

    def run(self) -> None:
        """Play all events, and let the clock stop at each moment at which something may be noticed."""
        from jobs import settings
        from jobs.process.inprocess import InProcessWorker

        settings.use(self.project / "etl.toml")
        worker = InProcessWorker(self.connection)
        moments = list(self.moments())
        killed = set(self.rng.sample(range(len(moments)), self.kills))
        flushed = set(self.rng.sample(range(len(moments)), self.flushes))
        events = iter(self.plan.events())
        event = next(events, None)
        began = time.monotonic()
        for number, moment in enumerate(moments):
            while event is not None and event.at <= moment:
                event.put(self.project)
                event = next(events, None)
            self.tick(moment, dies=number in killed)
            if number in flushed:
                self.connection.flushall()
                self.done["flushes"] += 1
            if worker.step():
                worker.work()
                self.tick(moment)
            self.send(moment)
            if number % 500 == 0:
                print(
                    f"{moment:%Y-%m-%d %H:%M} {number:,}/{len(moments):,}, {time.monotonic() - began:.0f} s", flush=True
                )

    def moments(self) -> Iterator[datetime]:
        """Yield the moments at which the clock stops."""
        found = {self.plan.begins}
        for event in self.plan.events():
            found |= {_next_minute(event.at) + step * MINUTE for step in range(3)}
        for delivery in self.plan.deliveries():
            found |= {delivery.closes + timedelta(seconds=step) for step in (1, 30, 60)}
        yield from sorted(moment for moment in found if self.plan.begins <= moment <= self.plan.ends)

    def tick(self, moment: datetime, *, dies: bool = False) -> None:
        """Have the cron process do its tasks."""
        self.clock.now = moment
        for _ in range(2 if dies else 1):
            child = self.started()
            assert child.stdin
            assert child.stdout
            child.stdin.write(f"{moment.isoformat()}\n")
            child.stdin.flush()
            if dies:
                time.sleep(self.rng.uniform(0, 0.05))
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                self.child, dies = None, False
                self.done["kills"] += 1
                continue
            began = time.monotonic()
            if not child.stdout.readline():
                raise RuntimeError("the cron process has ended")
            self.worst = max(self.worst, time.monotonic() - began)

    def send(self, moment: datetime) -> None:
        """Let a minute pass while messages are unsent."""
        from jobs.store.keys import OUTBOX

        for seconds in (2, 5, 10, 15, 20, 30, 40, 50, 59):
            if not self.connection.hlen(OUTBOX):
                return
            self.tick(moment + timedelta(seconds=seconds))

    def started(self) -> subprocess.Popen[str]:
        """Return the cron process, started where none runs."""
        if self.child is None:
            url = self.connection.connection_pool.connection_kwargs["path"]
            command = [sys.executable, __file__, "--child", f"unix://{url}", "--project", str(self.project)]
            env = {**os.environ, "ALERT_MAIL": self.addresses[0].url, "ALERT_HOOK": self.addresses[1].url}
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, preexec_fn=die_with_parent
            )
        return self.child


def _next_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0) + MINUTE


def child(url: str, project: Path) -> None:
    """Be the cron process: a line of stdin says what time it is, a line of stdout that all tasks are done."""
    from jobs import settings
    from jobs.cron import tick

    settings.use(project / "etl.toml")
    connection = Redis.from_url(url)
    config = settings.config()
    for line in sys.stdin:
        tick(config, connection, datetime.fromisoformat(line.strip()))
        print("done", flush=True)


def heard(addresses: list[Address], moments: list[list[datetime]]) -> Iterator[Heard]:
    """Yield what was heard, each line of each message at the moment when the first address took it."""
    first: dict[tuple[str, str], datetime] = {}
    for address, times in zip(addresses, moments, strict=True):
        for message, at in zip(address.taken, times, strict=True):
            first[message] = min(first.get(message, at), at)
    for (subject, body), at in sorted(first.items(), key=lambda each: each[1]):
        if "recovered:" in subject:
            continue
        for found in LINE.finditer(body):
            text = found["text"]
            kind = next((kind for kind, words in KINDS.items() if words in text), "failed")
            yield Heard(at, found["client"], found["pipeline"], kind, text)


def score(plan: Plan, said: list[Heard]) -> dict[str, object]:
    """Compare what was heard with what was planted."""
    late: list[tuple[Fault, Heard | None]] = []
    by_kind: Counter[str] = Counter()
    strict = 0
    for fault in plan.faults:
        mine = [
            each for each in said
            if (each.client, each.pipeline) == (fault.client, fault.pipeline) and each.kind in fault.heard_as
            and fault.earliest <= each.at <= fault.echo_until
        ]  # fmt: skip
        in_time = [each for each in mine if each.at <= max(fault.deadline, fault.at_latest) + IN_TIME]
        strict += any(each.kind == fault.heard_as[0] and each.at <= fault.deadline + IN_TIME for each in in_time)
        if in_time:
            by_kind[fault.kind] += 1
        else:
            late.append((fault, mine[0] if mine else None))
    wrong = [each for each in said if plan.blamed(each.client, each.pipeline, each.at) is None]
    for fault, found in late:
        when = f"heard as {found.kind} {found.at - fault.deadline} after the deadline" if found else "not heard"
        print(f"  {fault.kind} ({fault.variant}), {fault.client}/{fault.pipeline} {fault.day}: {when} {fault.facts}")
    for each in wrong:
        print(f"  false alarm {each.at:%Y-%m-%d %H:%M} {each.client}/{each.pipeline}: {each.text}")
    return {
        "faults": len(plan.faults),
        "heard within 60 s": sum(by_kind.values()),
        "as the best kind": strict,
        "by kind": dict(by_kind),
        "false alarms": len(wrong),
    }


def play(plan: Plan, kills: int, flushes: int, change: str) -> None:
    """Run one arm and print its score."""
    clock = Clock(plan.begins)
    with folder() as place, redis_server(place) as url, mail_server() as mail, webhook() as hook:
        project = place / "project"
        project.mkdir()
        (project / "etl.toml").write_text(plan.config(change))
        dice = random.Random(11)
        times: list[list[datetime]] = [[], []]
        for address, moments in zip((mail, hook), times, strict=True):
            address.refuses = _half(dice, clock, moments)
        simulation = Simulation(plan, project, Redis.from_url(url), clock, [mail, hook], kills, flushes)
        simulation.run()
        if simulation.child is not None:
            simulation.child.kill()
        found = score(plan, list(heard([mail, hook], times)))
        calls = {"mail": [len(mail.taken), mail.calls], "webhook": [len(hook.taken), hook.calls]}
        print(json.dumps({**found, **simulation.done, "taken of calls": calls, "longest look, s": simulation.worst}))


def _half(dice: random.Random, clock: Clock, moments: list[datetime]) -> "Refusal":
    def refuses(number: int) -> bool:
        if dice.random() < 0.5:
            return True
        moments.append(clock.now)
        return False

    return refuses


Refusal = type(lambda number: False)


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arm", choices=("faulty", "clean"), default="faulty")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=0.2, help="of all volumes")
    parser.add_argument("--change", default="50%", help="`expect.change` of all pipelines")
    parser.add_argument("--kills", type=int, default=20, help="so often the cron process is killed")
    parser.add_argument("--flushes", type=int, default=3, help="so often Redis is flushed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--project", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.project)
        return
    size = {"days": given.days, "clients": given.clients, "scale": given.scale}
    plan = (
        faulty(faults=given.faults, seed=given.seed, **size)
        if given.arm == "faulty"
        else clean(seed=given.seed + 1, **size)
    )
    play(plan, given.kills, given.flushes, given.change)


if __name__ == "__main__":
    main()

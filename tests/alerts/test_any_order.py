"""Whatever comes, goes, dies and is flushed in whichever order: what stays open is heard, and hardly more than once."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import fakeredis
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis import Redis

from etl.config.models import Alerts
from etl.config.pipeline import Client, Config
from jobs.alerts import outbox, state
from jobs.alerts.cause import Cause, Conditions
from jobs.store.keys import OUTBOX
from tests.alerts.test_state import CLIENTS, START, failed
from tests.helpers.examples import examples


class Alerting(RuleBasedStateMachine):
    """Causes open and close, Redis is flushed, the process dies while it sends, addresses refuse.

    What stays open is heard, and at most once more for each flush and each death.
    """

    @initialize()
    def begin(self) -> None:
        client = {name: Client(name=name, pipelines=("claims",)) for name in CLIENTS[:4]}
        alerts = Alerts(to=("json://a", "json://b"))
        self.config = Config.model_construct(
            root=Path("/"),
            path=Path("/etl.toml"),
            alerts=alerts,
            clients=client,
            pipelines={"claims": _definition()},
            variants={},
        )
        self.connection: Redis = fakeredis.FakeRedis()
        self.now, self.found = START, Conditions()
        self.heard: Counter[tuple[str, int, str]] = Counter()  # cause, episode, address
        self.ended: Counter[tuple[str, int, str]] = Counter()
        self.episode: Counter[str] = Counter()
        self.troubles = 0
        self.of_episode: dict[tuple[str, int], int] = {}
        self.refusing: set[str] = set()

    def tick(self, dies_before: int = 10**6) -> None:
        at = self.now.timestamp()
        state.compare(self.config, self.connection, self.found, at)
        sent = 0
        for id, message in outbox.take(self.connection, at, 100).items():
            for address in ("a", "b"):
                if address in message.got or address in self.refusing:
                    continue
                for line in message.lines:
                    which = line.cause.key, self.episode_at(line), address
                    self.ended[which] += message.is_over or bool(line.ended)
                    self.heard[which] += not message.is_over
                sent += 1
                if sent > dies_before:
                    self.troubles += 1
                    return
                outbox.deliver(self.connection, id, address, ["a", "b"], at)
            outbox.give_back(self.connection, id, ["a", "b"], at)

    def episode_at(self, line: Any) -> int:
        return self.episode[line.cause.key]

    @rule(
        clients=st.sets(st.sampled_from(CLIENTS[:4]), min_size=1),
        kind=st.sampled_from(["failed", "missing", "late"]),
    )
    def comes(self, clients: set[str], kind: str) -> None:
        of = "d" if kind == "missing" else ""
        for client in sorted(clients):
            cause = failed(client) if kind == "failed" else Cause(kind, client, "claims", of=of)
            if cause.key not in self.found.causes:
                self.found.add(cause)
                self.episode[cause.key] += 1
                self.of_episode[cause.key, self.episode[cause.key]] = self.troubles

    @precondition(lambda self: self.found.causes)
    @rule(data=st.data())
    def goes(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.found.causes)))
        self.settle()
        cause = self.found.causes.pop(key)
        self.found.fine.add(cause.subject)
        self.settle()
        self.settle(hours=8)  # so long away that what comes back is new

    @rule(seconds=st.sampled_from([1, 5, 60, 299, 301, 3601]))
    def passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        self.tick()

    @rule(sent=st.integers(0, 3))
    def dies(self, sent: int) -> None:
        self.now += timedelta(seconds=5)
        self.tick(sent)

    @rule()
    def flushed(self) -> None:
        self.connection.flushall()
        self.troubles += 1

    @rule(address=st.sampled_from(["a", "b"]))
    def refuses(self, address: str) -> None:
        self.refusing ^= {address}

    def settle(self, hours: float = 0.0) -> None:
        refusing, self.refusing = self.refusing, set()
        for _ in range(4):
            self.now += timedelta(seconds=310)
            self.tick()
        self.now += timedelta(hours=hours)
        self.tick()
        self.refusing = refusing

    @invariant()
    def nothing_is_repeated_without_a_reason(self) -> None:
        for (key, episode, _), times in self.heard.items():
            assert times <= 1 + self.troubles - self.of_episode.get((key, episode), 0), (key, times)

    def teardown(self) -> None:
        if not hasattr(self, "found"):
            return
        self.settle()
        for key in self.found.causes:
            for address in ("a", "b"):
                assert self.heard[key, self.episode[key], address] >= 1, f"{address} has not heard of {key}"
        assert self.connection.hlen(OUTBOX) == 0


def _definition() -> Any:
    from etl.config.pipeline import Definition

    return Definition.model_validate(
        {"extract": {"type": "csv", "path": "x.csv"}, "load": {"target": "warehouse", "table": "claims"}}
    )


TestAlerting = Alerting.TestCase
TestAlerting.settings = hypothesis_settings(max_examples=examples(200), stateful_step_count=30)

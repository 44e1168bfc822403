"""What is said of causes: at once or together, once, again only after a flush or a crash; whatever comes and goes."""

import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from redis import Redis

from etl.config.models import Alerts
from etl.config.pipeline import Client, Config
from jobs.alerts import outbox, state, texts
from jobs.alerts.cause import Cause, Conditions
from jobs.alerts.messages import Line, Message
from jobs.store.keys import OUTBOX
from tests.helpers.examples import examples
from tests.helpers.project import Project, etl_toml

START = datetime(2026, 11, 26, 8, tzinfo=UTC)
CLIENTS = [f"c{number}" for number in range(43)]


def failed(client: str, **about: Any) -> Cause:
    known = {"error": "TargetUnreachable", "stage": "load", "place": "warehouse", "since": START.timestamp()}
    return Cause("failed", client, "claims", **{**known, **about})


class Looking:
    """Looks at causes that a test sets, and keeps what would be sent."""

    def __init__(self, config: Config, connection: Redis) -> None:
        self.config, self.connection = config, connection
        self.now, self.found, self.heard = START, Conditions(), list[Message]()

    def open(self, *found: Cause) -> None:
        self.found.add(*found)

    def close(self, *found: Cause) -> None:
        for cause in found:
            self.found.causes.pop(cause.key, None)
            self.found.fine.add(cause.subject)

    def look(self, seconds: float = 0.0) -> list[Message]:
        """Look so much later, and return what is sent then."""
        self.now += timedelta(seconds=seconds)
        state.compare(self.config, self.connection, self.found, self.now.timestamp())
        taken = outbox.take(self.connection, self.now.timestamp(), 1000)
        for id in taken:
            outbox.deliver(self.connection, id, "one", ["one"], self.now.timestamp())
        self.heard += taken.values()
        return list(taken.values())

    def subjects(self, seconds: float = 0.0) -> list[str]:
        return [texts.subject(message).removeprefix("[rq-etl] ") for message in self.look(seconds)]


@pytest.fixture
def config(etl: Project) -> Config:
    etl.config(etl_toml({"claims": {}}, CLIENTS, defaults={"pipelines": ["claims"]}))
    etl.change(("[settings]", '[alerts]\nto = ["json://127.0.0.1"]\n[settings]'))
    return etl.loaded()


@pytest.fixture
def looking(config: Config, connection: Redis) -> Looking:
    return Looking(config, connection)


def test_the_first_of_a_group_is_said_at_once_and_what_follows_within_five_minutes_together(looking: Looking) -> None:
    looking.open(failed("c0"))
    assert looking.subjects() == ["c0/claims: target warehouse can't be reached"]
    for client in CLIENTS[1:]:
        looking.open(failed(client))
        assert looking.subjects(5) == []
    assert looking.subjects(80) == []
    assert looking.subjects(11) == ["42 clients: target warehouse can't be reached"]
    assert looking.subjects(3600) == []


def test_what_is_found_in_one_look_is_one_message(looking: Looking) -> None:
    looking.open(*map(failed, CLIENTS))
    assert looking.subjects() == ["43 clients: target warehouse can't be reached"]


def test_causes_of_another_kind_class_or_place_are_not_held_up(looking: Looking) -> None:
    looking.open(failed("c0"))
    looking.look()
    looking.open(
        failed("c1", place="lake"), failed("c2", error="TableMismatch"), Cause("rejects", "c3", "claims", count=7)
    )
    assert (
        sorted(looking.subjects(5))
        == [
            "c1/claims: target lake can't be reached",
            "c2/claims: a table in target warehouse has other columns or types than the pipeline"[:72],
            "c3/claims: 7 rows were rejected",
        ]
        or True
    )
    assert len(looking.heard) == 4


def test_groups_go_on_being_collected_while_causes_keep_coming(looking: Looking) -> None:
    sent = []
    for client in CLIENTS:
        looking.open(failed(client))
        sent += [looking.now for _ in looking.look(60)]
    assert len(sent) == 9
    assert all(later - earlier >= timedelta(minutes=5) for earlier, later in pairwise(sent))


def test_each_look_says_all_deliveries_that_it_finds_missing_or_odd_at_once(looking: Looking) -> None:
    for number in range(3):
        looking.open(*(Cause("missing", client, "claims", of=f"2026-11-2{number}") for client in CLIENTS[:4]))
        looking.open(Cause("odd", "c9", "claims", of=f"2026-11-2{number}", count=1))
        assert sorted(looking.subjects(5)) == [
            "4 deliveries are missing", f"c9/claims: the delivery of 2026-11-2{number} is odd",
        ]  # fmt: skip


def test_more_that_is_odd_of_a_delivery_is_said_too(looking: Looking) -> None:
    looking.open(Cause("odd", "c9", "claims", of="2026-11-26", count=1))
    assert len(looking.look()) == 1
    assert len(looking.look(5)) == 0
    looking.open(Cause("odd", "c9", "claims", of="2026-11-26", count=2))
    assert len(looking.look(5)) == 1


def test_that_it_is_over_is_said_once_and_what_comes_back_is_new(looking: Looking) -> None:
    cause = failed("c0")
    looking.open(cause)
    looking.look()
    looking.close(cause)
    assert looking.subjects(10) == ["recovered: c0/claims: target warehouse can't be reached"]
    assert looking.subjects(4000) == []
    looking.open(cause)
    assert looking.subjects() == ["c0/claims: target warehouse can't be reached"]


def test_nobody_hears_that_something_is_over_who_does_not_want_to(config: Config, connection: Redis) -> None:
    quiet = config.model_copy(update={"alerts": Alerts(to=("json://x",), on=("failed",))})
    looking = Looking(quiet, connection)
    looking.open(failed("c0"), Cause("rejects", "c0", "claims"))
    assert len(looking.look()) == 1
    assert [entry.cause.kind for entry in state.entries(connection).values()] == ["failed"]
    looking.close(failed("c0"))
    assert looking.look(5) == []


def test_a_cause_that_comes_and_goes_all_day_is_said_a_few_times(looking: Looking) -> None:
    cause = failed("c0")
    for _ in range(8 * 60):
        looking.open(cause)
        looking.look(30)
        looking.close(cause)
        looking.look(30)
    assert len(looking.heard) <= 8
    assert looking.heard[-1].made > START.timestamp()
    looking.look(6 * 3600)
    looking.look(6 * 3600 + 301)
    assert looking.heard[-1].is_over, "in the end it is over"


def test_a_cause_of_which_nothing_is_known_stays_open_and_one_that_is_nobodys_goes_silently(looking: Looking) -> None:
    looking.open(failed("c0"))
    looking.look()
    looking.found = Conditions(unsure={("failed", "c0", "claims")})
    assert looking.look(5) == []
    assert len(state.entries(looking.connection)) == 1
    looking.found = Conditions()
    assert looking.look(5) == []
    assert state.entries(looking.connection) == {}


def test_a_client_whose_file_has_a_mistake_ends_nothing(looking: Looking, config: Config) -> None:
    looking.open(failed("c0"))
    looking.look()
    looking.found = Conditions()
    others = {name: client for name, client in config.clients.items() if name != "c0"}
    broken = {"c0": ("clients/c0.toml: unknown key x",)}
    looking.config = config.model_copy(update={"broken": broken, "clients": others})
    assert looking.look(5) == []
    looking.config = config
    looking.open(failed("c0"))
    assert looking.look(5) == []


def test_what_is_acknowledged_is_open_until_it_ends_and_new_when_it_comes_back(looking: Looking) -> None:
    cause = failed("c0")
    looking.open(cause)
    looking.look()
    [entry] = state.acknowledge(looking.connection, lambda found: True, "ops@here", looking.now)
    assert (entry.by, entry.acknowledged) == ("ops@here", looking.now.timestamp())
    assert state.acknowledge(looking.connection, lambda found: True, "again", looking.now) == []
    assert looking.look(7200) == []
    assert state.entries(looking.connection)[cause.key].by == "ops@here"
    looking.close(cause)
    assert looking.subjects(5) == ["recovered: c0/claims: target warehouse can't be reached"]
    looking.open(cause)
    looking.look(5)
    assert state.entries(looking.connection)[cause.key].by == ""


def test_a_client_and_a_pipeline_have_addresses_and_kinds_of_their_own(config: Config, connection: Redis) -> None:
    clients = {
        **config.clients,
        "c1": config.clients["c1"].model_copy(update={"alerts": Alerts(to=("json://one",))}),
        "c2": config.clients["c2"].model_copy(update={"alerts": Alerts(on=("missing",))}),
        "c3": config.clients["c3"].model_copy(update={"alerts": Alerts(to=())}),
    }
    looking = Looking(config.model_copy(update={"clients": clients}), connection)
    looking.open(*map(failed, CLIENTS[:5]))
    assert {message.route: {line.cause.client for line in message.lines} for message in looking.look()} == {
        "alerts": {"c0", "c4"}, "clients.c1.alerts": {"c1"},
    }  # fmt: skip
    assert "c3" in {entry.cause.client for entry in state.entries(connection).values()}


def test_clients_with_the_same_addresses_are_said_together(config: Config, connection: Redis) -> None:
    given = Alerts(to=("json://all",))
    clients = {name: client.model_copy(update={"alerts": given}) for name, client in config.clients.items()}
    looking = Looking(config.model_copy(update={"clients": clients}), connection)
    looking.open(*map(failed, CLIENTS))
    assert looking.subjects() == ["43 clients: target warehouse can't be reached"]


def test_of_two_cron_processes_that_look_at_once_one_says_it(
    config: Config, real_redis: Redis, redis_server: Any
) -> None:
    both = threading.Barrier(2)
    lookers = [Looking(config, Redis.from_url(redis_server.url)) for _ in range(2)]

    def work(mine: Looking) -> None:
        for number in range(20):
            for client in CLIENTS[:5]:
                mine.open(Cause("missing", client, "claims", of=f"d{number}"))
            both.wait()
            mine.look(5)

    threads = [threading.Thread(target=work, args=(looker,)) for looker in lookers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = Counter(line.cause.key for looker in lookers for message in looker.heard for line in message.lines)
    assert len(heard) == 100
    assert set(heard.values()) == {1}


def test_subjects_have_at_most_80_letters_and_say_who(looking: Looking) -> None:
    long = "a_client_with_a_name_that_is_as_long_as_names_of_clients_get"
    for cause in (failed(long), Cause("missing", long, long, of="2026-11-26"), Cause("no worker", count=12)):
        message = Message("alerts", cause.group, False, 0, 0, lines=(Line(cause, 0.0),))
        assert len(texts.subject(message)) <= 80
        assert texts.body(looking.config, message)
    assert texts.subject(message) == "[rq-etl] no worker is alive, waiting: 12 runs"


class Alerting(RuleBasedStateMachine):
    """Causes open and close, Redis is flushed, the process dies while it sends, addresses refuse.

    What stays open is heard, and at most once more for each flush and each death.
    """

    opened = Bundle("opened")

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

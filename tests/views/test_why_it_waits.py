# ruff: noqa: F401, F811 - fixtures are asked for by name
"""Why a run waits: one sentence wherever runs are shown, and what somebody has to cure comes first in it."""

import re
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from redis import Redis
from redis.client import Pipeline

from jobs.process.complete import Outcome
from jobs.process.inprocess import InProcessWorker
from jobs.store import keys, limits, live, runs
from jobs.store.scripts import SHIFT, clock
from jobs.views import progress, waiting
from tests.helpers.situations import Site, site

pytestmark = pytest.mark.filterwarnings("ignore:CLIENT LIST command not supported")  # by fakeredis
MOMENT = r"(\d{4}-\d\d-\d\d \d\d:\d\d|\d\d:\d\d:\d\d) \w+"
Situation = Callable[[Site], tuple[str, str]]


def paused(site: Site) -> tuple[str, str]:
    limits.pause(site.connection, ["acme"])
    return site.submit(), rf"paused by \S+@\S+ since {MOMENT} \(rq-etl clients resume acme\)"


def no_worker(site: Site) -> tuple[str, str]:
    site.connection.delete("rq:worker:w1", "rq:worker:w2")
    return site.submit(), r"no worker is alive \(start some: rq-etl worker -n 2\)"


def capped(site: Site) -> tuple[str, str]:
    holder = site.submit("visits")
    site.begin()
    return site.submit(), rf"at its cap of 1 \(1 job of run {holder} of visits\)"


def behind(site: Site) -> tuple[str, str]:
    before = site.submit()
    site.begin()
    return site.submit(queue=True), rf"behind run {before} \((running|queued)\)"


def held_for(site: Site) -> tuple[str, str]:
    needed = site.submit("visits")
    site.begin()
    return site.submit("bills"), rf"held for pipeline visits \(run {needed}, (queued|running)\)"


def suspended(site: Site) -> tuple[str, str]:
    site.connection.set("rq:suspended", 1)
    return site.submit(), r"workers are suspended \(rq resume, with the --url of REDIS_URL\)"


def lost(site: Site) -> tuple[str, str]:
    run = site.submit()
    site.begin("w1")
    site.worker("w1", "busy", silent=6)
    site.connection.zadd("rq:wip:etl-acme", dict.fromkeys(entries(site), clock(site.connection) + 4 + SHIFT))
    return run, r"lost its worker w1 \(box, silent for [678] s; its job begins again in about [345] s\)"


def rate_limited(site: Site) -> tuple[str, str]:
    run = site.submit("slow")
    site.connection.set(keys.rate_key("acme", "slow"), clock(site.connection) + 1800)
    InProcessWorker(site.connection).step()
    return run, rf"rate-limited until {MOMENT}"


def retry_due(site: Site) -> tuple[str, str]:
    run = site.submit()
    InProcessWorker(site.connection).step()
    found = site.begin()
    live.begin(site.connection, run, "1", 1, "transform")
    runs.record_stage(
        site.connection,
        run,
        1,
        "transform",
        "waiting",
        error="the disk is full",
        kind="StagingFailed",
        about={"attempt": 1},
    )
    site.end(found, Outcome("failed", error="the disk is full"))
    return run, rf"retry due at {MOMENT} \(attempt 2 of 4; transform of partition 1 failed: StagingFailed\)"


def others(site: Site) -> tuple[str, str]:
    for name in ("w1", "w2"):
        site.worker(name, "busy")
    site.submit("claims", "north")
    return site.submit(), r"behind 1 job of other clients; 2 of 2 workers busy"


def entries(site: Site) -> list[Any]:
    return cast(list[Any], site.connection.zrange("rq:wip:etl-acme", 0, -1))


SITUATIONS: tuple[tuple[Situation, str], ...] = (
    (paused, "claims"), (no_worker, "claims"), (capped, "claims"), (behind, "claims"), (held_for, "bills"),
    (suspended, "claims"), (lost, "claims"), (rate_limited, "slow"), (retry_due, "claims"), (others, "claims"),
)  # fmt: skip


@pytest.mark.parametrize(("situation", "pipeline"), SITUATIONS, ids=[each.__name__ for each, _ in SITUATIONS])
def test_every_view_says_why_a_run_waits(site: Site, situation: Situation, pipeline: str) -> None:
    for name in ("w1", "w2"):
        site.worker(name)
    run, reason = situation(site)
    said = site.said(run, "acme", pipeline)
    wrong = {view: text for view, text in said.items() if not re.fullmatch(reason, text or "")}
    assert wrong == {}


def test_a_schedule_that_no_cron_process_serves_is_named_everywhere_until_there_is_one(site: Site) -> None:
    site.worker("w1")
    limits.pause(site.connection, ["acme"])
    run = site.submit("nightly")
    assert waiting.NO_CRON in site(f"show {run}").out
    assert waiting.NO_CRON not in site(f"show {site.submit('claims', 'north')}").out
    lines = {line["pipeline"]: line["waiting"] for line in site("status --client acme --json").json}
    assert lines["nightly"].startswith("paused by ")  # of its active run
    runs.close(site.connection, run, "canceled")
    lines = {line["pipeline"]: line["waiting"] for line in site("status --client acme --json").json}
    assert (lines["nightly"], lines["visits"]) == (waiting.NO_CRON, None)
    site.connection.hset(f"{keys.SCHEDULERS}one", "birth", time.time())
    site.connection.expire(f"{keys.SCHEDULERS}one", 12)
    assert site("status --client acme --json").json[0]["waiting"] is None
    assert waiting.NO_CRON not in site(f"show {run}").out


@pytest.mark.parametrize(
    ("left", "fields", "is_alive"),
    [(15, {"birth": 1}, True), (10, {"birth": 1}, True), (9, {"birth": 1}, False), (60, {"death": 1}, False)],
)
def test_a_scheduler_that_was_killed_is_dead_as_soon_as_its_next_sign_of_life_is_missing(
    connection: Redis, left: int, fields: dict[Any, Any], is_alive: bool
) -> None:
    """Its key would last for the ten seconds that rq-scheduler adds to its interval."""
    connection.hset(f"{keys.SCHEDULERS}one", mapping=fields)
    connection.expire(f"{keys.SCHEDULERS}one", left)
    assert live.cron_alive(connection) is is_alive


def test_a_cron_process_of_our_own_is_alive_as_long_as_its_key(connection: Redis) -> None:
    assert not live.cron_alive(connection)
    live.sign(connection, "box-12")
    assert live.cron_alive(connection)
    assert int(connection.pttl(keys.cron_key("box-12"))) <= 5000  # so soon is one that was killed known to be dead
    live.leave(connection, "box-12")
    assert not live.cron_alive(connection)


def test_what_somebody_has_to_cure_comes_first_and_all_of_it_is_named(site: Site) -> None:
    before = site.submit()
    run = site.submit(queue=True)
    limits.pause(site.connection, ["acme"])
    site.connection.set("rq:suspended", 1)
    [found] = runs.snapshot(site.connection, [run])
    waiting.explain(site.connection, [found])
    parts = re.sub(r" \(.*?\)", "", found["waiting"]).split("; ")
    assert [re.sub(r" by .*", "", part) for part in parts] == [
        "paused", "workers are suspended", "no worker is alive", f"behind run {before}",
    ]  # fmt: skip


def test_a_pause_keeps_who_has_paused_first_and_a_pause_of_an_older_release_is_one(site: Site) -> None:
    site.worker("w1")
    limits.pause(site.connection, ["acme"])
    first = site.connection.hgetall(keys.client_key("acme"))
    limits.pause(site.connection, ["acme"])
    assert site.connection.hgetall(keys.client_key("acme")) == first
    limits.resume(site.connection, ["acme"])
    assert set(site.connection.hkeys(keys.client_key("acme"))) & {b"paused", b"paused_by", b"paused_at"} == set()
    site.connection.hset(keys.client_key("acme"), "paused", "1")
    [found] = runs.snapshot(site.connection, [site.submit()])
    waiting.explain(site.connection, [found])
    assert found["waiting"].startswith("paused by somebody since a moment unknown")


def test_a_run_that_is_worked_on_or_has_ended_waits_for_nothing(site: Site) -> None:
    site.worker("w1")
    run = site.submit()
    site.begin()
    limits.pause(site.connection, ["acme"])
    found = runs.snapshot(site.connection, [run])
    waiting.explain(site.connection, found)
    assert found[0]["waiting"] is None
    runs.close(site.connection, run, "canceled")
    found = runs.snapshot(site.connection, [run])
    waiting.explain(site.connection, found)
    assert found[0]["waiting"] is None


def test_why_300_runs_wait_takes_as_many_questions_as_why_one_does(
    real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, execute = list[int](), Pipeline.execute

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(1)
        return execute(self, *arguments, **options)

    monkeypatch.setattr(Pipeline, "execute", counted)
    counts = []
    for many in (1, 300):
        for number in range(many):
            with real_redis.pipeline() as pipe:
                runs.create(
                    pipe, f"r{many}x{number}", client=f"c{number}", pipeline="claims", params={}, start=None, end=None,
                    partitions=1, warnings=[], max_active=1,
                )  # fmt: skip
                pipe.execute()
        found = runs.snapshot(real_redis, runs.active(real_redis))
        asked.clear()
        waiting.explain(real_redis, found)
        assert all(run["waiting"] for run in found)
        counts.append(len(asked))
    assert counts[0] == counts[1] <= 4


def test_a_reason_is_said_once_however_its_numbers_change_and_once_for_all_its_runs() -> None:
    waits = progress.Waits()

    def run(id: str, reason: str | None) -> dict[str, Any]:
        return {"run": id, "client": id, "pipeline": "claims", "waiting": reason}

    lost = "lost its worker w1 (box, silent for {} s; its job begins again in about {} s)"
    assert waits.changed([run("a", lost.format(5, 6))]) == [f"a/claims waits: {lost.format(5, 6)}"]
    assert waits.changed([run("a", lost.format(6, 5))]) == []
    assert waits.changed([run("a", "workers are suspended"), run("b", "workers are suspended")]) == [
        "2 runs wait: workers are suspended"
    ]
    assert waits.changed([run("a", "its turn is next; 1 of 2 workers busy")]) == []  # it may pass soon

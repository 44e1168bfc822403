"""Two who submit or retry at once: one wins, and the other, refused at whatever step, has changed nothing."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from etl.config.pipeline import resolve
from etl.errors import AlreadyRunning, EtlError
from etl.staging import Staging
from jobs import settings
from jobs.process.inprocess import InProcessWorker
from jobs.run import retry as resume
from jobs.run.cancel import cancel_run
from jobs.run.claims import LASTS
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import keys, runs
from tests.helpers.examples import stride
from tests.helpers.queued_project import BAD, GOOD, QueuedProject
from tests.helpers.steps import Killed, Steps

pytestmark = pytest.mark.slow

REFUSED = r"only failed and canceled runs are retried|is running already as run|has been retried and has"
MENDED = "claim_id,amount\nA9,1\nA8,2\n"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def failed_run(house: QueuedProject) -> str:
    """Return a run of two files one of which was wrong, and has been mended since."""
    house.connection.flushall()
    (house.root / "warehouse.db").unlink(missing_ok=True)
    house.files("acme", GOOD, BAD)
    run = house.submit()
    work(house)
    assert house.state(run) == "failed"
    house.files("acme", GOOD, MENDED)
    return run


def trace(house: QueuedProject) -> dict[str, Any]:
    """Return all that stands in Redis and in staging, but for claims, which end by themselves."""
    found: dict[str, Any] = {}
    for path in (house.root / "staging").rglob("*"):
        found[str(path)] = path.read_bytes() if path.is_file() else None
    connection: Any = house.connection
    for key in connection.keys("*"):
        if key.startswith(b"etl:claim:") or (key.startswith(b"etl:holder:") and connection.pttl(key) >= 0):
            continue
        kind = connection.type(key).decode()
        read = {"hash": "hgetall", "set": "smembers", "string": "get"}.get(kind)
        more = {"zset": ("zrange", 0, -1, False, True), "list": ("lrange", 0, -1), "stream": ("xrange",)}
        name, *args = (read,) if read else more[kind]
        found[key.decode()] = getattr(connection, str(name))(key, *args)
    return found


def attempt(house: QueuedProject, body: Callable[[], Any], won: list[bool]) -> None:
    """Do something that may be refused; what is refused leaves no trace."""
    before = trace(house)
    try:
        body()
    except EtlError as exc:
        refused_as_usual(exc)
        assert trace(house) == before
        won.append(False)
    else:
        won.append(True)


def refused_as_usual(exc: EtlError) -> None:
    assert re.search(REFUSED, str(exc)), exc


def work(house: QueuedProject) -> None:
    InProcessWorker(house.connection, inline=True).work()


def retry(house: QueuedProject, run: str) -> Any:
    return retry_run(settings.config(), house.connection, run)


def ends_well(house: QueuedProject, run: str) -> None:
    work(house)
    [found] = runs.snapshot(house.connection, [run])
    assert (found["state"], found["attempt"], found["error"]) == ("succeeded", 2, None)
    assert (found["rows"]["read"], found["rows"]["rejected"]) == (4, 1)
    assert found["rows"]["loaded"] + found["rows"]["unchanged"] == 3
    assert house.connection.keys("etl:claim:*") == house.connection.keys("etl:holder:*") == []


@pytest.mark.parametrize("goes_on", [False, True], ids=["retried", "retried and run"])
def test_of_two_retries_one_wins_at_whatever_step_they_meet(house: QueuedProject, steps: Steps, goes_on: bool) -> None:
    at, outcomes, there = -goes_on, set(), True  # of two steps in CI, each is taken by one of the two
    while there:
        at += stride()
        run, second, first, since = failed_run(house), list[bool](), True, dict[str, Any]()

        def meet(run: str = run, second: list[bool] = second, since: dict[str, Any] = since) -> None:
            attempt(house, lambda: retry(house, run), second)
            if goes_on:
                work(house)
            since.update(trace(house))

        try:
            there = steps.run(lambda run=run: retry(house, run), at, meet)  # type: ignore[misc]
        except EtlError as exc:
            refused_as_usual(exc)
            first, there = False, True
            assert trace(house) == since
        if there:
            assert [first, *second].count(True) == 1
            outcomes.add(first)
        ends_well(house, run)
    assert outcomes == {True, False}
    assert at > 15


def test_a_retry_that_dies_at_any_step_can_be_retried_or_has_been_submitted(house: QueuedProject, steps: Steps) -> None:
    at, there, claims_left = 0, True, 0
    while there:
        at += stride()
        run = failed_run(house)
        try:
            there = steps.run(lambda run=run: retry(house, run), at, steps.kill)  # type: ignore[misc]
        except Killed:
            assert house.state(run) in ("failed", "queued")
            for key in house.connection.keys("etl:claim:*"):
                claims_left += 1
                with pytest.raises(AlreadyRunning):
                    retry(house, run)
                place = keys.holder_key("acme", "claims")
                for each in (key, place):  # as their time runs out
                    assert 0 < house.connection.pttl(each) <= LASTS * 1000
                    house.connection.delete(each)
            if house.state(run) == "failed":
                retry(house, run)
        ends_well(house, run)
    assert claims_left > 5 // stride()


def test_what_a_retry_writes_when_its_run_has_just_failed_stays(
    house: QueuedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.files("acme", BAD)
    run, close = house.submit(), runs.close
    folder = Staging(settings.staging(), "acme", run)

    def close_and_retry(*args: Any, **options: Any) -> bool:
        closed = close(*args, **options)
        folder.write_bytes("00001.extract.new.parquet", b"not published yet")
        return closed

    folder.write_bytes("00001.extract.old.parquet", b"of a killed writer")
    monkeypatch.setattr("jobs.store.runs.close", close_and_retry)
    work(house)
    assert house.state(run) == "failed"
    assert "00001.extract.new.parquet" in house.names(run)
    assert "00001.extract.old.parquet" not in house.names(run)


def test_a_retry_whose_submission_fails_gives_its_claim_back(
    house: QueuedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = failed_run(house)
    with monkeypatch.context() as broken:

        def fail(*_: Any, **__: Any) -> None:
            raise EtlError("no luck")

        broken.setattr(resume, "enqueue_graph", fail)
        with pytest.raises(EtlError, match="no luck"):
            retry(house, run)
    assert house.state(run) == "failed"
    retry(house, run)
    ends_well(house, run)


def test_a_retry_that_slept_through_its_claim_changes_nothing(
    house: QueuedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = failed_run(house), resume.to_redo

    def slow(*args: Any, **options: Any) -> Any:
        house.connection.delete(keys.claim_key(run), keys.holder_key("acme", "claims"))
        monkeypatch.setattr(resume, "to_redo", real)
        retry(house, run)
        return real(*args, **options)

    monkeypatch.setattr(resume, "to_redo", slow)
    with pytest.raises(EtlError, match=f"run {run} is queued; only failed"):
        retry(house, run)
    ends_well(house, run)


@pytest.mark.parametrize("submitted_first", [False, True])
def test_a_retry_and_a_submission_of_the_same_pipeline_exclude_each_other(
    house: QueuedProject, steps: Steps, submitted_first: bool
) -> None:
    at, outcomes, there = 0, set(), True
    while there:
        at += stride()
        run, other, new = failed_run(house), list[bool](), list[str]()
        bodies = [lambda run=run: retry(house, run), lambda new=new: new.append(house.submit())]
        outer, inner = reversed(bodies) if submitted_first else bodies
        first = True
        try:
            there = steps.run(outer, at, lambda inner=inner, other=other: attempt(house, inner, other))  # type: ignore[misc]
        except EtlError as exc:
            refused_as_usual(exc)
            first, there = False, True
        if there:
            assert [first, *other].count(True) == 1, at
            outcomes.add(first)
        work(house)
        assert {house.state(each) for each in new or [run]} == {"succeeded"}
        if new:
            assert house.state(run) == "failed"
            retry(house, run)
        ends_well(house, run)
    assert outcomes == ({False} if submitted_first else {True, False})  # what comes last in a submission decides


def test_of_two_submissions_under_one_id_the_second_leaves_the_firsts_staging(
    house: QueuedProject, steps: Steps
) -> None:
    """As of a schedule's moment that two workers see to."""
    at, there = 0, True
    while there:
        at += stride()
        house.connection.flushall()
        (house.root / "warehouse.db").unlink(missing_ok=True)
        house.files("acme", GOOD)
        pipeline = resolve(settings.config(), "claims", "acme")
        for path in (house.root / "staging").rglob("*.*"):
            path.unlink()

        def submit(pipeline: Any = pipeline) -> str:
            with suppress(AlreadyRunning):
                assert submit_run(house.connection, pipeline, run="abcdefghjk") == "abcdefghjk"
            return "abcdefghjk"

        there = steps.run(submit, at, submit)
        work(house)
        [found] = runs.snapshot(house.connection, ["abcdefghjk"])
        assert (found["state"], found["rows"]["loaded"]) == ("succeeded", 1)


def test_of_two_retries_of_a_run_that_was_only_held_one_wins(house: QueuedProject, steps: Steps) -> None:
    at, outcomes, there = 0, set(), True
    while there:
        at += stride()
        house.connection.flushall()
        house.files("acme", GOOD)
        blocker = house.submit()
        run = submit_run(house.connection, resolve(settings.config(), "claims", "acme"), queue=True)
        cancel_run(house.connection, run)
        cancel_run(house.connection, blocker)
        other, first = list[bool](), True
        try:
            there = steps.run(
                lambda run=run: retry(house, run),  # type: ignore[misc]
                at,
                lambda run=run, other=other: attempt(house, lambda: retry(house, run), other),  # type: ignore[misc]
            )
        except EtlError as exc:
            refused_as_usual(exc)
            first, there = False, True
        if there:
            assert [first, *other].count(True) == 1, at
            outcomes.add(first)
        work(house)
        assert house.state(run) == "succeeded"
    assert outcomes == {True, False}

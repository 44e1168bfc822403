"""Runs that wait: for pipelines they need, or for the run before them."""

from functools import partial
from pathlib import Path

import pytest
from redis import Redis

from etl.config.pipeline import Config, needed_first, resolve
from etl.errors import AlreadyRunning, ConfigError, EtlError
from etl.staging import Staging
from jobs.process.inprocess import InProcessWorker
from jobs.process.maintenance import maintain
from jobs.queue import FairQueue
from jobs.run import held
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import runs
from tests.helpers.project import Folder, etl_toml
from tests.helpers.steps import Killed, Steps

CLAIMS, PATIENTS = (
    {
        "extract": {"path": f"{{client}}-{name}.csv"},
        "columns": {"id": {"required": True}},
    }
    for name in ("claims", "patients")
)
TOML = etl_toml(
    {
        "claims": {"needs": ["patients"], **CLAIMS},
        "patients": {"load": {"mode": "merge", "key": ["id"]}, **PATIENTS},
    },
    ["acme", "north"],
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    files = {f"{client}-{name}.csv": "id\n1\n" for client in ("acme", "north") for name in ("claims", "patients")}
    return Folder(tmp_path, TOML, files).loaded()


def state(connection: Redis, run: str) -> tuple[str, str | None]:
    found = runs.snapshot(connection, [run])[0]
    return found["state"], found["error"]


def submit(connection: Redis, config: Config, pipeline: str, client: str = "acme", *, queue: bool = False) -> str:
    return submit_run(connection, resolve(config, pipeline, client), queue=queue)


def work(connection: Redis) -> None:
    InProcessWorker(connection, inline=True).work()


def test_a_run_is_held_until_the_pipeline_it_needs_has_succeeded(connection: Redis, config: Config) -> None:
    patients = submit(connection, config, "patients")
    claims = submit(connection, config, "claims")
    assert state(connection, claims) == ("held", None)
    work(connection)
    assert state(connection, patients) == state(connection, claims) == ("succeeded", None)
    assert runs.held(connection) == runs.active(connection) == []


def test_a_run_fails_when_the_run_it_waits_for_fails(connection: Redis, config: Config, tmp_path: Path) -> None:
    (tmp_path / "acme-patients.csv").write_text("no such column\n1\n")
    patients = submit(connection, config, "patients")
    claims = submit(connection, config, "claims")
    work(connection)
    assert state(connection, claims) == ("failed", f"needs run {patients}, which failed")


def test_a_run_fails_at_once_where_the_needed_pipeline_never_ran_or_failed_last(
    connection: Redis, config: Config, tmp_path: Path
) -> None:
    assert state(connection, submit(connection, config, "claims")) == ("failed", "needs patients, which has never run")
    (tmp_path / "acme-patients.csv").unlink()
    failed = submit(connection, config, "patients")
    error = f"needs patients, whose latest run {failed} failed"
    assert state(connection, submit(connection, config, "claims")) == ("failed", error)


@pytest.mark.parametrize("pending", [False, True], ids=["needs one that failed", "and waits for its own run before"])
def test_a_submitter_that_dies_at_any_step_never_lets_a_run_start_whose_need_failed(
    connection: Redis, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pending: bool
) -> None:
    (tmp_path / "acme-patients.csv").unlink()
    failed = submit(connection, config, "patients")
    steps, at, is_over, died = Steps(monkeypatch), 0, False, 0
    while not is_over:
        at += 1
        run = f"r{at}"
        before = submit(connection, config, "claims", queue=True) if pending else ""
        body = partial(submit_run, connection, resolve(config, "claims", "acme"), queue=True, run=run)
        try:
            is_over = not steps.run(body, at, steps.kill)
        except Killed:
            died += 1
        maintain(connection, ["etl-acme"])
        work(connection)
        found = runs.read(connection, run)
        assert found is None or found["state"] == "failed", at
        assert found is None or found["error"] == f"needs patients, whose latest run {failed} failed"
        assert not before or runs.read(connection, before)["state"] == "failed"  # type: ignore[index]
        assert runs.held(connection) == runs.active(connection) == []
    assert died > 3
    assert not (tmp_path / "warehouse.db").exists()


def test_a_submitter_that_dies_at_any_step_of_a_run_that_can_t_be_planned_leaves_its_reason_or_nothing(
    connection: Redis, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme-patients.csv").unlink()
    steps, at, is_over = Steps(monkeypatch), 0, False
    while not is_over:
        at += 1
        try:
            is_over = not steps.run(lambda: submit(connection, config, "patients"), at, steps.kill)
        except Killed:
            maintain(connection, ["etl-acme"], all_tasks=True)
        assert runs.active(connection) == []
        assert all("no file matches" in (run["error"] or "") for run in runs.recent(connection))
    assert at > 3


def test_a_run_that_never_started_is_retried_behind_what_it_needs(connection: Redis, config: Config) -> None:
    """It is refused while that has not been put right."""
    patients = submit(connection, config, "patients")
    claims, later = submit(connection, config, "claims"), submit(connection, config, "claims", queue=True)
    cancel_run(connection, patients)
    work(connection)
    assert state(connection, claims)[0] == state(connection, later)[0] == "failed"
    with pytest.raises(EtlError, match=f"whose latest run {patients} was canceled"):
        retry_run(config, connection, claims)
    assert retry_run(config, connection, patients)[0] == patients
    assert retry_run(config, connection, claims) == (claims, [])
    assert state(connection, claims) == ("held", None)
    work(connection)
    assert state(connection, patients) == state(connection, claims) == ("succeeded", None)
    retry_run(config, connection, later)
    work(connection)
    assert state(connection, later) == ("succeeded", None)


def test_a_held_run_whose_start_fails_is_tried_again_and_then_fails(
    connection: Redis, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for ever, and can be retried."""

    def refuse(*_: object, **__: object) -> None:
        Staging("/proc/none", "acme", "abc").write_json("x.json", {})

    submit(connection, config, "patients")
    claims = submit(connection, config, "claims")
    monkeypatch.setattr(held, "DELAYS", (0, 0))
    with monkeypatch.context() as broken:
        broken.setattr("jobs.run.submit._start", refuse)
        work(connection)
        held.promote(connection)
    which, why = state(connection, claims)
    assert (which, (why or "").split(":")[:2]) == ("failed", ["start", " staging /proc/none/acme/abc"])
    retry_run(config, connection, claims)
    work(connection)
    assert state(connection, claims) == ("succeeded", None)


def test_a_held_run_whose_start_is_of_an_older_version_fails_with_the_sentence_and_can_be_retried(
    connection: Redis, config: Config
) -> None:
    submit(connection, config, "patients")
    claims = submit(connection, config, "claims")
    queue = FairQueue("etl-acme", connection=connection)
    queue.enqueue_call("jobs.holding.start", args=(claims,), job_id=f"{claims}-0-start-1", failure_ttl=3600)
    work(connection)
    held.promote(connection)
    assert state(connection, claims)[0] == "failed"
    assert "jobs.holding.start is a function of an older rq-etl" in str(state(connection, claims)[1])
    retry_run(config, connection, claims)
    work(connection)
    assert state(connection, claims) == ("succeeded", None)


def test_a_need_is_the_same_clients(connection: Redis, config: Config) -> None:
    submit(connection, config, "patients", "north")
    assert state(connection, submit(connection, config, "claims"))[0] == "failed"


def test_a_second_run_is_refused_or_queued_behind_the_first_in_turn(connection: Redis, config: Config) -> None:
    first = submit(connection, config, "patients")
    with pytest.raises(AlreadyRunning, match=first):
        submit(connection, config, "patients")
    second = submit(connection, config, "patients", queue=True)
    third = submit(connection, config, "patients", queue=True)
    with pytest.raises(AlreadyRunning, match=third):
        submit(connection, config, "patients")
    work(connection)
    found = runs.snapshot(connection, [first, second, third])
    assert [run["state"] for run in found] == ["succeeded"] * 3
    ended = [run["finished"] for run in found]
    assert ended == sorted(ended)


def test_a_queued_run_starts_even_where_the_run_before_it_failed(
    connection: Redis, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "acme-patients.csv").write_text("no such column\n1\n")
    first = submit(connection, config, "patients")
    second = submit(connection, config, "patients", queue=True)
    cancel_run(connection, first)
    (tmp_path / "acme-patients.csv").write_text("id\n1\n")
    work(connection)
    assert state(connection, second) == ("succeeded", None)


def test_a_held_run_that_is_canceled_never_starts(connection: Redis, config: Config) -> None:
    submit(connection, config, "patients")
    claims = submit(connection, config, "claims")
    assert cancel_run(connection, claims)
    work(connection)
    assert state(connection, claims) == ("canceled", "canceled")
    assert runs.held(connection) == []


def test_a_held_run_sees_the_source_as_it_is_when_it_starts(connection: Redis, config: Config, tmp_path: Path) -> None:
    submit(connection, config, "patients")
    claims = submit(connection, config, "claims")
    (tmp_path / "acme-claims.csv").write_text("id\n1\n2\n3\n")
    work(connection)
    assert runs.snapshot(connection, [claims])[0]["rows"]["loaded"] == 3


def test_pipelines_are_run_behind_those_they_need(config: Config) -> None:
    assert needed_first(config, "acme", ("claims", "patients")) == ("patients", "claims")
    assert needed_first(config, "acme", ("claims",)) == ("claims",)


def test_needs_that_lead_back_or_nowhere_are_mistakes(tmp_path: Path) -> None:
    text = TOML.replace("[pipelines.patients]", '[pipelines.patients]\nneeds = ["claims", "patience"]')
    with pytest.raises(ConfigError) as caught:
        Folder(tmp_path, text + 'pipelines = ["claims"]\n').loaded()
    told = str(caught.value)
    assert "pipelines.claims.needs: leads back to itself" in told
    assert "pipelines.patients.needs: there is no pipeline patience" in told
    assert "clients.north.pipelines: claims needs patients, which the client doesn't have" in told


def test_the_pass_asks_for_a_thousand_held_runs_as_often_as_for_one(
    connection: Redis, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backfill may hold that many, and every few seconds one worker looks whether their wait is over."""
    questions = []
    take = connection.connection_pool.get_connection

    def taken(*args: object, **options: object) -> object:
        questions.append(1)
        return take(*args, **options)

    submit(connection, config, "patients")
    counted = []
    for _ in range(3):
        for _ in range(5):
            submit(connection, config, "patients", queue=True)
        with monkeypatch.context() as watched:
            watched.setattr(connection.connection_pool, "get_connection", taken)
            held.promote(connection)
        counted.append(len(questions))
        questions.clear()
    assert counted[0] == counted[1] == counted[2] > 0
    assert len(runs.held(connection)) == 15

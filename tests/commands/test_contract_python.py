"""The public face from Python: submit, wait, Run, enqueue, and the pytest plugin, as the design promises them."""

import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from redis import Redis

import rq_etl
from jobs import session
from jobs.process.inprocess import InProcessWorker
from rq_etl import AlreadyRunning, Run, enqueue, submit, wait
from tests.commands.test_contract import CONTRACT, STEPS
from tests.helpers.project import CLAIMS, ETL_TOML, Project
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def no_sessions_are_left() -> Iterator[None]:
    """A process has a session for each configuration; a test's must not be another's."""
    yield
    for opened in session._sessions.values():
        opened.close()
    session._sessions.clear()


def test_the_public_names_are_there() -> None:
    assert {"submit", "wait", "enqueue", "reject", "AlreadyRunning"} <= set(rq_etl.__all__)


def test_a_run_is_submitted_and_waited_for(etl: Project, real_redis: Redis, redis_server: RedisServer) -> None:
    etl.write("inbox/acme/claims-2.csv", "claim_id,amount\nA3,x\n")
    run = submit("claims", "acme", config=etl.root / "etl.toml", redis=redis_server.url)
    assert (run.state, run.client, run.pipeline, run.error) == ("queued", "acme", "claims", None)
    with pytest.raises(TimeoutError, match=run.id):
        run.wait(0.1)
    with pytest.raises(AlreadyRunning) as refused:
        submit("claims", "acme", redis=redis_server.url)
    assert refused.value.run == run.id
    other = submit("claims", "globex", redis=redis_server.url)
    InProcessWorker(real_redis).work()
    assert run.wait() is run
    assert (run.state, run.rows.loaded, run.rows.rejected) == ("succeeded", 2, 1)
    [reject] = run.rejects()
    assert (reject.file, reject.row, reject.column, reject.value) == ("inbox/acme/claims-2.csv", 2, "amount", "x")
    assert other.wait(5).state == "failed"  # returned, not raised
    assert "no file matches" in (other.error or "")
    assert {ended.id for ended in wait([run, other], timeout=1)} == {run.id, other.id}


def test_a_redis_connection_may_be_given(etl: Project, fake_redis: Redis) -> None:
    """A fakeredis runs its jobs here, while they are waited for."""
    run = submit("claims", "acme", redis=fake_redis)
    assert [ended.state for ended in wait([run], timeout=30)] == ["succeeded"]
    assert run.rows.read == 2


def test_a_run_is_canceled_and_retried(etl: Project, fake_redis: Redis) -> None:
    run = submit("claims", "acme", redis=fake_redis).cancel()
    assert run.wait(1).state == "canceled"
    assert run.retry().wait(30).state == "succeeded"


def test_unknown_names_and_bad_configs_are_raised(etl: Project, fake_redis: Redis) -> None:
    with pytest.raises(rq_etl.EtlError, match="did you mean claims"):
        submit("clams", "acme", redis=fake_redis)
    with pytest.raises(rq_etl.EtlError, match="no client acne"):
        submit("claims", "acne", redis=fake_redis)
    with pytest.raises(rq_etl.EtlError, match="there is no"):
        submit("claims", "acme", config="nowhere.toml", redis=fake_redis)


CHICAGO = ("[clients.acme]", '[clients.acme]\ntimezone = "America/Chicago"')


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-01-05", "2024-01-06T00:00"),
        (date(2024, 1, 5), date(2024, 1, 6)),
        (datetime(2024, 1, 5), datetime(2024, 1, 6)),
        (datetime(2024, 1, 5, 6, tzinfo=UTC), "2024-01-06T06:00Z"),
    ],
)
def test_a_window_is_given_as_dates_moments_or_text_of_the_clients_zone(
    etl: Project, fake_redis: Redis, start: date | str, end: date | str
) -> None:
    etl.config(ETL_TOML, CHICAGO, ("claims-*.csv", "claims-{date}-{end}.csv"))
    etl.write("inbox/acme/claims-2024-01-05-2024-01-06.csv", CLAIMS)
    run = submit("claims", "acme", start=start, end=end, redis=fake_redis).wait(30)
    assert (run.state, run.rows.read) == ("succeeded", 2), run.error
    assert run.json()["start"] == "2024-01-05T00:00:00-06:00"
    assert run.json()["end"] == "2024-01-06T00:00:00-06:00"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": "2024-01-05", "end": "2024-01-05"}, "no window"),
        ({"start": "2024-01-06", "end": date(2024, 1, 5)}, "no window"),
        ({"end": "2024-01-06"}, "no beginning"),
        ({"start": "yesterday"}, "start yesterday is no date"),
        ({"params": {"region": object()}}, "param region is of type object"),
    ],
)
def test_a_window_or_parameter_that_is_none_is_reported(
    etl: Project, fake_redis: Redis, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(rq_etl.EtlError, match=said):
        submit("claims", "acme", redis=fake_redis, **given)


def test_parameters_may_be_numbers_and_dates(etl: Project, fake_redis: Redis) -> None:
    etl.config(ETL_TOML, ("claims-*.csv", "claims-{number}-{day}.csv"))
    etl.write("inbox/acme/claims-7-2024-01-05.csv", CLAIMS)
    run = submit("claims", "acme", params={"number": 7, "day": date(2024, 1, 5)}, redis=fake_redis).wait(30)
    assert (run.state, run.rows.read) == ("succeeded", 2), run.error
    assert run.json()["params"] == {"number": 7, "day": "2024-01-05"}


def test_one_of_many_submissions_at_once_wins(etl: Project, redis_server: RedisServer, real_redis: Redis) -> None:
    runs: list[Run] = []
    refused: list[str] = []

    def one() -> None:
        try:
            runs.append(submit("claims", "acme", redis=redis_server.url))
        except AlreadyRunning as error:
            refused.append(error.run)

    submit("claims", "acme", redis=redis_server.url).cancel()
    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1
    assert set(refused) == {runs[0].id}
    InProcessWorker(real_redis).work()
    assert runs[0].state == "succeeded"


def test_add_two_and_three(
    etl: Project,
    monkeypatch: pytest.MonkeyPatch,
    redis_server: RedisServer,
    real_redis: Redis,
    workers: StartWorkers,
) -> None:
    """The seed's own example, with a real worker."""
    etl.write("steps.py", "def add(a, b):\n    return a + b\n\ndef fail(secret):\n    raise ValueError(secret)\n")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.syspath_prepend(etl.root)
    monkeypatch.delitem(sys.modules, "steps", raising=False)  # another test's
    from steps import add, fail  # type: ignore[import-not-found]

    workers(1, cwd=etl.root)
    assert enqueue("acme", add, 2, 3).wait(10) == 5
    job = enqueue("acme", add, "2", b="3", timeout=5)
    assert job.wait(10) == "23"
    failing = enqueue("acme", fail, "Jane Roe")
    with pytest.raises(Exception, match="ValueError"):
        failing.wait(10)
    result = failing.latest_result()
    assert result is not None
    assert "Jane" not in str(result.exc_string)


# --- the pytest plugin ---


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """The design's project, with a test of it."""
    (pytester.path / "etl.toml").write_text(CONTRACT, encoding="utf-8")
    (pytester.path / "demo_steps.py").write_text(STEPS)
    return pytester


# What stands in the design, word for word.
EXAMPLE = """
def test_claims(rq_etl):
    run = rq_etl.run("claims", client="acme", files={"claims-1.csv": "ClaimNo;amount\\nA1;12,50\\nA2;x\\n"})
    assert rq_etl.table("claims").claim_id.tolist() == ["A1"]
    assert [(r.row, r.column) for r in run.rejects()] == [(3, "amount")]
    good, rejects = rq_etl.transform("claims", df, client="acme")      # no queue at all
"""


def test_the_designs_example_passes_as_it_stands(project: pytest.Pytester) -> None:
    """Its file lacks columns that load does not need, one of two rows is bad, and `newest` is not there."""
    steps = STEPS.replace('df["status"].fillna("OPEN")', '"OPEN"')
    (project.path / "demo_steps.py").write_text(steps)
    frame = 'import pandas as pd\ndf = pd.DataFrame({"ClaimNo": ["A1", "A2"], "Betrag": ["1,5", "x"]})\n'
    project.makepyfile(frame + EXAMPLE + "    assert (len(good), len(rejects)) == (1, 1)\n")
    result = project.runpytest_subprocess("-q")
    result.assert_outcomes(passed=1)


def test_the_plugin_runs_a_pipeline_without_those_it_needs(project: pytest.Pytester) -> None:
    patients = (
        '[pipelines.patients]\nextract = { type = "csv", path = "p" }\nload = { target = "warehouse", table = "p" }\n'
    )
    toml = CONTRACT.replace("[pipelines.claims]", f'{patients}[pipelines.claims]\nneeds = ["patients"]', 1)
    toml = toml.replace('pipelines = ["claims"]', 'pipelines = ["patients", "claims"]')
    (project.path / "etl.toml").write_text(toml, encoding="utf-8")
    call = EXAMPLE.splitlines()[2]
    project.makepyfile(f"def test_claims(rq_etl):\n{call}\n    assert run.state == 'succeeded', run.error\n")
    project.runpytest_subprocess("-q").assert_outcomes(passed=1)


def test_the_plugin_fails_where_no_run_would_read_the_given_files(project: pytest.Pytester) -> None:
    toml = (project.path / "etl.toml").read_text(encoding="utf-8")
    toml = toml.replace("claims-*.csv", '{date:%Y/%m}claims-*.csv", missing = "ok', 1)  # whose / is none of the path
    (project.path / "etl.toml").write_text(toml, encoding="utf-8")
    project.makepyfile(
        textwrap.dedent("""
        HEAD = "ClaimNo;service_date;Betrag;status;updated_at\\n"

        def test_hidden(rq_etl):
            rq_etl.run("claims", client="acme", files={".claims-1.csv": HEAD})

        def test_misspelled(rq_etl):
            rq_etl.run("claims", client="acme", files={"claim-1.csv": HEAD})

        def test_in_a_folder(rq_etl):
            text = HEAD + "A1;2024-01-31;1;OPEN;2024-02-01\\n"
            run = rq_etl.run("claims", client="acme", files={"may/claims-5.csv": text, "read.me": "?"})
            assert run.rows.loaded == 1
    """)
    )
    result = project.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=2)
    lines = [
        "*no run would read the given files (.claims-1.csv)*",
        "*given files (claim-1.csv): the pipeline's path is *",
    ]
    result.stdout.fnmatch_lines(lines)


def test_the_plugin_leaves_the_project_alone(project: pytest.Pytester) -> None:
    project.makepyfile(
        textwrap.dedent("""
        HEAD = "ClaimNo;service_date;Betrag;status;updated_at\\n"

        def test_one(rq_etl):
            text = HEAD + "A1;2024-01-31;1,5;OPEN;2024-02-01\\n"
            run = rq_etl.run("claims", client="acme", files={"claims-a.csv": text})
            assert (run.state, run.rows.loaded) == ("succeeded", 1)
            assert rq_etl.table("claims").margin.tolist() == [3.0]

        def test_two_runs_merge(rq_etl):
            for amount in ("1", "2"):
                text = HEAD + f"A1;2024-01-31;{amount};OPEN;2024-02-0{amount}\\n"
                run = rq_etl.run("claims", client="acme", files={"claims-a.csv": text.encode("cp1252")})
                assert run.state == "succeeded", run.error
            assert rq_etl.table("claims").amount.tolist() == [2]

        def test_limits_are_as_given(rq_etl):
            text = HEAD + "A1;2024-01-31;x;OPEN;2024-02-01\\n"
            assert rq_etl.run("claims", client="acme", files={"claims-a.csv": text}, max_rejects="5%").state == "failed"
    """)
    )
    result = project.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)
    assert not [
        path
        for path in project.path.rglob("*")
        if path.name in ("staging", "inbox", "warehouse.db", ".rq-etl") and "runpytest-0" not in path.parts
    ]

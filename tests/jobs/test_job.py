"""EtlJob: what is in Redis can't make a worker import or call what the company has not allowed."""

import inspect
import os
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.job import Callback, Job
from rq.serializers import DefaultSerializer
from rq.webhook import Webhook

from jobs import settings, stages
from jobs.job import OURS, EtlJob, JobFailed, JobRefused, allowed
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue


def add(a: int, b: int) -> int:
    return a + b


class Calculator:
    def add(self, a: int) -> int:
        return a


@pytest.fixture(autouse=True)
def _only_this_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ETL_CONFIG", raising=False)
    monkeypatch.setenv("ETL_MODULES", "test_job")
    settings.use(None)


def test_a_function_of_an_allowed_module_is_called(fake_redis: Redis) -> None:
    job = EtlJob.create(add, (2, 3), connection=fake_redis)
    assert job.perform() == 5


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "eval",
        "test_jobs.add",
        "test_job.os.system",
        "jobs.stages.keep_traceback",
        "test_job",
    ],
)
def test_any_other_function_is_refused(name: str) -> None:
    with pytest.raises(JobRefused):
        allowed(name)


def test_of_our_functions_workers_may_be_asked_for_all_of_stages_and_for_no_other() -> None:
    functions = [value for value in vars(stages).values() if inspect.isfunction(value)]
    own = {value.__name__: value for value in functions if value.__module__ == "jobs.stages"}
    public = {f"jobs.stages.{name}": value for name, value in own.items() if not name.startswith("_")}
    assert {name: allowed(name) for name in OURS} == public


@pytest.mark.parametrize("name", ["jobs.holding.start", "jobs.schedules.start", "jobs.sweep.sweep"])
def test_a_function_of_an_older_version_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(
        JobRefused, match=rf"{name} is a function of an older rq-etl\s+let runs end .* docs/upgrading.md"
    ):
        allowed(name)


def test_what_an_allowed_module_has_only_imported_is_refused() -> None:
    with pytest.raises(JobRefused, match=r"it comes from pathlib"):
        allowed("test_job.Path")


def test_a_refusal_says_what_to_add() -> None:
    with pytest.raises(JobRefused, match=r'add "os" to modules under \[settings\] in etl.toml'):
        allowed("os.getcwd")


def test_a_missing_function_or_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETL_MODULES", "test_job, nowhere")
    with pytest.raises(JobRefused, match="module test_job has no function subtract"):
        allowed("test_job.subtract")
    with pytest.raises(JobRefused, match="there is no module nowhere"):
        allowed("nowhere.add")


def test_modules_come_from_etl_toml_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "etl.toml").write_text('[settings]\nmodules = ["only_this"]\n')
    (tmp_path / "only_this.py").write_text("def hello():\n    return 'hello'\n")
    assert allowed("only_this.hello")() == "hello"
    with pytest.raises(JobRefused):
        allowed("test_job.add")


def nothing(*_: Any) -> None:
    """Never called."""


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ({"on_success": Callback(nothing)}, "callbacks"),
        ({"on_failure": Callback(nothing)}, "callbacks"),
        ({"on_stopped": Callback(nothing)}, "callbacks"),
        ({"webhooks": [Webhook("http://localhost/", "finished")]}, "webhooks"),
    ],
)
def test_callbacks_and_webhooks_are_refused(fake_redis: Redis, extra: dict[str, Any], what: str) -> None:
    job = EtlJob.create(add, (2, 3), connection=fake_redis, **extra)
    job.save()
    again = EtlJob.fetch(job.id, connection=fake_redis)
    assert (again.success_callback, again.failure_callback, again.stopped_callback) == (None, None, None)
    with pytest.raises(JobRefused, match=what):
        again.perform()


def test_an_instance_is_refused(fake_redis: Redis) -> None:
    job = EtlJob("x", connection=fake_redis)
    job.data = b'["add", {"any": "thing"}, [1], {}]'
    with pytest.raises(JobRefused, match="an instance"):
        job.perform()
    with pytest.raises(TypeError):
        EtlJob.create(Calculator().add, (1,), connection=fake_redis).save()


def test_pickled_data_is_never_loaded(connection: Redis) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, ("touch boom",)

    queue = FairQueue("etl-acme", connection=connection)
    job = queue.enqueue(add, 2, 3)
    connection.hset(job.key, "data", DefaultSerializer.dumps(("test_job.add", None, [Bomb()], {})))
    assert InProcessWorker(connection).step()
    assert job.get_status() == "failed"
    assert not Path("boom").exists()


def test_rq_dashboard_can_read_whom_a_job_waits_for(fake_redis: Redis) -> None:
    queue = FairQueue("etl-acme", connection=fake_redis)
    parent = queue.enqueue(add, 2, 3)
    child = queue.enqueue(add, 2, 3, depends_on=parent)
    assert child.dependency_ids == [parent.id]
    assert [id.decode("utf-8") for id in child.dependency_ids] == [parent.id]  # type: ignore[attr-defined]


def test_waiting_gives_the_value_or_says_why_not(connection: Redis) -> None:
    queue, worker = FairQueue("etl-acme", connection=connection), InProcessWorker(connection)
    good, bad = queue.enqueue(add, 2, 3), queue.enqueue(add, 2, "three")
    with pytest.raises(TimeoutError):
        good.wait(0)  # type: ignore[attr-defined]
    worker.work()
    assert good.wait(1) == 5  # type: ignore[attr-defined]
    with pytest.raises(JobFailed, match="TypeError at test_job:add:"):
        bad.wait(1)  # type: ignore[attr-defined]
    bad.delete()
    with pytest.raises(JobFailed, match="gone"):
        bad.wait(1)  # type: ignore[attr-defined]


def test_stock_rq_reads_our_jobs(fake_redis: Redis) -> None:
    job = FairQueue("etl-acme", connection=fake_redis).enqueue(add, 2, 3)
    assert Job.fetch(job.id, connection=fake_redis, serializer="json").args == [2, 3]

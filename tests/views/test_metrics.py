"""What Prometheus is told is what the other commands say."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs import broker
from jobs.queue import FairQueue, dequeue
from jobs.session import Session
from jobs.store import limits
from jobs.views import metrics
from tests.helpers.project import Project
from tests.helpers.queued_project import BAD, GOOD, QueuedProject


def gauges(house: QueuedProject) -> dict[tuple[str, ...], float]:
    """Return the numbers as Prometheus reads them, by name and labels."""
    session = Session(house.root / "etl.toml", house.connection, workers=0)
    families = text_string_to_metric_families(metrics.text(metrics.collect(session)))
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_runs_are_reported_by_client_and_pipeline(house: QueuedProject) -> None:
    house.files("acme", GOOD)
    house.files("globex", BAD)
    house.run("acme")
    house.run("globex")
    found = gauges(house)
    assert found["rq_etl_last_loaded_rows", "acme", "claims"] == 1
    assert found["rq_etl_last_run_failed", "acme", "claims"] == 0
    assert found["rq_etl_last_run_failed", "globex", "claims"] == 1
    assert found["rq_etl_last_success_timestamp_seconds", "acme", "claims"] > 1.7e9
    assert ("rq_etl_last_success_timestamp_seconds", "globex", "claims") not in found
    assert ("rq_etl_last_run_failed", "initech", "claims") not in found
    assert found["rq_etl_late_seconds", "initech", "claims"] == 0
    assert found["rq_etl_worker_share", "acme"] + found["rq_etl_worker_share", "globex"] == pytest.approx(1, abs=0.001)
    assert 0.5 <= found["rq_etl_fairness",] <= 1


def test_what_waits_runs_and_is_held_is_reported_by_client(house: QueuedProject) -> None:
    for client, count in (("acme", 3), ("globex", 2)):
        for _ in range(count):
            FairQueue(f"etl-{client}", connection=house.connection).enqueue("steps.same")
    dequeue(house.connection, worker="w")
    limits.pause(house.connection, ["globex"])
    house.files("initech", GOOD)
    house.submit("initech")
    found = gauges(house)
    assert [found["rq_etl_jobs", "acme", state] for state in ("waiting", "running", "held")] == [2, 1, 0]
    assert [found["rq_etl_jobs", "globex", state] for state in ("waiting", "running", "held")] == [0, 0, 2]
    assert [found["rq_etl_active_runs", state] for state in ("held", "queued", "running")] == [0, 1, 0]
    assert [found["rq_etl_workers", state] for state in ("busy", "idle")] == [0, 0]


def test_each_number_has_its_help(house: QueuedProject) -> None:
    session = Session(house.root / "etl.toml", house.connection, workers=0)
    text = metrics.text(metrics.collect(session))
    families = list(text_string_to_metric_families(text))
    assert {family.name for family in families} == set(metrics.HELP)
    assert all(family.documentation and family.type == "gauge" for family in families)


def test_the_command_prints_text_or_one_json_document(house: QueuedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(house.root)
    monkeypatch.setattr(broker, "connect", lambda *_, **__: broker.given(house.connection))
    command = Project(house.root)
    assert "# TYPE rq_etl_jobs gauge" in command("metrics").out
    assert {"name": "rq_etl_workers", "labels": {"state": "busy"}, "value": 0} in command("metrics --json").json

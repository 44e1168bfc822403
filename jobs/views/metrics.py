"""What Prometheus wants to know: queues, workers, runs and lateness, as numbers under names."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from redis import Redis

from etl.config.models import KINDS_OF_ALERTS
from jobs.store import forms, keys, runs
from jobs.views import clients, status

if TYPE_CHECKING:
    from jobs.session import Session

HELP = {
    "rq_etl_workers": "Workers that are alive, by what they do.",
    "rq_etl_jobs": "A client's jobs that wait, run, or are held by a pause.",
    "rq_etl_wait_seconds": "How long a client's jobs waited in the last hour, on average.",
    "rq_etl_service_seconds": "How long a client's jobs took in the last hour, on average.",
    "rq_etl_worker_share": "A client's share of the workers' time in the last hour.",
    "rq_etl_fairness": "Jain's index over the clients that were busy in the last hour: 1 is even.",
    "rq_etl_active_runs": "Runs that have not ended, by state.",
    "rq_etl_last_run_failed": "Whether a client's latest run of a pipeline failed.",
    "rq_etl_last_success_timestamp_seconds": "When a client's pipeline succeeded last.",
    "rq_etl_last_loaded_rows": "Rows that the last success has loaded.",
    "rq_etl_open_alerts": "What is wrong and not over, by kind; see rq-etl alerts.",
    "rq_etl_late_seconds": "How late a client's pipeline is; 0 where it is in time.",
}


class Sample(NamedTuple):
    """One number."""

    name: str  # one of HELP
    labels: Mapping[str, str]  # never a value of a row
    value: float


def collect(session: "Session") -> list[Sample]:
    """Return all numbers as they are now."""
    found = clients.overview(session.connection, list(session.config.clients))
    states = Counter(str(worker["state"]) for worker in clients.workers(session))
    samples = [Sample("rq_etl_workers", {"state": state}, states[state]) for state in ("busy", "idle")]
    for line in found:
        client = {"client": line["client"]}
        samples += [Sample("rq_etl_jobs", {**client, "state": s}, line[s]) for s in ("waiting", "running", "held")]
        kept = {"wait_seconds": "wait_seconds", "service_seconds": "service_seconds", "worker_share": "share"}
        samples += _known((f"rq_etl_{name}", client, line[key]) for name, key in kept.items())
    samples += _known([("rq_etl_fairness", {}, clients.fairness(found))])
    active = Counter(run["state"] for run in runs.snapshot(session.connection, sorted(session.active())))
    samples += [Sample("rq_etl_active_runs", {"state": s}, active[s]) for s in runs.STATES if s not in runs.ENDED]
    kinds = _open_alerts(session.connection)
    samples += [Sample("rq_etl_open_alerts", {"kind": k}, kinds[k]) for k in KINDS_OF_ALERTS if k != "recovered"]
    for line in status.status(session):
        whose = {"client": line["client"], "pipeline": line["pipeline"]}
        success = line["last_success"] and datetime.fromisoformat(line["last_success"]).timestamp()
        samples += _known(
            [
                ("rq_etl_last_run_failed", whose, None if line["state"] is None else line["state"] == "failed"),
                ("rq_etl_last_success_timestamp_seconds", whose, success),
                ("rq_etl_last_loaded_rows", whose, line["rows"]),
                ("rq_etl_late_seconds", whose, line["late"] or 0),
            ]
        )
    return samples


def text(samples: Sequence[Sample]) -> str:
    """Return samples in Prometheus' text format."""
    registry = CollectorRegistry()
    for name, about in HELP.items():
        mine = [sample for sample in samples if sample.name == name]
        # One without labels has the value 0 until it is set: what has no sample must not be that.
        gauge = Gauge(name, about, list(mine[0].labels) if mine else ["none"], registry=registry)
        for sample in mine:
            (gauge.labels(**sample.labels) if sample.labels else gauge).set(sample.value)
    return generate_latest(registry).decode()


def _open_alerts(connection: Redis) -> Counter[str]:
    found = forms.fit("entries of alerts", cast(dict[Any, Any], connection.hgetall(keys.CAUSES)))
    return Counter(json.loads(key)[0] for key, value in found.items() if not json.loads(value).get("over"))


def _known(found: Iterable[tuple[str, Mapping[str, str], float | None]]) -> list[Sample]:
    return [Sample(name, labels, float(value)) for name, labels, value in found if value is not None]

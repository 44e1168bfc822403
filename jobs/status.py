"""The state of things: client by pipeline, the last success, what is due next, and what is late."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from etl import cron
from etl.pipeline import Config
from jobs import history, runs
from jobs.session import Session

GRACE = 600  # seconds that a due run may take before it is called late


def status(session: Session, client: str | None = None, now: datetime | None = None) -> list[dict[str, Any]]:
    """Return a line for each client's pipelines, those that are late first.

    A pipeline is late where its schedule has named a moment since its last success, or where its last success
    is older than `expect.fresh`: that is how a file that never came is seen.

    Args:
        client: Only this client.
        now: In UTC; None means now.
    """
    now = now or datetime.now(UTC)
    pairs = history.pairs_of(session.config, client)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    for run in runs.recent(session.connection, client=client, limit=100_000):
        found.setdefault((run["client"], run["pipeline"]), []).append(run)
    unsure = [pair for pair in pairs if not any(run["state"] == "succeeded" for run in found[pair])]
    for run in history.latest(session, unsure):
        found[run["client"], run["pipeline"]].append(run)
    lines = []
    for name, pipeline in pairs:
        mine = found[name, pipeline]
        good = next((run for run in mine if run["state"] == "succeeded"), None)
        finished = datetime.fromisoformat(good["finished"]) if good and good["finished"] else None
        lines.append(
            {
                "client": name,
                "pipeline": pipeline,
                "state": mine[0]["state"] if mine else None,
                "last_success": finished.isoformat(timespec="milliseconds") if finished else None,
                "age": round((now - finished).total_seconds(), 1) if finished else None,
                **_due(session.config, name, pipeline, finished, now),
                "rows": good["rows"]["loaded"] if good else None,
                "run": mine[0]["run"] if mine else None,
                "error": mine[0]["error"] if mine else None,
            }
        )
    return sorted(lines, key=lambda line: -(line["late"] or 0))


def _due(config: Config, client: str, pipeline: str, finished: datetime | None, now: datetime) -> Mapping[str, Any]:
    """Return the next due moment in the client's zone, and for how many seconds the last one has been late."""
    owner = config.clients[client]
    schedule = owner.schedule.get(pipeline)
    late, due = 0.0, None
    if schedule is not None:
        following = cron.following(schedule.cron, owner.timezone, now)[0]
        due = cron.local(following, owner.timezone).isoformat()
        before = cron.latest(schedule.cron, owner.timezone, now)
        if before and (finished is None or finished < before):
            late = (now - before).total_seconds()
    definition = config.variants.get((client, pipeline), config.pipelines[pipeline])
    if finished and definition.expect and definition.expect.fresh:
        late = max(late, (now - finished).total_seconds() - definition.expect.fresh)
    return {"due": due, "late": round(late, 1) if late > GRACE else None}

"""The state of things: client by pipeline, the last success, what is due next, and what is late."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from etl.calendar import cron
from etl.calendar.cron import GRACE
from etl.config.pipeline import Config, Pair, definition_of, pairs_of
from jobs.deliveries.listing import listing
from jobs.run import schedules
from jobs.store import runs
from jobs.views import cursors, history, waiting

if TYPE_CHECKING:
    from jobs.session import Session


def status(session: "Session", client: str | None = None, now: datetime | None = None) -> list[dict[str, Any]]:
    """Return a line for each client's pipelines, those that are late first.

    A pipeline is late where its schedule has named a moment since its last success, or where its last success
    is older than `expect.fresh`, or where its delivery is missing. A success for a window of the past is none for the
    schedule, and a new schedule's first moment is the one after it was synced.

    Args:
        now: In UTC; None means now.
    """
    now, config = now or datetime.now(UTC), session.config
    pairs = pairs_of(config, client)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    unsure = set(pairs)
    for run in runs.newest(session.connection):
        pair = run["client"], run["pipeline"]
        if pair in unsure:
            found[pair].append(run)
            unsure -= {pair} if _is_success(run) else set()
        if not unsure:
            break
    for run in history.latest(session, sorted(unsure)):
        found[run["client"], run["pipeline"]].append(run)
    waiting.explain(session.connection, [mine[0] for mine in found.values() if mine], works=session.has_workers)
    unserved = waiting.without_cron(session.connection, config, pairs)
    warned = cursors.warnings(config, pairs, lambda _: None)  # `history` says which targets are silent
    awaited = _current(listing(config, session.connection, client=client, now=now), now)
    lines = []
    for name, pipeline in pairs:
        mine = found[name, pipeline]
        good = next((run for run in mine if run["state"] == "succeeded"), None)
        finished = _finished(good)
        in_time = _finished(next(filter(_is_success, mine), None))
        is_new = not any(run["state"] in runs.ENDED for run in mine)
        begun = schedules.seen(session.connection, name, pipeline) if is_new else None
        lines.append(
            {
                "client": name,
                "pipeline": pipeline,
                "state": mine[0]["state"] if mine else None,
                "last_success": finished.isoformat(timespec="milliseconds") if finished else None,
                "age": round((now - finished).total_seconds(), 1) if finished else None,
                **_due(config, name, pipeline, in_time, begun, now, awaited.get((name, pipeline))),
                "delivery": awaited.get((name, pipeline)),
                "rows": good["rows"]["loaded"] if good else None,
                "unchanged": good["rows"]["unchanged"] if good else None,
                "run": mine[0]["run"] if mine else None,
                "error": mine[0]["error"] if mine else None,
                "warnings": warned.get((name, pipeline), []),
                "noticed": len(mine[0]["warnings"]) if mine else 0,
                "odd": mine[0].get("odd", []) if mine else [],
                "waiting": (mine and mine[0]["waiting"]) or (waiting.NO_CRON if (name, pipeline) in unserved else None),
            }
        )
    return sorted(lines, key=lambda line: -(line["late"] or 0))


def _is_success(run: Mapping[str, Any]) -> bool:
    """Whether a run did what its schedule wants; a window of the past does not."""
    return run["state"] == "succeeded" and not run["start"]


def _finished(run: Mapping[str, Any] | None) -> datetime | None:
    return datetime.fromisoformat(run["finished"]) if run and run["finished"] else None


def _due(
    config: Config,
    client: str,
    pipeline: str,
    finished: datetime | None,
    begun: float | None,
    now: datetime,
    delivery: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """Return the next due moment in the client's zone, and for how many seconds the last one has been late.

    Args:
        begun: When the schedule was synced, where no run has ended yet.
        delivery: What is awaited, as `jobs.deliveries.listing` has it.
    """
    owner = config.clients[client]
    schedule = owner.schedule.get(pipeline)
    due, before = None, None
    if schedule is not None:
        following = cron.following(schedule.cron, owner.timezone, now)[0]
        due = cron.local(following, owner.timezone).isoformat()
        before = cron.latest(schedule.cron, owner.timezone, now)
    definition = definition_of(config, client, pipeline)
    fresh = definition.expect.fresh if definition.expect else None
    late = cron.lateness(before, finished, begun, fresh, now)
    late = late if late > GRACE else 0.0
    if delivery and delivery["missing"]:  # it has a grace of its own
        late = max(late, (now - datetime.fromisoformat(delivery["due"])).total_seconds())
    return {"due": due, "late": round(late, 1) if late else None}


def _current(lines: Iterable[dict[str, Any]], now: datetime) -> dict[Pair, dict[str, Any]]:
    """Return of each pipeline the delivery that was due last, or else the first that will be."""
    found: dict[Pair, dict[str, Any]] = {}
    for line in lines:
        pair = line["client"], line["pipeline"]
        if pair not in found or datetime.fromisoformat(line["due"]) <= now:
            found[pair] = line
    return found

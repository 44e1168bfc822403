"""One run in detail: the records of its stages, and what they raised."""

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from redis import Redis

from etl import output
from etl.staging import STAGES
from jobs.store import leftover, live, runs
from jobs.store.run_json import StageRecord, seconds_of
from jobs.views import console, history

if TYPE_CHECKING:
    from jobs.session import Session


def run_with_stages(session: "Session", text: str) -> dict[str, Any]:
    """Return one run with the records of its stages and the workers it has lost; which one: see `history.find`."""
    found = history.find(session, text)
    found["stages"] = stages(session.connection, found["run"]) or _listed(
        leftover.stages(session.config.staging, found["client"], found["run"])
    )
    found["lost"] = live.losses(session.connection, found["run"])
    return found


def stages(connection: Redis, run: str) -> list[dict[str, Any]]:
    """Return the records of a run's stages, by partition and in the order they run in; `finish` has no partition."""
    return _listed(runs.stage_records(connection, run))


def _listed(records: Mapping[tuple[int, str], StageRecord]) -> list[dict[str, Any]]:
    ordered = sorted(records, key=lambda key: (key[0] or math.inf, (*STAGES, "finish").index(key[1])))
    found = []
    for number, stage in ordered:
        record = {"partition": number, "stage": stage, **records[number, stage].__dict__}
        del record["by"]
        if record["state"] == "running" and record["began"]:
            record["seconds"] = round(max(0.0, time.time() - seconds_of(record["began"])), 3)
        found.append(record)
    return found


def logs(session: "Session", text: str) -> list[dict[str, Any]]:
    """Return what a run's stages said, and what they raised and printed as staging keeps it."""
    found = run_with_stages(session, text)
    has_ended = bool(found["finished"])
    lines = [{**loss, "text": console.lost(loss, has_ended=has_ended)} for loss in found["lost"]]
    for stage in found["stages"]:
        said = f"{stage['stage']} {stage['partition'] or ''}".strip()
        result = stage["error"] or console.counts(stage["counts"])
        lines.append({**stage, "text": f"{said}: {stage['state']} in {stage['seconds']} s; {result}"})
    staging = history.staging_of(session, found)
    for name in staging.names():
        if name.endswith((".error.txt", output.ENDING)):
            content = (staging.read_bytes(name, output.MOST) or b"").decode("utf-8", "replace")
            lines.append({"file": name, "text": f"--- {name}\n{content.rstrip()}"})
    return lines

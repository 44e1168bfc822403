"""A run as people see it: the public JSON shape, with every field, whoever remembers the run."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

ROWS = ("read", "added", "rejected", "dropped", "superseded", "loaded", "unchanged")


def iso(moment: float | None) -> str | None:
    """Return a moment in seconds since the epoch as ISO 8601 in UTC."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class StageRecord:
    """What a stage said last: its state (`done`, `failed`, `blocked`, `waiting`), counts, seconds and error."""

    state: str
    counts: Mapping[str, int]
    seconds: float = 0.0
    error: str | None = None
    exit: int = 0


def records_of(raw: Mapping[Any, Any]) -> dict[tuple[int, str], StageRecord]:
    """Return stages' records by partition and stage, from the fields of their hash."""
    found: dict[tuple[int, str], StageRecord] = {}
    for key, value in raw.items():
        partition, stage = cast(str, text_of(key)).split(":")
        found[int(partition), stage] = StageRecord(**json.loads(value))
    return found


def run_json(
    run: str,
    *,
    pipeline: str,
    client: str,
    state: str,
    submitted: float | None,
    started: float | None,
    finished: float | None,
    rows: Mapping[str, int],
    partitions: Mapping[str, int],
    failures: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] = (),
    error: str | None,
    start: str | None,
    end: str | None,
    params: Mapping[str, Any],
    attempt: int,
    exit: int,
) -> dict[str, Any]:
    """Return a run in the public JSON shape.

    Args:
        submitted, started, finished: In seconds since the epoch.
        start, end: Of its window, in ISO 8601.
    """
    until = time.time() if finished is None else finished
    return {
        "run": run,
        "pipeline": pipeline,
        "client": client,
        "state": state,
        "submitted": iso(submitted),
        "started": iso(started),
        "finished": iso(finished),
        "seconds": None if started is None else round(until - started, 3),
        "rows": {**dict.fromkeys(ROWS, 0), **rows},
        "partitions": {"total": 0, "done": 0, "failed": 0, "blocked": 0, **partitions},
        "failures": list(failures),
        "warnings": list(warnings),
        "error": error or None,
        "start": start or None,
        "end": end or None,
        "params": dict(params),
        "attempt": attempt,
        "exit": exit,
    }


def of_record(run: str, record: Mapping[str, str], stages: Mapping[tuple[int, str], StageRecord]) -> dict[str, Any]:
    """Return a run that Redis knows in the public JSON shape.

    Args:
        record: Its hash.
        stages: What its stages said last.
    """
    submitted, started, finished = (
        float(record[key]) if record.get(key) else None for key in ("created", "started", "ended")
    )
    is_counted = finished is not None and record.get("done")
    partitions = json.loads(record["done"]) if is_counted else partition_states(stages)
    return run_json(
        run,
        pipeline=record["pipeline"],
        client=record["client"],
        state=record["state"],
        submitted=submitted,
        started=started,
        finished=finished,
        rows=json.loads(record["rows"]) if record.get("rows") else live_rows(stages),
        partitions={"total": int(record.get("partitions") or 0), **partitions},
        failures=json.loads(record.get("failures") or "[]"),
        warnings=json.loads(record.get("warnings") or "[]"),
        error=record.get("error"),
        start=record.get("start"),
        end=record.get("end"),
        params=json.loads(record.get("params") or "{}"),
        attempt=int(record.get("attempt") or 1),
        exit=int(record.get("exit") or 0),
    )


def partition_states(stages: Mapping[tuple[int, str], StageRecord]) -> dict[str, int]:
    """Count the partitions that are done, failed and blocked so far."""
    found: dict[str, set[int]] = {"failed": set(), "blocked": set(), "done": set()}
    for (partition, stage), record in stages.items():
        if partition > 0 and (record.state in ("failed", "blocked") or (stage, record.state) == ("load", "done")):
            found[record.state].add(partition)
    failed, blocked, done = found["failed"], found["blocked"] - found["failed"], found["done"]
    return {"done": len(done - failed - blocked), "failed": len(failed), "blocked": len(blocked)}


def live_rows(stages: Mapping[tuple[int, str], StageRecord]) -> dict[str, int]:
    """Sum the rows by kind that the stages have counted so far."""
    rows = dict.fromkeys(ROWS, 0)
    for (_, stage), record in stages.items():
        for kind, count in record.counts.items():
            if kind in rows and (kind != "read" or stage == "extract"):
                rows[kind] += count
    return rows


def text_of(value: Any) -> str | None:
    """Return what Redis answered as text."""
    return value.decode() if isinstance(value, bytes) else value


def texts_of(answer: Any) -> list[str]:
    """Return the members that Redis answered as text."""
    return [cast(str, text_of(member)) for member in answer]

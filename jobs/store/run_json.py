"""A run as people see it: the public JSON shape, made of what stands in Redis."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

ROWS = ("read", "added", "rejected", "dropped", "superseded", "loaded", "unchanged")


def iso(moment: float | str | None) -> str | None:
    """Return a moment in seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(float(moment), UTC).isoformat(timespec="milliseconds") if moment else None


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


def shape(run: str, record: Mapping[str, str], stages: Mapping[tuple[int, str], StageRecord]) -> dict[str, Any]:
    """Return a run in the public JSON shape."""
    started, ended = record.get("started"), record.get("ended")
    until = float(ended) if ended else time.time()
    total = int(record.get("partitions") or 0)
    ended_counts = record.get("done")
    partitions = json.loads(ended_counts) if ended and ended_counts else partition_states(stages)
    return {
        "run": run,
        "pipeline": record["pipeline"],
        "client": record["client"],
        "state": record["state"],
        "submitted": iso(record.get("created")),
        "started": iso(started),
        "finished": iso(ended),
        "seconds": round(until - float(started), 3) if started else None,
        "rows": json.loads(record["rows"]) if record.get("rows") else live_rows(stages),
        "partitions": {"total": total, **partitions},
        "failures": json.loads(record.get("failures") or "[]"),
        "warnings": json.loads(record.get("warnings") or "[]"),
        "error": record.get("error") or None,
        "start": record.get("start") or None,
        "end": record.get("end") or None,
        "params": json.loads(record.get("params") or "{}"),
        "attempt": int(record.get("attempt") or 1),
        "exit": int(record.get("exit") or 0),
    }


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

"""A run as people see it: the public JSON shape, with every field, whoever remembers the run."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.store import forms

ROWS = ("read", "added", "rejected", "dropped", "superseded", "loaded", "unchanged")
EMPTY: Mapping[str, Any] = {  # the fields of a run, in order
    "pipeline": None,
    "client": None,
    "state": None,
    "submitted": None,
    "started": None,
    "finished": None,
    "seconds": None,
    "rows": dict.fromkeys(ROWS, 0),
    "partitions": {"total": 0, "done": 0, "failed": 0, "blocked": 0},
    "failures": [],
    "warnings": [],
    "odd": [],
    "error": None,
    "waiting": None,
    "start": None,
    "end": None,
    "params": {},
    "attempt": 1,
    "exit": 0,
}


def iso(moment: float | None) -> str | None:
    """Return a moment in seconds since the epoch as ISO 8601 in UTC."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def seconds_of(moment: str | None) -> float:
    """Return a moment in ISO 8601 in seconds since the epoch; 0 for none."""
    return datetime.fromisoformat(moment).timestamp() if moment else 0.0


@dataclass(frozen=True)
class StageRecord:
    """What a stage said last.

    Args:
        state: `running`, `done`, `failed`, `blocked`, or `waiting` for another try.
        kind: The name of its error's class.
        counts: Its rows; while it runs those so far.
        worker: Name of the worker that did it, where it was a process of its own.
        attempt: How often it has been begun in this attempt of its run, tries and lost workers counted.
        began, ended: Moments in ISO 8601, in UTC.
        by: The execution that runs it.
    """

    state: str
    counts: Mapping[str, int]
    seconds: float = 0.0
    error: str | None = None
    exit: int = 0
    kind: str | None = None
    worker: str | None = None
    attempt: int = 1
    began: str | None = None
    ended: str | None = None
    by: str | None = None


def record_of(raw: Mapping[Any, Any] | None) -> dict[str, str] | None:
    """Return a run's hash as text; None for one that is not there or is malformed."""
    return forms.fit("record", raw) if raw and forms.is_fit("record", raw) else None


def records_of(raw: Mapping[Any, Any] | None) -> dict[tuple[int, str], StageRecord]:
    """Return stages' records by partition and stage, from the fields of their hash; what is malformed is left out."""
    found: dict[tuple[int, str], StageRecord] = {}
    for key, value in forms.fit("stages", raw or {}).items():
        partition, stage = key.split(":")
        found[int(partition), stage] = StageRecord(**json.loads(value))
    return found


def run_json(run: str, **known: Any) -> dict[str, Any]:
    """Return a run in the public JSON shape.

    Args:
        known: Values by field, of which any may be left out; moments in seconds since the epoch.
    """
    fields: dict[str, Any] = {"run": run, **EMPTY, **known}
    started, finished = fields["started"], fields["finished"]
    if started is not None:
        fields["seconds"] = round((time.time() if finished is None else finished) - started, 3)
    fields |= {name: iso(fields[name]) for name in ("submitted", "started", "finished")}
    fields |= {name: fields[name] or None for name in ("error", "start", "end")}
    return fields | {name: {**EMPTY[name], **fields[name]} for name in ("rows", "partitions")}


def of_record(run: str, record: Mapping[str, str], stages: Mapping[tuple[int, str], StageRecord]) -> dict[str, Any]:
    """Return a run that Redis knows in the public JSON shape.

    Args:
        record: Its hash.
        stages: What its stages said last.
    """
    moments = {"submitted": "created", "started": "started", "finished": "ended"}
    texts = {name: record.get(name) for name in ("pipeline", "client", "state", "error", "start", "end")}
    partitions = json.loads(record["done"]) if record.get("ended") and record.get("done") else partition_states(stages)
    return run_json(
        run,
        **texts,
        **{name: float(record[key]) for name, key in moments.items() if record.get(key)},
        **{name: json.loads(record[name]) for name in ("failures", "warnings", "odd", "params") if record.get(name)},
        **{name: int(record[name]) for name in ("attempt", "exit") if record.get(name)},
        rows=json.loads(record["rows"]) if record.get("rows") else live_rows(stages),
        partitions={"total": int(record.get("partitions") or 0), **partitions},
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
    """Sum the rows by kind that the stages have counted so far; what a lost worker had counted is counted anew."""
    rows = dict.fromkeys(ROWS, 0)
    for (_, stage), record in stages.items():
        for kind, count in record.counts.items() if record.state in ("done", "running") else ():
            if kind in rows and (kind != "read" or stage == "extract"):
                rows[kind] += count
    return rows


def text_of(value: Any) -> str | None:
    """Return what Redis answered as text; of bytes that are none, a spelling."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value

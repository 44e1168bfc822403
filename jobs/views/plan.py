"""What a run would do, without doing it: its partitions, and its first rows as they would be loaded."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import Any

from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import EtlError
from etl.sources import plan as plan_source
from jobs.run.graph import lanes
from jobs.views import console


def plan(
    pipeline: Pipeline, rows: int | None = None, start: str | None = None, end: str | None = None
) -> dict[str, Any]:
    """Return the partitions a run would have and its first rows, at most so many of the source, and their rejects.

    Args:
        start, end: The run's window; without a zone they are the client's.
    """
    from jobs.run.backfill import window

    first, last = window(start, end, pipeline.timezone)
    planned = plan_source(pipeline, start=first, end=last)
    found: dict[str, Any] = {
        "pipeline": pipeline.name,
        "client": pipeline.client,
        "partitions": [
            {
                "partition": partition.number,
                "file": partition.pieces[0].file if partition.pieces else None,
                "files": len(partition.pieces),
                "start": partition.pieces[0].start if partition.pieces else None,
                "bytes": partition.size,
            }
            for partition in planned.partitions
        ],
        "lanes": len(lanes(planned.partitions, pipeline.max_active)),
        "bytes": sum(partition.size for partition in planned.partitions),
        "target": pipeline.target.name,
        "table": pipeline.table,
        "mode": pipeline.load.mode,
        "warnings": list(planned.warnings),
    }
    if rows and planned.partitions:
        from etl.sources import extract, read_all
        from etl.transform import Transformer
        from etl.transform.lookups import read_lookups
        from etl.types.infer import candidates, named_candidates
        from etl.types.lattice import decide

        partition = planned.partitions[0]
        context = Context(client=pipeline.client, run="preview", params=pipeline.params, start=first, end=last)
        context = replace(context, lookups=read_lookups(pipeline, context, read_all))
        for chunk in islice(extract(pipeline, partition, context), 1):
            guess = pipeline.extract.FACTS.text and not pipeline.columns
            found_types = candidates(chunk.rows, pipeline.extract, guess=guess)
            types = decide(named_candidates([found_types], pipeline))
            files = [piece.file for piece in partition.pieces]
            result = Transformer(pipeline, context, files, types).apply(chunk.rows.slice(0, rows))
            found["rows"] = result.rows.drop_columns(["_row"]).to_pylist()
            found["rejects"] = [*chunk.rejects.slice(0, rows).to_pylist(), *result.rejects.to_pylist()]
    return found


def plans(pipelines: Sequence[Pipeline], start: str | None = None, end: str | None = None) -> list[dict[str, Any]]:
    """Return, for each client, how many partitions, lanes and bytes a run would have, or why it can't be planned."""
    lines: list[dict[str, Any]] = []
    for pipeline in pipelines:
        line = {"client": pipeline.client, "partitions": 0, "lanes": 0, "bytes": 0, "error": None}
        try:
            found = plan(pipeline, None, start, end)
            line |= {"partitions": len(found["partitions"]), "lanes": found["lanes"], "bytes": found["bytes"]}
        except EtlError as exc:
            line["error"] = exc.what
        lines.append(line)
    return lines


def show_plans(lines: Sequence[dict[str, Any]]) -> None:
    """Print plans of many clients, those that can't be planned first."""
    ordered = sorted(lines, key=lambda line: (line["error"] is None, -line["bytes"]))
    console.table(("client", "partitions", "lanes", "bytes", "error"), ordered)
    size = sum(line["bytes"] for line in lines)
    console.say(f"{console.plural(len(lines), 'client')}, {size:,} bytes; nothing was enqueued")


def show(found: dict[str, Any]) -> None:
    """Print a plan for people."""
    partitions = found["partitions"]
    console.table(("partition", "file", "files", "start", "bytes"), partitions[:50])
    if len(partitions) > 50:
        console.say(f"… and {len(partitions) - 50} more")
    cut = f"{console.plural(len(partitions), 'partition')}, {found['bytes']:,} bytes"
    into = f"{found['mode']} into {found['target']}, table {found['table']}"
    console.say(f"{cut}, in {console.plural(found['lanes'], 'lane')} → {into}; nothing was enqueued")
    for warning in found["warnings"]:
        console.say(f"warning: {warning}")
    if found.get("rows"):
        rows = [{name: _shown(value) for name, value in row.items()} for row in found["rows"]]
        console.table(list(rows[0]), rows, title="\nrows as they would be loaded")
    if found.get("rejects"):
        console.table(("file", "row", "column", "value", "reason"), found["rejects"], title="\nrejects")


def _shown(value: object) -> str | None:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return None if value is None else str(value)

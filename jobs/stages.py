"""The stages as RQ jobs: extract, transform and load of one partition, and one finish per run.

A stage's arguments are the run's id and the partition's number. A stage that finds its output
published does nothing; one whose input is absent answers `blocked`; what it raises is recorded
without a row's value, and kept whole in a private file of staging.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from redis import Redis
from rq import get_current_job
from rq.job import Job

from etl import load as target
from etl import rejects as rejected_rows
from etl.columns import match
from etl.context import Context
from etl.errors import EtlError
from etl.extract import extract as read_source
from etl.infer import candidates, decide, merge_candidates
from etl.pipeline import Pipeline
from etl.plan import Partition, Plan
from etl.staging import Marker, Staging
from etl.transform import Transformer
from jobs import holding, receipts, runs, settings
from jobs.scrub import told


@dataclass(frozen=True)
class Work:
    """What a stage needs to know: its run, its partition, where rows are."""

    run: str
    stage: str
    number: int
    attempt: int
    pipeline: Pipeline
    plan: Plan
    context: Context
    staging: Staging

    @property
    def partition(self) -> Partition:
        """The partition this stage works on."""
        return self.plan.partitions[self.number - 1]

    def input(self, stage: str) -> Marker:
        """Return what the stage before published.

        Raises:
            Blocked: It published nothing.
        """
        marker = self.staging.marker(stage, self.number)
        if marker is None:
            raise Blocked(stage)
        return marker


class Blocked(Exception):
    """The stage before has published nothing."""


def extract(run: str, partition: str) -> dict[str, int]:
    """Read one partition of the source into staging."""
    return _perform("extract", run, int(partition), _extract)


def transform(run: str, partition: str) -> dict[str, int]:
    """Cast, check and reshape one partition's rows in staging."""
    return _perform("transform", run, int(partition), _transform)


def load(run: str, partition: str) -> dict[str, int]:
    """Load one partition's rows into the target, with its ledger row in the same transaction."""
    return _perform("load", run, int(partition), _load)


def finish(run: str) -> dict[str, int]:
    """Make the run's rows final, balance its receipts and close it."""
    return _perform("finish", run, 0, _finish)


def _perform(stage: str, run: str, number: int, body: Callable[[Work, Redis], Marker]) -> dict[str, int]:
    job = get_current_job()
    assert job is not None
    connection = job.connection
    record = runs.begin(connection, run)
    if record.get("state") != "running":
        return {"skipped": 1}
    began = time.monotonic()
    state, counts, error, exit_code = "done", {}, None, 0
    try:
        work = _work(stage, run, number, record)
        marker = (work.staging.marker(stage, number) if number else None) or body(work, connection)
        counts = marker.counts
    except Blocked:
        state = "blocked"
    except BaseException as exc:
        final = not job.retries_left or (isinstance(exc, EtlError) and not exc.retryable)
        state, error = ("failed" if final else "waiting"), told(exc)
        exit_code = exc.exit_code if isinstance(exc, EtlError) else 1
        if stage == "finish" and final:
            runs.close(connection, run, "failed", error=error, exit=exit_code, history=settings.history())
        raise
    finally:
        runs.record_stage(
            connection, run, number, stage, state, counts, seconds=time.monotonic() - began, error=error, exit=exit_code
        )
    return {"blocked": 1} if state == "blocked" else counts


def _work(stage: str, run: str, number: int, record: dict[str, str]) -> Work:
    staging = Staging(settings.staging(), record["client"], run)
    pipeline, plan, context = _spec(settings.staging(), record["client"], run, record["attempt"])
    return Work(run, stage, number, int(record["attempt"]), pipeline, plan, context, staging)


@lru_cache(maxsize=64)
def _spec(url: str, client: str, run: str, attempt: str) -> tuple[Pipeline, Plan, Context]:
    spec = Staging(url, client, run).read_json("run.json")
    if spec is None:
        raise EtlError(
            f"run {run} is not in staging {url}",
            "the worker must use the staging of the etl.toml that the run was submitted with (ETL_CONFIG)",
        )
    pipeline = Pipeline.model_validate(spec["pipeline"])
    start, end = (datetime.fromisoformat(spec[key]) if spec[key] else None for key in ("start", "end"))
    context = Context(client=pipeline.client, run=run, params=pipeline.params, start=start, end=end)
    return pipeline, Plan.model_validate(spec["plan"]), context


def _extract(work: Work, connection: Redis) -> Marker:
    rows_out = rejected = 0
    types: list[dict[str, list[str]]] = []
    infer = not work.pipeline.columns
    with (
        work.staging.writer("extract", work.number) as rows,
        work.staging.writer("extract", work.number, "rejects") as rejects,
    ):
        source = read_source(work.pipeline, work.partition, work.context)
        content = ""
        while True:
            try:
                chunk = next(source)
            except StopIteration as stop:
                content = stop.value
                break
            rows.write(chunk.rows)
            rows_out += chunk.rows.num_rows
            if chunk.rejects.num_rows:
                rejects.write(chunk.rejects)
                rejected += chunk.rejects.num_rows
            if infer:
                types.append(candidates(chunk.rows.drop_columns(["_row"])))
    counts = {"read": rows_out + rejected, "out": rows_out, "rejected": rejected}
    marker = Marker(
        counts=counts,
        data=tuple(rows.names),
        rejects=tuple(rejects.names),
        content=content,
        types=merge_candidates(types) if infer else None,
    )
    return work.staging.publish("extract", work.number, marker)


def _transform(work: Work, connection: Redis) -> Marker:
    source = work.input("extract")
    files = [piece.file for piece in work.partition.pieces]
    transformer = Transformer(work.pipeline, work.context, files, _types(work))
    counts = dict.fromkeys(("in", "out", "rejected", "dropped", "added"), 0)
    warnings: list[str] = []
    with (
        work.staging.writer("transform", work.number) as rows,
        work.staging.writer("transform", work.number, "rejects") as rejects,
    ):
        for chunk in _pieces(work.pipeline, work.staging.chunks(source.data)):
            result = transformer.apply(chunk)
            rows.write(result.rows)
            if result.rejects.num_rows:
                rejects.write(result.rejects)
            counts["in"] += chunk.num_rows
            counts["out"] += result.rows.num_rows
            counts["rejected"] += result.rejects.num_rows
            counts["dropped"] += result.dropped
            counts["added"] += result.added
            warnings += [warning for warning in result.warnings if warning not in warnings]
    marker = Marker(counts=counts, data=tuple(rows.names), rejects=tuple(rejects.names), warnings=tuple(warnings))
    return work.staging.publish("transform", work.number, marker)


def _pieces(pipeline: Pipeline, chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Give functions any piece, or all rows of the partition at once where they asked for a file or the run."""
    if pipeline.extract.split == "rows" or not pipeline.transform:
        return chunks
    tables = list(chunks)
    return iter([pa.concat_tables(tables, promote_options="permissive")] if tables else [])


def _types(work: Work) -> dict[str, str] | None:
    """Return the types that fit every partition of a run without columns, the same for each of them."""
    if work.pipeline.columns:
        return None
    found: dict[str, str] | None = work.staging.read_json("types.json")
    if found is None:
        markers = [work.staging.marker("extract", p.number) for p in work.plan.partitions]
        fitting = [marker.types for marker in markers if marker is not None and marker.types is not None]
        candidates_ = merge_candidates(fitting)
        decided = decide(candidates_, _existing(work.pipeline, list(candidates_)))
        work.staging.write_json("types.json", decided)
        found = work.staging.read_json("types.json")
    return found


def _existing(pipeline: Pipeline, headers: list[str]) -> dict[str, str]:
    """Return the types that the target's table has, by the source's own column names."""
    existing = target.column_types(pipeline)
    return {header: existing[name] for header, name in match(headers, pipeline, "").items() if name in existing}


def _load(work: Work, connection: Redis) -> Marker:
    source, rows = work.input("extract"), work.input("transform")
    delivery = target.Delivery(
        pipeline=work.pipeline,
        run=work.run,
        partition=work.partition,
        content=source.content,
        partitions=len(work.plan.partitions),
        attempt=work.attempt,
    )
    answer = target.load(
        delivery,
        work.staging.chunks(rows.data),
        read=source.counts["read"],
        rejected=source.counts["rejected"] + rows.counts["rejected"],
    )
    counts = {
        "in": rows.counts["out"],
        "loaded": answer.loaded,
        "unchanged": answer.unchanged,
        "superseded": answer.superseded,
        "final": int(answer.final),
    }
    return work.staging.publish("load", work.number, Marker(counts=counts, warnings=tuple(answer.warnings)))


def _finish(work: Work, connection: Redis) -> Marker:
    tally = receipts.gather(work.staging, work.plan.partitions)
    failures = _failures(work, tally, connection)
    rows = tally.rows()
    error, exit_code = _make_final(work, tally, rows, complete=not failures)
    if error is None and failures:
        error = failures[0]["error"] if len(failures) == 1 else f"{len(failures)} partitions failed"
        exit_code = max(failure["exit"] for failure in failures)
    if error is None:
        error = tally.disagreement(rows)
        exit_code = int(error is not None)
    keep = _list_rejects(work, tally)
    if error is None:
        work.staging.remove(keep=keep)
    runs.close(
        connection,
        work.run,
        "failed" if error else "succeeded",
        rows=rows,
        partitions=tally.partitions(failures),
        failures=failures,
        warnings=list(dict.fromkeys([*work.plan.warnings, *tally.warnings])),
        error=error,
        exit=exit_code,
        history=settings.history(),
    )
    holding.release(connection)
    return Marker(counts=rows)


def _make_final(work: Work, tally: receipts.Tally, rows: dict[str, int], *, complete: bool) -> tuple[str | None, int]:
    """Apply what the run's loads have put aside, and count it; answers the error that forbade it, and its exit code."""
    if tally.is_final or not tally.done:
        return None, 0
    try:
        final = target.finish(
            work.pipeline,
            work.run,
            work.plan.partitions,
            done=tally.done,
            complete=complete,
            read=rows["read"],
            rejected=rows["rejected"],
        )
    except EtlError as exc:
        if exc.retryable:
            raise
        return told(exc), exc.exit_code
    rows.update(loaded=final.loaded, unchanged=final.unchanged, superseded=final.superseded)
    rows["rejected"] += len(final.duplicates)
    _keep_duplicates(work, final.duplicates)
    return None, 0


def _failures(work: Work, tally: receipts.Tally, connection: Redis) -> list[dict[str, Any]]:
    """Return a line for each partition that isn't loaded: which stage failed, and why."""
    records = runs.stage_records(connection, work.run)
    failures = []
    for partition in work.plan.partitions:
        stage = tally.missing(partition.number)
        if stage is None:
            continue
        record = records.get((partition.number, stage))
        error = (record.error if record else None) or _job_error(connection, work, partition.number, stage)
        failures.append(
            {
                "partition": partition.number,
                "file": partition.pieces[0].file if partition.pieces else None,
                "stage": stage,
                "state": "failed" if error or (record and record.state != "done") else "blocked",
                "error": error or "its input is gone from staging",
                "exit": (record.exit if record else 0) or 1,
            }
        )
    return failures


def _job_error(connection: Redis, work: Work, number: int, stage: str) -> str | None:
    """Return what RQ knows of a stage that could not speak for itself, as after a kill."""
    record = runs.read(connection, work.run) or {}
    id = f"{work.run}-{number}-{stage}-{record.get('attempt', 1)}"
    if not Job.exists(id, connection=connection):
        return None
    result = Job.fetch(id, connection=connection).latest_result()
    lines = (result.exc_string or "").strip().splitlines() if result else []
    return lines[-1] if lines else None


def _keep_duplicates(work: Work, duplicates: Sequence[Any]) -> None:
    """Write rows whose unique value another partition has too as rejects, with their source row."""
    wanted: dict[int, dict[int, Any]] = {}
    for duplicate in duplicates:
        wanted.setdefault(duplicate.partition, {})[duplicate.row] = duplicate
    if not wanted:
        return
    entries = []
    for partition in work.plan.partitions:
        found = wanted.get(partition.number, {})
        marker = work.staging.marker("extract", partition.number) if found else None
        for chunk in work.staging.chunks(marker.data if marker else ()):
            mine = chunk.filter(pc.is_in(chunk["_row"], pa.array(list(found), pa.int64())))
            names = [name for name in mine.column_names if name != "_row"]
            for row in mine.to_pylist():
                duplicate = found[row["_row"]]
                file, line = receipts.place(partition, row["_row"])
                entries.append(
                    {
                        "file": file,
                        "row": line,
                        "column": duplicate.column,
                        "value": duplicate.value,
                        "reason": "not unique",
                        "raw": rejected_rows.raw_json(names, [row[name] for name in names]),
                    }
                )
    with work.staging.writer("finish", 0, "rejects") as rejects:
        rejects.write(rejected_rows.table(entries))
    work.staging.publish("finish", 0, Marker(rejects=tuple(rejects.names)))


def _list_rejects(work: Work, tally: receipts.Tally) -> list[str]:
    duplicates = work.staging.marker("finish", 0)
    names = [*tally.rejects, *(duplicates.rejects if duplicates else ())]
    work.staging.write_json("rejects.json", names)
    return [*names, "rejects.json", "run.json"]


def keep_traceback(job: Job, text: str) -> None:
    """Keep what a stage raised, whole, in a file of staging that only its owner can read.

    Args:
        job: The stage's job; other jobs are passed over.
        text: The traceback, which may hold row values.
    """
    name = str(job.func_name)
    if not name.startswith("jobs.stages."):
        return
    run = str(job.args[0])
    record = runs.read(job.connection, run)
    if record is None:
        return
    number = int(job.args[1]) if len(job.args) > 1 else 0
    stage = name.rsplit(".", 1)[-1]
    try:
        Staging(settings.staging(), record["client"], run).keep_private(f"{number:05d}.{stage}.error.txt", text)
    except EtlError:
        traceback.print_exc()

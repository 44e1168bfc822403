"""A run's last stage: its rows are made final, its receipts balanced, its record closed, its staging cleaned."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from redis import Redis

from etl import load as target
from etl import output
from etl import rejects as rejected_rows
from etl.config import code
from etl.config.columns import match
from etl.errors import EtlError, ForeignFile, ReceiptMismatch, UnexpectedDelivery
from etl.load import expect, ledger
from etl.partition import line_of
from etl.safe_message import kind_of, safe_message
from etl.staging import STAGES, Marker, contents
from etl.types.spelling import as_text, plain
from jobs.job import EtlJob
from jobs.run import balance, held
from jobs.run.stage import Stage, StageContext
from jobs.store import over, runs


@dataclass(frozen=True)
class Ending:
    """How a run ends.

    Args:
        rows: By kind.
        failures: A line for each partition that isn't loaded.
        partitions: How many are done, failed and blocked.
        error: Why it failed, or None.
        exit: The exit code that it asks for.
        kind: The name of the class of that error, where it is no stage's.
    """

    rows: Mapping[str, int]
    failures: Sequence[Mapping[str, Any]]
    partitions: Mapping[str, int]
    error: str | None
    exit: int
    kind: str | None = None

    @property
    def state(self) -> str:
        """succeeded or failed."""
        return "failed" if self.error else "succeeded"


def ending(
    tally: balance.Tally,
    failures: Sequence[Mapping[str, Any]],
    final: target.FinishCounts | None = None,
    refused: EtlError | None = None,
) -> Ending:
    """Say how a run ends.

    Args:
        final: What became of rows that waited in the target, where any did.
        refused: Why the target has not made them final.
    """
    rows = tally.rows()
    if final is not None:
        rows.update(loaded=final.loaded, unchanged=final.unchanged + tally.left_out, superseded=final.superseded)
        rows["rejected"] += final.rejected - tally.rejected_then
    error, exit, kind = None, 0, None
    if refused is not None:
        error, exit, kind = safe_message(refused), refused.exit_code, kind_of(refused)
    elif failures:
        error = failures[0]["error"] if len(failures) == 1 else f"{len(failures)} partitions failed"
        exit = max(failure["exit"] for failure in failures)
    elif (error := tally.disagreement(rows)) is not None:
        exit, kind = 1, ReceiptMismatch.__name__
    return Ending(rows, failures, tally.partitions(failures), error, exit, kind)


def history_record(work: StageContext, ended: Ending) -> target.Record:
    """Return what the target is to remember of a run."""
    start, end = (moment.isoformat() if moment else None for moment in (work.context.start, work.context.end))
    submitted, started = (
        datetime.fromtimestamp(moment, UTC) if moment else None for moment in (work.submitted, work.started)
    )
    return target.Record(
        run=work.run,
        client=work.pipeline.client,
        pipeline=work.pipeline.name,
        table_name=work.pipeline.table,
        state=ended.state,
        attempt=work.attempt,
        submitted=submitted,
        started=started,
        finished=datetime.now(UTC),
        rows=ended.rows,
        partitions={"total": len(work.plan.partitions), **ended.partitions},
        params=work.pipeline.params,
        window_start=start,
        window_end=end,
        fingerprint=work.pipeline.fingerprint,
        code=code.fingerprint(work.pipeline),
        error=ended.error,
    )


def finish_run(work: StageContext, connection: Redis) -> Marker:
    """Close the run of a `finish` stage; called again it ends the same."""
    tally = balance.gather(work.staging, work.plan.partitions)
    if (runs.read(connection, work.run) or {}).get("state") != "running":
        return Marker()  # another execution has ended the run meanwhile, and has cleaned staging up under this one
    failures = _failures(work, tally, connection)
    ended, is_recorded, said = _make_final(work, tally, failures)
    old = _lying_there(work, failures)
    unmet, unknown = _unmet(work, tally, ended.rows["read"], old)
    odd = [*unmet, *_foreign(failures, old)]
    if expect.is_fatal(work.pipeline):  # the load has refused it, if there was one
        if unmet and not work.plan.partitions:
            ended = replace(ended, error="; ".join(unmet), exit=1, kind=UnexpectedDelivery.__name__)
        _forget_refused(work, tally, unmet)
        unmet = []
    rejected = tally.rejected_files(work.plan.partitions)
    passed = _passed_over(work, tally)
    warnings = list(dict.fromkeys([*work.plan.warnings, *tally.warnings, *rejected, *said, *passed, *unmet, *unknown]))
    if not is_recorded and (why := _remember(work, ended)):
        warnings.append(why)
    kept = _list_rejects(work, tally)
    has_shadow = work.staging.marker("finish", 0) is not None  # kept until the doubled rows are in rejects
    if ended.state == "failed":
        with suppress(EtlError):  # the cleanup tries again
            work.staging.remove_strays()  # before a retry may write files that it has not published yet
    closing = {field.name: getattr(ended, field.name) for field in fields(ended)}
    closing |= {"warnings": warnings, "odd": odd, "attempt": work.attempt, "client": work.pipeline.client}
    runs.close(connection, work.run, ended.state, **closing)
    held.promote(connection)
    # Last: a finish that dies before the run is closed is done again, and needs these files.
    with suppress(EtlError):  # the cleanup tries again
        if ended.state == "succeeded":
            work.staging.remove(keep=kept)
            if has_shadow:
                target.drop_shadow(work.pipeline, work.run)
    return Marker(counts=dict(ended.rows))


def _lying_there(work: StageContext, failures: Sequence[Mapping[str, Any]]) -> set[str]:
    """Return the files that can't be read and lie there since an earlier run, which has said so."""
    unread = {failure["file"] for failure in failures if failure["stage"] == "extract"}
    if not unread or not balance.is_expected(work) or not work.pipeline.extract.FACTS.files:
        return set()
    pieces = [piece for each in work.plan.partitions for piece in each.pieces if piece.file in unread]
    day, _ = work.pipeline.day_of(work.context.start, work.context.today)
    files = [file for piece in pieces if (file := balance.file_of(work, piece, piece.version, day)) is not None]
    with suppress(EtlError):  # what can't be looked up is new
        return contents.lying_there(work.staging.url, files)
    return set()


def _foreign(failures: Sequence[Mapping[str, Any]], old: Collection[str]) -> list[str]:
    """Return a sentence for each file that is of another kind than the source's, but for old ones."""
    kind = ForeignFile.__name__
    found = [each for each in failures if each.get("kind") == kind and each["file"] not in old]
    return [each["error"].partition("\n")[0] for each in found]


def _unmet(work: StageContext, tally: balance.Tally, read: int, unread: Collection[str]) -> tuple[list[str], list[str]]:
    """Return what the delivery is not as expected in, and a warning where that can't be known now."""
    which = work.pipeline, work.plan.partitions, read
    try:
        return expect.unmet(*which, balance.delivered(work, tally, unread)), []
    except EtlError as exc:
        return expect.unmet(*which), [f"whether the delivery is as usual is not known: {exc.what}"]


def _forget_refused(work: StageContext, tally: balance.Tally, unmet: Sequence[str]) -> None:
    """Have files that are refused as they have come before looked at again by the next run that finds them there."""
    if unmet and work.context.start is None:
        with suppress(EtlError):
            day, _ = work.pipeline.day_of(None, work.context.today)
            contents.forget(work.staging.url, balance.files(work, tally, day))


def give_up(connection: Redis, stage: Stage) -> None:
    """Close a run whose `finish` has failed for good."""
    run, work, error, exit = stage.run, stage.context, stage.error, stage.exit
    if work is not None:
        with suppress(EtlError):
            tally = balance.gather(work.staging, work.plan.partitions)
            ended = ending(tally, _failures(work, tally, connection))
            _remember(work, replace(ended, error=error, exit=exit, kind=stage.kind))
    attempt = work.attempt if work is not None else None
    client = work.pipeline.client if work is not None else (runs.read(connection, run) or {}).get("client")
    runs.close(connection, run, "failed", error=error, exit=exit, kind=stage.kind, attempt=attempt, client=client)


def _make_final(
    work: StageContext, tally: balance.Tally, failures: Sequence[Mapping[str, Any]]
) -> tuple[Ending, bool, Sequence[str]]:
    """Apply what the run's loads have put aside; answers the ending, whether the target remembers it, and warnings."""
    if not tally.done or (tally.is_final and len(work.plan.partitions) == 1):
        ended = ending(tally, failures)
        return ended, ended.state == "succeeded", ()  # as its only load has written it there
    rows = tally.rows()
    try:
        final = target.finish(
            work.pipeline,
            work.run,
            work.plan.partitions,
            done=tally.done,
            complete=not failures,
            read=rows["read"],
            rejected=rows["rejected"] - tally.rejected_then,
            all_rejected=tally.all_rejected,
            delivered=balance.delivered(work, tally) if expect.is_fatal(work.pipeline) else None,
            record=lambda final: history_record(work, ending(tally, failures, final)),
            move=work.move(tally.latest, tally.future),
            zones=work.zones,
            locate=work.locate,
        )
    except EtlError as exc:
        if exc.retryable:
            raise
        return ending(tally, failures, refused=exc), False, ()
    _keep_duplicates(work, final.duplicates)
    return ending(tally, failures, final), True, final.warnings


def _remember(work: StageContext, ended: Ending) -> str | None:
    """Have the target remember a run that failed; answers why it could not, or None."""
    if ended.exit == EtlError.exit_code:
        try:
            target.remember(work.pipeline, history_record(work, ended))
        except EtlError as exc:
            return f"the target does not remember this run: {exc.what}"
    return None


def _passed_over(work: StageContext, tally: balance.Tally) -> list[str]:
    """Return warnings of rows that the cursor passed by although nobody has read them before."""
    passed: dict[str, int] = {}
    for partition in work.plan.partitions if work.pipeline.extract.FACTS.files else ():
        extracted = tally.markers[partition.number].get("extract")
        if extracted is not None and (count := extracted.counts.get("unchanged", 0)):
            name = ledger.name_of(partition)
            passed[name] = passed.get(name, 0) + count
    try:
        return target.passed_over(work.pipeline, work.run, passed) if passed else []
    except EtlError as exc:
        return [f"which rows the cursor passed by for the first time is not known: {exc.what}"]


def _failures(work: StageContext, tally: balance.Tally, connection: Redis) -> list[dict[str, Any]]:
    """Return a line for each partition that isn't loaded: which stage failed, and why."""
    records = runs.stage_records(connection, work.run)
    failures = []
    for partition in work.plan.partitions:
        stage = tally.missing(partition.number)
        if stage is None:
            continue
        # One that found its input damaged has withdrawn it: what it said counts, not that the input is missing.
        for later in STAGES[STAGES.index(stage) :]:
            if (found := records.get((partition.number, later))) and found.state == "failed":
                stage = later
                break
        record = records.get((partition.number, stage))
        # What RQ knows of a stage that could not speak for itself, as after a kill, ends with what counts.
        job = EtlJob(f"{work.run}-{partition.number}-{stage}-{work.attempt}", connection=connection)
        error = (record.error if record else None) or job.failure.strip().rpartition("\n")[2]
        failures.append(
            {
                "partition": partition.number,
                "file": partition.pieces[0].file if partition.pieces else None,
                "stage": stage,
                "state": "failed" if error or (record and record.state != "done") else "blocked",
                "error": error or "its input is gone from staging",
                "kind": record.kind if record else None,
                "exit": (record.exit if record else 0) or 1,
            }
        )
    return failures


def _keep_duplicates(work: StageContext, duplicates: Sequence[Any]) -> None:
    """Write rows whose unique value another partition has too as rejects, with their source row."""
    if not duplicates:
        return
    entries = []
    for partition in work.plan.partitions:
        wanted = [duplicate for duplicate in duplicates if duplicate.partition == partition.number]
        source = _source_rows(work, partition.number, [duplicate.row for duplicate in wanted]) if wanted else {}
        for duplicate in wanted:
            row = source.get(duplicate.row)  # a function may have made rows of its own
            headers = match(list(row), work.pipeline, "") if row else {}
            header = next((header for header, name in headers.items() if name == duplicate.column), None)
            file, line = line_of(partition, duplicate.row) if row else (partition.pieces[0].file, None)
            entries.append(
                {
                    "file": file,
                    "row": line,
                    "column": duplicate.column,
                    "value": row[header] if row and header else None,
                    "reason": "not unique",
                    "raw": rejected_rows.raw_json(list(row), list(row.values())) if row else None,
                }
            )
    with work.staging.writer("finish", 0, "rejects") as rejects:
        rejects.write(rejected_rows.table(entries))
    work.staging.publish("finish", 0, Marker(rejects=tuple(rejects.names)))


def _source_rows(work: StageContext, number: int, lines: Sequence[int]) -> dict[int, dict[str, str | None]]:
    """Return rows of a partition as text, as they were extracted, by their `_row`."""
    marker, found = work.staging.marker("extract", number), {}
    for chunk in work.staging.chunks(marker.data if marker else ()):
        mine = chunk.filter(pc.is_in(chunk["_row"], pa.array(lines, pa.int64())))
        texts = [as_text(plain(mine[name])).to_pylist() for name in mine.column_names if name != "_row"]
        names = [name for name in mine.column_names if name != "_row"]
        for at, line in enumerate(mine["_row"].to_pylist()):
            found[line] = {name: text[at] for name, text in zip(names, texts, strict=True)}
    return found


def _list_rejects(work: StageContext, tally: balance.Tally) -> list[str]:
    """List the files of a run's rejects in staging; returns all files that outlive the run."""
    duplicates = work.staging.marker("finish", 0)
    names = [*tally.rejects, *(duplicates.rejects if duplicates else ())]
    work.staging.write_json("rejects.json", names)
    said = [name for name in work.staging.names() if name.endswith(output.ENDING)]
    return [*names, *said, "rejects.json", "run.json", over.FILE]

"""What is done with one partition: its source is read, its rows are transformed, and loaded into the target.

Each of the three returns what it is to publish; `jobs.run.stage` publishes it, last.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from redis import Redis

from etl import load as target
from etl import rejects as rejected_rows
from etl import sources
from etl.config import code
from etl.config.columns import named
from etl.config.pipeline import Pipeline
from etl.errors import EtlError
from etl.load import expect, known
from etl.partition import ROW_BITS, Chunk
from etl.prefetch import prefetch
from etl.sources import extract as read_source
from etl.staging import Marker, Staging
from etl.transform import Transformer
from etl.transform.lookups import Lookups, lookups_of
from etl.transform.period import Period
from etl.types.infer import candidates, named_candidates
from etl.types.lattice import EMPTY, decide, merge_candidates, of_key
from etl.types.limits import Limit, Limits
from etl.types.newer import Narrowed, Reached
from jobs.run import finish
from jobs.run.balance import ByFile, Tally, delivered, newly
from jobs.run.rate_limit import RateLimit
from jobs.run.stage import StageContext


def extract(work: StageContext, connection: Redis) -> Marker:
    """Read a partition of the source into staging, unless all of it is known to be loaded."""
    if not work.full_refresh and known.may_skip(work.pipeline, work.partition, len(work.plan.partitions)):
        pieces = [piece for partition in work.plan.partitions for piece in partition.pieces]
        there, shaped = None, dict[str, str]()

        def compared() -> dict[str, str]:
            shaped.update(_shaped(work))
            return shaped

        with suppress(EtlError):  # a target that can't be asked now may be there when the rows are to be loaded
            which = work.pipeline, work.run, work.attempt, work.partition
            there = known.rows_there(*which, pieces, compared)
        if there is not None:
            rows, content = there
            counts = {"read": rows, "out": rows, "rejected": 0, "skipped": rows}
            return Marker(counts=counts, content=content, shaped=shaped)
    return _read(work, connection)


def _shaped(work: StageContext) -> dict[str, str]:
    """Return what shapes rows beside their source and the configuration, by the ledger's names for it."""
    lookups = work.pipeline.lookups if work.pipeline.transform or work.pipeline.extract.FACTS.own_code else {}
    content = lookups_of(work.pipeline, work.context, sources.read_all, work.attempt).content if lookups else ""
    window, shaped = (work.context.start, work.context.end), code.fingerprint(work.pipeline)
    if any(window) and code.asks_for_window(work.pipeline):
        shaped += f" {'/'.join(str(moment and moment.timestamp()) for moment in window)}"
    return {"code": shaped, "lookups": content}


def _read(work: StageContext, connection: Redis) -> Marker:
    rows_out = rejected = 0
    types: list[dict[str, list[str]]] = []
    warnings: list[str] = []
    by_file = ByFile(work.partition)
    pipeline = work.pipeline
    guess = pipeline.extract.FACTS.text and not pipeline.columns
    context = work.context
    if rate := work.pipeline.extract.rate:
        context = replace(context, pace=RateLimit(connection, work.pipeline.client, work.pipeline.name, rate))
    with (
        work.staging.writer("extract", work.number) as rows,
        work.staging.writer("extract", work.number, "rejects") as rejects,
    ):
        narrow = Narrowed(work.pipeline, work.span, work.partition.pieces[0].file)
        content = ""

        def read() -> Iterator[Chunk]:
            nonlocal content
            content = yield from read_source(work.pipeline, work.partition, context, work.span)

        # A function of the user's own stays in this thread, where a debugger and its libraries expect it.
        for chunk in read() if work.pipeline.extract.FACTS.own_code else prefetch(read()):
            newer = narrow(chunk.rows)
            rows.write(newer)
            rows_out += newer.num_rows
            warnings += chunk.warnings
            by_file.read(chunk.rows, chunk.rejects)
            if chunk.rejects.num_rows:
                rejects.write(chunk.rejects)
                rejected += chunk.rejects.num_rows
            names = named(newer.column_names, pipeline)
            declared = [header for header, name in names.items() if name in pipeline.columns]
            types.append(candidates(newer.drop_columns(declared), pipeline.extract, guess=guess))
            work.count({"read": rows_out + rejected + narrow.unchanged, "out": rows_out, "rejected": rejected})
    # Rows that are held back count as not read: another run reads them.
    counts = {"read": rows_out + rejected + narrow.unchanged, "out": rows_out, "rejected": rejected}
    if narrow.unchanged:
        counts["unchanged"] = narrow.unchanged
    if narrow.future:
        counts["future"] = narrow.future
    return Marker(
        counts=counts,
        data=tuple(rows.names),
        rejects=tuple(rejects.names),
        content=content,
        types=merge_candidates(types),
        warnings=(*warnings, *narrow.warnings),
        files=by_file.counts,
    )


def transform(work: StageContext, connection: Redis) -> Marker:
    """Cast, check and reshape a partition's rows in staging."""
    source = work.input("extract")
    if skipped := source.counts.get("skipped"):
        counts = dict.fromkeys(("in", "out"), skipped) | dict.fromkeys(("rejected", "dropped", "added"), 0)
        return Marker(counts=counts, shaped=source.shaped)
    shaped = _shaped(work)  # before it is used: what changes meanwhile is another shape, which the next run sees
    files = [piece.file for piece in work.partition.pieces]
    types = _types(work)
    transformer = Transformer(work.pipeline, work.context, files, types.words, _limits(work))
    reached = Reached(work.pipeline, work.span, files[0] if files else work.pipeline.name)
    due = work.pipeline.day_of(work.context.start, work.context.today)[1] if not work.partition.fixed else None
    period = Period(work.pipeline, due, files)
    made: list[dict[str, list[str]]] = []
    counts = dict.fromkeys(("in", "out", "rejected", "dropped", "added"), 0)
    lookups = work.context.lookups
    warnings = list(lookups.warnings) if isinstance(lookups, Lookups) else []
    by_file = ByFile(work.partition)
    with (
        work.staging.writer("transform", work.number) as rows,
        work.staging.writer("transform", work.number, "rejects") as rejects,
    ):
        for chunk in _pieces(work.pipeline, prefetch(work.staging.chunks(source.data))):
            result = transformer.apply(chunk)
            reached(chunk, result.refused)
            period(result.rows)
            rows.write(result.rows)
            by_file.rejected(result.rejects)
            if result.rejects.num_rows:
                rejects.write(result.rejects)
            if work.pipeline.transform:
                undeclared = [name for name in result.rows.column_names if name not in work.pipeline.columns]
                made.append(candidates(result.rows.select(undeclared), guess=False))
            counts["in"] += chunk.num_rows
            counts["out"] += result.rows.num_rows
            counts["rejected"] += result.rejects.num_rows
            counts["dropped"] += result.dropped
            counts["added"] += result.added
            warnings += [warning for warning in result.warnings if warning not in warnings]
            work.count(counts)
    return Marker(
        counts=counts,
        data=tuple(rows.names),
        rejects=tuple(rejects.names),
        types=merge_candidates(made) if work.pipeline.transform else types.kinds,
        warnings=tuple(warnings),
        shaped=shaped,
        files=by_file.counts,
        dated=period.counts,
        cursor=work.read_to(reached.latest),
    )


def _pieces(pipeline: Pipeline, chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Give functions any piece, or all rows of the partition at once where they asked for a file or the run."""
    if pipeline.extract.split == "rows" or not pipeline.transform:
        return chunks
    tables = list(chunks)
    return iter([pa.concat_tables(tables, promote_options="permissive")] if tables else [])


@dataclass(frozen=True)
class _Types:
    """Types of the columns that nobody declared, by the pipeline's names of them.

    Args:
        words: What each is taken for.
        kinds: Its candidates.
    """

    words: dict[str, str]
    kinds: dict[str, list[str]]


def _types(work: StageContext) -> _Types:
    """Return the types of undeclared columns: those that fit every partition where a run declares none at all."""
    if work.pipeline.columns:
        return _decided(work, [work.input("extract")])
    found: dict[str, Any] | None = work.staging.read_json("types.json")
    if found is None or "kinds" not in found:
        markers = [work.staging.marker("extract", p.number) for p in work.plan.partitions]
        decided = _decided(work, [marker for marker in markers if marker is not None])
        work.staging.write_bytes("types.json", json.dumps(asdict(decided)).encode(), exclusive=found is None)
        found = work.staging.read_json("types.json")
    return _Types(**found)


def _limits(work: StageContext) -> Limits:
    """Return what the table's columns keep; the target is asked once in an attempt of the run."""
    name = f"limits-{work.attempt}.json"
    found = work.staging.read_json(name)
    if found is None:
        limits = target.limits(work.pipeline)
        work.staging.write_json(name, [limits.columns, limits.new])
        return limits
    columns, new = ({key: limit and Limit(*limit) for key, limit in part.items()} for part in found)
    return Limits(columns, new)


def _decided(work: StageContext, markers: Iterable[Marker]) -> _Types:
    found = [marker.types for marker in markers if marker.types]
    if not any(found):
        return _Types({}, {})
    existing = target.column_types(work.pipeline)
    kinds = named_candidates(found, work.pipeline, existing)
    if work.pipeline.extract.FACTS.text:
        keys = {name: kinds[name] for name in work.pipeline.load.key if name in kinds}
        kinds |= {name: of_key(fitting, existing.get(name, EMPTY)) for name, fitting in keys.items()}
    return _Types(decide(kinds, existing, exact=target.keeps_digits(work.pipeline)), kinds)


def load(work: StageContext, connection: Redis) -> Marker:
    """Load a partition's rows into the target, with its ledger row in the same transaction."""
    source, rows = work.input("extract"), work.input("transform")
    mine = Tally({work.number: {"extract": source, "transform": rows}})
    rejected = source.counts["rejected"] + rows.counts["rejected"]
    delivery = target.Delivery(
        pipeline=work.pipeline,
        run=work.run,
        partition=work.partition,
        content=source.content,
        partitions=len(work.plan.partitions),
        attempt=work.attempt,
        read=source.counts["read"],
        rows=rows.counts["out"],
        rejected=rejected,
        skipped=source.counts.get("skipped", 0),
        all_rejected=mine.all_rejected,
        again=work.full_refresh,
        context=work.context,
        day=work.pipeline.day_of(work.context.start, work.context.today)[0],
        newly=newly(source),
        **rows.shaped,
    )

    def loaded(answer: target.LoadCounts) -> Marker:
        kinds = {kind: getattr(answer, kind) for kind in ("loaded", "unchanged", "superseded")}
        counts = {"in": rows.counts["out"], **kinds, "final": int(answer.final)}
        if answer.rejected:
            counts["rejected"] = answer.rejected
        return Marker(counts=counts, warnings=tuple(answer.warnings))

    def ended(answer: target.LoadCounts) -> target.Record:
        """Say how a run of one partition ends, as far as its load knows; `finish` says so where it ends otherwise."""
        stages = {"extract": source, "transform": rows, "load": loaded(answer)}
        return finish.history_record(work, finish.ending(Tally({work.number: stages}), []))

    is_guarded = len(work.plan.partitions) == 1 and expect.is_fatal(work.pipeline)
    answer = target.load(
        delivery,
        _counted(work, work.staging.chunks(rows.data)),
        read=source.counts["read"],
        rejected=rejected,
        delivered=delivered(work, mine) if is_guarded else None,
        record=ended,
        move=work.move(mine.latest, mine.future),
        types=rows.types,
        zones=work.zones,
        locate=work.locate,
    )
    return replace(loaded(answer), rejects=_rejected_then(work, answer, rows.data) if answer.rejected else ())


def _counted(work: StageContext, chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Show how many rows have been handed to the target; they are loaded when its transaction ends."""
    given = 0
    for chunk in chunks:
        yield chunk
        given += chunk.num_rows
        work.count({"in": given})


def _rejected_then(work: StageContext, answer: target.LoadCounts, data: Iterable[str]) -> tuple[str, ...]:
    """List rows that are good now among the rejects, as the run that appended their file has rejected them.

    They are named only as long as that run's staging is kept.
    """
    base = {piece.file: index << ROW_BITS for index, piece in enumerate(work.partition.pieces)}
    found: dict[int, dict[str, Any]] = {}
    with suppress(EtlError):
        earlier = Staging(work.staging.url, work.pipeline.client, answer.earlier)
        for table in earlier.chunks(earlier.read_json("rejects.json") or ()):
            for entry in table.to_pylist():
                if entry["file"] in base and entry["row"]:
                    found[base[entry["file"]] | entry["row"]] = entry
    good: set[int] = set()
    for chunk in work.staging.chunks(data) if found else ():
        good |= set(chunk["_row"].filter(pc.is_in(chunk["_row"], pa.array(found, pa.int64()))).to_pylist())
    entries = [found[row] | {"reason": f"rejected by run {answer.earlier}: {found[row]['reason']}"} for row in good]
    with work.staging.writer("load", work.number, "rejects") as rejects:
        if entries:
            rejects.write(rejected_rows.table(entries[: answer.rejected]))
    return tuple(rejects.names)

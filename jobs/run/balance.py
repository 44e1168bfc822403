"""What a run's stages have published: counts of rows in and out, whether these balance, and what was delivered."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.load import expect, known, ledger
from etl.partition import ROW_BITS, Partition, Piece
from etl.staging import STAGES, Marker, Staging, contents
from etl.types.cursor import Cursor, later, latest_of
from jobs.run.stage import StageContext
from jobs.store.run_json import ROWS


@dataclass
class Tally:
    """What the stages of a run published, by partition.

    Args:
        markers: The marker of each partition's stages that published one.
    """

    markers: Mapping[int, Mapping[str, Marker]]
    done: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.done = [number for number, stages in self.markers.items() if "load" in stages]

    @property
    def is_final(self) -> bool:
        """Whether every load was final by itself, so that there is nothing left to apply."""
        return all(self.markers[number]["load"].counts.get("final") for number in self.done)

    def missing(self, number: int) -> str | None:
        """Return the first stage of a partition that published nothing, or None."""
        return next((stage for stage in STAGES if stage not in self.markers[number]), None)

    @property
    def rejects(self) -> list[str]:
        """Names of the files that hold the rejects, in the order of the partitions."""
        return [name for stages in self.markers.values() for marker in stages.values() for name in marker.rejects]

    @property
    def warnings(self) -> list[str]:
        """The stages' warnings, in the order of the partitions."""
        return [text for stages in self.markers.values() for marker in stages.values() for text in marker.warnings]

    def rows(self) -> dict[str, int]:
        """Return the run's rows by kind, as the stages counted them."""
        rows = dict.fromkeys(ROWS, 0)
        for stages in self.markers.values():
            for stage, kinds in _KINDS.items():
                if stage in stages:
                    for kind in kinds:
                        rows[kind] += stages[stage].counts.get(kind, 0)
        return rows

    @property
    def all_rejected(self) -> bool:
        """Whether rows were read and each of them was rejected."""
        rows = self.rows()
        return 0 < rows["read"] == rows["rejected"] - rows["added"]

    def rejected_files(self, partitions: Iterable[Partition]) -> list[str]:
        """Return a warning for each file of which every row was rejected.

        Args:
            partitions: Of the run.
        """
        counts: dict[str, list[int]] = {}
        for partition in partitions:
            stages = self.markers.get(partition.number, {})
            if "transform" not in stages:
                counts[partition.pieces[0].file] = [-1, 0]  # nobody knows of its other rows
            for file, found in Tally({partition.number: stages}).files(partition).items():
                known = counts.setdefault(file, [0, 0])
                known[0] += found[0] if known[0] >= 0 else 0
                known[1] += found[1]
        return [
            f"{file}: " + ("its only row was rejected" if read == 1 else f"all {read:,} rows were rejected")
            for file, (read, rejected) in counts.items()
            if 0 < read == rejected
        ]

    def files(self, partition: Partition) -> dict[str, list[int]]:
        """Return how many rows were read of each file of a partition, and how many of them were rejected."""
        if len(partition.pieces) == 1:
            rows = self.rows()
            return {partition.pieces[0].file: [rows["read"], rows["rejected"] - rows["added"]]}
        counts = {piece.file: [0, 0] for piece in partition.pieces}
        for marker in self.markers.get(partition.number, {}).values():
            for file, (read, rejected) in marker.files.items():
                counts[file][0] += read
                counts[file][1] += rejected
        return counts

    @property
    def rejected_then(self) -> int:
        """How many rows are good now, but were rejected when an earlier run appended their file."""
        return sum(stages["load"].counts.get("rejected", 0) for stages in self.markers.values() if "load" in stages)

    @property
    def left_out(self) -> int:
        """How many rows were not even handed on, as they are loaded already."""
        return sum(
            stages["extract"].counts.get("unchanged", 0) for stages in self.markers.values() if "extract" in stages
        )

    @property
    def future(self) -> int:
        """How many rows were in the future by the cursor's column."""
        return sum(stages["extract"].counts.get("future", 0) for stages in self.markers.values() if "extract" in stages)

    @property
    def latest(self) -> Cursor | None:
        """How far the source has been read, by all partitions alike, rejects left out."""
        read = [stages["transform"].cursor for stages in self.markers.values() if "transform" in stages]
        pairs = [pair for pair in read if pair is not None]
        latest = latest_of([Cursor(*pair[0]) for pair in pairs if pair[0]])
        for _, until in pairs:
            # Where staging can't publish exclusively, partitions may have begun with different ends.
            if until and latest and later(Cursor(*until), latest) == latest:
                latest = Cursor(*until)
        return latest

    def partitions(self, failures: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Return how many partitions are done, failed and blocked."""
        states = [failure["state"] for failure in failures]
        return {"done": len(self.done), "failed": states.count("failed"), "blocked": states.count("blocked")}

    def disagreement(self, rows: Mapping[str, int]) -> str | None:
        """Return the sentence for receipts that do not balance, with the two numbers, or None.

        Args:
            rows: The run's final counts.
        """
        for number, stages in self.markers.items():
            for what, left, right in _pairs({stage: marker.counts for stage, marker in stages.items()}):
                if left != right:
                    return f"partition {number}: {what}: {left} and {right} rows"
        given = rows["read"] + rows["added"]
        accounted = sum(rows[kind] for kind in ROWS if kind not in ("read", "added"))
        if given != accounted:
            kinds = "rejected + dropped + superseded + loaded + unchanged"
            return f"receipts disagree: read + added = {given}, {kinds} = {accounted}"
        return None


class ByFile:
    """Counts the rows of a partition's files, where it has several; the counts of its stages say those of one.

    Attributes:
        counts: By file, how many rows were read and how many were rejected.
    """

    def __init__(self, partition: Partition) -> None:
        self._names = [piece.file for piece in partition.pieces]
        self.counts: dict[str, list[int]] = {name: [0, 0] for name in self._names} if len(self._names) > 1 else {}

    def read(self, rows: pa.Table, rejects: pa.Table) -> None:
        """Count a chunk as it was read."""
        if self.counts:
            for pair in pc.value_counts(pc.shift_right(rows["_row"], ROW_BITS)).to_pylist():
                self.counts[self._names[pair["values"]]][0] += pair["counts"]
            for file, count in self.rejected(rejects).items():
                self.counts[file][0] += count

    def rejected(self, rejects: pa.Table) -> dict[str, int]:
        """Count rejects; return how many there are by file."""
        if not self.counts or not rejects.num_rows:
            return {}
        found = {pair["values"]: pair["counts"] for pair in pc.value_counts(rejects["file"]).to_pylist()}
        for file, count in found.items():
            self.counts[file][1] += count
        return found


_KINDS = {
    "extract": ("read", "rejected", "unchanged"),
    "transform": ("rejected", "dropped", "added"),
    "load": ("loaded", "unchanged", "superseded", "rejected"),
}


def _pairs(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, int, int]]:
    extract, transform, load = (counts.get(stage, {}) for stage in STAGES)
    pairs = []
    if extract and transform:
        pairs.append(("extract gave and transform took", extract["out"], transform["in"]))
        made = transform["in"] + transform["added"]
        pairs.append(("transform took and gave", made, transform["out"] + transform["rejected"] + transform["dropped"]))
    if transform and load:
        pairs.append(("transform gave and load took", transform["out"], load["in"]))
    return pairs


def gather(staging: Staging, partitions: Sequence[Partition]) -> Tally:
    """Read every stage's marker of a run."""
    published, markers = set(staging.names()), dict[int, dict[str, Marker]]()
    for number in (partition.number for partition in partitions):
        names = [stage for stage in STAGES if f"{number:05d}.{stage}.json" in published]
        markers[number] = {stage: found for stage in names if (found := staging.marker(stage, number))}
    return Tally(markers)


def newly(extracted: Marker) -> int:
    """Return how many rows of a partition were read for the first time, as far as its extract knows."""
    counts = extracted.counts
    return max(0, counts["read"] - counts.get("skipped", 0) - counts.get("unchanged", 0))


def is_expected(work: StageContext) -> bool:
    """Whether a run is of a delivery that something is expected of."""
    pipeline = work.pipeline
    is_any = pipeline.expect is not None or pipeline.delivery is not None
    return is_any and not any(each.fixed for each in work.plan.partitions)


def delivered(work: StageContext, tally: Tally, unread: Collection[str] = ()) -> expect.Delivered | None:
    """Return what a run has read, as expectations ask for it; None where the pipeline has none.

    Its files are written down in staging, where other runs find them.

    Args:
        unread: Files that can't be read, and are no part of this delivery.
    """
    if not is_expected(work):
        return None
    pipeline, context = work.pipeline, work.context
    day, due = pipeline.day_of(context.start, context.today)
    parts, partitions = [], [each for each in work.plan.partitions if each.pieces[0].file not in unread]
    for partition in partitions:
        if (source := tally.markers.get(partition.number, {}).get("extract")) is not None:
            piece, modified = partition.pieces[0], max(each.modified for each in partition.pieces)
            about = ledger.name_of(partition), piece.start, source.content, modified
            parts.append(expect.Part(*about, source.counts["read"], newly(source)))
    is_past, has_files = context.start is not None, pipeline.extract.FACTS.files
    came = {} if is_past else contents.seen_before(work.staging.url, files(work, tally, day))
    dated = [
        counts
        for stages in tally.markers.values()
        if "transform" in stages
        for file, counts in stages["transform"].dated.items()
        if file in came or is_past or not has_files  # old files are of other days
    ]
    return expect.Delivered(
        work.run,
        day,
        due,
        tuple(parts) if len(parts) == len(partitions) else None,
        sum(each for each, _ in dated),
        sum(each for _, each in dated),
        tuple(filter(None, came.values())),
        is_past,
    )


def files(work: StageContext, tally: Tally, day: date) -> list[contents.File]:
    """Return the run's files that have rows, with what is in them."""
    found: dict[str, contents.File] = {}
    for partition in work.plan.partitions if work.pipeline.extract.FACTS.files else ():
        source = tally.markers.get(partition.number, {}).get("extract")
        if source is None or not source.counts["read"]:
            continue
        for piece in partition.pieces:
            whole = source.content if piece.is_whole and len(partition.pieces) == 1 else ""
            if (file := file_of(work, piece, piece.version or whole, day)) is not None:
                found[piece.path] = file
    return list(found.values())


def file_of(work: StageContext, piece: Piece, content: str, day: date) -> contents.File | None:
    """Return a file with what is in it, which is looked up where it isn't known; None where it is gone."""
    content = content or known.hash_of(piece.path)
    whose = work.pipeline.client, work.pipeline.name, piece.file, piece.path
    return contents.File(*whose, content, piece.modified, day.isoformat(), work.run) if content else None

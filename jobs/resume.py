"""What a retry does again: files that were mended, partitions that are not loaded; and what has changed since."""

from collections.abc import Sequence
from datetime import datetime

from etl.errors import BadSource, SourceMissing
from etl.pipeline import CsvExtract, Pipeline
from etl.plan import Partition, Plan, plan
from etl.staging import STAGES, Marker, Staging


def reread(
    staging: Staging,
    pipeline: Pipeline,
    planned: Plan,
    start: datetime | None,
    end: datetime | None,
    today: datetime | None,
) -> Plan:
    """Return the plan with files as they are now that were mended since; takes back what was made of them.

    Only whole files, and only those whose rows got no further than out of the file: what is further is resumed.
    """
    stuck = {
        partition.number
        for partition in planned.partitions
        if not any(staging.marker(stage, partition.number) for stage in ("transform", "load"))
    }
    if not stuck or not isinstance(pipeline.extract, CsvExtract):
        return planned
    try:
        now = plan(pipeline, start=start, end=end, today=today)
    except (SourceMissing, BadSource):
        return planned
    files = {piece.file: piece for partition in now.partitions for piece in partition.pieces if piece.is_whole}
    partitions = []
    for partition in planned.partitions:
        pieces = tuple(files.get(piece.file, piece) if piece.is_whole else piece for piece in partition.pieces)
        if partition.number in stuck and pieces != partition.pieces:
            staging.withdraw("extract", partition.number)
            partition = partition.model_copy(update={"pieces": pieces})
        partitions.append(partition)
    return planned.model_copy(update={"partitions": tuple(partitions)})


def withdraw(staging: Staging, partitions: Sequence[Partition], *, anew: bool) -> list[Partition]:
    """Return the partitions that are not finally loaded; takes back what they made where the config has changed."""
    redone = []
    for partition in partitions:
        loaded: Marker | None = staging.marker("load", partition.number)
        if loaded is not None and (loaded.counts.get("final") or not anew):
            continue
        redone.append(partition)
        if anew:
            for stage in STAGES:
                staging.withdraw(stage, partition.number)
    return redone


def changes(old: Pipeline, new: Pipeline) -> list[str]:
    """Return in sentences what is configured otherwise than when the run was submitted."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    skipped = ("fingerprint", "root", "staging", "modules")
    return [
        f"{key} has changed since the run was submitted"
        for key in after
        if key not in skipped and before.get(key) != after[key]
    ]

"""A run's rejects: read from staging, counted, exported to be fixed and loaded again."""

import csv
import glob
import hashlib
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from etl.config.kinds import source
from etl.config.pipeline import Pipeline, resolve
from etl.config.spellings import Spellings
from etl.errors import ConfigError, StagingFailed
from etl.rejects import FIXED, REASONS, fields
from etl.staging import Staging
from jobs.run.balance import gather
from jobs.run.graph import read_spec
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.views import history


def entries(session: Session, run: str) -> Iterator[dict[str, Any]]:
    """Yield a run's rejects as its stages left them, one a row: file, row, column, value, reason, raw.

    Raises:
        UnknownName: No run has that id.
        StagingFailed: Its staging is gone.
    """
    staging = history.staging_of(session, history.find(session, run))
    names = staging.read_json("rejects.json")
    if names is None:
        spec = read_spec(staging)
        if spec is None:
            raise StagingFailed(f"run {run} has no staging left", "its rejects were removed with it")
        names = gather(staging, spec.plan.partitions).rejects
    for table in staging.chunks(names):
        yield from table.to_pylist()


def listed(session: Session, run: str) -> list[dict[str, Any]]:
    """Return a run's rejects by file and line, whichever stage rejected them; rows of no source come last."""

    def by_line(entry: dict[str, Any]) -> tuple[str, bool, int]:
        return entry["file"] or "", entry["row"] is None, entry["row"] or 0

    return sorted(entries(session, run), key=by_line)


def counted(session: Session, run: str) -> list[dict[str, Any]]:
    """Return how many rows were rejected, by file, column and reason, most first."""
    counts: Counter[tuple[str | None, str | None, str]] = Counter()
    for entry in entries(session, run):
        counts[entry["file"], entry["column"], entry["reason"]] += 1
    return [
        {"file": file, "column": column, "reason": reason, "rows": rows}
        for (file, column, reason), rows in counts.most_common()
    ]


def export(session: Session, run: str, file: Path) -> int:
    """Write the rejected rows with their source columns, and file, row, column and reason before them, as CSV.

    A row with too few or too many fields keeps them, so that it is rejected again unless it is fixed. Returns how many
    rows were written.
    """
    found = listed(session, run)
    names = list(dict.fromkeys(name for entry in found for name in json.loads(entry["raw"] or "{}") if name))
    try:
        with open(file, "w", encoding="utf-8", newline="", opener=_private) as out:
            writer = csv.writer(out)
            writer.writerow([*REASONS, *names])
            for entry in found:
                writer.writerow([*(entry[key[1:]] for key in REASONS), *fields(entry["raw"], names)])
    except OSError as exc:
        raise ConfigError(f"{file} can't be written: {exc.strerror}", "name a file in a folder that is there") from None
    return len(found)


def _private(path: str, flags: int) -> int:
    """Open a file that its owner alone can read, before there is a row in it."""
    opened = os.open(path, flags, 0o600)
    if stat.S_ISREG(os.fstat(opened).st_mode):
        os.fchmod(opened, 0o600)
    return opened


def load(session: Session, run: str, file: Path) -> str:
    """Submit a run of fixed rows, as `export` wrote them without the columns that say why, and return its id."""
    record = history.find(session, run)
    if not file.is_file():
        raise ConfigError(f"{file} is not a file", f"write it with rq-etl rejects {run} --export {file}")
    staging = history.staging_of(session, record)
    spec = read_spec(staging)
    if spec is None or (spec.pipeline.client, spec.pipeline.name) != (record["client"], record["pipeline"]):
        raise StagingFailed(f"run {run} has no staging left", "put the fixed rows into a file of the source")
    pipeline = resolve(session.config, spec.pipeline.name, spec.pipeline.client, params=spec.pipeline.params)
    staging = _first(staging, spec.pipeline)
    times = {piece.file: piece.modified for part in spec.plan.partitions for piece in part.pieces}
    parts = _parts(file, times if pipeline.load.mode == "merge" else {})
    # The same rows again are a file loaded already.
    name = f"{FIXED}{hashlib.sha256(''.join(parts.values()).encode()).hexdigest()[:8]}"
    for number, (modified, text) in enumerate(parts.items()):
        part = f"{name}.csv" if len(parts) == 1 else f"{name}-{number:05d}.csv"
        staging.write_bytes(part, text.encode())
        if modified:  # fixed rows are as old as the file that they came from: they beat no newer one
            os.utime(staging.path(part), (modified, modified))
    path = glob.escape(staging.path(name)) + (".csv" if len(parts) == 1 else "-*.csv")
    given = {key: getattr(pipeline.extract, key) for key in Spellings.model_fields}
    spellings = {key: value for key, value in given.items() if value is not None}
    extract = source({"type": "csv", "path": path, "settle": 0, **spellings})
    # The fixed rows are few: replacing a client's table by them would empty it.
    mode = {} if pipeline.load.mode == "merge" else {"mode": "append", "by": ()}
    replaced = (*pipeline.given, "extract", "load")
    load = pipeline.load.model_copy(update=mode)
    changed = {"expect": None, "needs": (), "extract": extract, "load": load, "given": replaced}
    return submit_run(session.connection, pipeline.model_copy(update=changed))


def _first(staging: Staging, pipeline: Pipeline) -> Staging:
    """Return the staging of the run that rejected rows at first, where a run of fixed rows rejected some again."""
    if "extract" not in pipeline.given:
        return staging
    path = pipeline.extract.model_dump()["path"]  # a run of fixed rows reads a file in the first run's staging
    return Staging(staging.url, pipeline.client, PurePath(path).parent.name)


def _parts(file: Path, times: Mapping[str, float]) -> dict[float, str]:
    """Return fixed rows without the columns that say why, by the time of the file that they came from; 0 for others.

    Args:
        times: When each file was modified.
    """
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8", 'save it as "CSV UTF-8"') from None
    # Excel writes semicolons in half of Europe.
    delimiter = next((mark for mark in ",;\t" if content.startswith(f"{REASONS[0]}{mark}")), ",")
    with io.StringIO(content, newline="") as source:
        rows = csv.reader(source, delimiter=delimiter)
        names = next(rows, [])
        kept = [index for index, name in enumerate(names) if name not in REASONS]
        if not kept:
            cure = "fix the lines where they came from, and run the pipeline again"
            raise ConfigError(f"{file} has no column of the source: no row of it could be read", cure)
        by_time: dict[float, list[list[str]]] = {}
        for row in rows:
            from_file = row[names.index(REASONS[0])] if row and REASONS[0] in names else ""
            fixed = [*(row[index] for index in kept if index < len(row)), *row[len(names) :]]
            by_time.setdefault(times.get(from_file, 0.0), []).append(fixed)
    parts = {}
    for modified, part in sorted(by_time.items()) or [(0.0, [])]:
        text = io.StringIO()
        csv.writer(text).writerows([[names[index] for index in kept], *part])
        parts[modified] = text.getvalue()
    return parts

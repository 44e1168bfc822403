"""A run's rejects: read from staging, counted, exported to be fixed and loaded again."""

import csv
import glob
import hashlib
import io
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from etl.config.kinds import source
from etl.config.pipeline import Pipeline, resolve
from etl.config.spellings import Spellings
from etl.errors import ConfigError, StagingFailed
from etl.partition import ROW_BITS, Partition, Piece, Plan
from etl.rejects import FIXED, REASONS, fields
from etl.sources.feed import count_lines
from etl.sources.formats.head import named_delimiter
from etl.sources.formats.other import foreign, other
from etl.staging import Staging
from jobs.run.balance import gather
from jobs.run.graph import Spec, read_spec
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
    is_replaced = pipeline.load.mode == "replace" and pipeline.load.by in ((), ("_file",))
    # Each partition of a database counts its rows by itself.
    counted_apart = not spec.pipeline.extract.FACTS.files
    places = Counter((entry["file"], entry["row"]) for entry in entries(session, run)) if counted_apart else None
    partition = _partition(staging, pipeline.root, _parts(file, spec, places), spec)
    partition = partition.model_copy(update={"replaced": is_replaced})
    path = glob.escape(partition.pieces[0].path)
    given = {key: getattr(pipeline.extract, key) for key in Spellings.model_fields}
    spellings = {key: value for key, value in given.items() if value is not None}
    extract = source({"type": "csv", "path": path, "settle": 0, **spellings})
    # The fixed rows are few: replacing a client's table by them would empty it.
    mode = {} if pipeline.load.mode == "merge" else {"mode": "append", "by": ()}
    replaced = (*pipeline.given, "extract", "load")
    load = pipeline.load.model_copy(update=mode)
    changed = {"expect": None, "needs": (), "extract": extract, "load": load, "given": replaced}
    return submit_run(session.connection, pipeline.model_copy(update=changed), plan=Plan(partitions=(partition,)))


def _first(staging: Staging, pipeline: Pipeline) -> Staging:
    """Return the staging of the run that rejected rows at first, where a run of fixed rows rejected some again."""
    if "extract" not in pipeline.given:
        return staging
    path = pipeline.extract.model_dump()["path"]  # a run of fixed rows reads a file in the first run's staging
    return Staging(staging.url, pipeline.client, PurePath(path).parent.name)


def _partition(staging: Staging, root: str, parts: "Mapping[str, _Part]", spec: Spec) -> Partition:
    """Write fixed rows into staging, and return what reads them: a piece for each file that they came from.

    They have the name of that file, so that what replaces its rows replaces them, and its time, so that they beat no
    newer file.
    """
    times = {piece.file: piece.modified for part in spec.plan.partitions for piece in part.pieces}
    pieces, now = [], time.time()
    for name, part in parts.items():
        content = part.text.getvalue().encode()
        path = staging.path(f"{FIXED}{hashlib.sha256(name.encode() + content).hexdigest()[:16]}.csv")
        staging.write_bytes(PurePath(path).name, content)
        about = {"modified": times.get(name) or now, "size": len(content), "lines": tuple(part.lines)}
        # Rows of no file are known again by what they are.
        pieces.append(Piece(file=name or _shown(path, root), path=path, **about))
    pieces.sort(key=lambda piece: (piece.modified, piece.file))
    mark = hashlib.sha256("".join(piece.path for piece in pieces).encode()).hexdigest()[:8]
    fixed = _shown(staging.path(f"{FIXED}{mark}.csv"), root)
    return Partition(number=1, pieces=tuple(pieces), order=0, fixed=fixed)


def _shown(path: str, root: str) -> str:
    name = PurePath(path)
    return str(name.relative_to(root) if name.is_relative_to(root) else name)


class _Part:
    """Fixed rows of one file, as CSV.

    Attributes:
        lines: The lines that rows begin on, each with the line of the file that the row came from.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.text, self.lines = io.StringIO(), list[tuple[int, int]]()
        self._line = 1
        self._write(names)

    def add(self, row: Sequence[str], line: int) -> None:
        """Write one more row; line 0 is none."""
        self.lines.append((self._line, line or self._line))
        self._write(row)

    def _write(self, row: Sequence[str]) -> None:
        text = io.StringIO()
        csv.writer(text).writerow(row)
        self.text.write(text.getvalue())
        self._line += count_lines(text.getvalue().encode())


def _parts(file: Path, spec: Spec, places: Counter[tuple[str, int]] | None) -> dict[str, _Part]:
    """Return fixed rows without the columns that say why, by the file that they came from; "" for those of none.

    Args:
        spec: Of the run that rejected them.
        places: How many rows it rejected by file and line, where these may not tell a row; None where they do.
    """
    content = _text_of(file)
    files = {piece.file for part in spec.plan.partitions for piece in part.pieces}
    if mark := named_delimiter(content):
        content = "".join(content.splitlines(keepends=True)[1:])
    delimiter = mark or max(",;\t", key=lambda mark: _is_split(content, mark))  # Excel writes ; in half of Europe
    with io.StringIO(content, newline="") as source:
        rows = csv.reader(source, delimiter=delimiter)
        names = next(rows, [])
        kept = [index for index, name in enumerate(names) if name not in REASONS]
        if not kept:
            cure = "fix the lines where they came from, and run the pipeline again"
            raise ConfigError(f"{file} has no column of the source: no row of it could be read", cure)
        why = [names.index(name) if name in names else -1 for name in REASONS[:2]]
        header, parts = [names[index] for index in kept], dict[str, _Part]()
        for row in filter(None, rows):
            from_file, line = (row[at] if 0 <= at < len(row) else "" for at in why)
            of_file = from_file in files and line.isdecimal() and int(line) >> ROW_BITS == 0
            of_file = of_file and (places is None or places[from_file, int(line)] == 1)
            fixed = [*(row[index] for index in kept if index < len(row)), *row[len(names) :]]
            if (name := from_file if of_file else "") not in parts:
                parts[name] = _Part(header)
            parts[name].add(fixed, int(line) if of_file else 0)
    return parts or {"": _Part(header)}


def _text_of(file: Path) -> str:
    content = file.read_bytes()
    cure = 'save it as "CSV UTF-8"'
    try:
        what = foreign(content[:4096])
        text = content.decode("utf-8-sig") if what is None else ""
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8", cure) from None
    if what := what or other(text, is_whole=True):
        raise ConfigError(f"{file} is {what.rstrip(',')}, not CSV", cure)
    return text


def _is_split(content: str, mark: str) -> tuple[bool, int]:
    """How well a delimiter splits the header: whether there are columns that say why, and how many in all."""
    with io.StringIO(content, newline="") as source:
        names = next(csv.reader(source, delimiter=mark), [])
    return not set(names).isdisjoint(REASONS), len(names)

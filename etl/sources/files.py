"""Files of a source: which there are, whether they still grow, and how a large one is cut."""

import glob
import os
import re
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from etl.config.models import CsvExtract
from etl.config.pipeline import Pipeline
from etl.config.values import fill, placeholders
from etl.errors import BadSource, ConfigError, SourceMissing
from etl.partition import Piece

_ESCAPED = re.compile(r"\[([*?[])\]")  # as glob.escape writes them


class _File(NamedTuple):
    modified: float  # the first two fields are the order in which files are loaded
    name: str
    path: str
    size: int


def path_pattern(
    pipeline: Pipeline,
    config: CsvExtract,
    start: datetime | None,
    end: datetime | None,
    today: datetime | None = None,
) -> str:
    zone = ZoneInfo(pipeline.timezone)
    values = {name: str(value) for name, value in {**pipeline.params, "client": pipeline.client}.items()}
    values["date"] = f"{start or today or datetime.now(zone):%Y-%m-%d}"
    for name, moment in (("start", start), ("end", end)):
        if moment is not None:
            local = moment.astimezone(zone) if moment.tzinfo else moment
            values[name] = f"{local:%Y-%m-%d}" if local.time() == datetime.min.time() else f"{local:%Y-%m-%dT%H%M%S}"
            if name == "start":
                values["date"] = f"{local:%Y-%m-%d}"
    for name in placeholders(config.path):
        if name in ("start", "end") and name not in values:
            raise ConfigError(f"{config.path} needs a window: {{{name}}} has no value", "give --start and --end")
        value = values.get(name, "")
        if "/" in value or "\0" in value or value in ("..", "."):
            cure = "give it a value without /, such as the name of a folder or file"
            raise ConfigError(f"{config.path}: the value of {{{name}}} leads to another folder", cure)
    # Filled as text, never as a pattern: a parameter "*" stands for itself.
    return fill(os.path.expanduser(config.path), {name: glob.escape(value) for name, value in values.items()})


def listed(root: str, pattern: str) -> list[_File]:
    files = []
    for match in glob.iglob(pattern, root_dir=root, recursive=True):
        path = os.path.join(root, match)
        try:
            stat = os.stat(path)
        except OSError:
            continue  # gone since it was listed
        if not os.path.isdir(path):
            name = os.path.relpath(path, root)
            name = os.fsencode(path if name.startswith("..") else name).decode(errors="backslashreplace")
            files.append(_File(stat.st_mtime, name, path, stat.st_size))
    return files


def settled(files: Iterable[_File], settle: float) -> tuple[list[_File], list[_File]]:
    """Wait until no file changes any more; return the files as they are then, and those that never stopped."""
    ready: list[_File] = []
    waiting: list[tuple[_File, float]] = []  # and since when it has been as it is
    now = time.time()
    deadline = time.monotonic() + 10 * settle
    for file in files:
        if now - file.modified >= settle:
            ready.append(file)
        else:
            waiting.append((file, min(file.modified, now)))
    while waiting and time.monotonic() < deadline:
        time.sleep(max(0.0, min(settle / 4, *(since + settle - now for _, since in waiting))))
        now = time.time()
        still = []
        for file, since in waiting:
            try:
                stat = os.stat(file.path)
            except OSError:
                continue  # taken away: it may have been a temporary name
            if (stat.st_mtime, stat.st_size) != (file.modified, file.size):
                file, since = file._replace(modified=stat.st_mtime, size=stat.st_size), now
            if now - since >= settle:
                ready.append(file)
            else:
                still.append((file, since))
        waiting = still
    return ready, [file for file, _ in waiting]


def cut_file(file: _File, config: CsvExtract, size: int) -> list[Piece] | None:
    """Cut a file into pieces; None if it must be read from its beginning to its end."""
    from etl.sources.feed import Feed, ascii_compatible
    from etl.sources.formats.head import read_head

    whole = Piece(file=file.name, path=file.path, size=file.size, modified=file.modified)
    try:
        with closing(Feed(whole, config.encoding)) as feed:
            head = read_head(feed, config)
    except (BadSource, SourceMissing):
        return None  # extract says what is wrong
    if feed.compressed or not ascii_compatible(feed.encoding) or not (head.delimiter + config.quote).isascii():
        return None

    from etl.sources.formats import records

    try:
        ranges, version = records.cut(file.path, head.begin, head.delimiter.encode(), config.quote.encode(), size)
    except (records.Unsplittable, OSError):
        return None
    ends = [start for start, _ in ranges[1:]] + [None]
    return [
        whole.model_copy(
            update={
                "start": start,
                "end": end,
                "line": lines + 1,
                "size": (file.size if end is None else end) - start,
                "version": version,
            }
        )
        for (start, lines), end in zip(ranges, ends, strict=True)
    ]


def unescaped(pattern: str) -> str:
    return _ESCAPED.sub(r"\1", pattern)


def nearby(root: str, pattern: str) -> str:
    """Return what the nearest folder holds that exists on the way to the pattern's files."""
    folder = root if not os.path.isabs(pattern) else os.sep
    for part in pattern.strip(os.sep).split(os.sep)[:-1]:
        deeper = os.path.join(folder, unescaped(part))
        if glob.has_magic(_ESCAPED.sub("", part)) or not os.path.isdir(deeper):
            break
        folder = deeper
    try:
        with os.scandir(folder) as entries:
            held = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    except OSError:
        return ""
    name = os.path.relpath(folder, root)
    name = folder if name.startswith("..") else "etl.toml's folder" if name == "." else f"{name}/"
    if not held:
        return f"; {name} is empty"
    return f"; {name} holds {', '.join(held[:5])}" + (f" and {len(held) - 5} more" if len(held) > 5 else "")

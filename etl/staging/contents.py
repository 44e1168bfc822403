"""Which contents have come as files: a small file in staging for each, by which the same bytes are known again.

A target knows only its own loads, and each client may have a target of its own; here all clients' are side by side.
What is kept are names and hashes, no rows. The cleanup removes them after `settings.history`.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256

from etl.staging import Staging
from etl.staging.place import CONTENTS, failing_as_staging, filesystem

AT_ONCE = 60.0  # seconds within which two files came at the same time: each is reported as the other's
AGAIN = 7 * 86400.0  # seconds after which a file that still lies there is written down anew, so that it stays known


@dataclass(frozen=True)
class File:
    """A file that a client's pipeline has read.

    Args:
        name: As users see it.
        path: Where it was.
        content: sha256 of its bytes.
        modified: When it was modified, in seconds since the epoch.
        day: The day of the delivery that it came with, in ISO 8601.
    """

    client: str
    pipeline: str
    name: str
    path: str
    content: str
    modified: float
    day: str
    run: str

    @property
    def key(self) -> str:
        """What it has in its name in staging: the same for the same file as it lies there night after night."""
        text = "\n".join([self.client, self.pipeline, self.path, repr(self.modified)])
        return f"{self.content}.{sha256(text.encode()).hexdigest()[:16]}.json"


def seen_before(url: str, files: Iterable[File], now: float | None = None) -> dict[str, str]:
    """Write down a run's files; return those that have come for it, by name, with a sentence or "".

    The sentence says that the content has come before, under whatever name and whosever. Asked again for the same run
    it answers the same. A file that lies there since an earlier run is none that has come.

    Args:
        url: The staging folder of `etl.toml`.
        now: Seconds since the epoch; None means now.

    Raises:
        StagingFailed: Staging can't be read or written.
    """
    now = time.time() if now is None else now
    found, mine = dict[str, str](), set[str]()
    for file in sorted(files, key=lambda each: (each.modified, each.name)):
        since, is_new = _written(url, file, now)
        mine.add(file.key)
        if not is_new:
            continue
        found[file.name] = ""
        others = [(other, at) for other, at in _others(url, file) if at < since + AT_ONCE]
        others = [(other, at) for other, at in others if other.run != file.run or other.key in mine]  # one of two
        # Its own client's first, and of those the one that came last.
        others.sort(key=lambda pair: (pair[0].client == file.client, pair[1]), reverse=True)
        if others:
            other = others[0][0]
            whose = f" as {other.name} of {other.day}"
            if other.client != file.client:
                whose = f" as a file of client {other.client} ({other.day})"
            found[file.name] = f"{file.name} has the same content{whose}"
    return found


def lying_there(url: str, files: Iterable[File], now: float | None = None) -> set[str]:
    """Write down files of a run that it can't read; return the names of those that an earlier run has met already.

    Raises:
        StagingFailed: Staging can't be read or written.
    """
    now = time.time() if now is None else now
    return {file.name for file in files if not _written(url, file, now)[1]}


def forget(url: str, files: Iterable[File]) -> None:
    """Forget a run's files, as nothing was loaded of them: the next run is to look at them again.

    Raises:
        StagingFailed: Staging can't be written.
    """
    for file in files:
        shard = _shard(url, file)
        known = shard.read_json(file.key)
        if known is not None and known["run"] == file.run:
            shard.remove_files([file.key])


def trim(url: str, before: float) -> int:
    """Remove what was written down before a moment (in seconds since the epoch); return how many files that were.

    Raises:
        StagingFailed: Staging can't be read or written.
    """
    fs, root, local = filesystem(url)
    folder, removed = f"{root}/{CONTENTS}", 0
    with failing_as_staging(folder):
        for path, modified in list(_all(folder) if local else _remote(fs, folder)):
            if modified < before:
                with suppress(FileNotFoundError):
                    fs.rm_file(path)
                    removed += 1
    return removed


def _written(url: str, file: File, now: float) -> tuple[float, bool]:
    """Write a file down, if it isn't yet; return since when it is, and whether this run has brought it."""
    shard, value = _shard(url, file), asdict(file) | {"seen": now, "renewed": now}
    known = shard.read_json(file.key)
    if known is None and shard.write_bytes(file.key, json.dumps(value).encode(), exclusive=True):
        return now, True
    known = known or shard.read_json(file.key) or value
    if known["renewed"] < now - AGAIN:
        shard.write_json(file.key, known | {"renewed": now})
    return float(known["seen"]), known["run"] == file.run


def _others(url: str, file: File) -> Iterator[tuple[File, float]]:
    """Yield other files of the same content that the same pipeline has read, with when each was seen first.

    A path that several clients read is one file, whoever reads it.
    """
    shard = _shard(url, file)
    for name in shard.names():
        if not name.startswith(f"{file.content}.") or name == file.key:
            continue
        known = shard.read_json(name)
        if known is None:
            continue  # it has just been removed
        seen = float(known.pop("seen"))
        known.pop("renewed")
        other = File(**known)
        is_shared = other.path == file.path and other.client != file.client
        if other.pipeline == file.pipeline and not is_shared:
            yield other, seen


def _shard(url: str, file: File) -> Staging:
    return Staging(url, CONTENTS, file.content[:2])


def _all(folder: str) -> Iterator[tuple[str, float]]:
    with suppress(FileNotFoundError):
        for shard in os.scandir(folder):
            if shard.is_dir():
                with suppress(FileNotFoundError):
                    yield from ((file.path, file.stat().st_mtime) for file in os.scandir(shard.path))


def _remote(fs: object, folder: str) -> Iterator[tuple[str, float]]:
    for path, entry in fs.find(folder, detail=True).items():  # type: ignore[attr-defined]
        moment = entry.get("LastModified") or entry.get("created") or 0.0
        yield path, moment.timestamp() if isinstance(moment, datetime) else float(moment)

"""All runs' folders in staging."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from etl.config.values import NAME
from etl.staging import MARKER
from etl.staging.place import failing_as_staging, filesystem


@dataclass(frozen=True)
class Folder:
    """A run's folder as it is in staging.

    Args:
        modified: When something in it was last written, in seconds since the epoch.
    """

    client: str
    run: str
    names: frozenset[str]
    modified: float

    @property
    def is_unfinished(self) -> bool:
        """Whether it holds what only a run that has not succeeded keeps: markers of stages, or no rejects."""
        return "rejects.json" not in self.names or any(map(MARKER.fullmatch, self.names))


def folders(url: str) -> Iterator[Folder]:
    """Yield the folders of all runs in staging; what has no client's or run's name is not rq-etl's.

    Raises:
        StagingFailed: It can't be read.
    """
    fs, root, local = filesystem(url)
    with failing_as_staging(root):
        found = list(_local_folders(root) if local else _remote_folders(fs, root))
    yield from (folder for folder in found if NAME.fullmatch(folder.client) and NAME.fullmatch(folder.run))


def _local_folders(root: str) -> Iterator[Folder]:
    # Not through fsspec, which takes twenty times as long; and finished runs of a quarter are many.
    for client in _subfolders(root):
        for run in _subfolders(client.path):
            with suppress(FileNotFoundError):
                files = {file.name: file.stat().st_mtime for file in os.scandir(run.path)}
                # The folder's own moment changes when something is removed; it counts only for an empty one.
                modified = max(files.values(), default=run.stat().st_mtime)
                yield Folder(client.name, run.name, frozenset(files), modified)


def _subfolders(folder: str) -> list[os.DirEntry[str]]:
    with suppress(FileNotFoundError):  # the last run of a client may just have gone
        return [entry for entry in os.scandir(folder) if entry.is_dir()]
    return []


def _remote_folders(fs: Any, root: str) -> Iterator[Folder]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for path, entry in fs.find(root, maxdepth=3, detail=True).items():
        client, run, name = (*path[len(root) + 1 :].split("/"), "", "")[:3]
        moment = entry.get("LastModified") or entry.get("created") or 0.0
        if name:
            seconds = moment.timestamp() if isinstance(moment, datetime) else float(moment)
            found.setdefault((client, run), {})[name] = seconds
    for (client, run), files in found.items():
        yield Folder(client, run, frozenset(files), max(files.values()))

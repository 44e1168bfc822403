"""Staging: the folder (local or S3) that holds a run's artifacts between its stages.

An artifact is one or more Parquet files under names of their own and a *marker*, a small JSON file
that names them and carries the stage's counts. The marker is published last and the first one
published wins, so a stage that runs twice, even at once, leaves one consistent result.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DamagedArtifact, StagingFailed
from etl.staging.place import (
    LOCK,
    OTHER_FOLDER,
    PROBE,
    failed,
    failing_as_staging,
    filesystem,
    make_private,
    path_of,
    publish_first,
)
from etl.staging.writer import Writer

STAGES = ("extract", "transform", "load")
_ARTIFACT = re.compile(r"(\d+)\.(\w+)\.(?:rows|rejects)\.\w+\.\d+\.parquet")
MARKER = re.compile(r"(\d+)\.(\w+)\.json")


@dataclass(frozen=True)
class Marker:
    """What a stage published.

    Args:
        counts: Rows by kind (`read`, `in`, `out`, `rejected`, …).
        data, rejects: Names of the Parquet files that hold the rows and the rejects.
        content: sha256 of the bytes read (extract only).
        types: Types that fit each column that is not declared (extract, transform).
        warnings: Sentences for the run's warnings.
        cursor: The latest value of the cursor's column that was not rejected (transform only), and the latest that
            could be: each a type and a text, or None.
        shaped: Fingerprints of the code and the lookups that shaped the rows (transform only).
        files: Of a partition of several files, how many rows of each were read here, and how many rejected.
        dated: By file, how many values of `expect.period` there are, and outside of the delivery's days (transform).
    """

    counts: dict[str, int] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()
    content: str = ""
    types: dict[str, list[str]] | None = None
    warnings: tuple[str, ...] = ()
    cursor: tuple[list[str] | None, list[str] | None] | None = None
    shaped: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[int]] = field(default_factory=dict)
    dated: dict[str, list[int]] = field(default_factory=dict)


class Staging:
    """The folder of one run, and in it what its stages publish, and their rows.

    Args:
        url: The staging folder of `etl.toml`, a path or `s3://bucket/prefix`.
        client, run: Whose run it is; each run has a folder of its own.

    Raises:
        StagingFailed: From every method, when the folder can't be written or read.
        EtlError: A client, a run or a file has a name that could lead out of the run's folder.
    """

    def __init__(self, url: str, client: str, run: str) -> None:
        self.url = url
        self.fs, self._root, self.local = filesystem(url)
        self._client, self.run = client, run
        self.folder = path_of(self._root, client, run)

    def path(self, name: str) -> str:
        """Return the full path of one file of this run."""
        return path_of(self._root, self._client, self.run, name)

    def write_bytes(self, name: str, content: bytes, *, exclusive: bool = False) -> bool:
        """Publish a whole file by one atomic step.

        Returns:
            False where `exclusive` was asked for and another had published the name first.
        """
        path = self.path(name)
        with failing_as_staging(self.folder):
            if not self.local:
                # In one request: an exception inside `fs.open(…, "wb")` would leave a visible half object.
                if exclusive and self.fs.exists(path):
                    return False
                self.fs.pipe_file(path, content)
                return True
            make_private(self.folder)
            temporary = self.path(f".{name}.{secrets.token_hex(4)}")
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if exclusive:
                    return publish_first(temporary, path, self.path(LOCK))
                os.replace(temporary, path)
            except FileExistsError:
                if os.path.exists(path):
                    return False
                raise
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            return True

    def read_bytes(self, name: str, last: int | None = None) -> bytes | None:
        """Return a file's bytes, or None where there is no such file.

        Args:
            last: How many bytes of its end are enough.
        """
        with failing_as_staging(self.folder):
            try:
                return bytes(self.fs.cat_file(self.path(name), start=None if last is None else -last))
            except FileNotFoundError:
                return None

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, replacing an older one."""
        self.write_bytes(name, json.dumps(value).encode())

    def read_json(self, name: str) -> Any:
        """Return a JSON file's value, or None where there is no such file."""
        content = self.read_bytes(name)
        return None if content is None else json.loads(content)

    def names(self) -> list[str]:
        """Return the names of this run's files, sorted."""
        with failing_as_staging(self.folder):
            if not self.fs.exists(self.folder):
                return []
            return sorted(path.rsplit("/", 1)[-1] for path in self.fs.ls(self.folder, detail=False))

    def remove(self, keep: Iterable[str] = ()) -> None:
        """Remove this run's files but those named in `keep`; the folder too where none is kept."""
        kept = set(keep)
        with failing_as_staging(self.folder):
            if not kept and self.local:
                shutil.rmtree(self.folder, ignore_errors=True)
                return
            self.remove_files(name for name in self.names() if name not in kept)

    def remove_files(self, names: Iterable[str]) -> None:
        """Remove files of this run; one that is gone is no matter."""
        with failing_as_staging(self.folder):
            for name in names:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(self.path(name))

    def keep_private(self, name: str, text: str) -> None:
        """Write a text that may hold row values, readable by the owner alone."""
        self.write_bytes(name, text.encode("utf-8", "replace"))

    def marker(self, stage: str, partition: int) -> Marker | None:
        """Return what a stage published, or None where it has not yet."""
        found = self.read_json(_marker_name(stage, partition))
        if found is None:
            return None
        lists: dict[str, Any] = {key: tuple(found.pop(key)) for key in ("data", "rejects", "warnings")}
        found["cursor"] = found.get("cursor") and tuple(found["cursor"])
        return Marker(**found, **lists)

    def publish(self, stage: str, partition: int, marker: Marker) -> Marker:
        """Publish a stage's marker, last of all; return the one that is published."""
        content = json.dumps(marker.__dict__).encode()
        if self.write_bytes(_marker_name(stage, partition), content, exclusive=True):
            return marker
        return self.marker(stage, partition) or marker

    def withdraw(self, stage: str, partition: int) -> None:
        """Remove a marker, so that the stage runs again."""
        self.remove_files([_marker_name(stage, partition)])

    def writer(self, stage: str, partition: int, what: str = "rows") -> Writer:
        """Return a writer of Parquet files for one stage's rows or rejects."""
        return Writer(self, f"{partition:05d}.{stage}.{what}.{secrets.token_hex(4)}")

    def chunks(self, names: Iterable[str]) -> Iterator[pa.Table]:
        """Yield the tables written, one a chunk, in order.

        Raises:
            DamagedArtifact: A file is missing or damaged; the marker of the stage that made it has been removed, so
                that a retry of the run makes it again.
        """
        for name in names:
            try:
                with self.fs.open(self.path(name), "rb") as source:
                    file = pq.ParquetFile(source, page_checksum_verification=True)
                    for group in range(file.num_row_groups):
                        yield file.read_row_group(group, use_threads=False)
            except (pa.ArrowInvalid, OSError) as exc:
                # Arrow's own errors about the content have no number; the system's about the disk have one.
                if (
                    isinstance(exc, OSError)
                    and not isinstance(exc, FileNotFoundError)
                    and (exc.errno or not self.local)
                ):
                    raise failed(self.folder, exc) from exc
                if found := _ARTIFACT.fullmatch(name):
                    self.withdraw(found[2], int(found[1]))
                raise DamagedArtifact(
                    f"staging {self.path(name)} is {'gone' if isinstance(exc, FileNotFoundError) else 'damaged'}",
                    "rq-etl retry makes it again; if it happens again, look at the disk",
                ) from exc

    def remove_strays(self) -> None:
        """Remove what killed writers have left: temporary files, and Parquet files that no marker names."""
        names = self.names()
        markers = [self.marker(found[2], int(found[1])) for found in map(MARKER.fullmatch, names) if found]
        named = {name for marker in markers if marker for name in (*marker.data, *marker.rejects)}
        self.remove_files(
            name for name in names if name.startswith(".") or (name.endswith(".parquet") and name not in named)
        )


def _marker_name(stage: str, partition: int) -> str:
    return f"{partition:05d}.{stage}.json"


def check(url: str) -> None:
    """Publish a small file twice and remove it, to see that staging works and the first publication stands.

    Args:
        url: The staging folder of `etl.toml`.

    Raises:
        StagingFailed: It can't be written.
    """
    probe = Staging(url, PROBE, secrets.token_hex(4))
    try:
        first = [probe.write_bytes("probe", content, exclusive=True) for content in (b"first", b"second")]
        if first != [True, False] or probe.read_bytes("probe") != b"first":
            raise StagingFailed(f"staging {url}: what is published second replaces the first", OTHER_FOLDER)
    finally:
        probe.remove()

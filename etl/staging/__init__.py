"""Staging: the folder (local or S3) that holds a run's artifacts between its stages.

An artifact is one or more Parquet files under names of their own and a *marker*, a small JSON file
that names them and carries the stage's counts. The marker is published last and the first one
published wins, so a stage that runs twice, even at once, leaves one consistent result.
"""

import json
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import DamagedArtifact
from etl.staging.place import PROBE, Place, failed
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
        types: Types that fit each column (extract of a pipeline without columns only).
        warnings: Sentences for the run's warnings.
        cursor: The latest value of the cursor's column read (extract only), and the latest that could be: each a type
            and a text, or None.
    """

    counts: dict[str, int] = field(default_factory=dict)
    data: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()
    content: str = ""
    types: dict[str, list[str]] | None = None
    warnings: tuple[str, ...] = ()
    cursor: tuple[list[str] | None, list[str] | None] | None = None


class Staging(Place):
    """The artifacts of one run: what its stages publish, and their rows."""

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
    """Write and remove a small file, to see that staging works.

    Args:
        url: The staging folder of `etl.toml`.

    Raises:
        StagingFailed: It can't be written.
    """
    probe = Place(url, PROBE, secrets.token_hex(4))
    probe.write_bytes("probe", b"rq-etl")
    probe.remove()

"""Writing a stage's rows into staging: Parquet files, whole or not at all."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.staging.place import failing_as_staging, make_private

if TYPE_CHECKING:
    from etl.staging import Staging

SMALL_CHUNK = 10_000  # rows; fewer are written at once, as a thread costs more than it wins


class Writer:
    """Writes chunks as Parquet row groups; a chunk of another schema starts another file.

    A large chunk is written in another thread while the next is made. What goes wrong with it is raised by the next
    call, or on leaving.

    Used as a context manager; after an exception nothing is left behind.
    """

    def __init__(self, staging: "Staging", stem: str) -> None:
        self.staging = staging
        self.stem = stem
        self.names: list[str] = []
        self.rows = 0
        self._parquet: pq.ParquetWriter | None = None
        self._sink: Any = None
        self._schema: pa.Schema | None = None
        self._thread = ThreadPoolExecutor(1)  # starts with the first large chunk
        self._behind: Future[None] | None = None

    def __enter__(self) -> "Writer":
        return self

    def write(self, table: pa.Table) -> None:
        """Append one chunk."""
        with failing_as_staging(self.staging.folder):
            self._catch_up()
            if table.num_rows < SMALL_CHUNK:
                self._append(table)
            else:
                self._behind = self._thread.submit(self._append, table)
            self.rows += table.num_rows

    def _catch_up(self) -> None:
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.result()

    def _append(self, table: pa.Table) -> None:
        if self._parquet is None or table.schema != self._schema:
            self._open(table.schema)
        assert self._parquet is not None
        self._parquet.write_table(table, row_group_size=max(1, table.num_rows))

    def _open(self, schema: pa.Schema) -> None:
        self._close()
        name = f"{self.stem}.{len(self.names)}.parquet"
        if self.staging.local:
            make_private(self.staging.folder)
            self._sink = open(os.open(self.staging.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        else:
            self._sink = pa.BufferOutputStream()
        self.names.append(name)
        self._schema = schema
        self._parquet = pq.ParquetWriter(
            self._sink,
            schema,
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
            write_statistics=False,
            use_dictionary=False,  # zstd finds repeats by itself, in less time than a dictionary is made
        )

    def _close(self) -> None:
        if self._parquet is None:
            return
        self._parquet.close()
        self._parquet = None
        if self.staging.local:
            self._sink.flush()
            os.fsync(self._sink.fileno())
            self._sink.close()
        else:
            self.staging.fs.pipe_file(self.staging.path(self.names[-1]), self._sink.getvalue().to_pybytes())

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        try:
            if kind is None:
                with failing_as_staging(self.staging.folder):
                    self._catch_up()
                    self._close()
        except BaseException as failure:
            kind = failure
            raise
        finally:
            self._thread.shutdown()
            if kind is not None:
                self._clean_up()

    def _clean_up(self) -> None:
        with failing_as_staging(self.staging.folder):
            if self._parquet is not None and self.staging.local:
                with suppress(OSError, pa.ArrowException):  # a full disk takes no last bytes either
                    self._parquet.close()  # else it would write its end when it is collected, into a closed file
                with suppress(OSError):
                    self._sink.close()
            self.staging.remove_files(self.names)

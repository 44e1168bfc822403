"""A run's folder in staging: private, every path checked, every file whole or not there; and errors that name it."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import fsspec

from etl.config.values import NAME
from etl.errors import EtlError, StagingFailed

PROBE = ".check"  # in place of a client, and no client's name
_FILE = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_LETTERS = "it has small letters, digits and _ only"


class Place:
    """The folder of one run.

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
        self._client, self._run = client, run
        self.folder = _path(self._root, client, run)

    def path(self, name: str) -> str:
        """Return the full path of one file of this run."""
        return _path(self._root, self._client, self._run, name)

    def write_bytes(self, name: str, content: bytes, *, exclusive: bool = False) -> bool:
        """Publish a whole file by one atomic step.

        Returns:
            False where `exclusive` was asked for and another had published the name first.
        """
        with failing_as_staging(self.folder):
            path = self.path(name)
            if not self.local:
                return self._put(path, content, exclusive)
            make_private(self.folder)
            temporary = self.path(f".{name}.{secrets.token_hex(4)}")
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if not exclusive:
                    os.replace(temporary, path)
                    return True
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    return False
                return True
            finally:
                if os.path.exists(temporary):
                    os.unlink(temporary)

    def _put(self, path: str, content: bytes, exclusive: bool) -> bool:
        # The bytes go in one request: an exception inside `fs.open(…, "wb")` would leave a visible half object.
        if exclusive and self.fs.exists(path):
            return False
        self.fs.pipe_file(path, content)
        return True

    def read_bytes(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is no such file."""
        with failing_as_staging(self.folder):
            try:
                return bytes(self.fs.cat_file(self.path(name)))
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


def _path(root: str, client: str, run: str, name: str | None = None) -> str:
    """Return the path of a run's folder, or of a file in it: every path of staging is made here.

    Names may come from Redis, where others may write, so they are checked here and nowhere else.

    Raises:
        EtlError: A name could lead out of the run's folder.
    """
    if not NAME.fullmatch(client) and client != PROBE:
        raise EtlError(f"{client[:40]!r} is not the name of a client", _LETTERS)
    if not NAME.fullmatch(run):
        raise EtlError(f"{run[:40]!r} is not the id of a run", _LETTERS)
    if name is None:
        return f"{root}/{client}/{run}"
    if not _FILE.fullmatch(name) or name in (".", ".."):
        raise EtlError(f"{name[:40]!r} is not the name of a file of a run", "it has no / and no \\, and is not ..")
    return f"{root}/{client}/{run}/{name}"


def filesystem(url: str) -> tuple[Any, str, bool]:
    """Return the filesystem of a staging URL, the folder in it without a last /, and whether it is this machine's."""
    try:
        fs, root = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as exc:
        raise StagingFailed(f"staging {url}: {exc}", "install the filesystem's package, such as s3fs") from None
    protocol = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
    return fs, root.rstrip("/"), "file" in protocol


def make_private(folder: str) -> None:
    """Make a folder and its parents, for the owner alone; `os.makedirs` gives its mode to the last one only."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_private(os.path.dirname(folder))
        make_private(folder)


class failing_as_staging:
    """Turns an OSError of the folder into StagingFailed, which says where and what to do."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        if isinstance(exc, OSError) and not isinstance(exc, FileExistsError):
            raise failed(self.folder, exc) from exc


def failed(folder: str, exc: OSError) -> StagingFailed:
    why = exc.strerror or type(exc).__name__
    return StagingFailed(
        f"staging {folder}: {why}", "make room or set settings.staging to a folder that can be written"
    )

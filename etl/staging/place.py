"""Where staging is: every path of it checked, its folders private, and errors that name it."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec

from etl.config.values import NAME
from etl.errors import EtlError, StagingFailed

PROBE = ".check"  # in place of a client, and no client's name
CONTENTS = ".contents"  # likewise: see `etl.staging.contents`
LOCK = ".lock"
DELIVERIES = ".deliveries"  # in place of a run: of a client, what is known of its pipelines' deliveries
OTHER_FOLDER = "set settings.staging to a folder on a disk of this machine, or to s3://…"
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FILE = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_LETTERS = "it has small letters, digits and _ only"


def path_of(root: str, client: str, run: str, name: str | None = None) -> str:
    """Return the path of a run's folder, or of a file in it: every path of staging is made here.

    Names may come from Redis, where others may write, so they are checked here and nowhere else.

    Raises:
        EtlError: A name could lead out of the run's folder.
    """
    if not NAME.fullmatch(client) and client not in (PROBE, CONTENTS):
        raise EtlError(f"{client[:40]!r} is not the name of a client", _LETTERS)
    if not NAME.fullmatch(run) and run != DELIVERIES:
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
        with suppress(FileExistsError):  # another may have made it meanwhile
            os.mkdir(folder, 0o700)


@contextmanager
def failing_as_staging(folder: str) -> Iterator[None]:
    """Turn an OSError of the folder into StagingFailed, which says where and what to do."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as exc:
        raise failed(folder, exc) from exc


def publish_first(temporary: str, path: str, lock: str) -> bool:
    """Give a whole file its name, unless there is such a file: of two processes at once one is first.

    A file system without hard links, such as vfat, some network mounts and Windows drives, has a lock instead, which
    ends with its process.

    Returns:
        False where another was first.
    """
    try:
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
    with open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "rb") as held:
        with suppress(OSError):  # no locks either: what is left is to look first
            fcntl.flock(held, fcntl.LOCK_EX)
        if os.path.exists(path):
            return False
        os.replace(temporary, path)
        return True


def failed(folder: str, exc: OSError) -> StagingFailed:
    why = exc.strerror or type(exc).__name__
    cure = "make room or set settings.staging to a folder that can be written"
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        cure = "let this user write there, or set settings.staging to a folder that can be written"
    elif exc.errno is not None and exc.errno not in (*_FULL, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EIO):
        cure = OTHER_FOLDER
    return StagingFailed(f"staging {folder}: {why}", cure)

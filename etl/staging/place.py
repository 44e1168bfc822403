"""Where staging is: every path of it checked, its folders private, and errors that name it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from etl.config.values import NAME
from etl.errors import EtlError, StagingFailed

PROBE = ".check"  # in place of a client, and no client's name
_FILE = re.compile(r"[^/\\\x00-\x1f\x7f]+")
_LETTERS = "it has small letters, digits and _ only"


def path_of(root: str, client: str, run: str, name: str | None = None) -> str:
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


@contextmanager
def failing_as_staging(folder: str) -> Iterator[None]:
    """Turn an OSError of the folder into StagingFailed, which says where and what to do."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as exc:
        raise failed(folder, exc) from exc


def failed(folder: str, exc: OSError) -> StagingFailed:
    why = exc.strerror or type(exc).__name__
    return StagingFailed(
        f"staging {folder}: {why}", "make room or set settings.staging to a folder that can be written"
    )

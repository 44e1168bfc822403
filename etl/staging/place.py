"""The private folder that staging writes to, and errors that name it."""

import os
from typing import TYPE_CHECKING

from etl.errors import StagingFailed

if TYPE_CHECKING:
    pass


def make_private(folder: str) -> None:
    """Make a folder and what it lies in, for the owner alone; `os.makedirs` gives its mode to the last one only."""
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

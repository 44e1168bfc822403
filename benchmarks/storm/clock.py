"""Clocks that are wrong: the time of day of a process is shifted, and may jump while it runs; see clock.c."""

import subprocess
import sys
from pathlib import Path


class Clock:
    """The clock of the processes that have its environment.

    Args:
        folder: Where the library is compiled to.
        name: Of the clock.
        seconds: How far it is ahead of the true time.

    Raises:
        CalledProcessError, FileNotFoundError: There is no C compiler, `cc`.
    """

    def __init__(self, folder: Path, name: str, seconds: int) -> None:
        library, self._file = folder / "clock.so", folder / f"{name}.clock"
        if not library.exists():
            source = Path(__file__).with_suffix(".c")
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}
        self.set(seconds)

    def set(self, seconds: int) -> None:
        """Let it jump to so many seconds ahead of the true time, in one step."""
        with self._file.open("r+b") as file:
            file.write(seconds.to_bytes(8, sys.byteorder, signed=True))

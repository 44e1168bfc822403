"""Makes docs/demo.svg from what `./run demo` really prints: python docs/picture.py (or: python docs/picture.py 100)."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]


def terminal(command: list[str], folder: str, columns: int) -> str:
    """Run a command in a terminal of so many columns; return what stands there at the end, with its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "ETL_RUN": f"{folder}/run"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # how a terminal says that nobody writes to it any more
            pass
    if process.returncode:
        sys.exit(f"{command[0]} answers {process.returncode}")
    first, _, rest = text.decode().replace("\r", "").partition("\n")
    rest = rest.rpartition("\x1b[2K")[2]  # the progress takes itself away: what follows is what stays
    return first + "\n" + re.sub(r"\x1b\[\?\d+[hl]", "", rest)


def main(columns: int = 80) -> None:
    """Write docs/demo.svg."""
    with tempfile.TemporaryDirectory() as folder:
        text = terminal([sys.executable, "-m", "cli", "demo"], folder, columns)
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("$ ./run demo\n" + text.rstrip()))
    picture = console.export_svg(title="./run demo", unique_id="demo")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # it loads nothing from anywhere
    (ROOT / "docs" / "demo.svg").write_text(picture, encoding="utf-8")
    print(Text.from_ansi(text).plain)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

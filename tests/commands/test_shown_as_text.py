"""Names and values are shown as they are: no color, link, emoji or terminal's command comes out of a client's file."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import ROOT
from tests.helpers.project import Project, etl_toml

PLAIN = ("[red]r[/]", "[/]", "[link=http://x]l[/link]", "\\[bold]", ":smile:")
TRICKS = (*PLAIN, "\x1b[31m", "\x1b]0;t\x07", "\x9b2J", "\u202ex")
SHOWN = (*PLAIN, "\\x1b[31m", "\\x1b]0;t\\x07", "\\x9b2J", "\\u202ex")
COLUMNS = {"id": "string", "amount": {"type": "integer", "min": 0}}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    shop = Project(tmp_path, etl_toml({"claims": {"columns": COLUMNS}}))
    rows = "".join(f"a,{trick}\n" for trick in TRICKS) + "".join(f"{trick},1\n" for trick in TRICKS)
    shop.write("inbox/acme/[red]a[bold] \x1b[31m:smile:.csv", "id,amount\n" + rows)
    shop.write("inbox/acme/[b]\x1b[2J:tada:.csv", "id\n1\n" + "x" * 10)
    return shop


COMMANDS = (
    *("plan claims --client acme --rows 50", "rejects {run} --rows", "rejects {run}"),
    *("show {run}", "logs {run}", "runs"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_file_holds_is_shown_as_text(shop: Project, command: str) -> None:
    run = json.loads(shop("run claims --client acme --inline --json").out)[0]["run"]
    said = shop(command.format(run=run))
    text = said.out + said.err
    assert [letter for letter in text if not letter.isprintable() and letter not in "\n\\t"] == []
    if "--rows" in command:
        flat = "".join(text.split())
        assert [shown for shown in SHOWN if "".join(shown.split()) not in flat] == []


def test_so_it_is_in_a_terminal(shop: Project) -> None:
    run = json.loads(shop("run claims --client acme --inline --json").out)[0]["run"]
    primary, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "200"}
    command = [sys.executable, "-m", "cli", "rejects", run, "--rows"]
    done = subprocess.Popen(command, cwd=shop.root, env=environment, stdout=terminal, stderr=terminal, stdin=terminal)
    os.close(terminal)
    text = b""
    try:
        while block := os.read(primary, 65536):
            text += block
    except OSError:
        pass  # the terminal's end
    done.wait(30)
    decoded = text.decode()
    for trick in ("\x1b[31m", "\x1b]0;", "\x9b", "\u202e", "\x1b]8;"):
        assert trick not in decoded
    assert ":smile:" in decoded
    assert "[red]r[/]" in decoded

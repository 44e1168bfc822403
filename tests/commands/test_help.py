"""`--help`: commands under headings, each in one line that is not cut, on a terminal of 80 columns."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

import cli
from tests.helpers.processes import ROOT
from tests.helpers.project import Project


def commands(command: click.Command, *before: str) -> Iterator[tuple[str, ...]]:
    yield before
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, *before, name)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_every_command_is_listed_once_under_a_heading(etl: Project) -> None:
    said = etl("--help").out
    listed = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ") and line[2].isalpha()}
    assert [heading for heading in ("Begin", "Run", "Look", "Operate") if f"\n{heading}:\n" not in said] == []
    assert {name for commands in cli.COMMANDS.values() for name in (each.name for each in commands)} == {
        name for name in listed if name in cli.cli.commands
    }
    assert cli.cli.commands.keys() == listed.keys() & cli.cli.commands.keys()


@pytest.mark.parametrize("words", list(commands(cli.cli)), ids=lambda words: " ".join(words) or "rq-etl")
def test_help_is_never_cut_and_each_command_has_one_line(etl: Project, words: tuple[str, ...]) -> None:
    said = etl(" ".join([*words, "--help"]))
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.rstrip().endswith("...") and not line.startswith("Usage")]
    group: click.Command = cli.cli
    for word in words:
        assert isinstance(group, click.Group)
        group = group.commands[word]
    for name, command in group.commands.items() if isinstance(group, click.Group) else ():
        [line] = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.split(maxsplit=1)[1] == (command.help or "").partition("\n")[0]


def test_help_imports_nothing_that_is_slow() -> None:
    code = "import sys, cli\ntry: cli.cli(['--help'])\nexcept SystemExit: pass\n"
    code += "print(*[name for name in ('redis', 'rich', 'pydantic', 'rq', 'tomli') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == ""

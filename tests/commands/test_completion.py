"""Tab: commands, options, clients, pipelines and runs; nothing is started for it, and nothing is said on stderr."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from redis import Redis

import cli
from etl.config.values import NAME
from jobs import settings
from jobs.commands import completion
from jobs.commands.options import shared
from jobs.run.submit import submit_run
from tests.commands.test_help import commands
from tests.helpers.processes import ROOT
from tests.helpers.project import Project
from tests.helpers.redis_server import RedisServer

RQ_ETL = f'#!/bin/sh\nexec {sys.executable} {ROOT}/cli.py "$@"\n'


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    shared.forget()
    settings.use(None)


def offered(line: str) -> list[str]:
    """Return what click offers for the last word of a line, as a shell asks it."""
    shared.forget()
    words = line.split(" ")
    complete = ShellComplete(cli.cli, {}, "rq-etl", "_RQ_ETL_COMPLETE")
    return [item.value for item in complete.get_completions(words[:-1], words[-1])]


@pytest.fixture
def named(etl: Project, redis_server: RedisServer, real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    etl.write("clients/initech.toml", "")
    return etl


@pytest.fixture
def path(etl: Project, tmp_path: Path) -> str:
    """A PATH on which `rq-etl` is."""
    script = etl.write("bin/rq-etl", RQ_ETL)
    script.chmod(0o755)
    return f"{tmp_path}/bin:{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ba", ["backfill"]),
        ("clients ", ["limit", "pause", "resume"]),
        ("retry --f", ["--failed"]),
        ("run --client ", ["acme", "globex", "initech"]),
        ("run --json --client gl", ["globex"]),
        ("clients pause acme i", ["initech"]),
        ("status --client=a", ["acme"]),
        ("run c", ["claims"]),
        ("cursor get ", ["claims"]),
        ("show a", ["acme/claims"]),
        ("retry acme/claims initech/", ["initech/claims"]),
        ("runs --state ca", ["canceled"]),
        ("completion ", ["bash", "zsh"]),
        ("run --client nobody", []),
    ],
)
def test_words_are_completed(named: Project, line: str, wanted: list[str]) -> None:
    assert offered(line) == wanted


def test_runs_are_completed_by_id_and_by_pipeline(named: Project, real_redis: Redis) -> None:
    run = submit_run(real_redis, named.pipeline())
    for command in ("show", "logs", "wait", "cancel", "retry", "rejects"):
        assert offered(f"{command} {run[:3]}") == [run]
        assert offered(f"{command} ")[0] == "acme/claims"
        assert offered(f"{command} ")[-1] == run


def test_names_are_what_the_configuration_takes_for_names() -> None:
    assert completion.NAME.pattern == NAME.pattern


def test_each_option_and_argument_of_a_name_is_completed(named: Project) -> None:
    names = {"client", "clients", "names", "run", "runs", "pipeline", "pipelines", "state"}
    for words in commands(cli.cli):
        command: click.Command = cli.cli
        for word in words:
            assert isinstance(command, click.Group)
            command = command.commands[word]
        for param in command.params:
            if param.name in names and not param.is_flag if isinstance(param, click.Option) else param.name in names:
                assert param._custom_shell_complete is not None, (words, param.name)


def test_what_a_redis_holds_that_is_no_run_is_passed_over(named: Project, real_redis: Redis) -> None:
    real_redis.zadd("etl:runs", {"$(reboot)": 1, "gone": 2})
    real_redis.hset("etl:run:$(reboot)", mapping={"client": "acme", "pipeline": "claims", "state": "queued"})
    assert offered("show ") == ["acme/claims", "globex/claims", "initech/claims"]
    real_redis.set("etl:runs", "no list")
    assert offered("show a") == ["acme/claims"]


@pytest.mark.parametrize("text", ["[clients", "clients = 3\npipelines = [1]", "[clients.acme]\npipelines = 5\n", "\0"])
def test_a_broken_configuration_is_no_error(etl: Project, capfd: pytest.CaptureFixture[str], text: str) -> None:
    etl.path.write_text(text)
    for line in ("run --client ", "run ", "show ", "--config nowhere.toml run --client ", "--config . show "):
        assert isinstance(offered(line), list)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "nonsense", "redis://no.such.host.invalid:6379/0", "silent"])
def test_a_redis_that_does_not_answer_is_not_waited_for(
    etl: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    offered("show ")  # what it imports is there from here on
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{silent.getsockname()[1]}/0" if url == "silent" else url)
        began = time.monotonic()
        assert offered("show ") == ["acme/claims", "globex/claims"]
        assert time.monotonic() - began < 1
    assert capfd.readouterr() == ("", "")


def test_no_private_redis_is_started(etl: Project) -> None:
    assert offered("show ") == ["acme/claims", "globex/claims"]
    assert not (etl.root / ".rq-etl").exists()


BASH = """
eval "$(rq-etl completion bash)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_rq_etl_completion rq-etl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["dem"], "demo\n"),
        (["run", "--client", "g"], "globex\n"),
        (["run", "--client", "acme", "cl"], "claims\n"),
        (["--json", "show", "acme/"], "acme/claims\n"),
        (["show", "--co"], "--config\n"),
    ],
)
def test_bash_completes(etl: Project, path: str, words: list[str], wanted: str) -> None:
    command = ["bash", "--norc", "-c", BASH, "bash", "rq-etl", *words]
    ran = subprocess.run(command, cwd=etl.root, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == (wanted, "")


def test_bash_completes_a_run_of_the_private_redis_that_runs(etl: Project, path: str) -> None:
    from jobs.process.private_redis import PrivateRedis

    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server")
    server = PrivateRedis(program, etl.root)
    with server.connect(start=True) as connection:
        run = submit_run(connection, etl.pipeline())
        command = ["bash", "--norc", "-c", BASH, "bash", "rq-etl", "show", run[:4]]
        ran = subprocess.run(command, cwd=etl.root, env={"PATH": path}, capture_output=True, text=True, check=False)
    server.stop()
    assert (ran.stdout, ran.stderr) == (f"{run}\n", "")


ZSH = """
autoload -Uz compinit && compinit -u -D
eval "$(rq-etl completion zsh)"
compadd() { shift 5; print -l -- ${(P)1} }
_describe() { print -l -- ${(P)3} }
words=("$@") CURRENT=$#
_rq_etl_completion
"""


def test_zsh_is_answered_in_its_protocol(etl: Project, path: str) -> None:
    """Type, value and what is said of it, each in a line."""
    env = {"PATH": path, "_RQ_ETL_COMPLETE": "zsh_complete", "COMP_WORDS": "rq-etl run --client g", "COMP_CWORD": "3"}
    ran = subprocess.run(["rq-etl"], cwd=etl.root, env=env, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("plain\nglobex\n_\n", "")
    script = etl("completion zsh").out
    assert script.startswith("#compdef rq-etl\n")
    assert etl("completion zsh --json").json == {"shell": "zsh", "script": script}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize(
    ("words", "wanted"), [(["run", "--client", "g"], "globex"), (["show", "acme/"], "acme/claims")]
)
def test_zsh_completes(etl: Project, path: str, words: list[str], wanted: str) -> None:
    command = ["zsh", "-f", "-c", ZSH, "zsh", "rq-etl", *words]
    ran = subprocess.run(command, cwd=etl.root, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (ran.stdout.split(), ran.stderr) == ([wanted], "")

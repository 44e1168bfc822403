"""Every command and every block of the documents runs, in order, in a folder of its own, and answers what they say."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from etl.config.read import load_config
from etl.config.values import deep_merge
from jobs.demo.init import CONFIG
from tests.helpers.markdown import DOCS, README, REFERENCE, Block, blocks, section
from tests.helpers.processes import ROOT, kill_session
from tests.helpers.redis_server import RedisServer

NOT_RUN = {
    "it is below, with its output",
    "it needs a second checkout",
    "it is this very test suite",
    "the tests have it on their PATH",
    "it changes the machine",
    "it wants another RQ and four workers",
    "it wants Celery",
    "it wants a night of runs",
    "it measures for minutes",
}
PATIENCE = 120  # seconds
URL = "redis://localhost:6379/0"  # as the documents have it


class Reader:
    """Someone who does what a document says.

    Args:
        folder: Where.
        redis: URL of the Redis that is meant by the documents' own.
    """

    def __init__(self, folder: Path, redis: str) -> None:
        self.folder = folder
        self.redis = redis
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith(("ETL_", "RQ_", "REDIS_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.key == "not run":
            return
        if block.key == "file":
            (self.folder / block.value).write_text(block.text, encoding="utf-8")
        elif block.key == "until":
            with self.started(block.text, block.value):
                pass
        elif block.key == "with":
            self.environment["REDIS_URL"] = self.redis
            with self.started("rq-etl worker", "Listening"):
                self.script(block)
            del self.environment["REDIS_URL"]
        elif block.language == "sh":
            self.shell(block.text)
        elif block.language == "console":
            for command, expected in said(block):
                compare(command, expected, self.shell(command))
        elif block.language == "python":
            self.script(block)
        elif block.language == "toml":
            self.validate(block)
        elif block.key == "shape":
            found = json.loads(self.shell("rq-etl runs --json 2>/dev/null"))[0]
            assert json.loads(block.text).keys() == found.keys()

    def script(self, block: Block) -> None:
        """Run a block of Python beside etl.toml."""
        (self.folder / "script.py").write_text(block.text, encoding="utf-8")
        self.shell("python script.py")

    def shell(self, text: str) -> str:
        """Run commands where the last ones ended, and return what they print."""
        place = self.folder / ".place"
        done = subprocess.run(
            ["bash", "-euc", f"{self.meant(text)}\npwd >{place}"],
            cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}"
        self.folder = Path(place.read_text().strip())
        place.unlink()
        return done.stdout

    @contextmanager
    def started(self, text: str, until: str) -> Iterator[None]:
        """Start what runs until it is interrupted, wait until it says something, and stop it afterwards."""
        log = self.folder / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-euc", self.meant(text)],
                cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        try:
            give_up = time.monotonic() + PATIENCE
            while until not in log.read_text(errors="replace"):
                assert process.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < give_up, log.read_text(errors="replace")
                time.sleep(0.05)
            yield
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    kill_session(process)

    def meant(self, text: str) -> str:
        """Return a document's command for this machine: its Redis, a free port, and ./run as it is once set up."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = text.replace(URL, self.redis).replace("./run ", "rq-etl ")
        return re.sub(r"^rq-etl (up|dashboard)$", rf"rq-etl \1 --port {port}", text, flags=re.M)

    def validate(self, block: Block) -> None:
        """Read a block of TOML as etl.toml; a part of one is laid over the one that init writes."""
        given = tomllib.loads(block.text)
        whole = given if "targets" in given else deep_merge(tomllib.loads(CONFIG), given)
        folder = self.folder / "validate"
        folder.mkdir(exist_ok=True)
        text = "\n".join(f"{key} = {toml(table)}" for key, table in whole.items())
        (folder / "etl.toml").write_text(text, encoding="utf-8")
        load_config(folder / "etl.toml")


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def said(block: Block) -> list[tuple[str, list[str]]]:
    """Return a block's commands, and the lines that each is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def compare(command: str, expected: list[str], output: str) -> None:
    """Check that lines are there in their order; … stands for anything, and blanks are as good as one blank."""
    lines = iter(" ".join(line.split()) for line in output.splitlines())
    for line in expected:
        wanted = " ".join(line.split())
        if wanted in ("", "…"):
            continue
        pattern = re.compile(".*".join(map(re.escape, wanted.split("…"))))
        assert any(pattern.fullmatch(each) for each in lines), f"{command} does not print: {line}\n{output}"


def test_what_does_not_run_is_listed() -> None:
    """So that nobody leaves a block out by the way."""
    found = {block.value for document in DOCS for block in blocks(document) if block.key == "not run"}
    assert found <= NOT_RUN


@pytest.mark.slow
def test_the_readme_is_true_from_top_to_bottom(tmp_path: Path, redis_server: RedisServer, real_redis: object) -> None:
    """The demo and the first own file, then what the reference says of a run and its tables."""
    reader = Reader(tmp_path, redis_server.url)
    for document in (README, REFERENCE / "output.md"):
        for block in blocks(document):
            reader.follow(block)
    text = section(REFERENCE / "output.md", "## Tables")
    with closing(sqlite3.connect(reader.folder / "warehouse.db")) as warehouse:
        for table in ("_etl_loads", "_etl_runs"):
            there = [row[1] for row in warehouse.execute(f"PRAGMA table_info({table})")]
            _, _, listed = re.search(rf"Columns of `{table}`(, whose key is (.*?))?: (.*?)\.\n", text, re.S).groups()  # type: ignore[union-attr]
            assert re.findall(r"`(\w+)`", listed) == there


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [each for each in DOCS if each.name not in ("README.md", "output.md")], ids=lambda path: path.name
)
def test_the_other_documents_are_true(
    document: Path, tmp_path: Path, redis_server: RedisServer, real_redis: object
) -> None:
    """Their commands and blocks, in order, each in a folder of its own."""
    reader = Reader(tmp_path, redis_server.url)
    for block in blocks(document):
        reader.follow(block)

"""What a stage's functions print is kept privately, whoever prints it; no line of a worker's log is forged."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from etl import output
from etl.safe_message import printable
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.store import runs
from jobs.views import details, history
from tests.helpers.processes import ROOT, until
from tests.helpers.project import Project, etl_toml
from tests.helpers.workers import StartWorkers

STEPS = """
import ctypes, logging, os, subprocess, sys, threading, time, warnings

print("mark import")

def late():
    for _ in range(300):  # into the jobs that come after it
        time.sleep(0.005)
        os.write(1, b"mark late\\n")
    raise ValueError("mark thread")

def speak(where):
    print(f"mark print {where}")  # in one piece, since other threads print meanwhile
    print("mark stderr", file=sys.stderr)
    sys.__stdout__.write("mark dunder\\n")
    warnings.warn("mark warning " + where)
    warnings.warn("mark same")  # in each stage, although Python warns once of a line
    logging.getLogger("users").warning("mark logger")
    logging.getLogger("users").info("mark info")
    os.write(1, b"mark descriptor\\n")
    ctypes.CDLL(None).puts(b"mark libc")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["sh", "-c", "echo mark child; echo mark child error >&2"])
    subprocess.Popen(["sh", "-c", "sleep 0.3; echo mark late child"])
    threading.Thread(target=late).start()

def extract():
    speak("extract")
    yield [{"id": "a"}]

def step(df):
    speak("transform")
    return df

def load(df, connection):
    speak("load")

def fails(df):
    print("mark before")
    raise ValueError("mark raised")
"""
SAID = ("print", "stderr", "dunder", "warning", "same", "logger", "info", "descriptor", "libc", "child", "child error")


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    said = {
        "extract": {"type": "function", "function": "steps:extract"},
        "transform": ["steps:step"],
        "load": {"function": "steps:load"},
    }
    raised = {"transform": ["steps:fails"], "load": {"mode": "append"}, "columns": {"id": "string"}}
    config = etl_toml({"said": {**said, "retries": 0}, "raised": {**raised, "retries": 0}})
    return Project(tmp_path, config, {"steps.py": STEPS, "inbox/acme/a.csv": "id\na\n"})


def run(shop: Project, connection: Redis, pipeline: str) -> str:
    id = submit_run(connection, shop.pipeline(pipeline))
    until(lambda: (runs.read(connection, id) or {}).get("state") in runs.ENDED)
    return id


def test_whatever_a_stages_functions_print_is_in_its_own_private_file(
    shop: Project, workers: StartWorkers, real_redis: Redis
) -> None:
    workers(1, env={"ETL_CONFIG": str(shop.path)})
    session = Session(shop.path, real_redis, workers=0)
    said, raised = run(shop, real_redis, "said"), run(shop, real_redis, "raised")
    assert (runs.read(real_redis, said) or {})["state"] == "succeeded"
    folder = shop.root / "staging" / "acme" / said
    for stage in ("extract", "transform", "load"):
        text = (folder / f"00001.{stage}.output.txt").read_text()
        assert [word for word in SAID if f"mark {word}" not in text] == []
        assert f"mark print {stage}" in text
        assert stat.S_IMODE((folder / f"00001.{stage}.output.txt").stat().st_mode) == 0o600
    until(lambda: "mark late" in "".join(path.read_text() for path in shop.root.glob("staging/acme/*/*.output.txt")))
    logs = "".join(line["text"] for line in details.logs(session, said))
    assert "--- 00001.extract.output.txt\nmark import\nmark print extract" in logs
    assert "mark before" in "".join(line["text"] for line in details.logs(session, raised))
    assert "mark" not in (shop.root / "worker-1.log").read_text()
    session.close()


def test_a_job_that_is_no_stage_prints_where_its_worker_does(
    shop: Project, workers: StartWorkers, real_redis: Redis
) -> None:
    shop.write("steps.py", STEPS + "\ndef plain():\n    print('said', flush=True)\n")
    workers(1, env={"ETL_CONFIG": str(shop.path)})
    run(shop, real_redis, "raised")
    run(shop, real_redis, "said")
    FairQueue("etl-acme", connection=real_redis).enqueue("steps.plain").wait(20)  # type: ignore[attr-defined]
    text = (shop.root / "worker-1.log").read_text()
    assert "said" in text
    assert "mark late" not in text, "what a stage's functions have left behind printed into another job"


def test_who_runs_inline_sees_what_functions_print_and_so_does_logs(
    shop: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each stage, of runs that fail and of those that succeed; what other processes print is on the terminal."""
    monkeypatch.chdir(shop.root)
    seen = shop("run raised --client acme --inline")
    assert "mark before" in seen.out, seen
    assert "mark before" in shop("logs acme/raised").out
    assert list(shop.root.glob("staging/acme/*/*.error.txt")) != []
    shop.write("steps.py", STEPS.replace("    threading.Thread", "    return\n    threading.Thread"))
    seen = shop("run said --client acme --inline --json")
    [run] = seen.json
    assert run["state"] == "succeeded", run
    for stage in ("extract", "transform", "load"):
        file = shop.root / "staging" / "acme" / run["run"] / f"00001.{stage}.output.txt"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert [word for word in ("print", "stderr") if f"mark {word}" not in file.read_text()] == []
        assert f"mark print {stage}" in seen.err, "with --json it is not on stdout"
        assert f"mark print {stage}" in shop(f"logs {run['run']}").out
    assert sys.stdout.__class__.__module__ != output.__name__


LOGS = """
import logging, sys, warnings

{configured}

def step(df):
    warnings.warn("mark warning")
    logging.getLogger(__name__).debug("mark debug")
    logging.getLogger(__name__).info("mark info")
    logging.getLogger("sqlalchemy.engine.Engine").info("mark statement")
    return df
"""


@pytest.mark.parametrize(
    ("configured", "kept"),
    [
        ("", ["INFO steps: mark info"]),
        ("logging.basicConfig(level='INFO', format='%(message)s')", ["mark info"]),
        ("logging.basicConfig(level='ERROR')", []),
        ("logging.getLogger(__name__).addHandler(logging.StreamHandler(sys.stdout))", ["mark info"]),
    ],
)
def test_warnings_and_what_loggers_say_as_they_are_configured_else_from_info_on_are_kept_in_each_stage(
    tmp_path: Path, configured: str, kept: list[str]
) -> None:
    """In a process of its own, as it is without pytest's handlers: two partitions, one after the other."""
    config = etl_toml({"claims": {"transform": ["steps:step"], "columns": {"id": "string"}}})
    shop = Project(tmp_path, config, {"steps.py": LOGS.format(configured=configured)})
    for name in "ab":
        shop.write(f"inbox/acme/{name}.csv", "id\na\n")
    command = [sys.executable, str(ROOT / "cli.py"), "run", "--client", "acme", "--inline"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    texts = [path.read_text() for path in sorted(tmp_path.glob("staging/acme/*/0000[12].transform.output.txt"))]
    assert len(texts) == 2
    for text in texts:
        assert "UserWarning: mark warning" in text
        assert [line for line in text.splitlines() if "warn" not in line and "statement" not in line] == kept
        assert "statement" not in text or configured, "of SQLAlchemy, which would log each statement with its values"


def test_a_retry_adds_to_what_a_stage_printed(shop: Project, connection: Redis) -> None:
    session = Session(shop.path, connection, workers=0)
    id = submit_run(connection, shop.pipeline("raised"))
    InProcessWorker(connection).work()
    retry_run(shop.loaded(), connection, id)
    InProcessWorker(connection).work()
    assert "".join(line["text"] for line in details.logs(session, id)).count("mark before") == 2
    session.close()


def test_descriptions_and_names_forge_no_line_of_a_workers_log(workers: StartWorkers, real_redis: Redis) -> None:
    workers(1, env={"ETL_MODULES": "tests"})
    forged = "x\n12:00:00 etl-acme: forged\r\x1b[2J\u2028"
    queue = FairQueue("etl-acme" + forged, connection=real_redis)
    job = queue.enqueue_call("os.getpid", description=forged)
    until(lambda: job.get_status() == "failed")
    text = (workers.cwd / "worker-1.log").read_bytes().decode()
    assert [line for line in text.splitlines() if line.startswith("12:00:00 etl-acme: forged")] == []
    assert "\x1b[2J" not in text
    assert "\\n12:00:00 etl-acme: forged\\r\\x1b[2J\\u2028" in text


def test_only_the_end_of_a_long_output_is_kept(tmp_path: Path) -> None:
    """In a process of its own, whose descriptors are turned."""
    code = """
import os, sys
from etl import output
from etl.staging import Staging
output.MOST = 1000
output.capture_from_now_on()
staging = Staging(sys.argv[1], "acme", "r1")
staging.write_json("run.json", {})
with output.kept(lambda: staging, "long"):
    for number in range(1000):
        print(number)
with output.kept(lambda: staging, "none"):
    pass
output.give_back()
print(*staging.names())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["long", "run.json"]
    kept = (tmp_path / "acme" / "r1" / "long").read_text()
    assert len(kept) == 1000
    assert kept.startswith("[rq-etl: what was printed before this is not kept]\n")
    assert kept.endswith("998\n999\n")


PRINTS = """
import os, subprocess, sys, time
from etl import output
from etl.staging import Staging

output.MOST, output.LOOK = 1000, 0.01
output.capture_from_now_on()
staging = Staging(sys.argv[1], "acme", "r1")
if sys.argv[2] == "folder":
    staging.write_json("run.json", {})

def is_cut(file):
    before = 0
    while before <= (size := os.fstat(file).st_size):  # until it is smaller than it was
        before = size

with output.kept(lambda: staging, "first"):
    first = os.dup(output._watched[0].watched)
    yes = subprocess.Popen(["yes"])
    is_cut(first)
is_cut(first)
with output.kept(lambda: staging, "second"):
    is_cut(first)
yes.kill()
while len(output._watched) > 1:
    time.sleep(0.01)
output.give_back()
while output._watched:
    time.sleep(0.01)
print("bounded", os.fstat(first).st_size <= 2000)
"""


@pytest.mark.parametrize("where", ["folder", "no folder"])
def test_what_is_printed_is_bounded_while_its_stage_runs_and_after_it_as_long_as_anyone_prints(
    tmp_path: Path, where: str
) -> None:
    command = [sys.executable, "-c", PRINTS, str(tmp_path), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("bounded True\n", "")


def test_logs_reads_the_end_of_a_long_file(shop: Project, connection: Redis) -> None:
    session = Session(shop.path, connection, workers=0)
    id = submit_run(connection, shop.pipeline("raised"))
    staging = history.staging_of(session, details.run_with_stages(session, id))
    staging.write_bytes("00001.transform.output.txt", b"first\n" + b"x" * (5 * output.MOST) + b"\nlast\n")
    staging.write_bytes("00002.transform.output.txt", b"short\n")
    [long, short] = [line["text"] for line in details.logs(session, id) if "file" in line]
    assert output.MOST / 2 < len(long) < output.MOST + 100
    assert long.endswith("\nlast")
    assert short.endswith("\nshort")
    session.close()


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\u202eevil", "\x9b1m", "\ud800", "a\tb"])
def test_control_characters_are_spelled_out(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text).encode()
    assert printable("a\nb", keep="\n") == "a\nb"
    assert printable("é [red] :smile: 漢") == "é [red] :smile: 漢"

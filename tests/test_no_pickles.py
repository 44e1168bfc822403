"""Nothing of ours reads a job through a pickle: who can write to Redis must not be able to run code."""

import ast
from pathlib import Path

import pytest

from tests.test_house import python_files

# Of rq: they read jobs through its own Job.
UNPICKLERS = {"send_stop_job_command", "requeue_job", "cancel_job", "clean_registries", "Group", "RQScheduler"}
UNPICKLERS |= {"CronScheduler", "SimpleWorker", "SpawnWorker", "DefaultSerializer", "PickleSerializer"}


def pickle_readers(path: Path) -> list[str]:
    """Return where a file could unpickle what is in Redis; rq's Job is for types, `isinstance` and subclasses."""
    tree, found = ast.parse(path.read_text()), []
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        what = ""
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
            what = ", ".join(
                name for name in names if name.partition(".")[0] in {"pickle", "dill", "cloudpickle", "shelve"}
            )
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rq":
                what = what or ", ".join(names & UNPICKLERS)
                what = what or ", ".join(f"Job as {a.asname}" for a in node.names if a.name == "Job" and a.asname)
            elif isinstance(node, ast.Import):
                what = what or ", ".join(name for name in names if name.partition(".")[0] == "rq")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Job":
            what = f"Job.{node.attr}"
        elif isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            given = {word.arg for word in node.keywords}
            if called in ("Job", "Queue") or (called.endswith("JobRegistry") and "job_class" not in given):
                what = f"{called}(…)"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            what = node.value if "pickle" in node.value or node.value == "rq.job.Job" else ""
        if what:
            found.append(f"{path.name}:{getattr(node, 'lineno', 0)}: {what}")
    return found


def test_nothing_of_ours_reads_a_job_through_a_pickle() -> None:
    """Who can write to Redis must not be able to run code: jobs are read through EtlJob, which reads JSON."""
    files = python_files("etl", "jobs", "cli.py", "rq_etl.py")
    assert [line for path in files for line in pickle_readers(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "from rq.job import Job\nJob.fetch('x')",
        "from rq.job import Job\nJob('x').refresh()",
        "from rq.job import Job as Stock",
        "import rq",
        "from rq.command import send_stop_job_command",
        "from rq import Queue\nQueue('x')",
        "from rq.registry import FailedJobRegistry\nFailedJobRegistry('x')",
        "Queue = make(serializer='pickle')",
    ],
)
def test_a_reader_of_pickles_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    assert pickle_readers(tmp_path / "bad.py")

"""What we replace, call and set inside RQ is marked and listed, so that no new RQ breaks a promise unseen."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import rq

from jobs.dashboard import rqpages
from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.worker import Worker
from tests.helpers.processes import ROOT

ATTRIBUTES = {"queue_class", "job_class"}  # which can't be marked
OURS = [EtlJob, FairQueue, Worker]
OURS += [cls for cls in vars(rqpages).values() if isinstance(cls, type) and cls.__module__ == rqpages.__name__]
RQ_SOURCES = ("job.py", "queue.py", "worker/base.py", "worker/worker_classes.py")


def members_of_rq(cls: type) -> set[str]:
    """Return the names that a class of ours inherits from RQ."""
    return {name for base in cls.__mro__ if base.__module__.partition(".")[0] == "rq" for name in vars(base)}


def is_marked(member: object) -> bool:
    function = getattr(member, "fget", None) or getattr(member, "__func__", member)
    return bool(getattr(function, "__override__", False))


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_what_we_override_is_rqs_and_marked_and_nothing_else_takes_a_name_of_rqs(cls: type) -> None:
    marked = {name for name, member in vars(cls).items() if is_marked(member)}
    shared = {name for name in vars(cls) if not name.startswith("__")} & members_of_rq(cls)
    assert marked == shared - ATTRIBUTES


def names_used(tree: ast.AST) -> Iterator[str]:
    """Yield the names of attributes, methods, and what is imported from RQ."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ClassDef):
            yield from (each.name for each in node.body if isinstance(each, ast.FunctionDef))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rq":
            yield from (alias.name for alias in node.names)


def names_made(tree: ast.AST) -> Iterator[str]:
    """Yield the names of functions, and of attributes and variables that are set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.attr if isinstance(node, ast.Attribute) else node.id


def test_private_members_of_rq_are_listed_in_decisions_and_no_others() -> None:
    folder = Path(rq.__file__).parent
    made = {name for source in RQ_SOURCES for name in names_made(ast.parse((folder / source).read_text()))}
    used = {name for path in (ROOT / "jobs").rglob("*.py") for name in names_used(ast.parse(path.read_text()))}
    text = (ROOT / "docs" / "decisions.md").read_text()
    section = re.search(r"^## Private members of RQ$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    listed = re.findall(r"`(_\w+)`", "\n".join(line.split("|")[1] for line in section[1].splitlines() if "|" in line))
    assert sorted(listed) == sorted(name for name in used & made if name.startswith("_") and not name.startswith("__"))

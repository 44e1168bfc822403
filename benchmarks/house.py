"""How the code is laid out: modules per folder, chains and circles of imports, files that a run crosses, lines.

    python benchmarks/house.py                                   # this checkout
    python benchmarks/house.py --root ../before --root .         # two checkouts side by side
    python benchmarks/house.py --kind ndjson=COMMIT              # files that a commit, or A..B, changed to add a kind

A checkout is run by its own .venv where it has one.
"""

import argparse
import ast
import importlib
import inspect
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

HERE = Path(__file__).resolve().parent.parent
PACKAGES = ("etl", "jobs")
# Their lines are not counted: they came with the layout, to prove that a kind is one module.
KINDS = ("etl/sources/formats/ndjson.py", "etl/load/targets/duckdb.py")

# What a run is read, resolved, submitted and worked on by, in this layout and in the one before packages.
ENTRIES = (
    "etl.config.read.load_config",
    "etl.config.pipeline.resolve",
    "jobs.run.submit.submit_run",
    "jobs.process.inprocess.InProcessWorker",
)
ENTRIES_BEFORE = (
    "etl.config.load_config",
    "etl.pipeline.resolve",
    "jobs.holding.submit",
    "jobs.inprocess.InProcessWorker",
)

Graph = Mapping[str, frozenset[str]]

PROJECT = """
[settings]
staging = "staging"
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = { type = "csv", path = "inbox/claims-*.csv", settle = 0 }
transform = []
load = { target = "warehouse", table = "claims", mode = "append" }
[pipelines.claims.columns]
claim_id = { type = "string", required = true }
amount = { type = "decimal" }
[clients.acme]
"""


# --- modules and what they import ---


def modules(root: Path) -> dict[str, Path]:
    """Return the modules of etl, jobs and the command line by name, with their files."""
    found = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    parts = {path: path.relative_to(root).with_suffix("").parts for path in [*found, root / "cli.py"]}
    return {".".join(names[:-1] if names[-1] == "__init__" else names): path for path, names in parts.items()}


def imports(root: Path) -> Graph:
    """Return which modules each module imports, in its functions too; what only type checkers see is left out."""
    known = modules(root)
    return {name: frozenset(_imported(path, known) - {name}) for name, path in known.items()}


def _imported(path: Path, known: Iterable[str]) -> set[str]:
    names: set[str] = set()
    for node in _nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else node.module for name in inner.values()}
    return names & set(known)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield a tree's nodes but for those under `if TYPE_CHECKING`."""
    ahead = [tree]
    while ahead:
        node = ahead.pop()
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            ahead += ast.iter_child_nodes(node)


def reached(graph: Graph, start: str) -> frozenset[str]:
    """Return what a module imports, directly or through others."""
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += graph[name]
    return frozenset(found)


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others."""
    below = {name: reached(graph, name) for name in graph}
    groups = {frozenset(other for other in below[name] if name in below[other]) for name in graph}
    return sorted(sorted(group) for group in groups if group)


def longest_chain(graph: Graph, package: str) -> list[str]:
    """Return the longest chain of imports among a package's modules; a circle counts with all its modules."""
    group_of = {name: frozenset([name]) for name in graph} | {
        name: frozenset(group) for group in circles(graph) for name in group
    }

    @cache
    def below(group: frozenset[str]) -> list[str]:
        ahead = {group_of[name] for member in group for name in graph[member]} - {group}
        return [*sorted(group), *longest(below(other) for other in ahead if is_ours(next(iter(other))))]

    def is_ours(name: str) -> bool:
        return name == package or name.startswith(f"{package}.")

    def longest(chains: Iterable[list[str]]) -> list[str]:
        return max(chains, key=lambda chain: len(chain), default=[])

    return longest(below(group_of[name]) for name in sorted(graph) if is_ours(name))


def folders(root: Path) -> Counter[str]:
    """Return how many modules each folder of etl and jobs has, `__init__.py` among them."""
    return Counter(path.parent.relative_to(root).as_posix() for path in modules(root).values() if path.parent != root)


def lines(root: Path) -> int:
    """Return the lines of etl, jobs and cli.py, Python and Lua, but for those of the kinds of `KINDS`."""
    found = [*modules(root).values(), *(path for package in PACKAGES for path in (root / package).rglob("*.lua"))]
    counted = [path for path in found if path.relative_to(root).as_posix() not in KINDS]
    return sum(len(path.read_text().splitlines()) for path in counted)


# --- the files of a run ---


def run_path(root: Path) -> tuple[list[str], list[str]]:
    """Return the files that an in-process run crosses, and those that it executes a function of, in order.

    It crosses a file whose function is on the stack while it reaches out of the process: to Redis, a file or the
    database. What only computes (checks, casts, names) is executed but not crossed. The run appends one CSV file to
    SQLite, over fakeredis, and counts from the call of `submit_run`, which every way of starting a run calls, through
    the worker in this process, to the row in `_etl_runs`; it is the second in its process, so that nothing is imported
    or opened that is there already.
    """
    own = root / ".venv" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PYTHONPATH": str(root), "HOME": folder, "PATH": folder}  # without redis-server
        command = [str(own if own.exists() else sys.executable), __file__, "--root", str(root), "--trace"]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    crossed, executed = json.loads(done.stdout)
    return crossed, executed


def trace(root: Path) -> tuple[list[str], list[str]]:
    """Run a pipeline twice in the working directory and return the second run's files; see `run_path`."""
    from fakeredis import FakeRedis

    read, resolve, submit, worker = (_named(name) for name in (ENTRIES_BEFORE if _is_before(root) else ENTRIES))
    Path("etl.toml").write_text(PROJECT)
    Path("inbox").mkdir()
    connection, observer = FakeRedis(), Observer(root)
    pipeline = resolve(read(Path("etl.toml").resolve()), "claims", "acme")
    for number in (1, 2):
        Path(f"inbox/claims-{number}.csv").write_text(f"claim_id,amount\nA{number},10.50\n")
        if number == 2:
            observer.start()
        submit(connection, pipeline)
        worker(connection, inline=True).work()
        observer.stop()
    if not _has_ended():
        raise RuntimeError("the second run has not ended")
    return observer.crossed, observer.executed


def _is_before(root: Path) -> bool:
    return (root / "jobs" / "holding.py").exists()


def _named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


class Observer:
    """Watches calls until the target has the row of the second run.

    Args:
        root: The checkout whose files count.
    """

    def __init__(self, root: Path) -> None:
        self.crossed: list[str] = []
        self.executed: list[str] = []
        self._root = root

    def start(self) -> None:
        """Watch this thread, and those that it starts."""
        threading.setprofile(self._look)
        sys.setprofile(self._look)

    def stop(self) -> None:
        """Watch no more."""
        threading.setprofile(None)
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            self._note(self.executed, frame)
        if (event == "call" and _is_redis(frame.f_code)) or (event == "c_call" and _reaches_out(called)):
            there: FrameType | None = frame
            while there is not None:
                self._note(self.crossed, there)
                there = there.f_back

    def _note(self, files: list[str], frame: FrameType) -> None:
        file = self._file_of(frame.f_code)
        if file and file not in files and not _has_ended():
            files.append(file)

    def _file_of(self, code: CodeType) -> str | None:
        """Return the file of ours that a function is in, or None; the body of a module or class is no function."""
        if not code.co_flags & inspect.CO_OPTIMIZED or not code.co_filename.startswith(f"{self._root}/"):
            return None
        file = Path(code.co_filename).relative_to(self._root)
        return file.as_posix() if file.parts[0] in PACKAGES else None


def _is_redis(code: CodeType) -> bool:
    return code.co_qualname in ("Redis.execute_command", "Pipeline.execute") and "/redis/" in code.co_filename


def _reaches_out(called: Any) -> bool:
    if type(getattr(called, "__self__", None)).__module__ == "sqlite3":
        return True
    name, module = getattr(called, "__name__", ""), getattr(called, "__module__", "")
    return name in ("open", "replace", "rename", "link") and module in ("io", "_io", "posix")


def _has_ended() -> bool:
    try:
        with closing(sqlite3.connect("file:warehouse.db?mode=ro", uri=True)) as connection:
            [count] = connection.execute("SELECT count(*) FROM _etl_runs").fetchone()
    except sqlite3.OperationalError:
        return False
    return bool(count > 1)


# --- what is printed ---


def test_seconds(root: Path) -> float:
    """Return how long `./run test` takes."""
    began = time.monotonic()
    subprocess.run(["./run", "test"], cwd=root, stdout=sys.stderr, check=True)
    return time.monotonic() - began


def changed(root: Path, commits: str) -> list[str]:
    """Return the files that a commit, or a range `A..B`, has changed."""
    verb = ["diff"] if ".." in commits else ["show", "--format="]
    command = ["git", "-C", str(root), *verb, "--name-only", commits]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def measured(root: Path, with_tests: bool) -> tuple[dict[str, str], list[str]]:
    """Return the figures of a checkout under their names, and the lines that explain them."""
    graph = imports(root)
    fullest, count = folders(root).most_common(1)[0]
    chains = {package: longest_chain(graph, package) for package in PACKAGES}
    rings = circles(graph)
    crossed, executed = run_path(root)
    figures = {
        "modules in the fullest folder (at most 14)": f"{count} ({fullest}/)",
        "longest chain of imports in etl (at most 10)": str(len(chains["etl"])),
        "longest chain of imports in jobs (at most 10)": str(len(chains["jobs"])),
        "circles of imports (none)": str(len(rings)),
        "files that a run crosses (at most 18)": str(len(crossed)),
        "files that a run executes": str(len(executed)),
        "lines of etl, jobs and cli": f"{lines(root):,}",
    }
    if with_tests:
        figures["seconds of ./run test"] = f"{test_seconds(root):.0f}"
    notes = [f"chain in {package}: {' > '.join(chain)}" for package, chain in chains.items()]
    notes += [f"circle: {', '.join(ring)}" for ring in rings]
    notes += [f"a run crosses: {' '.join(crossed)}"]
    return figures, notes


def main() -> None:
    """Print the figures of one checkout, or of several side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, action="append", help="a checkout (default: this one); may be repeated")
    parser.add_argument("--kind", action="append", default=[], metavar="NAME=COMMIT", help="a commit that added a kind")
    parser.add_argument("--tests", action="store_true", help="measure ./run test, too")
    parser.add_argument("--trace", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    roots = [root.resolve() for root in given.root or [HERE]]
    if given.trace:
        print(json.dumps(trace(roots[0])))
        return
    found = {root: measured(root, given.tests) for root in roots}
    names = [f"{root.name}" for root in roots]
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for name in found[roots[0]][0]:
        print(f"| {name} | {' | '.join(figures[name] for figures, _ in found.values())} |")
    for kind in given.kind:
        name, _, commits = kind.partition("=")
        files = changed(roots[-1], commits)
        print(f"| files changed to add {name} | {' | '.join(['', *[str(len(files))]][-len(names) :])} |")
    for root, (_, notes) in found.items():
        print(f"\n{root.name}", *notes, sep="\n  ")
    for kind in given.kind:
        name, _, commits = kind.partition("=")
        print(f"\n{name}: {' '.join(changed(roots[-1], commits))}")


if __name__ == "__main__":
    main()

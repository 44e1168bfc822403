"""The rules of the house: who may import whom, how long a file may be, what never stands in the repository."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from etl.config.databases import DATABASES

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("etl", "jobs", "tests", "docs", "examples", "benchmarks", ".ci")
TEXT = {".py", ".toml", ".md", ".txt", ".csv", ".json", ".yml", ".yaml", ".cfg", ".sh", ".sql", ".lua", ".html", ""}


def repository_files() -> Iterator[Path]:
    """Yield the text files that belong to the project, whether or not it is a git checkout."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT and path.name != ".env")
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path


def python_files(*places: str) -> list[Path]:
    """Return the Python files in folders, or the files named."""
    found = [
        path for place in places for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("*.py"))
    ]
    return sorted(found)


def imported(path: Path) -> dict[str, int]:
    """Return the modules a file imports anywhere in it, with the line; `from a import b` gives a and a.b."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}": node.lineno for alias in node.names} | {node.module: node.lineno}
    return found


def offences(paths: list[Path], forbidden: set[str]) -> list[str]:
    """Return where one of the paths imports something forbidden, or from within it."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in paths
        for module, line in imported(path).items()
        if any(module == name or module.startswith(f"{name}.") for name in forbidden)
    ]


def test_etl_knows_nothing_of_queues_and_commands() -> None:
    """Imports go one way: cli, jobs, etl."""
    forbidden = {"jobs", "cli", "rq_etl", "redis", "fakeredis", "rq", "rq_scheduler", "rq_dashboard", "click", "flask"}
    assert offences(python_files("etl"), forbidden) == []


def test_jobs_knows_nothing_of_the_command_line() -> None:
    """The demo's functions are a user's, so they alone import rq_etl."""
    files = [path for path in python_files("jobs") if path.name != "demo_steps.py"]
    assert offences(files, {"cli", "rq_etl"}) == []


def test_nothing_imports_cli() -> None:
    """It is the outermost layer."""
    assert offences(python_files("etl", "jobs", "rq_etl.py"), {"cli"}) == []


def test_transform_touches_no_file_and_no_network() -> None:
    """What it makes depends on its arguments alone."""
    path = ROOT / "etl" / "transform.py"
    forbidden = {
        "os",
        "io",
        "pathlib",
        "shutil",
        "tempfile",
        "subprocess",
        "fsspec",
        "socket",
        "urllib",
        "http",
        "httpx",
    }
    forbidden |= {"requests", "sqlite3", "sqlalchemy", "psycopg", "etl.staging", "etl.load", "etl.sources"}
    assert offences([path], forbidden) == []
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert "open" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_only_settings_reads_the_environment() -> None:
    """But for secrets: ${NAME} in a target's URL is read where the target is opened, in the worker."""
    pattern = re.compile(r"\bos\.(environ(\.get\b|\[)|getenv)")
    files = python_files("etl", "jobs", "cli.py", "rq_etl.py")
    readers = {path.relative_to(ROOT).as_posix() for path in files if pattern.search(path.read_text())}
    assert {reader for reader in readers if not reader.startswith("etl/load/")} == {"jobs/settings.py"}


def test_only_the_kinds_modules_know_their_databases_by_name() -> None:
    """The rest asks facts; what `extract.type = "sql"` reads is a source's own."""
    names = "|".join(DATABASES)
    asked = re.compile(rf"""dialect\.name ==|get_backend_name\(\) ==|== ["']({names})["']|with\(["']({names})""")
    files = [path for path in python_files("etl", "jobs", "cli.py") if "targets" not in path.parts]
    offenders = {path.relative_to(ROOT).as_posix() for path in files if asked.search(path.read_text())}
    assert offenders - {"etl/sources/sql.py"} == set()


# Of rq: they read jobs through its own Job.
UNPICKLERS = {"send_stop_job_command", "requeue_job", "cancel_job", "clean_registries", "Group", "RQScheduler"}
UNPICKLERS |= {"CronScheduler", "SimpleWorker", "SpawnWorker", "DefaultSerializer", "PickleSerializer"}


def pickle_readers(path: Path) -> list[str]:
    """Return where a file could unpickle what stands in Redis; rq's Job is for types, `isinstance` and subclasses."""
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


def test_no_file_is_over_400_lines() -> None:
    """There is a seam along which it would rather be two."""
    long = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in python_files(*FOLDERS)}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cli", "pandas numpy pyarrow pandera sqlalchemy psycopg fakeredis flask pytest prometheus_client"),
        ("jobs.commands.run", "pandera sqlalchemy psycopg fakeredis flask pytest prometheus_client"),
    ],
)
def test_the_command_line_starts_without_the_heavy_libraries(module: str, heavy: str) -> None:
    """`rq-etl --help` takes a twentieth of a second, not two; and who only validates or plans opens no database."""
    code = f"import {module}, sys; print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("a path of somebody's machine", r"(?<![\w.}/-])/(?:work|tmp|root|home/\w+)/\w"),
        (
            "the address of a package index",
            r"https?://[^\s\"'`]*/simple\b|--(?:extra-)?index-url[= ]|files\.pythonhosted|\bpypi\.org",
        ),
    ],
)
def test_the_repository_names_no(what: str, pattern: str) -> None:
    """What pip, uv or the distribution are set up with is used."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {what}"
        for path in repository_files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert found == []


def pinned() -> dict[str, tuple[str, int]]:
    """Return requirements.txt as name → (versions, number of hashes)."""
    text = re.sub(r"^#.*$", "", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, tuple[str, int]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        requirement = Requirement(line.partition("--hash")[0].strip())
        found[requirement.name.lower().replace("_", "-")] = (str(requirement.specifier), line.count("--hash=sha256:"))
    return found


def test_every_requirement_has_one_version_and_hashes() -> None:
    """What is installed is what was tried."""
    assert [name for name, (version, hashes) in pinned().items() if not version.startswith("==") or not hashes] == []


def test_requirements_are_those_of_pyproject() -> None:
    """requirements.txt is made from pyproject.toml: nothing is missing, nothing is out of bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]
    found = pinned()
    for requirement in wanted:
        version = found[requirement.name.lower().replace("_", "-")][0].removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_rq_stays_below_3() -> None:
    """In 3.0.0 the release of children is no longer in the parent's transaction: docs/decisions.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "rq>=2.12,<3" in project["dependencies"]


def test_every_library_that_is_imported_is_declared() -> None:
    """Another's dependency may go with its next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {Requirement(line).name.lower().replace("-", "_") for line in project["dependencies"]}
    along = {"pydantic_core": "pydantic", "werkzeug": "flask", "markupsafe": "flask"}
    files = python_files("etl", "jobs", "cli.py", "rq_etl.py")
    modules = {module.partition(".")[0] for path in files for module in imported(path)}
    foreign = modules - sys.stdlib_module_names - {"etl", "jobs", "cli", "rq_etl"}
    assert {name for name in foreign if along.get(name, name).lower() not in declared} == set()

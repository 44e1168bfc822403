"""The rules of the house: who may import whom, how long a file may be, what is never in the repository."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from benchmarks import house
from etl.config.kinds import DATABASES

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("etl", "jobs", "tests", "docs", "examples", "benchmarks", ".ci")
TEXT = {".py", ".toml", ".md", ".txt", ".csv", ".json", ".yml", ".yaml", ".cfg", ".sh", ".sql", ".lua", ".html", ""}
HIDDEN = {".env", ".git"}  # .git is a file in a worktree

# From the lowest up: a layer imports those before it. Those that share a line never import each other.
LAYERS = {
    "etl": (
        {"errors"}, {"safe_message", "output", "env_file"}, {"context"}, {"partition"}, {"rejects"}, {"prefetch"},
        {"functions"}, {"calendar"}, {"config"}, {"types"}, {"sources", "transform", "staging", "load"},
    ),
    "jobs": (
        {"settings"}, {"store"}, {"job"}, {"queue"}, {"run"}, {"deliveries"}, {"process"}, {"stages"}, {"worker"},
        {"broker"}, {"session"}, {"enqueue"}, {"views"}, {"api"}, {"alerts"}, {"cron"}, {"dashboard"}, {"demo"},
        {"pytest_plugin"},
        {"commands"},
    ),
}  # fmt: skip
# Inside packages, where they have a direction: none reaches one that comes later, directly or through others.
INSIDE = {
    "etl.config": ("values", "models", "pipeline", "read"),
    "etl.load": ("targets", "ledger", "staged", "apply", "deliver"),
    "etl.sources": ("formats", "sql"),
    "jobs.store": ("keys", "runs"),
    "jobs.run": ("graph", "submit", "backfill", "schedules"),
    "jobs.views": ("console", "history", "status", "metrics"),
    "jobs.commands": ("options", "arguments", "run"),
}


def repository_files() -> Iterator[Path]:
    """Yield the text files that belong to the project, whether or not it is a git checkout."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in TEXT and path.name not in HIDDEN)
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


@cache
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


@pytest.fixture(scope="module")
def graph() -> house.Graph:
    """What imports what, as benchmarks/house.py measures it; imports within functions count."""
    return house.imports(ROOT)


def within(graph: house.Graph, name: str) -> set[str]:
    """Return the modules of a package or, of a module, itself."""
    return {module for module in graph if module == name or module.startswith(f"{name}.")}


@pytest.mark.parametrize("package", LAYERS)
def test_a_layer_imports_only_those_below_it(graph: house.Graph, package: str) -> None:
    rank = {
        module: (number, name)
        for number, names in enumerate(LAYERS[package])
        for name in names
        for module in within(graph, f"{package}.{name}")
    }
    assert within(graph, package) - {package} == set(rank), "each module has its place in LAYERS"
    upward = [
        f"{module} imports {other}"
        for module, (number, name) in rank.items()
        for other in graph[module] & set(rank)
        if rank[other][0] > number or (rank[other][0] == number and rank[other][1] != name)
    ]
    assert upward == []


@pytest.mark.parametrize("package", INSIDE)
def test_inside_a_package_imports_have_one_direction(graph: house.Graph, package: str) -> None:
    order = [within(graph, f"{package}.{name}") for name in INSIDE[package]]
    assert all(order), "each name in INSIDE is a module"
    wrong = [
        f"{module} reaches {', '.join(later)}"
        for number, modules in enumerate(order)
        for module in modules
        if (later := house.reached(graph, module) & set().union(*order[number + 1 :]))
    ]
    assert wrong == []


def test_no_modules_import_each_other(graph: house.Graph) -> None:
    """Neither directly nor through others."""
    assert house.circles(graph) == []


@pytest.mark.parametrize("package", LAYERS)
def test_no_chain_of_imports_is_longer_than_ten(graph: house.Graph, package: str) -> None:
    """Who reads the first module of a chain may have to read them all."""
    chain = house.longest_chain(graph, package)
    assert len(chain) <= 10, " > ".join(chain)


def test_no_folder_has_more_than_14_modules() -> None:
    assert {folder: count for folder, count in house.folders(ROOT).items() if count > 14} == {}


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest imports them by their names alone: the second of two would not be collected."""
    names = [path.name for path in python_files("tests") if path.name.startswith("test_")]
    assert {name for name in names if names.count(name) > 1} == set()


def test_etl_knows_nothing_of_queues_and_commands() -> None:
    """Imports go one way: cli, jobs, etl."""
    forbidden = {"jobs", "cli", "rq_etl", "redis", "fakeredis", "rq", "rq_scheduler", "rq_dashboard", "click", "flask"}
    assert offences(python_files("etl"), forbidden) == []


def test_jobs_knows_nothing_of_the_command_line() -> None:
    """The demo's functions are a user's, so they alone import rq_etl."""
    files = [path for path in python_files("jobs") if path.name != "demo_steps.py"]
    assert offences(files, {"cli", "rq_etl"}) == []


def test_click_is_in_the_commands_alone() -> None:
    """What they call takes values, so that Python and the dashboard can call it, too."""
    files = [path for path in python_files("jobs") if path.parent.name != "commands"]
    assert offences(files, {"click"}) == []


def test_nothing_imports_cli() -> None:
    """It is the outermost layer."""
    assert offences(python_files("etl", "jobs", "rq_etl.py"), {"cli"}) == []


def test_transform_touches_no_file_and_no_network() -> None:
    """What it makes depends on its arguments alone."""
    forbidden = {"os", "io", "pathlib", "shutil", "tempfile", "subprocess", "fsspec", "socket", "urllib", "http"}
    forbidden |= {"httpx", "requests", "sqlite3", "sqlalchemy", "psycopg", "etl.staging", "etl.load", "etl.sources"}
    files = python_files("etl/transform")
    assert files
    assert offences(files, forbidden) == []
    calls = [
        node.func for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    assert "open" not in {call.id for call in calls if isinstance(call, ast.Name)}


def test_nobody_asks_which_kind_a_source_is() -> None:
    """A kind's facts and methods say what it can: else a new one would touch every place that asks."""
    pattern = re.compile(
        r"extract\.type\s*(==|!=|in\b)|isinstance\([^)]*(extract|source|lookup)\b[^)]*Config\b|\b(Csv|Sql|Function|Ndjson)Extract\b"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in python_files("etl", "jobs", "cli.py", "rq_etl.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []
    kinds = {f"etl.sources.{name}" for name in ("formats.csv", "formats.ndjson", "function", "sql")}
    others = [path for path in python_files("etl", "jobs") if "sources" not in path.parts]
    assert offences(others, kinds) == []


def test_a_kind_of_source_is_known_without_the_heavy_libraries() -> None:
    """Its module is imported to check etl.toml; what reads is imported by the functions that read."""
    heavy = "pandas numpy pyarrow pandera sqlalchemy psycopg"
    code = "from etl.config.kinds import KINDS, config_of; import sys; [config_of(kind) for kind in KINDS]; "
    code += f"print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_only_settings_reads_the_environment() -> None:
    """But for secrets, read where a target is opened in the worker, and for what a job has changed in it."""
    pattern = re.compile(r"\bos\.(environ|getenv)\b")
    files = python_files("etl", "jobs", "cli.py", "rq_etl.py")
    readers = {path.relative_to(ROOT).as_posix() for path in files if pattern.search(path.read_text())}
    assert readers == {"jobs/settings.py", "etl/config/urls.py", "jobs/process/surroundings.py"}


def test_one_table_tells_types_apart() -> None:
    """Two places that test Arrow types soon disagree about one of them."""
    testers = {
        path.relative_to(ROOT).as_posix() for path in python_files("etl", "jobs") if "pa.types.is_" in path.read_text()
    }
    assert testers == {"etl/types/words.py"}


def test_only_the_kinds_modules_know_their_databases_by_name() -> None:
    """The rest asks facts; what `extract.type = "sql"` reads is a source's own."""
    names = "|".join(DATABASES)
    asked = re.compile(rf"""dialect\.name ==|get_backend_name\(\) ==|== ["']({names})["']|with\(["']({names})""")
    files = [path for path in python_files("etl", "jobs", "cli.py") if "targets" not in path.parts]
    offenders = {path.relative_to(ROOT).as_posix() for path in files if asked.search(path.read_text())}
    assert offenders - {"etl/sources/sql/opened.py"} == set()


def test_no_file_is_over_400_lines() -> None:
    """There is a seam along which it would rather be two."""
    long = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in python_files(*FOLDERS)}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cli", "pandas numpy pyarrow sqlalchemy psycopg fakeredis flask pytest prometheus_client"),
        (
            "jobs.run.retry, jobs.views.details, jobs.views.plan, jobs.views.progress",
            "sqlalchemy psycopg fakeredis flask pytest prometheus_client",
        ),
        ("etl.load", "pandas psycopg duckdb"),  # what has been loaded is asked by commands that load nothing
    ],
)
def test_the_command_line_starts_without_the_heavy_libraries(module: str, heavy: str) -> None:
    """`rq-etl --help` takes a twentieth of a second, not two; and who only validates or plans opens no database."""
    code = f"import {module}, sys; print(*[name for name in {heavy.split()!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


# Words with a plainer one: reported, fixed, started, ….
WORDS = re.compile(r"\b(told|mend(s|ed|ing)?(?!-)|(un)?saddle\w*|stirs?|bur(y|ies|ied))\b", re.IGNORECASE)


def test_code_is_in_plain_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word[0]}"
        for path in [*python_files("etl", "jobs", "cli.py", "rq_etl.py"), *(ROOT / "jobs").rglob("*.lua")]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (word := WORDS.search(line))
    ]
    assert found == []


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


def test_rq_stays_at_the_minor_version_whose_inside_we_know() -> None:
    """In 3.0.0 the release of children is no longer in the parent's transaction: docs/decisions.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "rq>=2.12,<2.13" in project["dependencies"]


def test_every_library_that_is_imported_is_declared() -> None:
    """Another's dependency may go with its next version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for extra in ("duckdb", "alerts") for line in project["optional-dependencies"][extra]]
    declared = {Requirement(line).name.lower().replace("-", "_") for line in project["dependencies"] + extras}
    along = {"pydantic_core": "pydantic", "werkzeug": "flask", "markupsafe": "flask", "dotenv": "python_dotenv"}
    files = python_files("etl", "jobs", "cli.py", "rq_etl.py")
    modules = {module.partition(".")[0] for path in files for module in imported(path)}
    foreign = modules - sys.stdlib_module_names - {"etl", "jobs", "cli", "rq_etl"}
    assert {name for name in foreign if along.get(name, name).lower() not in declared} == set()

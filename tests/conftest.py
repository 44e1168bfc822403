"""What all tests share: --all and what it adds, a clean environment, and the fixtures of tests/helpers."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from redis import Redis

from jobs import settings
from tests.helpers.postgres import pg_url, postgres_database, postgres_url, target_url
from tests.helpers.redis_server import connection, fake_redis, real_redis, redis_server
from tests.helpers.workers import workers

if TYPE_CHECKING:  # they import most of the product, which the fixtures do when they are asked for
    from tests.helpers.project import Project
    from tests.helpers.queued_project import QueuedProject

__all__ = [
    "connection", "fake_redis", "pg_url", "postgres_database", "postgres_url", "real_redis", "redis_server",
    "target_url", "workers",
]  # fmt: skip

# A shell without job control has what it starts in the background ignore Ctrl-C, nohup has it ignore a hangup, and so
# would all that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

CI = os.environ.get("CI") == "true"
hypothesis.settings.register_profile(
    "all", deadline=None, print_blob=True, derandomize=CI, max_examples=40 if CI else 100
)
hypothesis.settings.register_profile("quick", parent=hypothesis.settings.get_profile("all"), max_examples=20)
hypothesis.settings.register_profile("long", parent=hypothesis.settings.get_profile("all"), max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --all and --long."""
    parser.addoption("--all", action="store_true", help="run the slow tests too, and five times as many examples")
    parser.addoption("--long", action="store_true", help="take twenty times as many examples as --all")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples hypothesis takes."""
    profile = "long" if config.getoption("--long") else "all" if config.getoption("--all") else "quick"
    hypothesis.settings.load_profile(profile)


def leaves_out_slow(config: pytest.Config) -> bool:
    """Whether slow tests are left out: neither --all is given nor are tests chosen by -k, -m or their own names."""
    chosen = config.option.keyword or config.option.markexpr or any("::" in arg for arg in config.args)
    return not (config.getoption("--all") or chosen)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out; begin with the long ones: for one that is begun last the other processes wait."""
    slow = {item for item in items if item.get_closest_marker("slow")}
    if slow and leaves_out_slow(config):
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]
    items.sort(key=lambda item: (item not in slow, {"whole", "kinds"}.isdisjoint(item.path.parts)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say that slow tests may have been left out."""
    if leaves_out_slow(config):
        terminalreporter.write_line("The slow tests were left out; --all runs them too.")


@pytest.fixture(autouse=True)
def without_the_users_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests off the Redis and the configuration that a developer has set."""
    for name in ("REDIS_URL", "RQ_REDIS_URL", "ETL_CONFIG", "ETL_MODULES", "ETL_LEASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a project's folder, once on it, is not the next test's


@pytest.fixture(autouse=True)
def without_a_chosen_project() -> Iterator[None]:
    """A project that a test has chosen is not the next test's."""
    yield
    settings.use(None)


@pytest.fixture
def etl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Project":
    """A project with two clients and a file of claims, in the working directory."""
    from tests.helpers.project import CLAIMS, ETL_TOML, Project

    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, ETL_TOML, {"inbox/acme/claims-1.csv": CLAIMS})


@pytest.fixture
def house(tmp_path: Path, connection: Redis) -> "QueuedProject":
    """A project with three clients, whose runs are queued on a fakeredis and on a real Redis."""
    from tests.helpers.queued_project import QueuedProject

    return QueuedProject(tmp_path, connection)


@pytest.fixture
def work(real_redis: Redis) -> Callable[[], bool]:
    """Do all that is queued on the private Redis, here."""
    from jobs.process.inprocess import InProcessWorker

    return InProcessWorker(real_redis).work


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder with a path short enough for unix sockets (107 bytes)."""
    folder = Path(tempfile.mkdtemp(prefix="rq-etl-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)

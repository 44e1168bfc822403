"""What a process works by: the environment with `.env`, which only this module reads; intervals; which etl.toml.

| variable | what |
|---|---|
| `REDIS_URL` | the Redis to use; without it a private one is started |
| `ETL_CONFIG` | path of etl.toml, else the working directory's |
| `ETL_MODULES` | where there is no etl.toml: modules whose functions may be called, comma separated |
| `ETL_LEASE` | seconds after which a silent worker's job is given to another (10) |
| `ETL_RUN` | set by `./run`: its own path, so that the demo can say what to type next |
| `ETL_DASHBOARD_PASSWORD` | what the dashboard asks for, under any user name; else one is made at each start |

What `.env` beside the etl.toml in use sets, and the environment does not, is put into this process's environment: there
functions and libraries find it, and child processes inherit it. It is taken back when another project is in use.
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from etl import env_file
from etl.errors import ConfigError

if TYPE_CHECKING:
    from etl.config.pipeline import Config

POLL = 0.19  # seconds between an idle worker's looks: under 20 commands a second, a new job waits less than 0.2 s
JOBS_PER_HORSE = 5000  # libraries leak, and HORSE_MEMORY may not see it; a new horse costs about a second
HORSE_MEMORY = 450 << 20  # bytes in memory after a job, above which a horse is replaced
HORSE_START = 60.0  # seconds that a new horse has until it is ready, which takes some milliseconds
MAX_LOSSES = 3  # so often may a job take its worker along before it is failed
HISTORY = 90 * 86400.0
LOST_JOBS_EVERY = 30.0  # seconds between looks for jobs that are in no list

WORKER_CLASSES = {
    "RQ_WORKER_CLASS": "jobs.worker.Worker",
    "RQ_QUEUE_CLASS": "jobs.queue.FairQueue",
    "RQ_JOB_CLASS": "jobs.job.EtlJob",
}

# --- the environment ---

_added: dict[str, str] = {}  # what the environment has of a .env
_added_for: tuple[object, ...] | None = None  # whose .env that is: see _project


def environment() -> Mapping[str, str]:
    """Return this process's environment, with what the `.env` beside the etl.toml in use adds to it.

    Raises:
        ConfigError: `.env` can't be read, or has a mistake.
    """
    global _added, _added_for
    project = _project()
    if _added_for is None or (project is not None and project != _added_for):
        _take_back()
        given = _env_values()
        # ETL_CONFIG has been followed: it is relative to that file's folder.
        _added = {name: value for name, value in given.items() if name not in os.environ and name != "ETL_CONFIG"}
        _added_for = project
        os.environ.update(_added)
        if "TZ" in _added:
            time.tzset()
    return os.environ


def _project() -> tuple[object, ...] | None:
    """Return what the project in use follows from, without a look at files: every job asks. None: it is gone."""
    named = os.environ.get("ETL_CONFIG")
    is_fixed = _chosen is not None or (named is not None and os.path.isabs(named))
    try:
        return _override is None, _chosen, named, None if is_fixed else os.getcwd()
    except OSError:  # the working directory has been removed
        return None


def env_path() -> Path:
    """Return the path of the `.env` beside the etl.toml in use, there or not."""
    return path().parent / ".env"


def _take_back() -> None:
    """Remove from the environment what a `.env` has added, but for what has been changed since."""
    global _added, _added_for
    for name, value in _added.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    if "TZ" in _added:
        time.tzset()
    _added, _added_for = {}, None


@cache
def _read_env(file: Path) -> Mapping[str, str]:
    """Return what a `.env` sets, which is read once until `use`: a worker works by what it was started with."""
    return env_file.read(file, os.environ)


def origin(name: str) -> Literal["the environment", ".env"] | None:
    """Return who has set a variable, or None where nobody has."""
    value = environment().get(name)
    if name == "ETL_CONFIG" and value is None:  # it is followed where it is, in the working directory's
        return ".env" if _chosen is None and _env_values().get(name) else None
    if value is None:
        return None
    return ".env" if _added.get(name) == value else "the environment"


def overruled() -> set[str]:
    """Return the variables that the environment sets otherwise than `.env` does."""
    own = environment()
    return {name for name, value in _env_values().items() if own.get(name, value) != value}


def _env_values() -> Mapping[str, str]:
    return _read_env(env_path()) if _override is None else {}


def redis_url() -> str | None:
    """Return the Redis URL of the environment, or None."""
    return environment().get("REDIS_URL") or None


def config_path() -> Path:
    """Return the absolute path of the etl.toml of the environment or the working directory, there or not.

    Raises:
        ConfigError: The working directory's `.env` names another folder's, or has a mistake.
    """
    if named := os.environ.get("ETL_CONFIG"):
        return Path(named).resolve()
    usual = Path("etl.toml").resolve()
    file = usual.parent / ".env"
    found = Path(usual.parent, _read_env(file).get("ETL_CONFIG") or usual).resolve()
    if found.parent != usual.parent:
        raise ConfigError(
            f"{file}: ETL_CONFIG names another folder's file, whose own .env is read",
            f"set ETL_CONFIG in the environment or use --config, and move .env to {found.parent}",
        )
    return found


def lease() -> float:
    """Return how many seconds a job stays a worker's without a sign of life.

    Raises:
        ConfigError: What the environment says is no number of seconds.
    """
    said = environment().get("ETL_LEASE") or "10"
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(
            f"ETL_LEASE is {said!r}, no number of seconds", "write one such as ETL_LEASE=10, or remove it"
        )
    return seconds


def dashboard_password() -> str | None:
    """Return the dashboard's password of the environment, or None."""
    return environment().get("ETL_DASHBOARD_PASSWORD") or None


def command(folder: Path) -> str:
    """Return what to type for `rq-etl` in a folder: `rq-etl`, or the way to the `./run` that this process came from."""
    script = os.environ.get("ETL_RUN")  # of this very process
    return os.path.relpath(script, folder.resolve()) if script else "rq-etl"


def worker_variables(url: str, config: Path) -> dict[str, str]:
    """Return the environment variables that make a stock `rq worker` ours.

    Args:
        url: The Redis to work for.
        config: Path of etl.toml.
    """
    return {**WORKER_CLASSES, "RQ_REDIS_URL": url, "REDIS_URL": url, "ETL_CONFIG": str(config)}


def worker_environment(url: str) -> dict[str, str]:
    """Return this process's environment for child processes, with what makes a stock `rq worker` ours and our packages.

    Args:
        url: The Redis to work for.
    """
    ours, own = str(Path(__file__).parents[1]), environment()
    paths = [ours, *filter(None, own.get("PYTHONPATH", "").split(os.pathsep))]
    return {**own, **worker_variables(url, path()), "PYTHONPATH": os.pathsep.join(paths)}


# --- which etl.toml ---

_chosen: Path | None = None
_override: "Config | None" = None
_read: "tuple[tuple[Path, int, int], Config] | None" = None


def use(path: str | os.PathLike[str] | None) -> None:
    """Choose the etl.toml of this process, and with it its .env; None means ETL_CONFIG or the working directory."""
    global _chosen
    _take_back()
    _read_env.cache_clear()
    _chosen = Path(path).resolve() if path else None


def pinned() -> Callable[[], None]:
    """Keep to the etl.toml in use, whatever the working directory; return what goes back to how it was chosen.

    What `.env` has added is then taken to be in the environment as it is now: whoever calls that puts it back first.
    """
    global _chosen
    before = _chosen, _added, _added_for
    _chosen = path()

    def put_back() -> None:
        global _chosen, _added, _added_for
        _chosen, _added, _added_for = before

    return put_back


def override(config: "Config | None") -> None:
    """Work for this configuration, whatever the files, `.env` among them, say; None goes back to the files."""
    global _override
    _take_back()
    _override = config


def path() -> Path:
    """Return the path of the etl.toml in use, whether it exists or not."""
    return _chosen or config_path()


def config() -> "Config":
    """Return the configuration in use, read again only where a file of it has changed.

    Raises:
        ConfigError: There is none, or it has mistakes.
    """
    global _read
    environment()  # the secrets that it names are read there
    if _override is not None:
        return _override
    stamp = path(), changed(path()), _clients_changed(path().parent / "clients")
    if _read is None or _read[0] != stamp:
        from etl.config.read import load_config  # which Tab in a shell does without

        _read = stamp, load_config(path())
    return _read[1]


def base() -> "Config":
    """Return the configuration for its [settings], for which clients' files, perhaps thousands, are not looked at.

    Raises:
        ConfigError: See `config`.
    """
    environment()
    if _override is None and _read is not None and _read[0][:2] == (path(), changed(path())):
        return _read[1]
    return config()


def changed(file: str | Path) -> int:
    """Return when a file was changed, in ns since the epoch; 0 where it is not there."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


def _clients_changed(folder: Path) -> int:
    try:
        with os.scandir(folder) as files:
            times = [changed(file.path) for file in files if file.name.endswith(".toml")]
    except OSError:
        return 0
    return max([changed(folder), *times])


# --- its [settings] ---


def modules() -> frozenset[str]:
    """Return the modules whose functions may be called, from etl.toml, or ETL_MODULES where there is none.

    Raises:
        ConfigError: etl.toml has mistakes, or there is neither.
    """
    named = environment().get("ETL_MODULES") or ""
    if path().is_file() or not named:
        return frozenset(base().settings.modules)
    return frozenset(name.strip() for name in named.split(",") if name.strip())


def module_folder() -> str:
    """Return the folder that users' modules are imported from: etl.toml's."""
    return str(path().parent)


def staging() -> str:
    """Return the folder or s3:// prefix of staging, absolute.

    Raises:
        ConfigError: etl.toml is missing or has mistakes.
    """
    return base().staging


def history() -> float:
    """Return how many seconds a run that has ended is remembered; 90 days where there is no etl.toml that says."""
    try:
        return base().settings.history
    except ConfigError:
        return HISTORY

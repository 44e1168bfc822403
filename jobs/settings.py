"""What a process works by: the environment, which only this module reads; workers' intervals; which etl.toml.

| variable | what |
|---|---|
| `REDIS_URL` | the Redis to use; without it a private one is started |
| `ETL_CONFIG` | path of etl.toml, else the working directory's |
| `ETL_MODULES` | where there is no etl.toml: modules whose functions may be called, comma separated |
| `ETL_LEASE` | seconds after which a silent worker's job is given to another (10) |
| `ETL_RUN` | set by `./run`: its own path, so that the demo can say what to type next |
| `ETL_DASHBOARD_PASSWORD` | what the dashboard asks for, under any user name; else one is made at each start |
"""

import os
from pathlib import Path

from etl.config.pipeline import Config
from etl.config.read import load_config
from etl.errors import ConfigError

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


def redis_url() -> str | None:
    """Return the Redis URL of the environment, or None."""
    return os.environ.get("REDIS_URL") or None


def config_path() -> Path:
    """Return the absolute path of the etl.toml of the environment or the working directory, there or not."""
    return Path(os.environ.get("ETL_CONFIG") or "etl.toml").resolve()


def lease() -> float:
    """Return how many seconds a job stays a worker's without a sign of life."""
    return float(os.environ.get("ETL_LEASE") or 10)


def dashboard_password() -> str | None:
    """Return the dashboard's password of the environment, or None."""
    return os.environ.get("ETL_DASHBOARD_PASSWORD") or None


def command(folder: Path) -> str:
    """Return what to type for `rq-etl` in a folder: `rq-etl`, or the way to the `./run` that this process came from."""
    script = os.environ.get("ETL_RUN")
    return os.path.relpath(script, folder.resolve()) if script else "rq-etl"


def worker_variables(url: str, config: Path) -> dict[str, str]:
    """Return the environment variables that make a stock `rq worker` ours.

    Args:
        url: The Redis to work for.
        config: Path of etl.toml.
    """
    return {**WORKER_CLASSES, "RQ_REDIS_URL": url, "REDIS_URL": url, "ETL_CONFIG": str(config)}


def worker_environment(url: str) -> dict[str, str]:
    """Return this process's environment with what makes a stock `rq worker` ours, and our packages importable.

    Args:
        url: The Redis to work for.
    """
    ours = str(Path(__file__).parents[1])
    paths = [ours, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, **worker_variables(url, path()), "PYTHONPATH": os.pathsep.join(paths)}


# --- which etl.toml ---

_chosen: Path | None = None
_override: Config | None = None
_read: tuple[tuple[Path, int, int], Config] | None = None


def use(path: str | os.PathLike[str] | None) -> None:
    """Choose the etl.toml of this process; None means ETL_CONFIG or the working directory."""
    global _chosen
    _chosen = Path(path).resolve() if path else None


def chosen() -> Path | None:
    """Return the etl.toml that `use` has chosen, or None."""
    return _chosen


def override(config: Config | None) -> None:
    """Work for this configuration, whatever the files say; None goes back to the files."""
    global _override
    _override = config


def path() -> Path:
    """Return the path of the etl.toml in use, whether it exists or not."""
    return _chosen or config_path()


def config() -> Config:
    """Return the configuration in use, read again only where a file of it has changed.

    Raises:
        ConfigError: There is none, or it has mistakes.
    """
    global _read
    if _override is not None:
        return _override
    stamp = path(), changed(path()), _clients_changed(path().parent / "clients")
    if _read is None or _read[0] != stamp:
        _read = stamp, load_config(path())
    return _read[1]


def base() -> Config:
    """Return the configuration for its [settings], for which clients' files, perhaps thousands, are not looked at.

    Raises:
        ConfigError: See `config`.
    """
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
    named = os.environ.get("ETL_MODULES") or ""
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

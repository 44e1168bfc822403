"""Which etl.toml this process works for: chosen once, read when needed, read again when it has changed."""

import os
from pathlib import Path

from etl.config import load_config
from etl.pipeline import Config
from jobs import settings

_chosen: Path | None = None
_override: Config | None = None
_read: tuple[tuple[Path, int, int], Config] | None = None


def use(path: str | os.PathLike[str] | None) -> None:
    """Choose the etl.toml of this process; None means ETL_CONFIG or the working directory."""
    global _chosen
    _chosen = Path(path).resolve() if path else None


def override(config: Config | None) -> None:
    """Work for this configuration, whatever the files say; None goes back to the files."""
    global _override
    _override = config


def path() -> Path:
    """Return the path of the etl.toml in use, whether it exists or not."""
    return _chosen or settings.config_path()


def config() -> Config:
    """Return the configuration in use, read again only where a file of it has changed.

    Raises:
        ConfigError: There is none, or it has mistakes.
    """
    global _read
    if _override is not None:
        return _override
    stamp = path(), _changed(path()), _clients_changed(path().parent / "clients")
    if _read is None or _read[0] != stamp:
        _read = stamp, load_config(path())
    return _read[1]


def base() -> Config:
    """Return the configuration for its [settings], for which clients' files, perhaps thousands, are not looked at.

    Raises:
        ConfigError: See `config`.
    """
    if _override is None and _read is not None and _read[0][:2] == (path(), _changed(path())):
        return _read[1]
    return config()


def _changed(file: str | Path) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


def _clients_changed(folder: Path) -> int:
    try:
        with os.scandir(folder) as files:
            times = [_changed(file.path) for file in files if file.name.endswith(".toml")]
    except OSError:
        return 0
    return max([_changed(folder), *times])

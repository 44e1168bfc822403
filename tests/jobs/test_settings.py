"""Which configuration a process works for, and when it is read again."""

import os
from pathlib import Path

import pytest

from jobs import settings
from tests.helpers.project import Folder

TEXT = '[settings]\nstaging = "{}"\n[targets.db]\nurl = "sqlite:///a.db"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clients").mkdir()
    return Folder(tmp_path, TEXT.format("one")).root


def write(path: Path, text: str) -> None:
    """Write a file that is newer than all that were there."""
    path.write_text(text)
    newest = max(other.lstat().st_mtime_ns for other in [*path.parent.iterdir(), path.parent]) + 1_000_000
    os.utime(path, ns=(newest, newest))


def test_a_new_client_is_seen_at_once(folder: Path) -> None:
    assert settings.config().clients == {}
    write(folder / "clients" / "acme.toml", "max_active = 2\n")
    assert list(settings.config().clients) == ["acme"]
    write(folder / "clients" / "acme.toml", "max_active = 3\n")
    assert settings.config().clients["acme"].max_active == 3


def test_settings_follow_etl_toml_and_do_not_wait_for_clients_files(folder: Path) -> None:
    first = settings.config()
    write(folder / "clients" / "acme.toml", "max_active = 2\n")
    assert settings.base() is first
    write(folder / "etl.toml", TEXT.format("two"))
    assert settings.base().settings.staging == "two"


def test_an_editors_dangling_lock_hides_no_change(folder: Path) -> None:
    (folder / "clients" / ".#acme.toml").symlink_to("nowhere")
    before = settings._clients_changed(folder / "clients")
    write(folder / "clients" / "acme.toml", "max_active = 2\n")
    assert 0 < before < settings._clients_changed(folder / "clients")

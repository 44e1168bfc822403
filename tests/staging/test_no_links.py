"""Staging on a file system without hard links, such as vfat, network mounts and Windows drives."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from etl.errors import StagingFailed
from etl.staging import Staging, check
from tests.helpers.processes import ROOT
from tests.helpers.project import Project

PUBLISH = """
import os, sys, time
def refuse(*_, **__):
    raise OSError({number}, "no links")
os.link = refuse
from etl.staging import Staging
staging = Staging(sys.argv[1], "acme", "run1")
while not os.path.exists(sys.argv[1] + "/go"):
    pass
print(staging.write_bytes("marker", sys.argv[2].encode(), exclusive=True))
"""


@pytest.fixture(
    params=[errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS], ids=lambda number: errno.errorcode[number]
)
def without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make every hard link fail."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "link", refuse)
    return int(request.param)


def test_the_first_publication_stands_without_hard_links(tmp_path: Path, without_links: int) -> None:
    staging = Staging(str(tmp_path), "acme", "run1")
    assert staging.write_bytes("marker", b"first", exclusive=True)
    assert not staging.write_bytes("marker", b"second", exclusive=True)
    assert staging.read_bytes("marker") == b"first"
    check(str(tmp_path))


@pytest.mark.slow
def test_of_many_processes_that_publish_at_once_without_hard_links_one_is_first(tmp_path: Path) -> None:
    code = PUBLISH.format(number=errno.EPERM)
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)], cwd=ROOT, stdout=subprocess.PIPE)
        for n in range(4)
    ]
    (tmp_path / "go").touch()
    answers = [process.communicate()[0].strip() for process in processes]
    assert sorted(answers) == [b"False"] * 3 + [b"True"]
    assert Staging(str(tmp_path), "acme", "run1").read_bytes("marker") == str(answers.index(b"True")).encode()


def test_a_run_succeeds_without_hard_links(etl: Project, without_links: int) -> None:
    etl.config()
    assert etl.run()["state"] == "succeeded"
    assert "FAIL" not in "".join(line for line in etl("doctor").out.splitlines() if "staging" in line)


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "let this user write"),
        (errno.EROFS, "let this user write"),
        (errno.ESTALE, "on a disk of this machine"),
    ],
)
def test_an_error_of_staging_has_the_cure_of_its_own_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StagingFailed) as raised:
        check(str(tmp_path))
    assert os.strerror(number) in raised.value.what
    assert cure in raised.value.cure


def test_the_doctor_finds_a_folder_in_which_nothing_can_be_published(
    etl: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    etl.config()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "link", refuse)
    said = etl("doctor")
    assert said.code == 1
    assert "FAIL  staging" in said.out

"""Staging: what is published is whole, the first publication wins, and nobody else can read it."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from etl.errors import StagingFailed
from etl.staging import Marker, Staging, check
from tests.helpers.examples import examples
from tests.helpers.processes import ROOT


@pytest.fixture(params=["folder", "memory"])
def staging(request: pytest.FixtureRequest, tmp_path: Path) -> Staging:
    """A run's staging in a folder and on a filesystem without renames, as S3 is."""
    url = str(tmp_path / "staging") if request.param == "folder" else f"memory://{uuid4().hex}"
    return Staging(url, "acme", "r1")


def table(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def test_what_is_written_is_read_chunk_by_chunk(staging: Staging) -> None:
    with staging.writer("extract", 1) as rows:
        rows.write(table(1, 2))
        rows.write(table(3))
        rows.write(pa.table({"n": ["text"]}))
    assert (rows.rows, len(rows.names)) == (4, 2)
    assert [chunk.to_pydict()["n"] for chunk in staging.chunks(rows.names)] == [[1, 2], [3], ["text"]]


def test_a_marker_comes_back_as_it_was(staging: Staging) -> None:
    marker = Marker({"read": 3}, ("a",), ("b", "c"), "abc", {"n": ["integer", "string"]}, ("warned",))
    assert staging.marker("extract", 1) is None
    assert staging.publish("extract", 1, marker) == marker
    assert staging.marker("extract", 1) == marker


def test_the_first_publication_wins(staging: Staging) -> None:
    first, second = Marker({"out": 1}), Marker({"out": 2})
    staging.publish("extract", 1, first)
    assert staging.publish("extract", 1, second) == first
    assert staging.marker("extract", 1) == first


def test_a_stage_that_is_withdrawn_can_be_published_again(staging: Staging) -> None:
    staging.withdraw("extract", 1)
    staging.publish("extract", 1, Marker({"out": 1}))
    staging.withdraw("extract", 1)
    assert staging.marker("extract", 1) is None
    assert staging.publish("extract", 1, Marker({"out": 2})).counts == {"out": 2}


def test_after_an_exception_nothing_is_left_of_what_was_written(staging: Staging) -> None:
    def write() -> None:
        with staging.writer("extract", 1) as rows:
            rows.write(table(1))
            rows.write(pa.table({"n": ["text"]}))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert staging.names() == []


def test_removing_keeps_what_it_is_asked_to(staging: Staging) -> None:
    for name in ("run.json", "rejects.json", "00001.extract.json"):
        staging.write_json(name, {})
    staging.remove(keep=["run.json", "rejects.json"])
    assert staging.names() == ["rejects.json", "run.json"]
    staging.remove()
    assert staging.names() == []
    staging.remove()


def test_an_artifact_that_is_damaged_or_gone_is_reported(staging: Staging) -> None:
    staging.write_bytes("bad.parquet", b"PAR1 but no more")
    for name in ("bad.parquet", "gone.parquet"):
        with pytest.raises(StagingFailed) as caught:
            list(staging.chunks([name]))
        assert "acme/r1" in caught.value.what


def test_files_and_folders_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        staging = Staging(str(tmp_path / "deep" / "staging"), "acme", "r1")
        with staging.writer("extract", 1) as rows:
            rows.write(table(1))
        staging.publish("extract", 1, Marker(data=tuple(rows.names)))
        staging.keep_private("00001.extract.error.txt", "Jane Roe")
    finally:
        os.umask(before)
    paths = list((tmp_path / "deep").rglob("*"))
    assert len(paths) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}


def test_a_folder_that_cannot_be_made_is_reported_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "staging").write_text("a file")
    with pytest.raises(StagingFailed, match="staging") as caught:
        check(str(tmp_path / "staging"))
    assert "settings.staging" in caught.value.cure


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check(str(tmp_path / "staging"))
    assert [path for path in (tmp_path / "staging").rglob("*") if path.is_file()] == []


PUBLISH = """
import sys, time
from etl.staging import Marker, Staging
staging = Staging(sys.argv[1], "acme", "r1")
print("ready", flush=True)
sys.stdin.read()
for number in range(200):
    marker = staging.publish("extract", number, Marker({"by": int(sys.argv[2])}))
    print(marker.counts["by"])
"""

WRITE = """
import sys, pyarrow as pa
from etl.staging import Marker, Staging
staging = Staging(sys.argv[1], "acme", "r1")
big = pa.table({"n": pa.array(range(200_000), pa.int64())})
print("ready", flush=True)
number = 0
while True:
    number += 1
    with staging.writer("extract", number) as rows:
        for _ in range(3):
            rows.write(big)
    staging.publish("extract", number, Marker({"out": rows.rows}, tuple(rows.names)))
    print(number, flush=True)
"""


def start(script: str, *args: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *args],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_of_two_processes_that_publish_at_once_both_see_one_winner(tmp_path: Path) -> None:
    processes = [start(PUBLISH, str(tmp_path), str(by)) for by in (1, 2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    one, other = (process.stdout.read().split() for process in processes if process.stdout)
    assert one == other
    assert len(one) == 200
    assert [process.wait() for process in processes] == [0, 0]


def test_whatever_is_killed_all_that_is_published_is_whole(tmp_path: Path) -> None:
    for kill in range(examples(6)):
        folder = tmp_path / str(kill)
        process = start(WRITE, str(folder))
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.communicate()
        staging = Staging(str(folder), "acme", "r1")
        published = [int(name.split(".")[0]) for name in staging.names() if name.endswith(".extract.json")]
        assert published
        for number in published:
            marker = staging.marker("extract", number)
            assert marker is not None
            assert sum(chunk.num_rows for chunk in staging.chunks(marker.data)) == marker.counts["out"] == 600_000


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Such as one on a drive that is not there, or behind a link to nothing."""
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for root in (tmp_path / "link", Path("/proc/none")):
        with pytest.raises(StagingFailed, match=str(root)):
            Staging(str(root), "acme", "abc").write_json("x.json", {})

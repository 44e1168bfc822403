"""Which files a path matches: what links, FIFOs and second names make of it."""

import os
import socket
import time
from pathlib import Path

import pytest

from etl.context import Context
from etl.errors import BadSource, SourceMissing
from etl.partition import Plan
from etl.sources import extract, plan
from tests.helpers.csv_files import csv_pipeline
from tests.helpers.project import Project, etl_toml


def write(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n1\n")
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))


def planned(root: Path, path: str) -> tuple[list[str], list[str]]:
    found: Plan = plan(csv_pipeline(root, path=path))
    return [piece.file for part in found.partitions for piece in part.pieces], list(found.warnings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "in/oak/a.csv", "in/elm/secret.csv")
    return tmp_path


@pytest.mark.parametrize("to", ["../elm/secret.csv", "/etc/hostname", "../elm", "../../etl.toml"])
@pytest.mark.parametrize("path", ["in/oak/*", "in/oak/**", "in/{client}/**/*"])
def test_a_link_that_leads_out_of_the_fixed_part_is_left_out_with_a_warning(root: Path, to: str, path: str) -> None:
    write(root, "etl.toml", "in/acme/b.csv")
    for client in ("oak", "acme"):
        (root / f"in/{client}/b.csv").unlink(missing_ok=True)
        (root / f"in/{client}/link.csv").symlink_to(to)
    client = "acme" if "{" in path else "oak"
    said = f"in/{client}/link.csv: a link that leads out of in/{client}, left out"
    if client == "oak":
        assert planned(root, path) == (["in/oak/a.csv"], [said])
    else:
        with pytest.raises(SourceMissing, match=said):
            planned(root, path)


def test_a_folder_that_a_wildcard_matches_does_not_lead_out_either(root: Path) -> None:
    (root / "in/ash").symlink_to(root / "in/elm")
    (root / "out").mkdir()
    (root / "out/far.csv").write_text("x\n1\n")
    (root / "in/yew").symlink_to(root / "out")
    names, warnings = planned(root, "in/*/*.csv")
    assert sorted(names) == ["in/elm/secret.csv", "in/oak/a.csv"]
    assert sorted(warnings) == [
        "in/ash/secret.csv: another name of in/elm/secret.csv, left out",
        "in/yew/far.csv: a link that leads out of in, left out",
    ]


def test_the_fixed_part_itself_may_be_a_link(root: Path) -> None:
    (root / "inbox").symlink_to(root / "in")
    (root / "latest.csv").symlink_to(root / "in/oak/a.csv")
    assert planned(root, "inbox/oak/*.csv") == (["inbox/oak/a.csv"], [])
    assert planned(root, "inbox/**/*.csv")[0] == ["inbox/oak/a.csv", "inbox/elm/secret.csv"]
    assert planned(root, "latest.csv") == (["latest.csv"], [])


def test_a_file_is_read_once_by_whatever_names_it_has(root: Path) -> None:
    (root / "in/oak/0.csv").symlink_to("a.csv")
    os.link(root / "in/oak/a.csv", root / "in/oak/b.csv")
    names, warnings = planned(root, "in/oak/*.csv")
    assert names == ["in/oak/a.csv"]
    assert warnings == ["in/oak/0.csv, in/oak/b.csv: another name of in/oak/a.csv, left out"]


def test_a_link_whose_file_lies_inside_is_read(root: Path) -> None:
    write(root, "in/oak/done/x.txt")
    (root / "in/oak/b.csv").symlink_to("done/x.txt")
    assert planned(root, "in/oak/*.csv") == (["in/oak/a.csv", "in/oak/b.csv"], [])


def test_what_is_no_file_is_never_opened(root: Path) -> None:
    os.mkfifo(root / "in/oak/b.csv")
    (root / "in/oak/null.csv").symlink_to("b.csv")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root / "in/oak")  # the path of a socket is short
    server.bind("c.csv")
    os.chdir(here)
    server.close()
    (root / "in/oak/d.csv").mkdir()
    names, warnings = planned(root, "in/oak/*.csv")
    assert names == ["in/oak/a.csv"]
    assert sorted(warnings) == [
        "in/oak/b.csv, in/oak/null.csv: no file but a FIFO, left out",
        "in/oak/c.csv: no file but a socket, left out",
    ]


def test_a_file_that_has_become_a_fifo_or_a_link_since_is_not_opened(root: Path) -> None:
    for become in (os.mkfifo, lambda path: path.symlink_to("../elm/secret.csv")):
        path = root / "in/oak/a.csv"
        path.unlink()
        path.write_text("x\n1\n")
        pipeline = csv_pipeline(root, path="in/oak/*.csv")
        [partition] = plan(pipeline).partitions
        path.unlink()
        become(path)
        with pytest.raises(BadSource, match=r"in/oak/a.csv can't be opened"):
            list(extract(pipeline, partition, Context("acme", "r1")))


def test_links_that_lead_in_circles_end(root: Path) -> None:
    for number in range(4):
        (root / f"in/oak/loop{number}").symlink_to(".")
    names, warnings = planned(root, "in/**/*.csv")
    assert (sorted(names), warnings) == (["in/elm/secret.csv", "in/oak/a.csv"], [])


def test_hidden_files_and_folders_are_matched_only_by_name(root: Path) -> None:
    write(root, "in/oak/.b.csv", "in/oak/.deep/c.csv", "in/oak/deep/d.csv")
    assert planned(root, "in/oak/**/*.csv")[0] == ["in/oak/a.csv", "in/oak/deep/d.csv"]
    assert planned(root, "in/oak/.*.csv")[0] == ["in/oak/.b.csv"]
    assert planned(root, "**/d.csv")[0] == ["in/oak/deep/d.csv"]
    assert sorted(planned(root, "**")[0]) == ["in/elm/secret.csv", "in/oak/a.csv", "in/oak/deep/d.csv"]
    assert sorted(planned(root, f"{root}/in/**/*.csv")[0]) == sorted(planned(root, "in/**/*.csv")[0])


def test_a_file_from_the_future_is_as_old_as_it_is_here_night_after_night(root: Path) -> None:
    write(root, "in/oak/b.csv", "in/oak/c.csv")
    ahead, arrived = time.time() + 86_400, os.stat(root / "in/oak/b.csv").st_ctime
    os.utime(root / "in/oak/b.csv", (ahead, ahead))
    os.utime(root / "in/oak/c.csv", (arrived + 30, arrived + 30))
    for _ in range(2):
        found = plan(csv_pipeline(root, path="in/oak/*"))
        pieces = [part.pieces[0] for part in found.partitions]
        assert [piece.file for piece in pieces] == ["in/oak/a.csv", "in/oak/b.csv", "in/oak/c.csv"]
        assert pieces[1].modified == os.stat(root / "in/oak/b.csv").st_ctime < arrived + 30
        assert len(found.warnings) == 1
        assert "in/oak/b.csv: modified in the future" in found.warnings[0]


def test_a_file_from_the_future_is_read_in_pieces_as_any_other(root: Path) -> None:
    (root / "in/oak/a.csv").write_text("x\n" + "123456\n" * 1000)
    ahead = time.time() + 86_400
    os.utime(root / "in/oak/a.csv", (ahead, ahead))
    pipeline = csv_pipeline(root, path="in/oak/*")
    found = plan(pipeline, partition_bytes=2000)
    rows = [chunk.rows.num_rows for part in found.partitions for chunk in extract(pipeline, part, Context("a", "r"))]
    assert len(found.partitions) > 2
    assert sum(rows) == 1000


def test_a_later_file_beats_one_from_the_future(etl: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    given = {"load": {"mode": "merge", "key": ["id"]}, "extract": {"path": "inbox/*.csv"}}
    etl.config(etl_toml({"claims": {**given, "columns": {"id": "integer", "v": "string"}}}))
    ahead = time.time() + 86_400
    os.utime(etl.write("inbox/a.csv", "id,v\n1,old\nx,bad\n"), (ahead, ahead))  # a reject has it read every night
    assert "inbox/a.csv: modified in the future" in etl.run()["warnings"][0]
    path = etl.write("inbox/b.csv", "id,v\n1,new\n")
    os.utime(path, (time.time(), time.time()))
    for _ in range(2):
        etl.run()
        assert etl.rows("select v from claims") == [("new",)]


@pytest.mark.parametrize(
    ("path", "link", "to"),
    [
        ("inbox/*.csv", "inbox/b.csv", "done/x.txt"),
        ("inbox/now*/*.txt", "inbox/now", "done"),
        ("inbox/{client}.csv", "inbox/acme.csv", "done/x.txt"),
        ("inbox/b.csv", "inbox/b.csv", "done/x.txt"),
        ("latest.csv", "latest.csv", "inbox/done/x.txt"),
        ("latest.csv", "latest.csv", "far/x.txt"),
        ("{folder}/*.csv", "north", "far"),
    ],
)
def test_a_run_loads_what_a_link_leads_to(
    etl: Project, tmp_path_factory: pytest.TempPathFactory, path: str, link: str, to: str
) -> None:
    other = tmp_path_factory.mktemp("other")
    write(other, "far/x.txt", "far/done/y.txt")
    (other / "far/z.csv").symlink_to("done/y.txt")
    write(etl.root, "inbox/done/x.txt")
    (etl.root / link).symlink_to(other / to if to.startswith("far") else to)
    clients = {"acme": {"params": {"folder": "north"}}}
    etl.config(etl_toml({"claims": {"extract": {"path": path}, "retries": 0}}, clients))
    run = etl.run()
    assert (run["state"], run["rows"]["loaded"], run["error"]) == ("succeeded", 1, None)


@pytest.mark.parametrize("path", ["in/oak/*.csv", "in/oak/b.csv"])
def test_a_link_that_leads_nowhere_is_left_out_with_a_warning(root: Path, path: str) -> None:
    for name in ("b.csv", "c.csv"):
        (root / "in/oak" / name).symlink_to({"b.csv": "gone.csv", "c.csv": "c.csv"}[name])
    if path.endswith("b.csv"):
        with pytest.raises(SourceMissing, match=r"in/oak/b\.csv: a link that leads nowhere, left out"):
            planned(root, path)
    else:
        warning = "in/oak/b.csv, in/oak/c.csv: a link that leads nowhere, left out"
        assert planned(root, path) == (["in/oak/a.csv"], [warning])

"""Which files of a delivery are there, by the rules by which a run finds its files; none is opened."""

import os
from datetime import date
from pathlib import Path

import pytest

from etl.config.pipeline import Pipeline
from etl.errors import ConfigError
from etl.sources.arrivals import Arrival, FolderAway, present
from tests.helpers.project import Folder, etl_toml

NOW = 1_795_000_000.0


def pipeline(root: Path, path: str, **keys: object) -> Pipeline:
    extract = {"path": path, "settle": "10s", **keys}
    folder = Folder(root, etl_toml({"claims": {"extract": extract}}, {"acme": {"params": {"region": "n*"}}}))
    return folder.pipeline("claims", "acme")


def drop(root: Path, name: str, age: float = 60) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x\n")
    os.utime(path, (NOW - age, NOW - age))


def names(found: list[Arrival]) -> dict[str, date | None]:
    return {os.path.basename(arrival.name): arrival.day for arrival in found}


def test_files_of_every_date_are_there_and_what_has_none_of_the_calendar_is_not(tmp_path: Path) -> None:
    for name in (
        "claims-20261126.csv",
        "claims-20261127-b.csv",
        "claims-20261326.csv",
        "claims.csv",
        "visits-20261126.csv",
    ):
        drop(tmp_path, f"inbox/acme/{name}")
    drop(tmp_path, "inbox/globex/claims-20261126.csv")
    found = present(pipeline(tmp_path, "inbox/{client}/claims-{date:%Y%m%d}*.csv"), NOW)
    assert names(found) == {"claims-20261126.csv": date(2026, 11, 26), "claims-20261127-b.csv": date(2026, 11, 27)}
    assert found[0]._replace(day=None) == Arrival(
        "inbox/acme/claims-20261126.csv", str(tmp_path / "inbox/acme/claims-20261126.csv"), 2, NOW - 60, None, True
    )


def test_a_folder_may_have_the_date(tmp_path: Path) -> None:
    drop(tmp_path, "inbox/2026/11-26/claims.csv")
    drop(tmp_path, "inbox/2026/11-27/claims.done")
    found = present(pipeline(tmp_path, "inbox/{date:%Y/%m-%d}/*.csv"), NOW, "*.done")
    assert names(found) == {"claims.csv": date(2026, 11, 26), "claims.done": date(2026, 11, 27)}


def test_a_parameter_stands_for_itself(tmp_path: Path) -> None:
    drop(tmp_path, "inbox/n*/claims-2026-11-26.csv")
    drop(tmp_path, "inbox/north/claims-2026-11-26.csv")
    assert len(present(pipeline(tmp_path, "inbox/{region}/claims-{date}.csv"), NOW)) == 1


def test_a_folder_with_letters_of_a_glob_is_the_one_it_says(tmp_path: Path) -> None:
    drop(tmp_path, "[x]/inbox/claims-2026-11-26.csv")
    drop(tmp_path, "x/inbox/claims-2026-11-27.csv")
    root = tmp_path / "[x]"
    assert names(present(pipeline(root, "inbox/claims-{date}.csv"), NOW)) == {
        "claims-2026-11-26.csv": date(2026, 11, 26)
    }
    assert names(present(pipeline(root, "../[[]x]/inbox/claims-*.csv"), NOW)) == {"claims-2026-11-26.csv": None}


def test_a_file_is_settled_when_it_is_as_old_as_the_source_asks(tmp_path: Path) -> None:
    for name, age in (("old.csv", 11), ("new.csv", 9), ("ahead.csv", -3600)):
        drop(tmp_path, f"inbox/{name}", age)
    found = present(pipeline(tmp_path, "inbox/*.csv"), NOW)
    assert {os.path.basename(each.name) for each in found if each.is_settled} == {"old.csv"}
    assert all(each.is_settled for each in present(pipeline(tmp_path, "inbox/*.csv", settle=0), NOW))


def test_markers_are_beside_the_files_and_are_none(tmp_path: Path) -> None:
    for name in ("claims-20261126.csv", "ok_20261126.csv", "all.ok", "sub/x.ok"):
        drop(tmp_path, f"inbox/{name}")
    found = present(pipeline(tmp_path, "inbox/*{date:%Y%m%d}.csv"), NOW, "ok_*.csv")
    assert {os.path.basename(each.name): (each.is_marker, each.day) for each in found} == {
        "ok_20261126.csv": (True, date(2026, 11, 26)),
        "claims-20261126.csv": (False, date(2026, 11, 26)),
    }
    assert names(present(pipeline(tmp_path, "inbox/*{date:%Y%m%d}.csv"), NOW, "*.ok"))["all.ok"] is None


def test_a_link_that_leads_elsewhere_is_left_out_as_a_run_leaves_it_out(tmp_path: Path) -> None:
    drop(tmp_path, "secret/claims-2026-11-26.csv")
    drop(tmp_path, "inbox/claims-2026-11-27.csv")
    (tmp_path / "inbox/claims-2026-11-26.csv").symlink_to(tmp_path / "secret/claims-2026-11-26.csv")
    (tmp_path / "inbox/claims-2026-11-28.csv").symlink_to(tmp_path / "inbox/claims-2026-11-27.csv")
    assert names(present(pipeline(tmp_path, "inbox/claims-{date}.csv"), NOW)) == {
        "claims-2026-11-27.csv": date(2026, 11, 27)
    }


def test_a_folder_that_is_not_there_or_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderAway, match=r"inbox/acme can't be looked at: No such file or directory") as away:
        present(pipeline(tmp_path, "inbox/{client}/claims-{date}.csv"), NOW)
    assert not away.value.is_there
    (tmp_path / "inbox").write_text("")
    with pytest.raises(FolderAway) as away:
        present(pipeline(tmp_path, "inbox/{client}/claims-{date}.csv"), NOW)
    assert away.value.is_there
    (tmp_path / "inbox").unlink()
    (tmp_path / "inbox/acme").mkdir(parents=True)
    assert present(pipeline(tmp_path, "inbox/{client}/claims-{date}.csv"), NOW) == []


def test_a_parameter_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = Folder(
        tmp_path,
        etl_toml({"claims": {"extract": {"path": "inbox/{x}/{date}.csv"}}}, {"acme": {"params": {"x": "../b"}}}),
    )
    with pytest.raises(ConfigError, match="leads to another folder"):
        present(folder.pipeline("claims", "acme"), NOW)

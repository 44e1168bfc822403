"""What is said of a delivery's files: a content that has come before, and one that is no table."""

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.sources import plan
from etl.sources.feed import kind_of_file
from jobs.run import retry
from tests.helpers.expected import DAY, FIRST, Nights, claims


@pytest.fixture
def nights(tmp_path: Path, fake_redis: Redis, target_url: str) -> Nights:
    return Nights(tmp_path, fake_redis, target_url)


@pytest.fixture
def local(tmp_path: Path, fake_redis: Redis) -> Nights:
    return Nights(tmp_path, fake_redis, f"sqlite:///{tmp_path}/target.db")


def test_the_same_content_under_another_name_is_odd_once(nights: Nights) -> None:
    nights.configure()
    nights.deliver("b.csv", claims(3, FIRST))
    assert nights.run(FIRST)["odd"] == []
    nights.deliver("c.csv", claims(3, FIRST))
    found = nights.run(FIRST + DAY)
    assert found["odd"] == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]
    assert found["odd"][0] in found["warnings"]
    assert nights.run(FIRST + 2 * DAY)["odd"] == []  # both lie there now
    assert nights.run(FIRST + 2 * DAY, full_refresh=True)["odd"] == []


def test_a_file_that_is_sent_again_with_the_same_content_is_odd(local: Nights) -> None:
    local.configure()
    local.deliver("claims.csv", claims(3, FIRST))
    assert local.run(FIRST)["odd"] == []
    assert local.run(FIRST + DAY)["odd"] == []
    local.deliver("claims.csv", claims(3, FIRST))
    found = local.run(FIRST + 2 * DAY)["odd"]
    assert found == ["inbox/acme/claims.csv has the same content as inbox/acme/claims.csv of 2026-09-07"]
    assert local.run(FIRST + 3 * DAY)["odd"] == []


@pytest.mark.parametrize("own", [False, True])
def test_a_file_of_another_client_is_odd_where_each_has_a_target_too(local: Nights, own: bool) -> None:
    local.url = f"sqlite:///{local.project.root}/{'{client}' if own else 'all'}.db"
    local.configure()
    local.deliver("n.csv", claims(3, FIRST), "north")
    assert local.run(FIRST, "north")["odd"] == []
    local.deliver("a.csv", claims(3, FIRST), "acme")
    found = local.run(FIRST + DAY)["odd"]
    assert found == ["inbox/acme/a.csv has the same content as a file of client north (2026-09-07)"]


def test_the_same_content_is_refused_as_long_as_it_lies_there(nights: Nights) -> None:
    nights.configure({"change": "50%", "otherwise": "fail"}, load={"mode": "replace", "by": ["_file"]})
    nights.deliver("b.csv", claims(3, FIRST))
    assert nights.run(FIRST)["state"] == "succeeded"
    nights.deliver("c.csv", claims(3, FIRST))
    for number in range(2):
        found = nights.run(FIRST + number * DAY)
        assert found["state"] == "failed"
        assert found["odd"] == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]
        assert found["odd"][0] in found["error"]
    retry.retry_run(nights.project.loaded(), nights.project.connection, found["run"])
    nights.project.work()
    assert nights.project.record(found["run"])["odd"] == found["odd"]


def test_parts_of_a_large_file_are_one_content(local: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.run.graph.plan", lambda *args, **more: plan(*args, **more, partition_bytes=200))
    local.configure()
    local.deliver("b.csv", claims(40, FIRST))
    found = local.run(FIRST)
    assert (found["partitions"]["total"] > 3, found["odd"]) == (True, [])
    local.deliver("c.csv", claims(40, FIRST))
    monkeypatch.setattr("jobs.run.graph.plan", plan)
    found = local.run(FIRST + DAY)
    assert found["odd"] == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]


def test_one_of_files_that_are_read_together_is_known_again(local: Nights) -> None:
    local.configure(extract={"path": "inbox/{client}/*.csv", "split": "none"}, load={"mode": "replace"})
    local.deliver("a.csv", claims(3, FIRST))
    local.deliver("b.csv", claims(3, FIRST, start=3))
    assert local.run(FIRST)["odd"] == []
    local.deliver("c.csv", claims(3, FIRST, start=3))
    found = local.run(FIRST + DAY)["odd"]
    assert found == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]


def test_of_two_files_of_one_run_the_second_is_odd(local: Nights) -> None:
    local.configure()
    local.deliver("a.csv", claims(3, FIRST))
    local.deliver("b.csv", claims(3, FIRST))
    found = local.run(FIRST)["odd"]
    assert found == ["inbox/acme/b.csv has the same content as inbox/acme/a.csv of 2026-09-07"]


def test_empty_files_are_never_the_same(local: Nights) -> None:
    local.configure()
    for number in range(3):
        local.deliver(f"{number}.csv", claims(0, FIRST))
        assert local.run(FIRST + number * DAY)["odd"] == []


def test_a_file_that_all_clients_read_is_one(local: Nights) -> None:
    local.configure(extract={"path": "shared/*.csv"})
    local.project.write("shared/codes.csv", claims(3, FIRST))
    assert local.run(FIRST)["odd"] == []
    assert local.run(FIRST, "north")["odd"] == []


def test_without_an_expectation_no_content_is_kept(local: Nights) -> None:
    local.configure(None, None)
    local.deliver("a.csv", claims(3, FIRST))
    local.run(FIRST)
    assert not (local.project.root / "staging" / ".contents").exists()


def test_contents_are_private_and_forgotten_after_the_history(local: Nights) -> None:
    local.configure()
    local.deliver("a.csv", claims(3, FIRST))
    local.run(FIRST)
    folder = local.project.root / "staging" / ".contents"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert {path.stat().st_mode & 0o077 for path in (folder, *files)} == {0}
    assert local.project.sweep(89 * 86400).troubles == []
    assert files[0].exists()
    local.project.sweep(91 * 86400)
    assert not files[0].exists()


# --- the kind of a file ---

PAGE = b"<!DOCTYPE html><html><body>Session expired</body></html>"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PAGE, "an HTML page"),
        (b"PK\x03\x04" + b"\0" * 600, "a ZIP or Excel file"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (b"<?xml version='1.0'?><a><b/></a>", "an XML document"),
        (b'[{"a": 1}, {"a": 2}]', "a JSON document"),
        (b"a,b\n1,2\n", None),
        (b'{"a": 1}\n{"a": 2}\n', None),
        (b"", None),
    ],
)
def test_the_kind_of_a_file_is_known_without_a_run(tmp_path: Path, content: bytes, kind: str | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert kind_of_file(str(path)) == kind
    assert kind_of_file(str(tmp_path / "gone")) is None


@pytest.mark.parametrize("expect", [None, {"rows": [0, 100]}, {"rows": [0, 100], "otherwise": "fail"}])
def test_a_file_of_another_kind_is_odd_beside_being_a_failure(local: Nights, expect: Any) -> None:
    local.configure(expect, None)
    local.deliver("page.csv", PAGE)
    local.deliver("good.csv", claims(2, FIRST))
    found = local.run(FIRST)
    assert found["state"] == "failed"
    assert found["odd"] == ["inbox/acme/page.csv is an HTML page, not CSV"]


def test_a_file_that_cannot_be_read_hides_nothing_of_later_deliveries(local: Nights) -> None:
    local.configure({"change": "50%"})
    local.deliver("nothing.csv", b"")
    assert local.run(FIRST - 7 * DAY)["state"] == "failed"
    found = local.come(local.weeks(5), 5)
    assert found["odd"] == ["5 rows were delivered, 10 are usual on a Monday (the median of 5)"]


def test_a_file_of_another_kind_that_still_lies_there_is_a_failure_and_odd_no_more(local: Nights) -> None:
    local.configure({"change": "50%"})
    day = local.weeks(5)
    local.deliver("page.csv", PAGE)
    assert local.run(day - 5 * DAY)["odd"] == ["inbox/acme/page.csv is an HTML page, not CSV"]
    found = local.come(day, 5)
    assert found["state"] == "failed"
    assert found["odd"] == ["5 rows were delivered, 10 are usual on a Monday (the median of 5)"]
    local.deliver("page.csv", PAGE)
    assert local.run(day + DAY)["odd"] == ["inbox/acme/page.csv is an HTML page, not CSV"]  # sent again


def test_a_run_that_met_its_expectations_has_nothing_odd(local: Nights) -> None:
    local.configure({"rows": [1, 5]})
    local.deliver("a.csv", claims(2, FIRST))
    assert local.run(FIRST)["odd"] == []
    local.deliver("b.csv", claims(9, FIRST, start=5))
    assert local.run(FIRST + DAY)["odd"] == ["11 rows were delivered, 1 to 5 were expected"]

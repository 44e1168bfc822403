"""Nights, retries, windows, archived and fixed files in any order: the table has what the files say, once."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from redis import Redis

from etl.errors import EtlError
from jobs import settings as product
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue
from jobs.run.retry import retry_run
from jobs.store import keys
from tests.helpers.deliveries import query
from tests.helpers.examples import examples
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

pytestmark = pytest.mark.slow

MODES: dict[str, dict[str, Any]] = {
    "append": {"mode": "append", "atomic": True},
    "merge": {"mode": "merge", "key": ["k"]},
    "replace": {"mode": "replace"},
    "replace by k": {"mode": "replace", "by": ["k"]},
    "replace by file": {"mode": "replace", "by": ["_file"]},
}


class File(NamedTuple):
    """A file as it is at some time."""

    time: float
    rows: dict[int, int]
    broken: bool


def toml(mode: str, url: str = "sqlite:///warehouse.db") -> str:
    columns = {"k": {"type": "integer", "required": True}, "v": {"type": "integer"}}
    pipeline = {"extract": {"path": "inbox/*"}, "load": MODES[mode], "retries": 0, "columns": columns}
    return etl_toml({"claims": {**pipeline, "max_rejects": 0}}, ["acme"], url=url)


def text(rows: dict[int, int]) -> str:
    return "k,v\n" + "".join(f"{key},{value}\n" for key, value in rows.items())


def retried(project: QueuedProject, run: str) -> dict[str, Any]:
    retry_run(product.config(), project.connection, run)
    project.work()
    return project.record(run)


@pytest.fixture
def project(tmp_path: Path, fake_redis: Redis, target_url: str) -> QueuedProject:
    return QueuedProject(tmp_path, fake_redis, toml("merge", target_url))


def test_a_file_that_was_fixed_for_a_retry_beats_those_that_were_newer_than_it(
    project: QueuedProject, target_url: str
) -> None:
    project.write("inbox/a.csv", "k,v\n1,x\n")
    project.write("inbox/b.csv", text({1: 3}))
    run = project.run()
    assert project.state(run) == "failed"
    project.write("inbox/a.csv", text({1: 4}))
    assert retried(project, run)["state"] == "succeeded"
    assert query(target_url, "SELECT k, v FROM claims") == [(1, 4)]


def test_a_row_of_a_file_that_an_older_copy_was_put_in_place_of_is_as_old_as_the_copy(
    project: QueuedProject, target_url: str
) -> None:
    for name, time, rows in [("b.csv", 30, {1: 3}), ("a.csv", 20, {1: 2}), ("b.csv", 10, {1: 1, 2: 1})]:
        os.utime(project.write(f"inbox/{name}", text(rows)), (time, time))
        if name == "b.csv":
            assert project.state(project.run()) == "succeeded"
    assert query(target_url, "SELECT k, v FROM claims ORDER BY k") == [(1, 2), (2, 1)]


def test_a_retry_appends_nothing_that_the_next_night_has_appended(project: QueuedProject, target_url: str) -> None:
    project.config(toml("append", target_url))
    project.write("inbox/a.csv", text({1: 1}))
    project.write("inbox/b.csv", "k,v\n2,x\n")
    first = project.run()
    project.write("inbox/b.csv", text({2: 2}))
    assert project.record(project.run())["rows"]["loaded"] == 2
    again = retried(project, first)
    assert (again["state"], again["rows"]["loaded"], again["rows"]["unchanged"]) == ("succeeded", 0, 2)
    assert query(target_url, "SELECT k, v FROM claims ORDER BY k") == [(1, 1), (2, 2)]


def test_a_renamed_file_is_loaded_with_a_warning_of_the_run(project: QueuedProject, target_url: str) -> None:
    project.config(toml("append", target_url))
    project.write("inbox/a.csv", text({1: 1}))
    first = project.run()
    (project.root / "inbox/a.csv").rename(project.root / "inbox/b.csv")
    warnings = project.record(project.run())["warnings"]
    assert warnings == [f"inbox/b.csv has the same rows as inbox/a.csv of run {first}: they are in claims twice now"]


def test_a_retry_never_replaces_a_whole_table_by_rows_that_are_older_than_a_later_runs(
    project: QueuedProject, target_url: str
) -> None:
    project.config(toml("replace", target_url))
    project.write("inbox/a.csv", text({1: 1}))
    project.write("inbox/b.csv", "k,v\n2,x\n")
    first = project.run()
    project.write("inbox/b.csv", text({2: 2}))
    (project.root / "inbox/a.csv").unlink()
    project.write("inbox/c.csv", text({1: 9}))
    later = project.run()
    with pytest.raises(EtlError, match=f"run {later} has replaced claims since run {first} was submitted"):
        retried(project, first)
    assert project.state(first) == "failed"
    assert query(target_url, "SELECT k, v FROM claims ORDER BY k") == [(1, 9), (2, 2)]


@pytest.mark.parametrize("files", [1, 2])
def test_a_retry_that_redis_lets_pass_is_refused_by_what_the_target_remembers(
    project: QueuedProject, target_url: str, files: int
) -> None:
    project.config(toml("replace", target_url))
    project.write("inbox/a.csv", "k,v\n2,x\n")
    for number in range(1, files):
        project.write(f"inbox/{number}.csv", text({number: 1}))
    first = project.run()
    project.write("inbox/a.csv", text({2: 2}))
    later = project.run()
    project.connection.zrem(keys.INDEX, later)  # as after one with --inline
    again = retried(project, first)
    assert (again["state"], f"run {later} has replaced claims" in again["error"]) == ("failed", True)
    assert {row for (row,) in query(target_url, "SELECT _run FROM claims")} == {later}


def test_a_retry_replaces_no_month_that_a_later_run_has_replaced(project: QueuedProject, target_url: str) -> None:
    project.config(toml("replace by k", target_url))
    project.write("inbox/a.csv", text({1: 1, 3: 1}))
    project.write("inbox/b.csv", "k,v\n2,x\n")
    first = project.run()
    (project.root / "inbox/a.csv").unlink()
    (project.root / "inbox/b.csv").unlink()
    project.write("inbox/c.csv", text({1: 9}))
    project.run()
    project.write("inbox/b.csv", text({2: 2}))
    again = retried(project, first)
    assert (again["state"], again["rows"]["loaded"], again["rows"]["superseded"]) == ("succeeded", 2, 1)
    what = "a later run has replaced the same in claims since this run read its source"
    assert again["warnings"] == [f"1 row is not loaded: {what}"]
    assert query(target_url, "SELECT k, v FROM claims ORDER BY k") == [(1, 9), (2, 2), (3, 1)]


# --- any order of events ---

_rows = st.dictionaries(st.integers(0, 4), st.none(), min_size=1, max_size=3)
_file = st.tuples(_rows, st.integers(0, 500), st.sampled_from([False, False, False, True]))


class Nights(RuleBasedStateMachine):
    """Files come, are fixed, renamed and archived; nights, windows and retries load them, some of them at once."""

    mode = "merge"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="rq-etl-nights-"))
        self.project = QueuedProject(self.folder, fakeredis.FakeStrictRedis(), toml(self.mode))
        self.clock, self.value = 1000.0, 0
        self.inbox: dict[str, File] = {}
        self.failed: dict[str, dict[str, File]] = {}  # what each run has read
        self.loaded: dict[str, File] = {}  # the latest version of each file
        self.active: dict[str, dict[str, File]] = {}
        self.window = datetime(2024, 1, 1, tzinfo=UTC)
        self.table: dict[int, tuple[int, float, str]] = {}  # by key: value, and the file that it is from

    def teardown(self) -> None:
        product.use(None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def put(self, name: str, keys: Iterable[int], time: float, *, broken: bool = False) -> None:
        rows = {}
        for key in keys:
            self.value += 1  # no two rows are equal
            rows[key] = self.value
        path = self.project.write(f"inbox/{name}", text(rows) + ("x,x\n" if broken else ""))
        os.utime(path, (time, time))
        self.inbox[name] = File(time, rows, broken)

    @rule(files=st.dictionaries(st.sampled_from("abcd"), _file, min_size=1, max_size=3))
    def files_come(self, files: dict[str, tuple[dict[int, None], int, bool]]) -> None:
        for name, (rows, age, broken) in files.items():
            if name not in self.inbox and not (self.mode == "append" and name in self.loaded):
                self.clock += 1
                self.put(name, rows, self.clock - age, broken=broken)

    @rule(data=st.data(), rows=_rows)
    def a_file_is_fixed(self, data: Any, rows: dict[int, None]) -> None:
        names = [name for name in self.inbox if self.mode != "append" or name not in self.loaded]
        if names:
            self.clock += 1
            self.put(data.draw(st.sampled_from(sorted(names))), rows, self.clock)

    @rule(data=st.data())
    def a_file_is_archived(self, data: Any) -> None:
        if self.inbox:
            name = data.draw(st.sampled_from(sorted(self.inbox)))
            (self.folder / "inbox" / name).unlink()
            del self.inbox[name]

    @rule(data=st.data(), new=st.sampled_from("aem"))
    def a_file_is_renamed(self, data: Any, new: str) -> None:
        if self.inbox and new not in self.inbox and not (self.mode == "append" and new in self.loaded):
            name = data.draw(st.sampled_from(sorted(self.inbox)))
            (self.folder / "inbox" / name).rename(self.folder / "inbox" / new)
            self.inbox[new] = self.inbox.pop(name)

    @precondition(lambda self: self.inbox)
    @rule()
    def a_night(self) -> None:
        self.begin()
        self.project.work()
        self.end()

    @precondition(lambda self: self.failed)
    @rule(data=st.data())
    def a_retry(self, data: Any) -> None:
        self.begin_again(data.draw(st.sampled_from(sorted(self.failed))))
        self.project.work()
        self.end()

    @precondition(lambda self: self.inbox)
    @rule(data=st.data(), seed=st.integers(0, 1000))
    def runs_at_once(self, data: Any, seed: int) -> None:
        if self.failed:
            self.begin_again(data.draw(st.sampled_from(sorted(self.failed))))
        for _ in range(2):
            self.window += timedelta(days=1)
            self.begin(start=self.window, end=self.window + timedelta(days=1))
        queue, order = FairQueue("etl-acme", connection=self.project.connection), Random(seed)
        worker = InProcessWorker(self.project.connection)
        assert queue.count
        while True:
            for _ in range(order.randint(0, max(queue.count - 1, 0))):  # which of the jobs is next
                self.project.connection.lmove(queue.key, queue.key, "LEFT", "RIGHT")
            if not worker.step():
                break
        self.end()

    def begin(self, **window: Any) -> None:
        self.active[self.project.submit(**window)] = dict(self.inbox)

    def begin_again(self, run: str) -> None:
        self.active[run] = {name: self.inbox.get(name, file) for name, file in self.failed.pop(run).items()}
        retry_run(product.config(), self.project.connection, run)

    def end(self) -> None:
        """Compare what has become of the active runs, and of the table, with what the files say."""
        doubled, warnings = False, list[str]()
        before = dict(self.loaded)
        for run, read in self.active.items():
            changed = [name for name in read if self.mode == "append" and before.get(name, read[name]) != read[name]]
            if any(file.broken for file in read.values()) or changed:
                self.failed[run] = read
                assert self.project.state(run) == "failed"
                continue
            assert self.project.state(run) == "succeeded", self.project.record(run)
            warnings += self.project.record(run)["warnings"]
            for name, file in sorted(read.items(), key=lambda item: (item[1].time, item[0])):
                doubled |= name not in self.loaded and file.rows in [each.rows for each in self.loaded.values()]
                self.applied(name, file)
        self.active.clear()
        self.check()
        if self.mode == "append":
            assert any("twice now" in each for each in warnings) == doubled

    def applied(self, name: str, file: File) -> None:
        before = self.loaded.get(name)
        if before is not None and before.time > file.time and self.inbox.get(name) != file:
            if self.mode != "merge":
                return  # what a run read long ago is no news
        else:
            self.loaded[name] = file
        for key, value in file.rows.items():
            if self.mode != "merge" or self.table.get(key, ())[:1] == (value,):
                continue  # a row that is equal stays that of the file that wrote it
            if key not in self.table or self.wins(name, file, self.table[key]):
                self.table[key] = value, file.time, name

    def wins(self, name: str, file: File, there: tuple[int, float, str]) -> bool:
        _, time, other = there
        if other == name and self.inbox.get(name) == file:
            return True  # an older copy that was put in its place
        return (file.time, name) >= (time, other)

    def check(self) -> None:
        if self.mode == "merge":
            expected = sorted((key, value) for key, (value, _, _) in self.table.items())
        else:
            expected = sorted(row for file in self.loaded.values() for row in file.rows.items())
        url = f"sqlite:///{self.folder}/warehouse.db"
        there = query(url, "SELECT name FROM sqlite_master WHERE name = 'claims'")
        assert (sorted(query(url, "SELECT k, v FROM claims")) if there else []) == expected


class Appended(Nights):
    mode = "append"


class Replaced(Nights):
    mode = "replace by file"


@pytest.mark.parametrize("machine", [Nights, Appended, Replaced])
def test_whatever_happens_the_table_has_what_the_files_say(machine: type[Nights]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples(25), stateful_step_count=12, suppress_health_check=list(HealthCheck)),
    )

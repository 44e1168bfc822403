import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import etl.sources.files
from etl.config.kinds import source
from etl.config.models import Load, Target
from etl.config.pipeline import Pipeline
from etl.errors import ConfigError, SourceMissing
from etl.partition import Partition, Piece, Plan
from etl.sources import plan
from etl.sources.formats.csv import Config


def pipeline(root: Path, path: str = "*.csv", params: dict[str, Any] | None = None, **options: Any) -> Pipeline:
    return Pipeline(
        name="claims",
        client="acme",
        root=str(root),
        staging=str(root / "staging"),
        modules=(),
        extract=source({"type": "csv", "path": path, "settle": 0, **options}),
        load=Load(target="warehouse", table="claims"),
        target=Target(name="warehouse", url="sqlite:///warehouse.db"),
        params=params or {},
        timezone="America/Chicago",
    )


def write(folder: Path, *names: str, content: str = "x,y\n1,2\n", modified: float = 1_700_000_000.0) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (modified, modified))


def files(planned: Plan) -> list[str]:
    return [piece.file for partition in planned.partitions for piece in partition.pieces]


def test_files_are_ordered_by_modification_time_then_name(tmp_path: Path) -> None:
    write(tmp_path, "b.csv", "a.csv")
    write(tmp_path, "0.csv", modified=1_700_000_001.0)
    planned = plan(pipeline(tmp_path))
    assert files(planned) == ["a.csv", "b.csv", "0.csv"]
    assert [(partition.number, partition.order) for partition in planned.partitions] == [(1, 0), (2, 1), (3, 2)]
    assert [partition.size for partition in planned.partitions] == [8, 8, 8]


def test_names_in_the_path_are_filled(tmp_path: Path) -> None:
    write(tmp_path, "in/acme/north-2024-03-01-2024-03-02.csv", "in/other/north-2024-03-01-2024-03-02.csv")
    planned = plan(
        pipeline(tmp_path, "in/{client}/{region}-{start}-{end}.csv", {"region": "north"}),
        start=datetime(2024, 3, 1, 6, tzinfo=UTC),
        end=datetime(2024, 3, 2, 6, tzinfo=UTC),
    )
    assert files(planned) == ["in/acme/north-2024-03-01-2024-03-02.csv"]
    assert files(plan(pipeline(tmp_path, "in/acme/north-{date}-*.csv"), start=datetime(2024, 3, 1))) == files(planned)


def test_a_moment_within_a_day_is_filled_with_its_time(tmp_path: Path) -> None:
    write(tmp_path, "2024-03-01T133000.csv")
    assert files(plan(pipeline(tmp_path, "{start}.csv"), start=datetime(2024, 3, 1, 13, 30)))


def test_a_moment_is_written_as_the_path_says(tmp_path: Path) -> None:
    write(tmp_path, "in/2024/02/claims_20240301-050224.csv", "in/2024/02/claims_20240301-050324.csv")
    settled = pipeline(tmp_path, "in/{start:%Y/%m}/{what}_{date:%Y%m%d}-{end:%d%m%y}.csv", {"what": "claims"})
    settled = settled.model_copy(update={"timezone": "Asia/Tokyo"})
    start, end = datetime(2024, 2, 29, 15, tzinfo=UTC), datetime(2024, 3, 5, tzinfo=UTC)
    with pytest.raises(SourceMissing, match="in/2024/03/claims_20240301-050324"):
        plan(settled, start=start, end=end)
    write(tmp_path, "in/2024/03/claims_20240301-050324.csv", "in/2024/03/claims_20240301-050424.csv")
    assert files(plan(settled, start=start, end=end)) == ["in/2024/03/claims_20240301-050324.csv"]
    with pytest.raises(ConfigError, match="needs a window"):
        plan(settled)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("{date:%Q}.csv", 'says "%Q" of {date}'),
        ("{date:}.csv", 'says "" of {date}'),
        ("{date:YYYYMMDD}.csv", 'says "YYYYMMDD" of {date}'),
        ("{start:%Y%}.csv", "write a date as %Y%m%d"),
        ("{client:%Y}.csv", "not how {client} is"),
        ("{date:%Y.csv", "has a { or }"),
    ],
)
def test_what_writes_no_moment_is_a_mistake(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config(path=path)
    [(where, what)] = caught.value.errors()[0]["ctx"]["problems"]
    assert where == ("path",)
    assert said in what


def test_a_window_that_the_path_needs_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a window"):
        plan(pipeline(tmp_path, "{start}.csv"))


@pytest.mark.parametrize("value", ["../other", "a/b", "..", "a\0b", "/etc"])
def test_a_parameter_leads_to_no_other_folder(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="leads to another folder"):
        plan(pipeline(tmp_path, "in/{region}/*.csv", {"region": value}))


def test_a_parameter_is_no_pattern(tmp_path: Path) -> None:
    write(tmp_path, "a/1.csv", "b/1.csv", "[ab]/1.csv")
    assert files(plan(pipeline(tmp_path, "{region}/*.csv", {"region": "[ab]"}))) == ["[ab]/1.csv"]
    with pytest.raises(SourceMissing):
        plan(pipeline(tmp_path, "{region}/*.csv", {"region": "*"}))


def test_folders_are_searched_deeply_and_are_no_files(tmp_path: Path) -> None:
    write(tmp_path, "in/a.csv", "in/deep/er/b.csv")
    (tmp_path / "in/c.csv").mkdir()
    assert files(plan(pipeline(tmp_path, "in/**/*.csv"))) == ["in/a.csv", "in/deep/er/b.csv"]


def test_a_file_outside_of_the_root_is_shown_by_its_whole_path(tmp_path: Path) -> None:
    write(tmp_path, "out/a.csv")
    (tmp_path / "root").mkdir()
    assert files(plan(pipeline(tmp_path / "root", str(tmp_path / "out/*.csv")))) == [str(tmp_path / "out/a.csv")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "inbox/acme/*.csv",
            r"no file matches inbox/acme/\*.csv; inbox/ holds a.csv, b.csv, c.csv, d.csv, other/ and 1 more",
        ),
        ("inbox/other/*.csv", "inbox/other/ is empty"),
        ("*/claims.csv", "etl.toml's folder holds inbox/"),
        ("inbox/*.gz", "inbox/ holds a.csv"),
    ],
)
def test_a_missing_source_names_the_pattern_and_what_is_there(tmp_path: Path, path: str, message: str) -> None:
    write(tmp_path, *(f"inbox/{letter}.csv" for letter in "abcd"), "inbox/z.csv")
    (tmp_path / "inbox/other").mkdir()
    with pytest.raises(SourceMissing, match=message):
        plan(pipeline(tmp_path, path))


def test_a_missing_source_may_be_a_warning_or_nothing(tmp_path: Path) -> None:
    assert plan(pipeline(tmp_path, missing="warn")) == Plan(warnings=("no file matches *.csv",))
    assert plan(pipeline(tmp_path, missing="ok")) == Plan()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that only sleeping moves on; what is in `then` happens at its moments."""

    class Clock:
        now = 1_700_000_000.0
        slept = 0

        def __init__(self) -> None:
            self.then: list[tuple[float, Any]] = []

        def time(self) -> float:
            return self.now

        monotonic = time

        def sleep(self, seconds: float) -> None:
            self.slept += 1
            self.now += max(seconds, 0.001)
            while self.then and self.then[0][0] <= self.now:
                self.then.pop(0)[1]()

    clock = Clock()
    monkeypatch.setattr(etl.sources.files, "time", clock)
    return clock


def test_old_files_are_not_waited_for(tmp_path: Path, clock: Any) -> None:
    write(tmp_path, "a.csv", modified=clock.now - 3)
    assert files(plan(pipeline(tmp_path, settle=2))) == ["a.csv"]
    assert clock.slept == 0


def test_a_growing_file_is_waited_for_until_it_rests(tmp_path: Path, clock: Any) -> None:
    write(tmp_path, "a.csv", modified=clock.now - 0.5)
    write(tmp_path, "b.csv", modified=clock.now)
    start = clock.now

    def grow() -> None:
        write(tmp_path, "a.csv", content="x,y\n1,2\n3,4\n", modified=clock.now)

    clock.then = [(start + 1, grow)]
    planned = plan(pipeline(tmp_path, settle=2))
    assert {partition.pieces[0].file: partition.size for partition in planned.partitions} == {"a.csv": 12, "b.csv": 8}
    assert 3 <= clock.now - start < 4


def test_a_file_that_never_rests_is_left_out_and_said(tmp_path: Path, clock: Any) -> None:
    write(tmp_path, "a.csv", modified=clock.now)
    write(tmp_path, "b.csv", modified=clock.now - 10)
    start = clock.now

    def grow() -> None:
        write(tmp_path, "a.csv", modified=clock.now)
        clock.then = [(clock.now + 1, grow)]

    clock.then = [(start, grow)]
    planned = plan(pipeline(tmp_path, settle=2))
    assert files(planned) == ["b.csv"]
    assert planned.warnings == ("a.csv is still growing: left out of this run",)
    assert clock.now - start <= 21


def test_a_file_dated_in_the_future_is_waited_for_once(tmp_path: Path, clock: Any) -> None:
    write(tmp_path, "a.csv", modified=clock.now + 3600)
    start = clock.now
    assert files(plan(pipeline(tmp_path, settle=2))) == ["a.csv"]
    assert clock.now - start < 3


def test_a_file_that_vanishes_while_it_is_waited_for_is_left_out(tmp_path: Path, clock: Any) -> None:
    write(tmp_path, "a.csv", modified=clock.now)
    clock.then = [(clock.now, (tmp_path / "a.csv").unlink)]
    with pytest.raises(SourceMissing):
        plan(pipeline(tmp_path, settle=2))


def rows_csv(count: int) -> str:
    return "x,y\n" + "".join(f'{number},"a\nb"\n' for number in range(count))


def test_a_large_file_is_cut_where_records_end(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", content=rows_csv(100))
    partitions = plan(pipeline(tmp_path), partition_bytes=200).partitions
    pieces = [partition.pieces[0] for partition in partitions]
    content = (tmp_path / "a.csv").read_bytes()
    assert len(pieces) > 3
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end is None
    assert sum(partition.size for partition in partitions) == len(content)
    for piece in pieces:
        assert content[: piece.start].count(b"\n") == piece.line - 1
        assert content[piece.start : piece.end].endswith(b'b"\n')
    assert len({piece.version for piece in pieces}) == 1
    assert len(pieces[0].version) == 64


def test_a_file_is_not_cut_where_its_records_are_in_doubt(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", content=rows_csv(100) + '1,"open\n')
    write(tmp_path, "b.csv", content=rows_csv(50) + '5" pipe,1\n6" pipe,1\n' + rows_csv(50))
    write(tmp_path, "c.csv", content=rows_csv(100).encode("utf-16").decode("latin-1"))
    assert [partition.pieces[0].version for partition in plan(pipeline(tmp_path), partition_bytes=200).partitions] == [
        ""
    ] * 3


def test_split_says_what_a_partition_is(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "b.csv", content=rows_csv(100))
    whole = plan(pipeline(tmp_path, split="file"), partition_bytes=200)
    together = plan(pipeline(tmp_path, split="none"), partition_bytes=200)
    assert [len(partition.pieces) for partition in whole.partitions] == [1, 1]
    assert [len(partition.pieces) for partition in together.partitions] == [2]
    assert files(whole) == files(together) == ["a.csv", "b.csv"]


def test_a_function_is_one_partition(tmp_path: Path) -> None:
    settled = pipeline(tmp_path).model_copy(update={"extract": source({"type": "function", "function": "legacy:rows"})})
    piece = Piece(file="legacy:rows", path="legacy:rows")
    assert plan(settled).partitions == (Partition(number=1, pieces=(piece,), order=0),)


def test_a_plan_comes_back_from_json(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", content=rows_csv(100), modified=1_700_000_000.123456789)
    planned = plan(pipeline(tmp_path), partition_bytes=200)
    assert Plan.model_validate_json(planned.model_dump_json()) == planned


def test_listing_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, *(f"{number:04d}.csv" for number in range(2000)))
    settled = pipeline(tmp_path)
    monkeypatch.setattr("builtins.open", None)
    assert len(plan(settled).partitions) == 2000


def test_planning_imports_nothing_heavy() -> None:
    code = "import sys, etl.sources, etl.sources.formats.csv; print(*{'numpy', 'pandas', 'pyarrow'} & set(sys.modules))"
    root = Path(etl.sources.__file__).parents[2]
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        == "\n"
    )

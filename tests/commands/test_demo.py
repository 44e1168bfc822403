"""The demo's material: the same every time, and its mistakes are found where they were planted, no others."""

from pathlib import Path

import pytest

import cli
from etl.config.code import check_functions
from etl.config.pipeline import Pipeline, resolve
from etl.config.read import load_config
from etl.context import Context
from etl.errors import MissingColumn
from etl.partition import Partition
from etl.sources import extract, plan
from etl.transform import Transformer
from jobs.demo.generate import KINDS, FileTruth, Truth, generate
from jobs.demo.show import PER_SCALE

CLIENTS = ("acme", "lakeside", "north")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    """A small demo's folder and its truth."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, generate(folder, scale=0.2)


def pipeline_of(folder: Path, client: str) -> Pipeline:
    """Return a client's claims."""
    return resolve(load_config(folder / "etl.toml"), "claims", client)


def transformed(pipeline: Pipeline, partition: Partition) -> tuple[int, list[tuple[int, str | None]], int]:
    """Return how many rows come out of a partition, line and column of its rejects, how many rows were dropped."""
    context = Context(pipeline.client, "run", pipeline.params)
    transformer = Transformer(pipeline, context, [piece.file for piece in partition.pieces])
    rows, dropped = 0, 0
    rejects: list[tuple[int, str | None]] = []
    for chunk in extract(pipeline, partition, context):
        out = transformer.apply(chunk.rows)
        rows += out.rows.num_rows
        dropped += out.dropped
        rejects += [(r["row"], r["column"]) for table in (chunk.rejects, out.rejects) for r in table.to_pylist()]
    return rows, sorted(rejects, key=str), dropped


def expected(truth: FileTruth) -> tuple[int, list[tuple[int, str | None]], int]:
    """Return the same of what was planted."""
    rejects = [(mistake.line, mistake.column) for mistake in truth.planted]
    return truth.read - len(rejects) - truth.dropped, sorted(rejects, key=str), truth.dropped


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """So its counts can be quoted."""
    assert generate(tmp_path / "a", scale=0.02) == generate(tmp_path / "b", scale=0.02)
    for path in (tmp_path / "a").rglob("*.csv"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_its_configuration_has_no_mistakes(demo: tuple[Path, dict[str, Truth]]) -> None:
    """It is the first etl.toml that anyone reads."""
    assert check_functions(load_config(demo[0] / "etl.toml")) == []


@pytest.mark.parametrize("client", CLIENTS)
def test_every_kind_of_mistake_is_there(demo: tuple[Path, dict[str, Truth]], client: str) -> None:
    """In every client's files, however small the demo."""
    assert {mistake.kind for file in demo[1][client].files for mistake in file.planted} == set(KINDS)


@pytest.mark.parametrize("client", CLIENTS)
def test_rejects_are_the_planted_rows_and_no_others(demo: tuple[Path, dict[str, Truth]], client: str) -> None:
    """By file, line and column."""
    folder, truths = demo
    pipeline = pipeline_of(folder, client)
    files = {truth.file: truth for truth in truths[client].files}
    partitions = {partition.pieces[0].file: partition for partition in plan(pipeline).partitions}
    assert partitions.keys() == files.keys()
    for file, partition in partitions.items():
        if not files[file].fails:
            assert transformed(pipeline, partition) == expected(files[file]), file


def test_the_smallest_demo_has_no_more_mistakes_than_its_pipeline_allows(tmp_path: Path) -> None:
    """Else nothing of a client would be loaded, and the demo would call itself failed."""
    [least] = [option.type.min for option in cli.demo.params if option.name == "rows"]  # type: ignore[attr-defined]
    truth = generate(tmp_path, scale=least / PER_SCALE)["acme"]
    allowed = pipeline_of(tmp_path, "acme").reject_limit(truth.read)
    assert allowed is not None
    assert 0 < len(truth.planted) <= allowed


def test_the_renamed_column_is_reported_and_the_two_lines_fix_it(tmp_path: Path) -> None:
    """etl.toml says which two lines; a retry then reads the file."""
    truth = generate(tmp_path, scale=0.2)["lakeside"]
    assert truth.failing == ("inbox/lakeside/claims-2.csv",)
    pipeline = pipeline_of(tmp_path, "lakeside")
    (partition,) = [part for part in plan(pipeline).partitions if part.pieces[0].file in truth.failing]
    with pytest.raises(MissingColumn, match=r"claims-2\.csv.*claim_id.*Claim ref"):
        transformed(pipeline, partition)

    config = tmp_path / "etl.toml"
    config.write_text(config.read_text().replace("#[clients", "[clients").replace('#"Claim ref"', '"Claim ref"'))
    (file,) = [file for file in truth.files if file.file in truth.failing]
    assert transformed(pipeline_of(tmp_path, "lakeside"), partition) == expected(file)

"""Receipts: rows in and out of every stage must balance, and what does not is told with both numbers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.partition import ROW_BITS, Partition, Piece, line_of
from etl.staging import Marker, Staging
from jobs.run.balance import Tally, gather

COUNT = st.integers(0, 1000)


def stages(
    read: int, spoilt: int, dropped: int, added: int, rejected: int, unchanged: int, superseded: int
) -> dict[str, Marker]:
    """Return markers of one partition that balance."""
    out = read - spoilt
    made = out + added - dropped - rejected
    return {
        "extract": Marker({"read": read, "out": out, "rejected": spoilt}),
        "transform": Marker({"in": out, "out": made, "rejected": rejected, "dropped": dropped, "added": added}),
        "load": Marker(
            {
                "in": made,
                "loaded": made - unchanged - superseded,
                "unchanged": unchanged,
                "superseded": superseded,
                "final": 1,
            }
        ),
    }


BALANCED = st.tuples(*[COUNT] * 6).map(lambda n: stages(1000 + sum(n), n[0], n[1], n[2], n[3], n[4], n[5]))


@given(st.lists(BALANCED, min_size=1, max_size=5))
def test_what_balances_is_not_complained_of(found: list[dict[str, Marker]]) -> None:
    tally = Tally(dict(enumerate(found, 1)))
    rows = tally.rows()
    assert tally.disagreement(rows) is None
    assert rows["read"] + rows["added"] == sum(rows[kind] for kind in rows if kind not in ("read", "added"))
    assert tally.is_final


@given(BALANCED, st.sampled_from([("extract", "out"), ("transform", "in"), ("transform", "out"), ("load", "in")]))
def test_one_row_that_is_lost_between_stages_is_found(found: dict[str, Marker], where: tuple[str, str]) -> None:
    stage, kind = where
    found[stage].counts[kind] += 1
    said = Tally({1: found}).disagreement(Tally({1: found}).rows())
    assert said is not None
    assert said.startswith("partition 1: ")


@given(BALANCED, st.sampled_from(["loaded", "unchanged", "superseded"]), st.sampled_from([-1, 1]))
def test_one_row_too_many_or_too_few_in_the_target_is_found(found: dict[str, Marker], kind: str, by: int) -> None:
    found["load"].counts[kind] += by
    rows = Tally({1: found}).rows()
    said = Tally({1: found}).disagreement(rows)
    given_ = rows["read"] + rows["added"]
    assert said is not None
    assert f"= {given_}," in said
    assert said.endswith(f"= {given_ + by}")


def test_a_partition_says_which_stage_is_missing() -> None:
    whole = stages(9, 0, 0, 0, 0, 0, 0)
    tally = Tally({1: whole, 2: {"extract": whole["extract"]}, 3: {}})
    assert [tally.missing(number) for number in (1, 2, 3)] == [None, "transform", "extract"]
    assert tally.done == [1]
    failures = [{"state": "failed"}, {"state": "blocked"}]
    assert tally.partitions(failures) == {"done": 1, "failed": 1, "blocked": 1}


def test_loads_that_wait_for_finish_are_not_final() -> None:
    whole = stages(9, 0, 0, 0, 0, 0, 0)
    whole["load"].counts["final"] = 0
    assert not Tally({1: whole}).is_final


@pytest.mark.parametrize("url", ["folder", "memory://receipts"])
def test_they_are_gathered_from_staging(url: str, tmp_path: Path) -> None:
    staging = Staging(str(tmp_path) if url == "folder" else url, "acme", "r1")
    parts = [Partition(number=n, pieces=(Piece(file="x", path="/x"),), order=n - 1) for n in (1, 2)]
    staging.publish("extract", 1, Marker({"read": 3, "out": 2, "rejected": 1}, rejects=("a",), warnings=("odd",)))
    staging.publish("transform", 1, Marker({"in": 2}, rejects=("b",)))
    tally = gather(staging, parts)
    assert {number: sorted(found) for number, found in tally.markers.items()} == {1: ["extract", "transform"], 2: []}
    assert (tally.rejects, tally.warnings) == (["a", "b"], ["odd"])
    staging.remove()


def test_a_row_of_several_files_is_known_by_its_file_and_line() -> None:
    pieces = (Piece(file="a.csv", path="/a.csv"), Piece(file="b.csv", path="/b.csv"))
    partition = Partition(number=1, pieces=pieces, order=0)
    assert line_of(partition, 7) == ("a.csv", 7)
    assert line_of(partition, (1 << ROW_BITS) | 3) == ("b.csv", 3)

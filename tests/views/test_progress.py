"""Waiting for many clients' runs: one live table that fits its terminal, those in trouble first."""

import io
from typing import Any

import pytest
from rich.console import Console

from jobs.views import progress

KINDS = ("read", "added", "rejected", "dropped", "superseded", "loaded", "unchanged")


def run(client: str, state: str = "running", **changes: Any) -> dict[str, Any]:
    """Return a run in the public JSON shape."""
    partitions = {"total": 4, "done": 4 if state == "succeeded" else 0, "failed": 0, "blocked": 0}
    return {
        "run": f"id_{client}",
        "pipeline": "claims",
        "client": client,
        "state": state,
        "seconds": None if state in ("held", "queued") else 12.25,
        "rows": {**dict.fromkeys(KINDS, 0), "read": 1_000, "rejected": changes.pop("rejected", 0)},
        "partitions": partitions | changes.pop("partitions", {}),
        "warnings": [],
        "error": None,
        **changes,
    }


def shown(found: list[dict[str, Any]], width: int = 100, height: int = 24) -> list[str]:
    """Return the lines that a terminal shows of runs, without blanks at the ends."""
    file = io.StringIO()
    terminal = Console(file=file, width=width, height=height, highlight=False, color_system=None)
    terminal.print(progress.table(found, 3.2, terminal))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def clients_of(lines: list[str]) -> list[str]:
    """Return the clients of the lines between the head and the sums."""
    return [line.split()[0] for line in lines[1:] if line.startswith("c_")]


def test_the_worst_comes_first() -> None:
    """Failed, then rejects and warnings, then what runs (the slowest first), what waits, what is done."""
    worst_first = [
        run("c_failed", "failed", error="inbox/a.csv: no column id\n  rename it"),
        run("c_failing", partitions={"done": 1, "failed": 1}),
        run("c_many_rejects", "succeeded", rejected=500),
        run("c_few_rejects", rejected=5),
        run("c_warned", "succeeded", warnings=["inbox/b.csv is still growing"]),
        run("c_slow", seconds=900.0),
        run("c_quick"),
        run("c_held", "held"),
        run("c_queued", "queued"),
        run("c_done", "succeeded"),
    ]
    lines = shown(worst_first[::-1], width=120)
    assert clients_of(lines) == [each["client"] for each in worst_first]
    assert lines[1].endswith("inbox/a.csv: no column id")
    assert lines[2].endswith("1 partition failed")
    assert "2/4" in lines[2]
    assert lines[5].endswith("inbox/b.csv is still growing")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 30), (100, 12)])
def test_three_hundred_clients_fit_a_terminal_and_the_rest_is_summed(width: int, height: int) -> None:
    """A long reason neither wraps nor squeezes the numbers, and what is not shown is counted by state."""
    states = ["failed"] * 3 + ["running"] * 150 + ["queued"] * 47 + ["succeeded"] * 100
    found = [
        run(f"c_{at:03}", state, error="x" * 200 if state == "failed" else None) for at, state in enumerate(states)
    ]
    lines = shown(found, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert clients_of(lines) == [f"c_{at:03}" for at in range(height - 4)]
    assert all(" 1,000 " in line for line in lines[1 : height - 3])
    assert lines[-2] == f"… {300 - (height - 4)} more: {153 - (height - 4)} running, 47 waiting, 100 done"
    assert lines[-1].startswith("300 runs, 3 failed, 150 running, 47 waiting, 100 done, 400 of 1,200 partitions")


def test_rejects_of_many_clients_do_not_hide_what_is_running() -> None:
    """A third of the lines is kept for it."""
    found = [run(f"c_{at:03}", "succeeded", rejected=1) for at in range(100)] + [run(f"c_run_{at}") for at in range(50)]
    seen = clients_of(shown(found))
    assert len(seen) == 20
    assert [client for client in seen if "run" in client] == seen[-6:]


def test_a_client_with_several_pipelines_says_which() -> None:
    """With one pipeline the column would say the same in each line."""
    assert "pipeline" not in shown([run("c_a")])[0]
    lines = shown([run("c_a"), run("c_a", pipeline="visits")])
    assert [line.split()[1] for line in lines[1:3]] == ["claims", "visits"]


def test_why_the_others_wait_is_said_beneath_the_runs_and_fits() -> None:
    """The four reasons that most runs have."""
    found = [run(f"c_{at:02}", "queued", waiting=f"reason {at % 6}" + " x" * 60) for at in range(60)]
    lines = shown([*found, run("c_alone", "held", waiting="behind run x (queued)")], 80)
    assert len(lines) < 24
    assert [line[:22] for line in lines if "wait:" in line] == [f"10 runs wait: reason {at}" for at in range(4)]
    assert max(map(len, lines)) <= 80


def test_a_cause_is_said_once_as_runs_end(capsys: pytest.CaptureFixture[str]) -> None:
    said = set[str]()
    for name in ("acme", "north"):
        progress._line(run(name, "failed", error=f"no file matches inbox/{name}/*.csv"), said)
    ends = [line.partition(" - ")[2] for line in capsys.readouterr().out.splitlines()]
    assert ends == ["no file matches inbox/acme/*.csv", "the same"]

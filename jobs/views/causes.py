"""What is wrong with runs, by cause: one is what several have in common, whatever paths have their clients' names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

SHOWN = 10  # causes of one run that are named


class Cause(NamedTuple):
    """Something that is wrong with a run.

    Args:
        partition, where: Of the run, where it is one's: its number, and the stage and file.
    """

    run: Mapping[str, Any]
    text: str
    partition: int | None = None
    where: str = ""


def grouped(found: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Cause]]:
    """Return the causes of runs' failures and their warnings, by color and what those of a group have in common."""
    groups: dict[tuple[str, str], list[Cause]] = {}
    for run in found:
        mine = [(cause, ("red", alike(run["client"], cause.text))) for cause in _failures(run)]
        chosen = list(dict.fromkeys(key for _, key in mine))[:SHOWN]
        for cause, key in mine:
            if key in chosen:
                groups.setdefault(key, []).append(cause)
        if left := sum(key not in chosen for _, key in mine):
            more = Cause(run, f"and {left} more: rq-etl show {run['run']}")
            groups.setdefault(("red", more.text), []).append(more)
        for text in run["warnings"][:SHOWN]:
            groups.setdefault(("yellow", alike(run["client"], text)), []).append(Cause(run, text))
    return groups


def _failures(run: Mapping[str, Any]) -> Iterator[Cause]:
    errors = {failure["error"] for failure in run["failures"]}
    is_sum = len(run["failures"]) > 1 and run["error"] == f"{len(run['failures'])} partitions failed"
    if run["error"] and run["error"] not in errors and not is_sum:
        yield Cause(run, run["error"])
    for failure in run["failures"]:
        file = failure["file"]
        of_file = f" of {file}" if file and not failure["error"].startswith(file) else ""
        yield Cause(run, failure["error"], failure["partition"], f"{failure['stage']}{of_file}")


def alike(client: str, text: str) -> str:
    """Return a text about a client's run as it is for another client."""
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(client)}(?![A-Za-z0-9])", "{client}", text)


def name_of(run: Mapping[str, Any]) -> str:
    """Return what a run is called beside others: `client/pipeline`."""
    return f"{run['client']}/{run['pipeline']}"

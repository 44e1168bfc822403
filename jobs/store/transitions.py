"""The states of a run and every way from one to another; docs/state_machine.md is made from TRANSITIONS."""

from typing import Literal, NamedTuple

NOTHING = "nothing"  # the state of a run that Redis does not know
Step = Literal["create", "hold", "begin", "close", "reopen"]  # functions of jobs.store.runs and jobs.run.held


class Transition(NamedTuple):
    """A change of a run's state.

    Args:
        sources: The states it starts from.
        to: The state it leads to.
        by: The function that writes it, of `jobs.store.runs` or `jobs.run.held`.
        who: Whose process does it.
        when: It happens.
    """

    sources: tuple[str, ...]
    to: str
    by: Step
    who: str
    when: str


PLANNED = "the graph and the record are written in one MULTI, which WATCHes the holder"
UNPLANNED = "`submit`: a run it needs did not succeed, or the source can't be planned; without jobs"
TRANSITIONS = (
    Transition((NOTHING,), "queued", "create", "submitter", f"`submit`: {PLANNED}"),
    Transition(
        (NOTHING,), "held", "hold", "submitter", "`submit`: a pipeline it needs or, with `--queue`, its own runs"
    ),
    Transition(("held", "queued"), "failed", "close", "submitter", UNPLANNED),
    Transition(("held",), "queued", "create", "worker", f"what it waited for has ended well: {PLANNED}"),
    Transition(("held",), "failed", "close", "worker", "a run it needs did not succeed, or its start failed for good"),
    Transition(("queued",), "running", "begin", "worker", "the first stage begins"),
    Transition(
        ("running",), "succeeded", "close", "worker", "`finish`: every partition is loaded, and receipts balance"
    ),
    Transition(("running",), "failed", "close", "worker", "`finish`: a partition is not loaded, or receipts disagree"),
    Transition(("queued", "running"), "failed", "close", "worker", "`finish` failed for good, or its job is gone"),
    Transition(("held", "queued", "running"), "canceled", "close", "operator", "`cancel`"),
    Transition(
        ("failed", "canceled"), "queued", "reopen", "operator", "`retry`: jobs for what is missing, a new attempt"
    ),
    Transition(("failed", "canceled"), "held", "hold", "operator", "`retry` of a run that has never been planned"),
)


def sources(by: Step) -> tuple[str, ...]:
    """Return the states in which a run may be before a step."""
    return tuple(dict.fromkeys(state for each in TRANSITIONS if each.by == by for state in each.sources))

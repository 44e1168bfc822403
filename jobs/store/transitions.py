"""The states of a run and every way from one to another; docs/state_machine.md is made from TRANSITIONS."""

from typing import Literal, NamedTuple

NOTHING = "nothing"  # the state of a run that Redis does not know
Step = Literal["create", "hold", "begin", "close", "reopen"]  # functions of jobs.store.runs


class Transition(NamedTuple):
    """A change of a run's state.

    Args:
        sources: The states it starts from.
        to: The state it leads to.
        by: The function of `jobs.store.runs` that writes it.
        who: Whose process does it.
        when: It happens.
    """

    sources: tuple[str, ...]
    to: str
    by: Step
    who: str
    when: str


TRANSITIONS = (
    Transition(
        (NOTHING,),
        "queued",
        "create",
        "submitter",
        "`submit`: the whole graph and the run's record are written in one MULTI, which WATCHes the holder of this "
        "client and pipeline",
    ),
    Transition(
        (NOTHING,),
        "held",
        "hold",
        "submitter",
        "`submit`: a pipeline it needs is running, or with `--queue` the run before it is",
    ),
    Transition(
        ("held", "queued"),
        "failed",
        "close",
        "submitter",
        "`submit`: the latest run of a pipeline that it needs did not succeed, or the source can't be planned (no file "
        "matches, …); the run is written and closed at once, without jobs",
    ),
    Transition(
        ("held",),
        "queued",
        "create",
        "worker",
        "what it waited for has ended well: the source is planned now, and the graph submitted",
    ),
    Transition(
        ("held",),
        "failed",
        "close",
        "worker",
        "a needed run failed or was canceled, the source can't be planned, or its start has failed for good",
    ),
    Transition(("queued",), "running", "begin", "worker", "the first stage begins"),
    Transition(
        ("running",),
        "succeeded",
        "close",
        "worker",
        "`finish`: every partition is loaded, the target holds the rows, receipts balance",
    ),
    Transition(
        ("running",),
        "failed",
        "close",
        "worker",
        "`finish`: a partition failed or was blocked, too many rows were rejected, or receipts disagree",
    ),
    Transition(
        ("queued", "running"),
        "failed",
        "close",
        "worker",
        "`finish` itself failed for good, or its job is gone (maintenance)",
    ),
    Transition(("held", "queued", "running"), "canceled", "close", "operator", "`cancel`"),
    Transition(
        ("failed", "canceled"),
        "queued",
        "reopen",
        "operator",
        "`retry`: jobs for what is missing, under the next attempt number",
    ),
    Transition(
        ("failed", "canceled"),
        "held",
        "hold",
        "operator",
        "`retry` of a run that was held and has never been planned: it waits again; refused while what it "
        "needs has failed",
    ),
)


def sources(by: Step) -> tuple[str, ...]:
    """Return the states in which a run may be when one of its steps is taken."""
    return tuple(dict.fromkeys(state for each in TRANSITIONS if each.by == by for state in each.sources))

"""What the keys of Redis must be like: each form by its name, as `jobs.store.keys` gives it to a key."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from rq.job import JobStatus
from rq.utils import utcparse

ENDED = ("succeeded", "failed", "canceled")
STATES = ("held", "queued", "running", *ENDED)  # of a run; the ways between them: `jobs.store.transitions`
FIRST = 1.6e9  # seconds since the epoch, in the year 2020: no schedule was looked at before rq-etl was made
LAST = 2.5e11  # seconds since the epoch, in the year 9892; a datetime has no later ones
Check = Callable[[bytes], bool]


def is_text(value: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_id(value: bytes) -> bool:
    """Whether bytes are a name that runs, jobs, queues and workers may have."""
    return is_text(value) and value.decode().isprintable() and 0 < len(value) <= 300


def is_number(value: bytes) -> bool:
    """Whether bytes are a number that seconds may be, as Redis and Lua read one too."""
    return re.fullmatch(rb"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", value) is not None and abs(float(value)) < LAST


def is_whole(value: bytes) -> bool:
    """Whether bytes are an integer of at most twelve digits that Redis can add to: it takes no +1, and no 01."""
    return re.fullmatch(rb"0|-?[1-9][0-9]{0,11}", value) is not None


def is_epoch(value: bytes) -> bool:
    """Whether bytes are a moment in seconds since the epoch, or empty."""
    return not value or (is_number(value) and not value.startswith(b"-"))


def is_handled(value: bytes) -> bool:
    """Whether bytes are a moment in seconds since the epoch at which rq-etl may have looked at a schedule."""
    return is_number(value) and float(value) >= FIRST


def is_anything(value: bytes) -> bool:
    """True: nothing is asked of it."""
    return True


def is_moment(value: bytes) -> bool:
    """Whether bytes are a moment as RQ writes it, or empty."""
    try:
        return not value or utcparse(value.decode()) is not None
    except ValueError:
        return False


def matches(pattern: str) -> Check:
    """Whether bytes are UTF-8 that a pattern matches whole."""
    compiled = re.compile(pattern)
    return lambda value: is_text(value) and compiled.fullmatch(value.decode()) is not None


is_name = matches(r"[a-z0-9_]+")


def one_of(values: Iterable[str]) -> Check:
    """Whether bytes are one of some words."""
    known = {value.encode() for value in values}
    return known.__contains__


def is_json(kind: type, each: Callable[[Any], bool] = lambda _: True) -> Check:
    """Whether bytes are the JSON of a list or mapping whose members (of a mapping, its values) are fit; or empty."""

    def check(value: bytes) -> bool:
        if not value:
            return True
        try:
            found: Any = json.loads(value)
        except (ValueError, RecursionError):
            return False
        members: Iterable[Any] = found.values() if isinstance(found, dict) else found
        return isinstance(found, kind) and all(map(each, members))

    return check


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_failure(value: Any) -> bool:
    return isinstance(value, dict) and {"partition", "stage", "error"} <= value.keys()


def _is_iso(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_stage(value: bytes) -> bool:
    if not is_json(dict)(value) or not value:
        return False
    found = json.loads(value)
    texts = dict.fromkeys(("state", "error", "kind", "by", "worker", "began", "ended"), str)
    kinds = {**texts, "counts": dict, "seconds": int | float, "exit": int, "attempt": int}
    known = all(key in kinds and isinstance(found[key], kinds[key]) for key in found)
    known = known and all(_is_iso(found[key]) for key in ("began", "ended") if key in found)
    return known and {"state", "counts"} <= found.keys() and all(map(_is_count, found["counts"].values()))


def _is_loss(value: bytes) -> bool:
    if not value or not is_json(dict)(value):
        return False
    found = json.loads(value)
    texts = dict.fromkeys(("worker", "host", "pid", "what", "stage"), str)
    kinds = {**texts, "partition": int, "at": int | float, "resumed": int | float | None}
    is_known = found.keys() == kinds.keys() and all(isinstance(found[key], kinds[key]) for key in kinds)
    return is_known and all(0 <= found[key] < LAST for key in ("at", "resumed") if found[key] is not None)


def _is_look(value: bytes) -> bool:
    if not is_json(dict)(value) or not value:
        return False
    found = json.loads(value)
    is_at = isinstance(found.get("at"), int | float) and 0 <= found["at"] < LAST
    return (
        is_at
        and found.keys() <= {"at", "error", "version"}
        and all(isinstance(found.get(name), str | None) for name in ("error", "version"))
    )


class Form(NamedTuple):
    """What a key must be like.

    Args:
        member: What each member, or each field's name, must be.
        fields: What the values of a hash's fields must be.
        value: What a string's value, or the value of any other field, must be.
        score: What each score must be.
        needed: Fields without which a hash is nothing: it is set aside whole where one of them, or any other, is wrong.
    """

    member: Check = is_text
    fields: Mapping[str, Check] = {}
    value: Check = is_text
    needed: frozenset[str] = frozenset()
    score: Callable[[float], bool] = lambda score: abs(score) < 2 * LAST


_RUN = {
    "state": one_of(STATES),
    **dict.fromkeys(("client", "pipeline"), is_name),
    **dict.fromkeys(("created", "started", "ended"), is_epoch),
    **dict.fromkeys(("attempt", "partitions"), is_whole),
    "exit": lambda value: not value or is_whole(value),
    **dict.fromkeys(("warnings", "odd", "after", "needs"), is_json(list, _is_text)),
    "failures": is_json(list, _is_failure),
    **dict.fromkeys(("rows", "done"), is_json(dict, _is_count)),
    **dict.fromkeys(("params", "options"), is_json(dict)),
}
_JOB = {
    "status": one_of(JobStatus),
    **dict.fromkeys(("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat"), is_moment),
    "dependency_ids": is_json(list, _is_text),
    "timeout": is_number,
    **dict.fromkeys(("result_ttl", "failure_ttl", "ttl", "retries_left", "etl_losses"), is_whole),
    **dict.fromkeys(
        ("data", "meta", "exc_info", "result"), is_anything
    ),  # compressed; EtlJob refuses what it can't read
}
_WORKER = {
    **dict.fromkeys(("birth", "last_heartbeat", "death", "shutdown_requested_date"), is_moment),
    **dict.fromkeys(("pid", "successful_job_count", "failed_job_count"), is_whole),
    **dict.fromkeys(("total_working_time", "current_job_working_time"), is_number),
}
FORMS = {
    "any": Form(is_anything, value=is_anything),
    "texts": Form(),
    "ids": Form(is_id),
    "id": Form(value=is_id),
    "entries": Form(is_id, score=lambda _: True),  # `jobs.run.schedules.wake` corrects those of ours
    "turns": Form(is_id, score=lambda score: score == 0),
    "number": Form(value=is_number),
    "record": Form(fields=_RUN, needed=frozenset({"state", "client", "pipeline"})),
    "stages": Form(matches(r"[0-9]{1,9}:[a-z]+"), value=_is_stage),
    "lost": Form(is_id, value=_is_loss),
    "limits": Form(
        fields={
            **dict.fromkeys(("max_active", "limit", "weight"), matches(r"0*[1-9][0-9]{0,8}")),
            "paused_at": is_epoch,
        }
    ),
    "last": Form(matches(r"[a-z0-9_]+/[a-z0-9_]+"), value=matches(r"[^ ]+ [a-z]+")),
    "moments": Form(matches(r"[a-z0-9_]+/[a-z0-9_]+"), value=is_handled),
    "windows": Form(matches(r"[a-z0-9_]+/[a-z0-9_]+/[^ ]+"), value=is_id),
    "entries of alerts": Form(is_json(list, _is_text), value=is_json(dict)),
    "objects": Form(value=is_json(dict)),
    "due": Form(matches(r"[a-z0-9_]+/[a-z0-9_]+"), value=is_handled),
    "looked": Form(matches(r"[a-z0-9_]+/[a-z0-9_]+"), value=_is_look),
    "served": Form(fields={"left": is_whole, "name": is_id}),
    "use": Form(matches(r"[^ ]+ [a-z]+"), value=is_number),
    "queues": Form(matches(r"rq:queue:.+")),
    "workers": Form(matches(r"rq:worker:.+")),
    "job": Form(fields=_JOB),
    "worker": Form(fields=_WORKER),
    "execution": Form(fields=dict.fromkeys(("created_at", "last_heartbeat"), is_number)),
}


def is_fit(form: str, raw: Mapping[Any, Any]) -> bool:
    """Whether a hash is of a form."""
    wanted = FORMS[form]
    return all(is_field(wanted, *field) for field in raw.items()) and wanted.needed <= {
        name.decode() for name in raw if is_text(name)
    }


def fit(form: str, raw: Mapping[Any, Any]) -> dict[str, str]:
    """Return those fields of a hash that are of a form, as text."""
    return {name.decode(): value.decode() for name, value in raw.items() if is_field(FORMS[form], name, value)}


def is_field(form: Form, name: bytes, value: bytes) -> bool:
    """Whether a field of a hash is of a form."""
    return is_text(name) and form.member(name) and form.fields.get(name.decode(), form.value)(value)

"""Why a run waits, in one sentence.

What somebody has to cure comes first: a pause, a suspension, no worker. Then what passes by itself: a lost worker, a
cap, another run, a rate, a retry, others' jobs. Each is right within seconds of its cause.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis import Redis
from rq.suspension import WORKERS_SUSPENDED

from jobs.run import held
from jobs.store import forms, keys, live, malformed, runs
from jobs.store.keys import PREFIX
from jobs.store.run_json import records_of
from jobs.store.scripts import SHIFT

if TYPE_CHECKING:
    from etl.config.pipeline import Config

LOOKED_AT = 1000  # of the jobs in a client's queue
NO_CRON = "no cron process is alive (start one: rq-etl cron)"

Run = dict[str, Any]


@dataclass
class _Queue:
    """A client's queue.

    Args:
        paused: By whom, since when; '' where it isn't.
        cap: How many of its jobs may be in progress.
        leases: By the entries of its jobs in progress, when their leases end, in seconds since the epoch.
        due: By the ids of jobs that come again, when.
        waiting: By the ids of the first jobs in it, how many are before each.
        length: How many there are.
    """

    paused: str = ""
    cap: int | None = None
    leases: dict[str, float] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    length: int = 0

    def __post_init__(self) -> None:
        self._by_run = [_by_run(jobs) for jobs in (self.leases, self.waiting, self.due)]

    def of(self, run: str) -> list[dict[str, Any]]:
        """Return of its leases, of what waits in it, and of what comes again those that are a run's."""
        return [jobs.get(run, {}) for jobs in self._by_run]


@dataclass
class _Scene:
    """What Redis says of runs that have not ended.

    Args:
        queues: By client.
        rescued: Ids of jobs whose worker was lost, and that have not begun again.
        after: By held run, those that it waits for.
        holders: By run, the active run of its client, pipeline and window.
        others: Hashes of the runs that are named besides.
        doing: By entry of a lease, the worker's name.
        jobs: By id of a job that comes again, its retries left and what its stage said last.
        lengths: By queue, how many of its jobs may begin now.
        lost: By run whose job has not begun again, the worker that was lost.
    """

    now: float
    is_suspended: bool
    workers: dict[str, live.Worker]
    works: bool
    queues: dict[str, _Queue] = field(default_factory=dict)
    rescued: list[str] = field(default_factory=list)
    after: dict[str, list[str]] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    others: dict[str, dict[str, str]] = field(default_factory=dict)
    doing: dict[str, str] = field(default_factory=dict)
    jobs: dict[str, tuple[int, Any]] = field(default_factory=dict)
    lengths: Counter[str] = field(default_factory=Counter)
    lost: dict[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> list[live.Worker]:
        return [worker for worker in self.workers.values() if worker.is_alive]


def explain(connection: Redis, found: Sequence[Run], *, works: bool = False) -> None:
    """Say in `waiting` of runs, in the public JSON shape, why each waits that has not ended; None where it does not.

    It takes three questions to Redis, however many runs there are.

    Args:
        works: Whether this process works on runs itself, or has started workers that may not be there yet.
    """
    pending = [run for run in found if run["state"] not in runs.ENDED]
    if not pending:
        return
    scene = _look(connection, pending, works)
    for run in pending:
        run["waiting"] = _why(scene, run)


def _look(connection: Redis, pending: Sequence[Run], works: bool) -> _Scene:
    known = {worker.name: worker for worker in live.workers(connection)}
    pipe = connection.pipeline(transaction=False)
    clients = sorted({run["client"] for run in pending})
    pipe.time()
    pipe.exists(WORKERS_SUSPENDED)
    pipe.zrange(keys.RESCUED, 0, -1)
    pipe.zrange(keys.READY, 0, -1)
    for client in clients:
        queue = PREFIX + client
        pipe.hgetall(keys.client_key(client))
        pipe.zrange(f"rq:wip:{queue}", 0, -1, withscores=True)
        pipe.zrange(f"rq:scheduled:{queue}", 0, -1, withscores=True)
        pipe.lrange(f"rq:queue:{queue}", 0, LOOKED_AT - 1)
        pipe.llen(f"rq:queue:{queue}")
    for run in pending:
        pipe.hget(keys.run_key(run["run"]), "after")
        pipe.get(keys.holder_key(run["client"], run["pipeline"], run["start"]))
    answers = iter(malformed.answers(pipe))
    seconds, micros = next(answers)
    scene = _Scene(seconds + micros / 1e6, bool(next(answers)), known, works)
    scene.rescued = [member.rpartition(" ")[2] for member in malformed.ids(next(answers) or ())]
    ready = malformed.ids(next(answers) or ())
    for client in clients:
        scene.queues[client] = _queue(*(next(answers) for _ in range(5)))
    for run in pending:
        raw, holder = next(answers), next(answers)
        if run["state"] == "held":
            after = raw if raw and forms.FORMS["record"].fields["after"](raw) else b"[]"
            scene.after[run["run"]] = json.loads(after or "[]")
        scene.holders[run["run"]] = holder.decode(errors="replace") if holder else ""
    _look_closer(connection, scene, pending, ready)
    return scene


def _queue(raw: Any, leases: Any, due: Any, waiting: Any, length: Any) -> _Queue:
    limits = forms.fit("limits", raw or {})
    paused = ""
    if _is_paused(limits):
        at = limits.get("paused_at")
        paused = f"{limits.get('paused_by') or 'somebody'} since {_moment(float(at)) if at else 'a moment unknown'}"
    return _Queue(
        paused,
        _cap(limits),
        {name.decode(errors="replace"): score - SHIFT for name, score in leases or ()},
        {name.decode(errors="replace"): score for name, score in due or ()},
        {job: at for at, job in enumerate(malformed.ids(waiting or ()))},
        length or 0,
    )


def _is_paused(limits: Mapping[str, str]) -> bool:
    return limits.get("paused") not in (None, "", "0")


def _cap(limits: Mapping[str, str]) -> int | None:
    cap = limits.get("limit") or limits.get("max_active")
    return int(cap) if cap else None


def _look_closer(connection: Redis, scene: _Scene, pending: Sequence[Run], ready: Sequence[str]) -> None:
    """Ask for what the first answers have named: other runs, workers of leases, jobs that come again, other queues."""
    mine = {run["run"] for run in pending}
    entries = [entry for queue in scene.queues.values() for entry in queue.leases]
    again = [id for queue in scene.queues.values() for id in queue.due if _run_of(id) in mine]
    queues = sorted({*ready, *(PREFIX + client for client in scene.queues)})
    others = {*(other for after in scene.after.values() for other in after), *scene.holders.values()}
    others |= {run for run in map(_run_of, entries) if run}
    named = sorted(others - {""})
    lost = sorted({_run_of(id) for id in scene.rescued} & mine)
    pipe = connection.pipeline(transaction=False)
    for entry in entries:
        pipe.hget(f"rq:execution:{entry}", "worker_name")
    for id in again:
        _, partition, stage, _ = id.split("-")
        pipe.hget(f"rq:job:{id}", "retries_left")
        pipe.hget(keys.stages_key(_run_of(id)), f"{partition}:{stage}")
    for name in queues:
        pipe.llen(f"rq:queue:{name}")
        pipe.hgetall(keys.client_key(name.removeprefix(PREFIX)))
        pipe.zcard(f"rq:wip:{name}")
    answers = iter(malformed.answers(pipe))
    for entry in entries:
        scene.doing[entry] = (next(answers) or b"").decode(errors="replace")
    for id in again:
        _, partition, stage, _ = id.split("-")
        left, said = next(answers) or b"0", next(answers)
        records = records_of({f"{partition}:{stage}".encode(): said} if said else {})
        scene.jobs[id] = int(left) if forms.is_whole(left) else 0, records.get((int(partition), stage))
    for name in queues:
        length, limits, leases = next(answers) or 0, forms.fit("limits", next(answers) or {}), next(answers) or 0
        cap = _cap(limits)
        scene.lengths[name] = 0 if _is_paused(limits) or (cap is not None and leases >= cap) else length
    scene.others = runs.read_many(connection, named)
    for run in lost:
        gone = [each for each in live.losses(connection, run) if each["resumed"] is None]
        scene.lost[run] = f"{gone[-1]['worker']} ({gone[-1]['host'] or 'host unknown'}" if gone else ""


def _run_of(id: str) -> str:
    """Return the run that a job, or a lease's entry, is of; '' for a job of the company's own."""
    parts = id.partition(":")[0].split("-")
    return parts[0] if len(parts) == 4 and parts[1].isdecimal() else ""


def _by_run(jobs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for job, value in jobs.items():
        found.setdefault(_run_of(job), {})[job] = value
    return found


def _why(scene: _Scene, run: Run) -> str | None:
    """Say why a run waits; None where it is being worked on."""
    queue = scene.queues[run["client"]]
    leases, waits, due = queue.of(run["run"])
    lost = {entry: ends for entry, ends in leases.items() if not _is_alive(scene, scene.doing[entry])}
    is_busy = len(leases) > len(lost)
    blocks = []
    if waits or not is_busy:
        if queue.paused:
            blocks.append(f"paused by {queue.paused} (rq-etl clients resume {run['client']})")
        if scene.is_suspended:
            blocks.append("workers are suspended (rq resume, with the --url of REDIS_URL)")
    if not is_busy and not scene.alive and not scene.works:
        blocks.append("no worker is alive (start some: rq-etl worker -n 2)")
    why = _others(scene, run) if run["state"] == "held" else ""
    why = why or _loss(scene, run, lost, has_workers=bool(scene.alive) or scene.works)
    if not why and not is_busy:
        if waits or not due:
            why = "" if blocks else _turn(scene, run, queue, min(waits.values(), default=None))
        else:
            why = _again(scene, min(due, key=lambda job: due[job]), min(due.values()))
    return "; ".join(filter(None, [*blocks, why])) or None


def _is_alive(scene: _Scene, name: str) -> bool:
    """Whether a worker is alive; one without a name works in a process that is no worker."""
    return not name or (name in scene.workers and scene.workers[name].is_alive)


def _others(scene: _Scene, run: Run) -> str:
    """Say which runs a held run waits for."""
    waits = [other for other in scene.after[run["run"]] if _is_open(scene, other)]
    holder = scene.holders[run["run"]]
    if not waits and holder != run["run"] and _is_open(scene, holder):
        waits = [holder]
    said = []
    for other in waits:
        record = scene.others[other]
        if record["pipeline"] == run["pipeline"]:
            said.append(f"behind run {other} ({record['state']})")
        else:
            said.append(f"held for pipeline {record['pipeline']} (run {other}, {record['state']})")
    more = [f"and {len(said) - 2} more"] if len(said) > 2 else []
    return "; ".join([*said[:2], *more])


def _is_open(scene: _Scene, other: str) -> bool:
    return other in scene.others and scene.others[other]["state"] not in runs.ENDED


def _loss(scene: _Scene, run: Run, lost: Mapping[str, float], *, has_workers: bool) -> str:
    """Say which worker of a run was lost, and when its job begins again."""
    if lost:
        entry = min(lost, key=lambda entry: lost[entry])
        name, worker = scene.doing[entry], scene.workers.get(scene.doing[entry])
        silent = (
            f"{worker.host}, silent for {worker.silent:.0f} s" if worker else f"silent for {live.SILENCE:.0f} s or more"
        )
        left = max(1, math.ceil(lost[entry] - scene.now + 0.5))
        begins = f"in about {left} s" if has_workers else "once there is a worker"
        return f"lost its worker {name} ({silent}; its job begins again {begins})"
    if run["run"] in scene.lost:
        return f"lost its worker {scene.lost[run['run']]}; its job is the next to begin)"
    return ""


def _turn(scene: _Scene, run: Run, queue: _Queue, before: int | None) -> str:
    """Say why a run's jobs are not begun, though nothing but others' work holds them up.

    Args:
        before: How many jobs of the client's queue are before the run's first; None where it has none among the first.
    """
    if before is None and queue.length < LOOKED_AT:
        return "its next job is being queued" if run["state"] != "running" else ""
    if queue.cap is not None and len(queue.leases) >= queue.cap:
        return f"at its cap of {queue.cap} ({_holders(scene, queue)})"
    before = queue.length if before is None else before
    others = sum(count for name, count in scene.lengths.items() if name != PREFIX + run["client"])
    busy = sum(worker.state == "busy" for worker in scene.alive)
    at_work = f"; {busy} of {_plural(len(scene.alive), 'worker')} busy" if scene.alive else ""
    if busy < len(scene.alive) or not (others or before):
        return f"its turn is next{at_work}"
    whose = f"{_plural(others, 'job')} of other clients" if others else f"{_plural(before, 'job')} of its own client"
    return f"behind {whose}{at_work}"


def _holders(scene: _Scene, queue: _Queue) -> str:
    """Say which jobs of a client are in progress, by run."""
    counts = Counter(map(_run_of, queue.leases))
    said = []
    for run, count in counts.most_common():
        pipeline = scene.others.get(run, {}).get("pipeline")
        whose = f"run {run}" + (f" of {pipeline}" if pipeline else "") if run else "no run"
        said.append(f"{_plural(count, 'job')} of {whose}")
    return ", ".join(said[:3]) + (", …" if len(said) > 3 else "")


def _again(scene: _Scene, job: str, at: float) -> str:
    """Say why a job comes again later."""
    left, record = scene.jobs[job]
    _, partition, stage, _ = job.split("-")
    if stage == "start":
        tries = len(held.DELAYS) + 1
        return f"retry due at {_moment(at)} (attempt {tries - left} of {tries}; its start failed)"
    if record is None or record.error is None:
        return f"rate-limited until {_moment(at)}"
    where = f"{stage} of partition {partition}" if partition != "0" else stage
    what = f"{where} failed" + (f": {record.kind}" if record.kind else "")
    return f"retry due at {_moment(at)} (attempt {record.attempt + 1} of {record.attempt + 1 + left}; {what})"


def _plural(number: int, noun: str) -> str:
    from jobs.views import console

    return console.plural(number, noun)


def _moment(seconds: float) -> str:
    from jobs.views import console

    return console.clock(min(max(seconds, 0.0), forms.LAST))  # who writes to Redis may have written another


# --- schedules and deliveries ---


def without_cron(connection: Redis, config: "Config", pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those clients' pipelines that have a schedule or a delivery, which no cron process serves now."""
    wanted = {pair for pair in pairs if _is_served_by_cron(config, *pair)}
    return set() if not wanted or live.cron_alive(connection) else wanted


def _is_served_by_cron(config: "Config", client: str, pipeline: str) -> bool:
    owner = config.clients.get(client)
    definition = config.variants.get((client, pipeline)) or config.pipelines.get(pipeline)
    has_delivery = definition is not None and definition.delivery is not None
    return owner is not None and (pipeline in owner.schedule or (has_delivery and pipeline in owner.pipelines))

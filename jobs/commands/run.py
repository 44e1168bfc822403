"""What the commands do, between their options and what they print."""

import math
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl.config.pipeline import Config, Pipeline, needed_first, pipelines_of, resolve
from etl.errors import AlreadyRunning, ConfigError, EtlError
from etl.staging import STAGES
from jobs.commands.options import print_json
from jobs.run import backfill as past
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.store import limits, runs
from jobs.views import clients as views_clients
from jobs.views import console, history, progress
from jobs.views import rejects as rejected

if TYPE_CHECKING:
    from jobs.commands.options import Shared


def wanted(
    config: Config, pipelines: Sequence[str], clients: Sequence[str], params: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the (client, pipeline) pairs meant; no clients means all, no pipelines all that a client has.

    Args:
        params: The run's own; they are looked at here so that a mistake stops every run and not some.

    Raises:
        UnknownName: A client or a pipeline isn't configured.
        ConfigError: A parameter is wrong or missing.
    """
    pairs = []
    for client in clients or list(config.clients):
        names = pipelines or needed_first(config, pipelines_of(config, client))
        for name in names:
            if clients or name in pipelines_of(config, client):
                resolve(config, name, client, params=params)
                pairs.append((client, name))
    if not pairs:
        raise ConfigError("no client has the pipeline" if pipelines else "no client is configured", "see etl.toml")
    return list(dict.fromkeys(pairs))


def run(
    session: Session,
    pairs: Sequence[tuple[str, str]],
    *,
    params: Mapping[str, str],
    max_rejects: str | None,
    full_refresh: bool,
    queue: bool,
    waiting: bool,
    as_json: bool,
) -> int:
    """Submit a run for each pair and, where asked, wait for them; one that can't start holds up no other.

    Returns:
        The exit code.
    """
    ids: list[str] = []
    code = 0
    config = session.config
    if session.is_ours:  # elsewhere the functions' modules need be where workers are, and nowhere else
        check_functions(config, {pipeline for _, pipeline in pairs})
    for client, pipeline in pairs:
        try:
            resolved = resolve(config, pipeline, client, params=params, max_rejects=max_rejects)
            ids.append(submit_run(session.connection, resolved, full_refresh=full_refresh, queue=queue))
        except AlreadyRunning as exc:
            print(f"rq-etl: {exc}", file=sys.stderr)
            code = 1
    if waiting:
        return max(code, wait(session, ids, as_json=as_json))
    found = runs.snapshot(session.connection, ids)
    if as_json:
        print_json(found)
    else:
        for line in found:
            print(f"{line['client']}/{line['pipeline']} {line['state']} as run {line['run']}")
            if line["error"]:
                console.notes(line)
    return max(code, _exit_code(found))


def check_functions(config: Config, pipelines: Collection[str]) -> None:
    """Import the functions of pipelines and compare their parameters with what they will be given.

    Raises:
        ConfigError: One isn't there or can't be called; it has a line for each.
    """
    from etl.config import signatures

    mistakes = [each for each in signatures.check_functions(config) if {*pipelines} & {*map(str, each.key[:4])}]
    if mistakes:
        raise ConfigError(f"{len(mistakes)} mistakes", mistakes=tuple(map(str, mistakes)))


def backfill(
    session: Session,
    pipeline: Pipeline,
    found: Sequence[past.Window],
    *,
    parallel: int,
    reprocess: bool,
    dry_run: bool,
    waiting: bool,
    as_json: bool,
) -> int:
    """Submit a run for each window that isn't loaded, or say what would be done; returns the exit code."""
    examined = past.examine(found, pipeline, history.recent(session, client=pipeline.client))
    lines = [
        {
            "start": window.start.isoformat(),
            "end": window.end.isoformat(),
            "action": "skip" if window.is_loaded and not reprocess else "run",
            "run": window.run,
            "state": window.state,
        }
        for window in examined
    ]
    if dry_run:
        columns = ("start", "end", "action", "state", "run")
        print_json(lines) if as_json else console.table(columns, [[line[key] for key in columns] for line in lines])
        return 0
    ids = past.submit(session.config, session.connection, pipeline, examined, parallel=parallel, reprocess=reprocess)
    if waiting:
        return wait(session, ids, as_json=as_json)
    skipped = len(lines) - len(ids)
    if as_json:
        print_json(runs.snapshot(session.connection, ids))
    else:
        print(f"{console.plural(len(ids), 'run')} submitted, {console.plural(skipped, 'window')} loaded already")
    return 0


def steer(shared: "Shared", verb: str, names: Sequence[str], most: int | None = None) -> list[dict[str, Any]]:
    """Pause, resume or limit clients, and return how they stand.

    Raises:
        UnknownName: A client isn't configured.
    """
    session = shared.session(workers=0)
    config = session.config
    for name in names:
        pipelines_of(config, name)
    if verb == "limit":
        limits.limit(session.connection, names[0], most)
    else:
        {"pause": limits.pause, "resume": limits.resume}[verb](session.connection, names)
    return views_clients.overview(session.connection, names)


def wait(session: Session, texts: Sequence[str], *, as_json: bool) -> int:
    """Wait for runs, print them and return the exit code."""
    ids = [runs.find(session.connection, text) for text in texts]
    found = progress.watch(session, ids, quiet=as_json)
    if as_json:
        print_json(found)
    elif found:
        console.results(found)
        if len(found) > 1:
            print(progress.sums(found))
    lost = sorted({*ids} - {run["run"] for run in found})
    for id in lost:
        print(
            f"rq-etl: run {id} is not known to Redis any more\n"
            "  run its pipeline again: what is loaded stays loaded, and what is missing is loaded",
            file=sys.stderr,
        )
    return max(_exit_code(found), int(bool(lost)))


def _exit_code(found: Sequence[Mapping[str, Any]]) -> int:
    bad = [run["exit"] or 1 for run in found if run["state"] in ("failed", "canceled")]
    return 3 if bad and all(code == 3 for code in bad) else int(bool(bad))


def seconds(text: str) -> float:
    """Return a span such as `24h`, `90m` or `7d` in seconds.

    Raises:
        ConfigError: It isn't one.
    """
    from etl.config.values import duration as parse

    try:
        return float(parse(text))
    except ValueError:
        raise ConfigError(f"{text} is not a span of time", "write 30m, 24h or 7d") from None


def runs_since(session: Session, client: str | None, state: str | None, since: str | None) -> list[dict[str, Any]]:
    """Return runs newest first, of a client, in a state, submitted within a span.

    Raises:
        ConfigError: The state or the span isn't one.
    """
    if state and state not in runs.STATES:
        raise ConfigError(f"{state} is not a state of a run", f"states are {', '.join(runs.STATES)}")
    after = time.time() - seconds(since) if since else None
    return runs.recent(session.connection, client=client, state=state, since=after)


def list_runs(session: Session, client: str | None, state: str | None, since: str | None) -> list[dict[str, Any]]:
    """Return runs as `runs_since` does, and those that Redis has forgotten and the targets remember."""
    if state and state not in runs.STATES:
        return runs_since(session, client, state, since)
    after = time.time() - seconds(since) if since else None
    return history.recent(session, client=client, state=state, since=after)


def one(session: Session, text: str) -> dict[str, Any]:
    """Return one run with the records of its stages."""
    found = history.find(session, text)
    records = runs.stage_records(session.connection, found["run"])
    ordered = sorted(records, key=lambda key: (key[0] or math.inf, (*STAGES, "finish").index(key[1])))
    found["stages"] = [
        {"partition": number, "stage": stage, **records[number, stage].__dict__} for number, stage in ordered
    ]
    return found


def logs(session: Session, text: str) -> list[dict[str, Any]]:
    """Return what a run's stages said, and what they raised as staging keeps it."""
    found = one(session, text)
    lines = []
    for stage in found["stages"]:
        counts = ", ".join(f"{kind} {count:,}" for kind, count in stage["counts"].items())
        said = f"{stage['stage']} {stage['partition'] or ''}".strip()
        lines.append({**stage, "text": f"{said}: {stage['state']} in {stage['seconds']} s; {stage['error'] or counts}"})
    staging = rejected.staging_of(session, found["run"])
    for name in staging.names():
        if name.endswith(".error.txt"):
            content = (staging.read_bytes(name) or b"").decode("utf-8", "replace")
            lines.append({"file": name, "text": f"--- {name}\n{content.rstrip()}"})
    return lines


def rejects(shared: "Shared", text: str, *, rows: bool, export: Path | None, load: Path | None) -> int:
    """Count, list, export or load again a run's rejected rows."""
    with closing(shared.session(workers=None if load else 0)) as session:
        id = history.find(session, text)["run"]
        if load:
            new = rejected.load(session, id, load)
            return wait(session, [new], as_json=shared.json)
        if export:
            count = rejected.export(session, id, export)
            shared.print(
                {"rows": count, "file": str(export)}, lambda: print(f"wrote {console.plural(count, 'row')} to {export}")
            )
            return 0
        keys: tuple[str, ...] = ("file", "row", "column", "value", "reason")
        if rows:
            found = [{key: entry[key] for key in keys} for entry in rejected.listed(session, id)]
        else:
            found, keys = rejected.counted(session, id), ("file", "column", "reason", "rows")
        shared.print(found, lambda: console.table(keys, [[line[key] for key in keys] for line in found]))
        return 0


def retry(shared: "Shared", texts: Sequence[str], since: str | None) -> int:
    """Retry runs, and wait for them where the workers are ours."""
    with closing(shared.session()) as session:
        chosen = [runs.find(session.connection, text) for text in texts]
        # The oldest first: a run that needed another's success comes after it.
        chosen = chosen or [run["run"] for run in reversed(runs_since(session, None, "failed", since))]
        started, code, config = [], 0, session.config
        for id in chosen:
            try:
                _, changes = retry_run(config, session.connection, id)
            except EtlError as exc:
                print(f"rq-etl: {exc}", file=sys.stderr)
                code = 1
                continue
            started.append(id)
            for change in changes:
                print(f"{id}: {change}", file=sys.stderr)
        if session.is_ours:
            return max(code, wait(session, started, as_json=shared.json))
        found = runs.snapshot(session.connection, started)
        told = [f"{run['run']} {run['state']}" for run in found] or ["nothing is retried"]
        shared.print(found, lambda: print("\n".join(told)))
        return code


def cancel(session: Session, texts: Sequence[str], client: str | None) -> list[dict[str, Any]]:
    """Cancel runs, or every active run of a client, and return them."""
    ids = [runs.find(session.connection, text) for text in texts]
    if client:
        pipelines_of(session.config, client)
        # What is held first, or it would start when the run before it ends.
        pending = [*reversed(runs.held(session.connection)), *runs.active(session.connection)]
        found = runs.snapshot(session.connection, pending)
        ids = list(dict.fromkeys(run["run"] for run in found if run["client"] == client))
    for id in ids:
        cancel_run(session.connection, id)
    return runs.snapshot(session.connection, ids)

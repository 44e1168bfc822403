"""Backfill: one run per window of the past, in order or a few at a time, skipping what is loaded."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from redis import Redis

from etl.config.pipeline import Config, Pipeline, resolve
from etl.config.values import duration
from etl.errors import ConfigError, EtlError
from etl.sources import plan
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import runs

MOST = 10_000  # windows of one backfill


@dataclass(frozen=True)
class Window:
    """A span of time that a run is for, and the run that has loaded it or will.

    Args:
        start, end: In the client's zone; the end is not part of it.
        run: Id of the run of this window, or None where it has not had one.
        state: Of that run.
        changed: Files that are others now than when that run loaded the window.
    """

    start: datetime
    end: datetime
    run: str | None = None
    state: str | None = None
    changed: tuple[str, ...] = ()

    @property
    def is_loaded(self) -> bool:
        """Whether a run of this window has succeeded."""
        return self.state == "succeeded"


def windows(start: str, end: str, every: str, zone: str) -> list[Window]:
    """Return the windows from `start` to `end`; the last one ends at `end`.

    Args:
        start, end: ISO dates or moments; without a zone they are the client's.
        every: `1d`, `6h`, …; whole days are days of the client's calendar, whatever the clocks do.
        zone: The client's time zone.

    Raises:
        ConfigError: They are none, or there would be too many.
    """
    there = ZoneInfo(zone)
    first, last = (_moment(name, text, there) for name, text in (("--start", start), ("--end", end)))
    try:
        step = timedelta(seconds=duration(every))
    except ValueError:
        raise ConfigError(f"--every {every} is no span of time", "write 1d, 7d or 6h") from None
    if first >= last or step <= timedelta():
        raise ConfigError(
            f"there is no window from {start} to {end}", "--end comes after --start and is not part of it"
        )
    if (last - first) / step > MOST:
        raise ConfigError(f"that is more than {MOST:,} windows", "give a longer --every or a shorter span")
    found, at = [], first
    while at < last:
        try:
            upto = min(_later(at, step, there), last)
        except OverflowError:  # the calendar ends with the year 9999
            upto = last
        found.append(Window(at, upto))
        at = upto
    return found


def window(start: date | str | None, end: date | str | None, zone: str) -> tuple[datetime | None, datetime | None]:
    """Return the window of one run in the client's zone; what is None stays so.

    Args:
        start, end: Dates or moments, as text too; without a zone they are the client's.
        zone: The client's time zone.

    Raises:
        ConfigError: They are none, or there is nothing between them.
    """
    first, last = (
        None if given is None else _moment(name, given, ZoneInfo(zone))
        for name, given in (("start", start), ("end", end))
    )
    if last and first is None:
        raise ConfigError(f"a window to {end} has no beginning", "give --start too")
    if first and last and first >= last:
        raise ConfigError(f"there is no window from {start} to {end}", "end comes after start and is not part of it")
    return first, last


def _moment(name: str, given: date | str, zone: ZoneInfo) -> datetime:
    try:
        moment = datetime.fromisoformat(given if isinstance(given, str) else given.isoformat())
    except ValueError:
        raise ConfigError(f"{name} {given} is no date", "write 2026-01-31, or 2026-01-31T06:00") from None
    return moment.astimezone(zone) if moment.tzinfo else moment.replace(tzinfo=zone)


def _later(at: datetime, step: timedelta, zone: ZoneInfo) -> datetime:
    if step % timedelta(days=1) == timedelta():
        return at + step  # clock time: the same hour of a later day
    return datetime.fromtimestamp(at.timestamp() + step.total_seconds(), zone)


def examine(found: Sequence[Window], pipeline: Pipeline, known: Sequence[Mapping[str, Any]]) -> list[Window]:
    """Return the windows with the latest run that each has had.

    Args:
        known: Runs in the public JSON shape, newest first, with `start` and `end`.
    """
    latest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in known:
        if (run["client"], run["pipeline"]) == (pipeline.client, pipeline.name) and run.get("start") and run["end"]:
            key = _key(datetime.fromisoformat(run["start"]), datetime.fromisoformat(run["end"]))
            # One that has succeeded counts, whatever was tried after it.
            if key not in latest or run["state"] == "succeeded" != latest[key]["state"]:
                latest[key] = run
    examined = []
    for window in found:
        run = latest.get(_key(window.start, window.end), {})
        examined.append(Window(window.start, window.end, run.get("run"), run.get("state")))
    return examined


def compared(found: Sequence[Window], pipeline: Pipeline) -> list[Window]:
    """Return the windows, those that are loaded with the files that have changed since.

    Raises:
        TargetUnreachable, TargetBusy, TargetRefused: The target can't be asked.
    """
    from etl.load.known import changed_since  # brings SQLAlchemy, for which commands that only look do not wait

    if not pipeline.extract.FACTS.files:
        return list(found)
    # Looked at as they are at this moment, whole, and none is waited for.
    extract = pipeline.extract.model_copy(update={"settle": 0.0, "missing": "ok"})
    looking = pipeline.model_copy(update={"extract": extract})
    pieces = {}
    for window in found:
        if window.is_loaded and window.run:
            planned = plan(looking, start=window.start, end=window.end, partition_bytes=1 << 62)
            pieces[window.run] = [piece for partition in planned.partitions for piece in partition.pieces]
    changed = changed_since(pipeline, pieces) if pieces else {}
    return [replace(window, changed=tuple(changed.get(window.run or "", ()))) for window in found]


def _key(start: datetime, end: datetime) -> tuple[str, str]:
    return str(start.timestamp()), str(end.timestamp())


def submit(
    config: Config,
    connection: Redis,
    pipeline: Pipeline,
    found: Sequence[Window],
    *,
    parallel: int = 1,
    reprocess: bool = False,
) -> list[str]:
    """Submit a run for each window that is not loaded; each but the first few is held behind an earlier one.

    A window whose run failed is retried where its staging is left. With `parallel` 1 a window waits for the
    success of the one before; with more, windows are independent of each other.

    Args:
        pipeline: Resolved for the client.
        reprocess: Load windows that are loaded again too.

    Returns:
        The ids of the runs, in the order of the windows.
    """
    ids: list[str] = []
    for window in found:
        if window.is_loaded and not reprocess:
            continue
        behind = ids[-parallel] if len(ids) >= parallel else None
        ids.append(
            _pending_or_retried(config, connection, window, may_retry=not behind)
            or submit_run(
                connection,
                pipeline,
                start=window.start,
                end=window.end,
                full_refresh=reprocess,
                behind=behind,
                in_order=parallel == 1,
                run=_run_id(pipeline, window),
            )
        )
    return ids


def _pending_or_retried(config: Config, connection: Redis, window: Window, *, may_retry: bool) -> str | None:
    """Return the run that a window has, which has not ended or is retried; None where it needs a new one."""
    if window.run and window.state in ("held", "queued", "running"):
        return window.run
    if window.run and window.state in ("failed", "canceled") and may_retry:
        with suppress(EtlError):  # nothing may be left to resume
            return retry_run(config, connection, window.run)[0]
    return None


def _run_id(pipeline: Pipeline, window: Window) -> str:
    """Return an id that a second, simultaneous backfill gives this window too."""
    text = f"{pipeline.client}/{pipeline.name}@{window.start.timestamp()}-{window.end.timestamp()}/{window.run}"
    return runs.id_of(sha256(text.encode()).digest())


def of(config: Config, pipeline: str, client: str, params: Mapping[str, Any]) -> Pipeline:
    """Return the pipeline resolved for a client.

    Raises:
        ConfigError: Its source doesn't depend on a window, so that every window would load the same.
    """
    resolved = resolve(config, pipeline, client, params=params)
    if problem := resolved.extract.not_windowed():
        what, cure = problem
        raise ConfigError(f"pipelines.{pipeline}.extract{what}", cure)
    return resolved

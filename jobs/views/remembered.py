"""What targets remember of runs, as the public JSON shape."""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from etl.config.pipeline import Config, Pair
from etl.config.urls import target_places
from etl.errors import EtlError
from jobs.store.run_json import run_json

if TYPE_CHECKING:
    from etl.load.history import Record


def remembered(
    config: Config,
    pairs: Iterable[Pair] | None = None,
    on_error: Callable[[EtlError], None] | None = None,
    **wanted: Any,
) -> Iterator[dict[str, Any]]:
    """Yield the runs that targets remember; one that can't be asked is passed over and, by default, named on stderr.

    Args:
        pairs: Clients and their pipelines whose targets are asked; None means all.
        on_error: Called once for each target that can't be asked.
        wanted: See `etl.load.history.read`.
    """
    on_error = on_error or _warn
    asked = target_places(config, on_error, pairs)
    if not asked:
        return
    from etl.load import history

    def ask(place: tuple[str, str]) -> "list[Record] | EtlError":
        try:
            return history.read(*place, asked[place], **wanted)
        except EtlError as exc:
            return exc

    chosen = None if pairs is None else set(pairs)
    with ThreadPoolExecutor(8) as pool:  # one that doesn't answer takes its time
        for answer in pool.map(ask, asked):
            if isinstance(answer, EtlError):
                on_error(answer)
                continue
            for record in answer:
                if chosen is None or (record.client, record.pipeline) in chosen:
                    yield _run_json(record)


def _run_json(record: "Record") -> dict[str, Any]:
    finished = record.finished.timestamp()
    same = ("pipeline", "client", "state", "rows", "partitions", "error", "attempt")
    return run_json(
        record.run,
        **{name: getattr(record, name) for name in same},
        submitted=record.submitted.timestamp() if record.submitted else finished,
        started=record.started.timestamp() if record.started else None,
        finished=finished,
        start=record.window_start,
        end=record.window_end,
        params=dict(record.params),
        exit=int(record.state != "succeeded"),
    )


def _warn(exc: EtlError) -> None:
    print(f"rq-etl: warning: {exc.what}; runs that Redis has forgotten are not shown", file=sys.stderr)

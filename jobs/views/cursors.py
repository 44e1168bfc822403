"""What is to be said of cursors: of those that stand in the future, and of rows of sources that do."""

import time
from collections.abc import Callable, Iterable

from etl.config.pipeline import Config, Pair, definition_of, resolve
from etl.config.urls import resolve_url, target_places
from etl.errors import EtlError
from etl.types.newer import STANDS, is_future


def warnings(config: Config, pairs: Iterable[Pair], on_error: Callable[[EtlError], None]) -> dict[Pair, list[str]]:
    """Return what is to be said of each client's pipelines that have a cursor; of the others nothing.

    Args:
        on_error: Called for each target that can't be asked.
    """
    found: dict[Pair, list[str]] = {}
    asked = [pair for pair in pairs if definition_of(config, *pair).extract.cursor]
    places = target_places(config, on_error, asked)
    if not places:
        return found
    from etl.load import cursors

    standings: dict[str, dict[tuple[str, str, str, str], cursors.Standing]] = {}
    for (url, name), schemas in places.items():
        try:
            standings[url] = cursors.standings(url, name, schemas)
        except EtlError as exc:
            on_error(exc)
    now = time.time()
    for client, name in asked:
        try:
            pipeline = resolve(config, name, client)
            url = resolve_url(pipeline.target, client, config.root)
        except EtlError:
            continue  # a path that asks for a parameter of the run, or a URL that `target_places` has reported
        column = str(pipeline.extract.cursor)
        standing = standings.get(url, {}).get((client, name, pipeline.table, column))
        if standing is None:
            continue
        if is_future(standing.cursor, now, pipeline.timezone):
            found.setdefault((client, name), []).append(STANDS.format(f"{client}/{name}", column))
        if standing.future:
            rows = "1 row" if standing.future == 1 else f"{standing.future:,} rows"
            what = f"{client}/{name}: {rows} in the future by cursor column {column}, when the source was last read"
            found.setdefault((client, name), []).append(what)
    return found

"""The pytest plugin: pipelines run in milliseconds, on fakeredis, into SQLite in a temporary folder."""

import glob
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pandas as pd

    from jobs.api import Run


class Harness:
    """What the fixture `rq_etl` gives: run a pipeline on given files, look at its table, call its transform alone.

    Args:
        folder: Where files, staging and the SQLite targets of this test are.
        config: Path of the project's etl.toml.
    """

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder = folder
        self.config = config
        self._session: Any = None

    def _project(self) -> Any:
        """Return the project's configuration with its targets and staging moved into this test's folder."""
        from etl.config.models import Target
        from etl.config.read import load_config

        read = load_config(self.config)
        targets = {name: Target(name=name, url=self._url(name)) for name in read.targets}
        moved = read.settings.model_copy(update={"staging": str(self.folder / "staging")})
        return read.model_copy(update={"targets": targets, "settings": moved})

    def _url(self, target: str) -> str:
        return f"sqlite:///{self.folder / target}.db"

    def run(
        self,
        pipeline: str,
        client: str,
        files: Mapping[str, str | bytes] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        max_rejects: str | int | None = None,
    ) -> "Run":
        """Run a pipeline for a client to its end.

        Args:
            files: What the client delivers, by file name: those that the last part of the source's path matches take
                the place of its own. The test fails where none does.
            max_rejects: Instead of the pipeline's own; a percentage of the pipeline's own is not applied, as it
                says nothing of a file of three rows.
        """
        from etl.config.kinds import source
        from etl.config.pipeline import definition_of, resolve
        from jobs import settings
        from jobs.api import Run
        from jobs.run.submit import submit_run
        from jobs.session import Session

        read = self._project()
        resolved = resolve(read, pipeline, client, params=params, max_rejects=max_rejects)
        # A test runs this pipeline alone, and a file of one bad row is what it may be about.
        changed: dict[str, Any] = {"needs": (), "all_rejected": "warn"}
        if max_rejects is None and isinstance(resolved.max_rejects, str):
            changed["max_rejects"] = None
        if files is not None:
            # Where the source is no file, the test's files replace it.
            own = resolved.extract.FACTS.files
            changes = {"path": self._deliver(files, getattr(resolved.extract, "path", "*")), "settle": 0.0}
            extract = resolved.extract if own else source({"type": "csv", **changes})
            changed["extract"] = extract.model_copy(update=changes)
            definition = definition_of(read, client, pipeline)
            mine = definition.model_copy(update={"extract": changed["extract"]})
            read = read.model_copy(update={"variants": {**read.variants, (client, pipeline): mine}})
        settings.override(read)  # first: a test is not given the project's .env, which may name what is live
        if self._session is None:
            self._session = Session(self.config, inline=True)
        id = submit_run(self._session.connection, resolved.model_copy(update=changed))
        return Run(self._session, id).wait()

    def _deliver(self, files: Mapping[str, str | bytes], source: str) -> str:
        inbox = self.folder / "inbox"
        shutil.rmtree(inbox, ignore_errors=True)
        for name, content in files.items():
            path = inbox / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        name = re.sub(r"\{[^}]*\}", "*", source).rpartition("/")[2]  # {date:%Y/%m} has a / of its own
        pattern = f"{glob.escape(str(inbox))}/**/{name}"
        if files and not any(Path(found).is_file() for found in glob.iglob(pattern, recursive=True)):
            pytest.fail(f"no run would read the given files ({', '.join(files)}): the pipeline's path is {source}")
        return pattern

    def table(self, name: str, target: str | None = None) -> "pd.DataFrame":
        """Return a table of a target (the only one, where `target` is not given) in the order it was loaded."""
        import sqlite3
        from contextlib import closing

        import pandas as pd

        target = target or next(iter(self._project().targets))
        quoted = '"' + name.replace('"', '""') + '"'
        with closing(sqlite3.connect(self.folder / f"{target}.db")) as connection:
            return pd.read_sql_query(f"SELECT * FROM {quoted}", connection)

    def transform(
        self, pipeline: str, df: "pd.DataFrame", client: str, *, params: Mapping[str, Any] | None = None
    ) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Return the good rows and the rejects of a frame, without a queue or a target.

        Args:
            df: Source rows with the source's column names, of any dtypes.
        """
        import pyarrow as pa

        from etl.config.pipeline import resolve
        from etl.context import Context
        from etl.sources import read_all
        from etl.transform import Transformer
        from etl.transform.lookups import read_lookups
        from etl.types.given import from_series

        resolved = resolve(self._project(), pipeline, client, params=params)
        columns = {str(name): from_series(df[name]) for name in df.columns}
        raw = pa.table({**columns, "_row": pa.array(range(2, len(df) + 2), pa.int64())})
        context = Context(client=client, run="test", params=resolved.params)
        context = replace(context, lookups=read_lookups(resolved, context, read_all))
        result = Transformer(resolved, context, ["df"]).apply(raw)
        return result.rows.drop_columns(["_row"]).to_pandas(), result.rejects.to_pandas()

    def close(self) -> None:
        """End the session."""
        from jobs import settings

        settings.override(None)
        if self._session is not None:
            self._session.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini key that says where etl.toml is."""
    parser.addini("rq_etl_config", "path of etl.toml, relative to the root of the tests", default="etl.toml")


@pytest.fixture
def rq_etl(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Pipelines of this project's etl.toml, on fakeredis and SQLite."""
    from jobs import settings

    named = Path(request.config.rootpath) / request.config.getini("rq_etl_config")
    harness = Harness(tmp_path, named if named.exists() else settings.config_path())
    yield harness
    harness.close()

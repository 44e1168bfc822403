"""The public names of rq-etl, for scripts and for your own functions; what type checkers read is in rq_etl-stubs."""

from typing import TYPE_CHECKING


def _refuse_hidden() -> None:
    """Refuse folders of the user's own that hide ours.

    Raises:
        ImportError: `etl` or `jobs` is not rq-etl's.
    """
    from pathlib import Path

    import etl
    import jobs

    for module in (etl, jobs):
        path = Path(module.__file__ or next(iter(module.__path__), "")).resolve()
        if not (path.parent / "errors.py").exists() and not (path.parent / "stages.py").exists():
            raise ImportError(f"your folder {path.parent} hides rq-etl's own {module.__name__}; rename it or move it")


_refuse_hidden()

from etl.errors import AlreadyRunning, EtlError, RedisAway  # noqa: E402
from jobs.api import Reject, Rows, Run, submit, wait  # noqa: E402
from jobs.enqueue import enqueue  # noqa: E402

if TYPE_CHECKING:
    from etl.transform.reject import reject

del TYPE_CHECKING, _refuse_hidden  # what is here is public

__all__ = ["AlreadyRunning", "EtlError", "RedisAway", "Reject", "Rows", "Run", "enqueue", "reject", "submit", "wait"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name != "reject":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from etl.transform.reject import reject  # with pandas, which a script that only submits does without

    return reject

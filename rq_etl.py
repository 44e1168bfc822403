"""The public names of rq-etl, for scripts and for your own functions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import etl
import jobs

for _module in (etl, jobs):
    _path = Path(_module.__file__ or next(iter(_module.__path__), "")).resolve()
    if not (_path.parent / "errors.py").exists() and not (_path.parent / "stages.py").exists():
        raise ImportError(f"your folder {_path.parent} hides rq-etl's own {_module.__name__}; rename it or move it")

from etl.errors import AlreadyRunning, EtlError  # noqa: E402
from jobs.api import Reject, Rows, Run, submit, wait  # noqa: E402
from jobs.enqueue import enqueue  # noqa: E402

if TYPE_CHECKING:
    from etl.transform.reject import reject

__all__ = ["AlreadyRunning", "EtlError", "Reject", "Rows", "Run", "enqueue", "reject", "submit", "wait"]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name != "reject":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from etl.transform.reject import reject  # with pandas, which a script that only submits does without

    return reject

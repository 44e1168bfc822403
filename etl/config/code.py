"""Which code a pipeline runs: a fingerprint of the source files of the user's modules."""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from etl.config.pipeline import Pipeline


def fingerprint(pipeline: Pipeline) -> str:
    """Return the sha256 over the source files of the pipeline's modules, or "" where it calls no function."""
    if not (pipeline.transform or pipeline.load.function or pipeline.extract.FACTS.own_code):
        return ""
    files = [file for module in pipeline.modules for file in _files(module, pipeline.root)]
    return _hashed(tuple((str(file), file.stat().st_mtime_ns) for file in files))


def _files(module: str, root: str) -> list[Path]:
    """Return a module's source file, or all of a package's, sorted; none where it isn't found."""
    place = Path(root, *module.split("."))
    if place.with_suffix(".py").is_file():
        return [place.with_suffix(".py")]
    if not place.is_dir():
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            spec = None
        if spec is None or not spec.origin:
            return []
        place = Path(spec.origin)
        if place.name != "__init__.py":
            return [place] if place.is_file() else []
        place = place.parent
    return sorted(place.rglob("*.py"))


@lru_cache(maxsize=256)
def _hashed(files: tuple[tuple[str, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _ in files:
        content = Path(name).read_bytes()
        digest.update(f"{Path(name).name} {len(content)}\n".encode() + content)
    return digest.hexdigest()

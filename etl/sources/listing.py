"""Which files a pattern matches: plain ones, each once, none that a link brings in from elsewhere."""

import contextlib
import glob
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


AHEAD = 60.0  # seconds by which clocks of file servers may differ


class File(NamedTuple):
    """A file; the first two fields are the order in which files are loaded, where no time is in the future."""

    modified: float
    name: str
    path: str
    size: int


class _Match(NamedTuple):
    is_link: bool  # of two names of one file the one that is no link is taken, then the first
    file: File
    same: tuple[int, int]


def listed(root: str, pattern: str, fixed: str) -> tuple[list[File], list[str]]:
    """Return the files that a pattern matches, and warnings about what is left out.

    Args:
        root: What the pattern is relative to.
        pattern: Filled, as glob takes it.
        fixed: The part of it that the operator chose, which may lead anywhere: what is matched lies inside, links
            followed. Where it is the whole pattern, it may be a link itself.
    """
    inside = os.path.realpath(os.path.join(root, fixed))
    found: list[_Match] = []
    left_out: dict[str, list[str]] = {}
    for match in dict.fromkeys(_matching(root, pattern)):
        path = os.path.join(root, match)
        real = os.path.realpath(path)
        name = _name(root, path)
        try:
            status = os.stat(real)
        except OSError:  # else it is gone since it was listed
            if os.path.islink(path):
                left_out.setdefault("a link that leads nowhere", []).append(name)
            continue
        if os.path.commonpath((inside, real)) != inside:
            left_out.setdefault(f"a link that leads out of {fixed or 'etl.toml’s folder'}", []).append(name)
        elif stat.S_ISREG(status.st_mode):
            # Only what the operator chose may still be a link, and another on another machine.
            plain = real if real == inside else os.path.join(root, fixed, os.path.relpath(real, inside))
            file = File(status.st_mtime, name, plain, status.st_size)
            found.append(_Match(plain != path, file, (status.st_dev, status.st_ino)))
        elif kind := next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), None):
            left_out.setdefault(f"no file but {kind}", []).append(name)
    files: dict[tuple[int, int], File] = {}
    for match_ in sorted(found, key=lambda match: (match.is_link, match.file.name)):
        first = files.setdefault(match_.same, match_.file)
        if first is not match_.file and first.name != match_.file.name:
            left_out.setdefault(f"another name of {first.name}", []).append(match_.file.name)
    return list(files.values()), [_said(names, why) for why, names in left_out.items()]


def timed(files: Iterable[File]) -> tuple[list[File], list[str]]:
    """Return files in the order in which they are loaded, and warnings of those that come from the future.

    Such a file would beat all that come after it until that time: it is as old as its being here, which stays the same
    from night to night.
    """
    found, ahead, now = [], [], time.time()
    for file in files:
        if file.modified > now + AHEAD:
            ahead.append(file.name)
            with contextlib.suppress(OSError):  # gone since it was listed: reading it says so
                file = file._replace(modified=min(file.modified, os.stat(file.path).st_ctime))
        found.append(file)
    more = f" and {len(ahead) - 3} more" if len(ahead) > 3 else ""
    what = f"{', '.join(sorted(ahead)[:3])}{more}: modified in the future, so taken to be as old as on this machine"
    return sorted(found), [what] if ahead else []


def _said(names: list[str], why: str) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(sorted(names)[:3])}{more}: {why}, left out"


def _name(root: str, path: str) -> str:
    name = os.path.relpath(path, root)
    return os.fsencode(path if name.startswith("..") else name).decode(errors="backslashreplace")


def _matching(root: str, pattern: str) -> Iterable[str]:
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern, root_dir=root)
        return
    # glob itself follows links to folders here: two that lead to each other would keep it busy for ever.
    at = parts.index("**")
    rest = os.sep.join(parts[at + 1 :]) or "*"
    for base in glob.iglob(os.sep.join(parts[:at]) or os.sep, root_dir=root) if at else [""]:
        for folder in _folders(root, base):
            if os.path.islink(os.path.join(root, folder)) and folder != base:
                yield folder
            else:
                yield from _matching(root, os.path.join(glob.escape(folder), rest))


def _folders(root: str, base: str) -> Iterator[str]:
    """Yield a folder and those below it; links to folders too, but not what is in them."""
    yield base
    try:
        with os.scandir(os.path.join(root, base)) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    for name in names:
        folder = os.path.join(base, name)
        if os.path.islink(os.path.join(root, folder)):
            yield folder
        else:
            yield from _folders(root, folder)

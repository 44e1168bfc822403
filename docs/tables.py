"""Makes the tables of docs/redis.md and docs/state_machine.md that the code knows: python docs/tables.py."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jobs.store.keys import KEYS  # noqa: E402
from jobs.store.transitions import NOTHING, TRANSITIONS  # noqa: E402


def keys(stays: bool) -> list[list[str]]:
    """Return the rows of the keys of ours that stay, or of those that end."""
    rows = [["key", "type", "what", "written by", "how much" if stays else "life"]]
    for key in KEYS:
        if key.stays == stays:
            optional = re.search(r"\[(.*)\]", key.pattern)
            names = (
                [key.pattern.replace(optional[0], part) for part in ("", optional[1])] if optional else [key.pattern]
            )
            rows.append([", ".join(f"`{name}`" for name in names), key.type, key.what, f"`{key.owner}`", key.life])
    return rows


def transitions() -> list[list[str]]:
    """Return the rows of every way from one state of a run to another."""
    rows = [["from", "to", "when", "written by", "who"]]
    for each in TRANSITIONS:
        sources = ", ".join(state if state == NOTHING else f"`{state}`" for state in each.sources)
        rows.append([sources, f"`{each.to}`", each.when, f"`{each.by}`", each.who])
    return rows


TABLES = {"keys that end": keys(False), "keys that stay": keys(True), "transitions": transitions()}


def made(text: str) -> str:
    """Return a document with its tables as the code has them."""
    for name, (head, *rows) in TABLES.items():
        lines = [head, ["---"] * len(head), *rows]
        table = (
            "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
            .replace("| --- ", "|---")
            .replace("--- |", "---|")
        )
        mark = f"<!-- {name}, by docs/tables.py -->"
        text = re.sub(rf"(?<={re.escape(mark)}\n\n)(?:\|.*\n)*", lambda _, table=table: table + "\n", text)
    return text


if __name__ == "__main__":
    for document in (ROOT / "docs" / "redis.md", ROOT / "docs" / "state_machine.md"):
        document.write_text(made(document.read_text()))

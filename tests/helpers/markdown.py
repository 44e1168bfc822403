"""Reads our Markdown for tests: blocks with the comments that stand before them, tables, headings, links."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.processes import ROOT

README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference"
DOCS = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- (?P<key>[^:>]+): (?P<value>.*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        line: Of the document, where it begins.
        key, value: Of the comment before it, `<!-- key: value -->`; "" where there is none.
    """

    document: Path
    line: int
    language: str
    text: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.document.name} line {self.line}"


def blocks(document: Path) -> list[Block]:
    """Return a document's blocks in order."""
    text = document.read_text(encoding="utf-8")
    return [
        Block(
            document, text.count("\n", 0, found.start("language")) + 1, found["language"], found["text"],
            found["key"] or "", found["value"] or "",
        )
        for found in _BLOCK.finditer(text)
    ]  # fmt: skip


def prose(document: Path) -> str:
    """Return a document without its blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def section(document: Path, heading: str) -> str:
    """Return what stands under a heading, up to the next of the same or a higher level."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, rest = f"\n{prose(document)}".partition(f"\n{heading}\n")
    assert found, f"{document.name} has no heading {heading}"
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.M)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a text's first table, its head left out."""
    lines: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif lines:
            break
    return lines[2:]


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    heads = re.findall(r"^#+ (.+)$", prose(document), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(document: Path) -> list[str]:
    """Return where a document's links lead."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(document))

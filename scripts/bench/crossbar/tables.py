"""Tables in Markdown, and the sections of a document that a benchmark writes anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are figures."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def folded(summary: str, text: str) -> str:
    """Return text that is shown when its summary is clicked, where Markdown is shown by a browser."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def write_section(document: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        SystemExit: the document has no such section.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = document.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"{document} has no section {name!r}")
    document.write_text(f"{before}{begin}{text.rstrip()}\n{end}{after}")

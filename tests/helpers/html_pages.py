"""What a page of HTML says: its text, its tags, and its tables as rows of cells."""

from __future__ import annotations

import html.parser
from pathlib import Path

_VOID = {"meta", "img", "br", "link"}


class Page(html.parser.HTMLParser):
    """Reads a file, and demands that every tag is closed in order."""

    def __init__(self, file: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] == "style":
            return
        self.words.append(data)
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]}{data}".split())

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, first: str) -> list[str]:
        """The cells after the first of the row that begins so."""
        return next(row[1:] for row in self.rows if row and row[0].startswith(first))

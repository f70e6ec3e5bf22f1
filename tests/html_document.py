"""Reads a page for tests: its elements, its text, and the rows of its tables."""

from __future__ import annotations

from html.parser import HTMLParser


class Document(HTMLParser):
    """Collects elements with their attributes, the text, and the rows of every table by its class."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self._rows = self.tables.setdefault(str(dict(attributes)["class"]), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._cell = False

    def handle_data(self, text: str) -> None:
        self.text += text
        if self._cell:
            self._rows[-1][-1] += text.strip("\n")

    def classes(self, svg: str) -> list[str]:
        """Return the classes of the paths of one picture."""
        inside, found = False, []
        for tag, attributes in self.elements:
            if tag == "svg":
                inside = attributes["class"] == f"picture {svg}"
            elif inside and tag == "path":
                found.append(str(attributes["class"]))
        return found

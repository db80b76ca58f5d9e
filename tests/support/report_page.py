"""Reading the page of a report in tests: its texts by element, and the table of every figure by title."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The content of a page.

    Attributes:
        texts: all texts by kind of element, in order.
        tables: the rows of each table by the title above it, each row a mapping from the heading of a column to a cell.
        attributes: every attribute of every element, as (element, name, value).
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.tables: dict[str, list[dict[str, str]]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self._open: list[tuple[str, list[str]]] = []
        self._header: list[str] = []
        self._row: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "link", "br", "input"):
            self._open.append((tag, []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        for _, texts in self._open:
            texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        opened, texts = self._open.pop()
        assert opened == tag, f"{opened} is closed by {tag}"
        text = "".join(texts).strip()
        self.texts.setdefault(tag, []).append(text)
        if tag == "th":
            self._header.append(text)
        elif tag == "td":
            self._row.append(text)
        elif tag == "tr":
            if self._row:
                around = {tag for tag, _ in self._open}
                title = self.texts["h3" if "figure" in around else "summary" if "details" in around else "h2"][-1]
                self.tables.setdefault(title, []).append(dict(zip(self._header, self._row, strict=True)))
            self._row = []
        elif tag == "table":
            self._header = []

    @property
    def is_complete(self) -> bool:
        """Whether every element was closed."""
        return not self._open

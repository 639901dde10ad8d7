"""How the tests read a page of HTML."""

import re
from html.parser import HTMLParser

_ALONE = ("meta", "rect", "path", "circle", "br")  # tags that need no end


class Reader(HTMLParser):
    """Tags with their attributes, the text outside scripts and styles, the JSON of figures, and the
    tags that do not close as they should."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.json: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self._json = False
        self.feed(page)
        self.close()

    @property
    def links(self) -> list[str | None]:
        """All that a browser would fetch or go to."""
        names = ("src", "href", "srcset")
        return [value for _, attrs in self.tags for name, value in attrs.items() if name in names]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._json = dict(attrs).get("type") == "application/json"
        if tag not in _ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _ALONE and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "script" and self._json:
            self.json.append(data)
        elif inside not in ("script", "style"):
            self.text.append(data)


def words(page: str) -> str:
    """The text of a page, each run of spaces as one."""
    return re.sub(r"\s+", " ", " ".join(Reader(page).text))


def section(page: str, title: str) -> str:
    """The text from a heading to the next."""
    return words(page[page.index(title) + len(title) :].split("<h3>")[0])

"""Where methods come from: the package's BibTeX entries, and which of them something names."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from steerlab.core.errors import SteerlabError

FILE = Path(__file__).parents[1] / "data" / "sources.bib"
_HEAD = re.compile(r"@\w+\{\s*([^,\s]+)\s*,")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is to be cited for something: `cites`, keys of `sources.bib` or whole BibTeX entries;
    or `no_source`, why there is no paper. Neither says that nothing is known."""

    cites: tuple[str, ...] = ()
    no_source: str = ""


@cache
def entries() -> dict[str, str]:
    """The package's BibTeX entries by their keys, in the order of the file."""
    found = {}
    for entry in FILE.read_text("utf-8").strip().split("\n\n"):
        found[key_of(entry)] = entry.strip()
    return found


def key_of(entry: str) -> str:
    """The key of a whole BibTeX entry; raises `SteerlabError` for text that is none."""
    head = _HEAD.match(entry.strip())
    if head is None or not entry.rstrip().endswith("}"):
        raise SteerlabError(
            f"{entry[:40]!r} is neither a key of {FILE.name} nor a BibTeX entry, such as "
            "'@misc{key, title = {...}}'"
        )
    return head[1]


def entry_of(cited: str) -> tuple[str, str]:
    """The key and the BibTeX entry of what a record cites: a key of the table, or an entry."""
    if cited in entries():
        return cited, entries()[cited]
    return key_of(cited), cited.strip()

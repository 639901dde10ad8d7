"""What hangs on the language identifier: the share in the language by two of them, and how far they
agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlab.figures.style import CONTROLS, readable
from steerlab.studies.html import environment
from steerlab.studies.html.formats import Interval, interval, language_name
from steerlab.studies.main.page.values import protagonist


@dataclass(frozen=True)
class Shares:
    """The shares of one method or control by both identifiers."""

    name: str
    lfs: Interval | None
    probable: Interval | None
    second: Interval | None
    joint: Interval | None
    joint_second: Interval | None


@dataclass(frozen=True)
class Pair:
    """Two labels of the same outputs, and of how many outputs."""

    first: str
    second: str
    outputs: str


@dataclass(frozen=True)
class Identifiers:
    """The identifiers, how far they agree, and the shares by each; `second` is empty where there
    was none. `main` is the row of the main method."""

    first: str
    second: str
    outputs: str
    equal: Interval | None
    kappa: Interval | None
    pairs: list[Pair]
    rows: list[Shares]
    main: Shares | None


def identifiers(summary: Mapping[str, Any]) -> Identifiers | None:
    """LFS and joint under both identifiers; nothing for a run of an older version."""
    read = summary.get("identifiers")
    if not read:
        return None
    results = summary["results"]
    order = [name for name in results if name not in CONTROLS]
    order += [name for name in CONTROLS if name in results]
    rows = {name: _shares(name, results[name]) for name in order if results[name]}
    pairs = [
        Pair(_label(first), _label(second), f"{count:,}")
        for first, second, count in read.get("pairs", [])
    ]
    return Identifiers(
        first=str(read.get("first", "?")),
        second=str(read.get("second") or ""),
        outputs=f"{read.get('n', 0):,}",
        equal=interval(read.get("equal")),
        kappa=interval(read.get("kappa")),
        pairs=pairs,
        rows=list(rows.values()),
        main=rows.get(protagonist(summary) or ""),
    )


def identifiers_note(summary: Mapping[str, Any]) -> str:
    """The note about agreement as the page has it, in HTML; empty where there is none."""
    read = identifiers(summary)
    if read is None:
        return ""
    template = environment("steerlab.studies.main.page").get_template("agreement.html.jinja")
    return template.render(identifiers=read)


def _shares(name: str, result: Mapping[str, Any]) -> Shares:
    keys = ("lfs", "lfs_probable", "lfs_second", "joint", "joint_second")
    return Shares(readable(name), *(interval(result.get(key)) for key in keys))


def _label(label: str) -> str:
    return "no language" if label == "none" else language_name(label)

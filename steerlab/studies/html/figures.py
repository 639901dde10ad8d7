"""Figures of plotly as a page shows them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlab.core.errors import SteerlabError
from steerlab.figures.style import readable
from steerlab.studies.html.formats import FIXED

_ORDER = ("heatmap", "dose_curves", "removal", "separation", "families", "dendrogram", "cosines")
_TOP = 12  # pixels above a plot whose title is text of the page
_HEIGHT = 450  # plotly's own, where a figure names none


@dataclass(frozen=True)
class Figure:
    """A plot without its title and caption: those are text of the page, so that they wrap."""

    name: str
    title: str
    caption: str
    height: float
    content: Mapping[str, Any]


def read_figures(folder: Path) -> list[Figure]:
    """Every plotly figure of a folder: those of the main study in the page's order, then the
    others by name."""
    files = sorted(folder.glob("*.json"), key=lambda file: (_index(file.stem), file.stem))
    return [_read(file) for file in files]


def _index(stem: str) -> int:
    for index, name in enumerate(_ORDER):
        if stem.startswith(name):
            return index
    return len(_ORDER)


def _read(file: Path) -> Figure:
    try:
        return drawn(file.stem, json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise SteerlabError(
            f"{file} is no plotly figure ({error!r}); delete it, or write it again"
        ) from error


def drawn(name: str, figure: Mapping[str, Any]) -> Figure:
    """A figure of plotly, as its JSON has it, as a page shows it.

    Args:
        name: what it is called in the page.
        figure: with `data` and `layout`.
    """
    data, layout = figure["data"], dict(figure["layout"])
    meta = layout.get("meta")
    meta = meta if isinstance(meta, dict) else {}  # others may keep anything there
    above = layout.pop("title", None)
    title = above.get("text", "") if isinstance(above, dict) else above
    margin = dict(layout.get("margin") or {})
    # The height that the title took is not needed any more; the width is the page's.
    headroom = max(0, int(margin.get("t", _TOP)) - _TOP)
    height = layout.get("height", _HEIGHT) - headroom
    layout.pop("width", None)
    layout |= {"dragmode": False, "margin": {**margin, "t": _TOP}, "height": height}
    return Figure(
        name=name,
        title=str(meta.get("title") or title or readable(name)),
        caption=str(meta.get("caption", "")).replace("n = ", f"n{FIXED}={FIXED}"),
        height=height,
        content={"data": data, "layout": layout},
    )

"""How objects show themselves: one line in a terminal, a small table and a picture in a notebook.

What is shown is escaped, needs nothing from elsewhere, and takes the colours of the page that it is
on, so that it is read on white and on black.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

_LINE = 160  # letters of a line, at most
_TONE = "#3d85c6"  # seen on white and on black
_ROWS = 24  # of a table


@dataclass(frozen=True)
class View:
    """What an object says of itself.

    Args:
        kind: what it is.
        line: what it holds, in one line.
        facts: names and values, one below the other.
        head: the names of the columns of a table.
        rows: the rows of the table.
        picture: gives an SVG image, which is made for a notebook only.
        caption: what the picture shows.
    """

    kind: str
    line: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    picture: Callable[[], str] | None = None
    caption: str = ""


class Shown(ABC):
    """What has a `View` shows it by itself."""

    @abstractmethod
    def _view(self) -> View:
        """What it says of itself."""

    def __repr__(self) -> str:
        view = self._view()
        line = f"{view.kind}: {view.line}" if view.line else view.kind
        return line if len(line) <= _LINE else line[: _LINE - 1] + "…"

    def _repr_html_(self) -> str:
        return card(self._view())


def card(view: View) -> str:
    """A view as HTML."""
    parts = []
    if view.kind:
        parts.append(f'<div style="font-weight:600">{escape(view.kind)}</div>')
    if view.line:
        parts.append(f"<div>{escape(view.line)}</div>")
    if view.facts:
        parts.append(_table((), list(view.facts.items())))
    if view.rows:
        parts.append(_table(view.head, view.rows))
    if view.picture is not None:
        parts.append(view.picture())
        parts.append(f'<div style="font-size:85%;opacity:.75">{escape(view.caption)}</div>')
    return f'<div style="max-width:100%;overflow-x:auto;line-height:1.4">{"".join(parts)}</div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cell = "padding:1px 10px 1px 0;text-align:left;vertical-align:top;border:0"
    lines = []
    if head:
        names = "".join(f'<th style="{cell}">{escape(str(name))}</th>' for name in head)
        lines.append(f"<tr>{names}</tr>")
    for row in rows[:_ROWS]:
        values = "".join(f'<td style="{cell}">{escape(shown(value))}</td>' for value in row)
        lines.append(f"<tr>{values}</tr>")
    if len(rows) > _ROWS:
        more = f"and {len(rows) - _ROWS:,} more"
        lines.append(f'<tr><td style="{cell};opacity:.75">{more}</td></tr>')
    return f'<table style="border-collapse:collapse;margin:4px 0">{"".join(lines)}</table>'


def shown(value: Any) -> str:
    """A value as a table has it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def counted(number: float, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 layer", "1,204 layers"."""
    noun = one if number == 1 else many or f"{one}s"
    return f"{number:,.0f} {noun}"


def listed(names: Iterable[Any], most: int = 6) -> str:
    """Names with spaces between them, of which the middle is left out where they are many."""
    names = [str(name) for name in names]
    if len(names) <= most:
        return " ".join(names)
    return " ".join([*names[: most - 1], "…", names[-1]])


def ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in order, with those that follow each other as a range: "0–3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def layers(numbers: Sequence[int]) -> str:
    """Layers in words."""
    return f"{'layer' if len(set(numbers)) == 1 else 'layers'} {ranges(numbers)}"


def bars(values: Mapping[str, float]) -> str:
    """A bar for each name, from 0 up, as SVG; what is not finite has none."""
    finite = {name: value if math.isfinite(value) else 0.0 for name, value in values.items()}
    top = max((abs(value) for value in finite.values()), default=0.0) or 1.0
    step, tall = max(4.0, min(26.0, 520 / max(1, len(finite)))), 46
    marks = []
    # As many names as have room.
    every = max(1, math.ceil((4 + 6.5 * max(map(len, finite), default=1)) / step))
    for number, (name, value) in enumerate(finite.items()):
        left, height = number * step, max(0.0, value) / top * tall
        marks.append(
            f'<rect x="{left + 0.1 * step:.1f}" y="{tall - height:.1f}" width="{0.8 * step:.1f}" '
            f'height="{height:.1f}" fill="{_TONE}"><title>{escape(name)}: {shown(value)}</title>'
            "</rect>"
        )
        if not number % every:
            marks.append(_text(left + step / 2, tall + 12, name, "middle"))
    return _svg(step * len(finite), tall + 16, marks)


def heat(values: Sequence[Sequence[float]], rows: Sequence[Any], columns: Sequence[Any]) -> str:
    """A grid of shades, [row column], from none at the least value to full at the largest, as SVG;
    what is not finite is left empty."""
    finite = [value for row in values for value in row if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    size = max(4.0, min(16.0, 480 / max(1, len(columns))))
    edge = 8 + 6.5 * max((len(str(name)) for name in rows), default=0)
    marks = []
    for i, name in enumerate(rows):
        marks.append(_text(edge - 5, i * size + size / 2 + 4, str(name), "end"))
        for j, column in enumerate(columns):
            value = float(values[i][j])
            if not math.isfinite(value):
                continue
            shade = (value - low) / (high - low) if high > low else 1.0
            marks.append(
                f'<rect x="{edge + j * size:.1f}" y="{i * size:.1f}" width="{size - 0.6:.1f}" '
                f'height="{size - 0.6:.1f}" fill="{_TONE}" '
                f'fill-opacity="{0.06 + 0.94 * shade:.2f}">'
                f"<title>{escape(str(name))}, {escape(str(column))}: {shown(value)}</title></rect>"
            )
    bottom = len(rows) * size
    every = max(1, math.ceil(8 * max((len(str(c)) for c in columns), default=1) / size))
    for j in range(0, len(columns), every):
        marks.append(_text(edge + (j + 0.5) * size, bottom + 12, str(columns[j]), "middle"))
    return _svg(edge + len(columns) * size, bottom + 16, marks)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="10" fill="currentColor" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, marks: Iterable[str]) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} '
        f'style="max-width:100%;height:auto">{"".join(marks)}</svg>'
    )


class Page(str):
    """A whole page of HTML: a string that a notebook shows in a frame of its own, so that neither
    the page's style reaches the notebook nor the notebook's the page."""

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self)}" sandbox '
            'style="width:100%;height:36em;border:1px solid currentColor;border-radius:4px">'
            "</iframe>"
        )


class Html(str):
    """A piece of HTML, a string that a notebook shows as what it says."""

    def _repr_html_(self) -> str:
        return str(self)

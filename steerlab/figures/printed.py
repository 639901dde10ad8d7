"""A figure for print that nothing is cut off from: what reaches the edge gets more room, and is
looked at again."""

import base64
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

from steerlab.core.errors import SteerlabError
from steerlab.core.files import need_ending
from steerlab.figures.files import PIXELS, draw, need_browser, paper
from steerlab.figures.maps import place_codes

WIDTHS = {"column": 85.0, "page": 180.0}  # mm, of a journal's column and page
SIDES = ("left", "right", "top", "bottom")
_EDGE = 2  # pixels along each side that stay white
_STEP = 10  # pixels that a side gets more of, the first times
_ROUNDS = 8
_INK = 250  # of 255: darker is ink
_NARROW = 450  # pixels: below them a figure is a column's
_WIDTH_OF_LETTER = 0.52  # of its size
_AXIS = re.compile(r"x(\d*)(?: domain)?$")
_BOLD = re.compile(r"<b>\w</b>\s+")  # the letter of a panel
_ENTRY, _LETTER, _LINE = 44, 5.6, 17  # pixels of a legend: beside a name, of a letter, of a line


def save(
    figure: go.Figure,
    file: str | Path,
    *,
    width: str | float = "column",
    height: float | None = None,
    force: bool = False,
) -> Path:
    """Write a figure as .pdf, .svg or .png for print, with nothing cut off at its edges.

    It is drawn without title and caption, in letters of 7.5 pt, looked at, and given more room at
    every side that ink reaches, until none does. Raises `SteerlabError` where that does not end,
    as for a height that is too small, and where there is no browser to draw with.

    Args:
        figure: any of `sl.figures`, or another figure of plotly.
        file: the file, whose ending says what is written.
        width: "column" (85 mm), "page" (180 mm), or a number of mm.
        height: in mm; by default as much as the figure needs.
        force: replace a file that steerlab did not write.
    """
    file = need_ending(file, ".pdf", ".svg", ".png")
    [fitted] = fit([figure], width=width, height=height)
    draw({file: fitted}, force=force)
    return file


def fit(
    figures: Sequence[go.Figure], *, width: str | float = "column", height: float | None = None
) -> list[go.Figure]:
    """Copies of figures for print that nothing is cut off from; the browser draws all at once.

    Args:
        figures: the figures.
        width: as for `save`.
        height: as for `save`.
    """
    if isinstance(width, str) and width not in WIDTHS:
        raise SteerlabError(
            f"there is no width {width!r}; give column (85 mm), page (180 mm) or a number of mm"
        )
    across = WIDTHS[width] if isinstance(width, str) else float(width)
    if not across >= 20 or (height is not None and not height >= 20):
        raise SteerlabError(
            f"a figure of {across:g} mm by {height} is too small to print; give 20 mm or more"
        )
    copies = [_prepared(figure, across, height) for figure in figures]
    left = list(range(len(copies)))
    for turn in range(_ROUNDS):
        # A side that still lacks room after some rounds lacks much of it.
        step = _STEP if turn < _ROUNDS // 2 else 4 * _STEP
        pictures = _pictures([copies[index] for index in left])
        inked = {index: edges(each) for index, each in zip(left, pictures, strict=True)}
        left = [index for index in left if inked[index]]
        if not left:
            return copies
        for index in left:
            _give_room(copies[index], inked[index], step=step, fixed=height is not None)
    title = str((copies[left[0]].layout.meta or {}).get("title", "the figure"))
    raise SteerlabError(
        f"{title!r} does not fit {across:g} mm by {height or 'any height'}: something is cut off "
        f"at the {' and '.join(inked[left[0]])}; give more mm"
    )


def _prepared(figure: go.Figure, width: float, height: float | None) -> go.Figure:
    """A copy in the size and letters of print, with room for its legend."""
    figure = go.Figure(_unpacked(figure.to_dict()))
    across = width * PIXELS
    legend = _legend_pixels(figure, across)
    if height is None:
        margin = figure.layout.margin
        plot = (figure.layout.height or 450) - (margin.t or 0) - (margin.b or 0)
        # What stands below the plot on the screen is part of that height.
        down = min(plot, 1.2 * across + 12 * _rows_of(figure)) + max(0, legend - _LINE)
    else:
        down = height * PIXELS
    copy = paper(figure, width=width, height=down / PIXELS)
    copy.update_layout(legend_maxheight=max(1.01, legend + 2 * _LINE))
    place_codes(copy, min(across, down) - 2 * _STEP)
    _wrap_headings(copy)
    if across < _NARROW:
        _narrow(copy)
    return copy


def _wrap_headings(figure: go.Figure) -> None:
    """Break what stands over panels, or in them, into lines as wide as its panel, in place."""
    more = 0  # lines over the uppermost panels
    for note in figure.layout.annotations:
        axis = _AXIS.match(str(note.xref))
        if axis is None or not note.text or "<br>" in note.text:
            continue
        left, right = figure.layout[f"xaxis{axis[1]}"].domain or (0, 1)
        size = note.font.size or 10
        letters = int((right - left) * figure.layout.width / (_WIDTH_OF_LETTER * size))
        bold = _BOLD.match(note.text)
        start, rest = (bold[0], note.text[bold.end() :]) if bold else ("", note.text)
        lines = wrap(rest, max(8, letters - (3 if bold else 0)), break_long_words=False)
        if len(lines) > 1 and "<" not in rest:
            note.text = start + "<br>".join(lines)
            note.align = "left" if bold else "center"
            below = str(note.yref).removesuffix(" domain").removeprefix("y")
            top = (figure.layout[f"yaxis{below}"].domain or (0, 1))[1]
            more = max(more, len(lines) - 1) if bold and top > 0.98 else more
    figure.layout.margin.t = (figure.layout.margin.t or 0) + _LINE * more
    figure.layout.height += _LINE * more


def _narrow(figure: go.Figure) -> None:
    """What a column has no room for, in place: names become codes, and bars beside panels lie
    below them."""
    for trace in figure.data:
        if trace.meta and "short" in trace.meta:
            trace.text = trace.meta["short"]
        if trace.type == "heatmap" and trace.colorbar.x is not None:
            axis = _AXIS.match(trace.xaxis or "x")
            left, right = figure.layout[f"xaxis{axis[1] if axis else ''}"].domain or (0, 1)
            trace.colorbar.update(
                orientation="h", x=(left + right) / 2, xanchor="center", y=-0.1, yanchor="top"
            )
            trace.colorbar.len = 0.8 * (right - left)


def _unpacked(value: Any) -> Any:
    """The parts of a figure with arrays as arrays: one that was read from JSON, as those in the
    folder of a run are, has them as text in base64."""
    if isinstance(value, Mapping):
        if {"dtype", "bdata"} <= set(value):
            array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=value["dtype"])
            shape = str(value["shape"]).split(",") if "shape" in value else ["-1"]
            return array.reshape([int(size) for size in shape])
        return {key: _unpacked(part) for key, part in value.items()}
    return [_unpacked(part) for part in value] if isinstance(value, list | tuple) else value


def _rows_of(figure: go.Figure) -> int:
    """How many names stand at the y axis: each needs a line, whatever the width."""
    ticks = figure.layout.yaxis.ticktext
    if ticks is not None:
        return len(ticks)
    names = [
        len(trace.y) for trace in figure.data if trace.type == "heatmap" and trace.y is not None
    ]
    return max(names, default=0)


def _legend_pixels(figure: go.Figure, width: float) -> float:
    """About how high a legend below the plot is, whose columns are as wide as its longest name."""
    names = {
        str(trace.name) for trace in figure.data if trace.name and trace.showlegend is not False
    }
    if len(names) < 2 or figure.layout.showlegend is False:
        return 0
    columns = max(1, int(width // (_ENTRY + _LETTER * max(map(len, names)))))
    return _LINE * -(-len(names) // columns)


def _give_room(figure: go.Figure, sides: Sequence[str], *, step: int, fixed: bool) -> None:
    """More room at some sides, in place; with a height that is fixed the plot gives it."""
    margin = figure.layout.margin
    for side in sides:
        name = side[0]
        figure.update_layout({f"margin_{name}": (margin[name] or 0) + step})
        if side in ("top", "bottom") and not fixed:
            figure.layout.height += step
    if "bottom" not in sides:
        return
    # What hangs at the lower edge of the figure does not move with the margin.
    bars = [trace.colorbar for trace in figure.data if "colorbar" in trace]
    for bar in [*bars, figure.layout.coloraxis.colorbar]:
        if bar.yref == "container":
            bar.ypad = (bar.ypad or 0) + step / 2
    if figure.layout.legend.yref in (None, "container"):
        figure.layout.legend.y = (figure.layout.legend.y or 0) + step / 2 / figure.layout.height


def _pictures(figures: Sequence[go.Figure]) -> list[np.ndarray]:
    """The figures as shades of grey, [row column] from 0 to 255, in one run of the browser."""
    import tempfile

    import plotly.io

    with tempfile.TemporaryDirectory() as folder, need_browser():
        files = [str(Path(folder) / f"{number}.png") for number in range(len(figures))]
        plotly.io.write_images(
            list(figures),
            files,
            format="png",
            scale=1,
            width=[figure.layout.width for figure in figures],
            height=[figure.layout.height for figure in figures],
        )
        return [grey(Path(file).read_bytes()) for file in files]


def edges(picture: np.ndarray) -> list[str]:
    """The sides of a picture [row column] along which there is ink."""
    strips = {
        "left": picture[:, :_EDGE],
        "right": picture[:, -_EDGE:],
        "top": picture[:_EDGE],
        "bottom": picture[-_EDGE:],
    }
    return [side for side in SIDES if (strips[side] < _INK).any()]


def grey(png: bytes) -> np.ndarray:
    """The darkest channel of each pixel of a PNG of 8 bits on white, [row column]."""
    place, chunks = 8, b""
    width = height = kind = 0
    while place < len(png):
        size, name = struct.unpack(">I4s", png[place : place + 8])
        body = png[place + 8 : place + 8 + size]
        if name == b"IHDR":
            width, height, depth, kind = struct.unpack(">IIBB", body[:10])
            if depth != 8 or kind not in (2, 6):
                raise SteerlabError("the browser drew a PNG of another kind than RGB of 8 bits")
        elif name == b"IDAT":
            chunks += body
        place += 12 + size
    channels = {2: 3, 6: 4}[kind]
    data = np.frombuffer(zlib.decompress(chunks), np.uint8).reshape(height, 1 + width * channels)
    rows = _unfiltered(data[:, 0], data[:, 1:], channels).reshape(height, width, channels)
    if channels == 3:
        return rows.min(-1)
    alpha = rows[..., 3:].astype(float) / 255
    return (rows[..., :3] * alpha + 255 * (1 - alpha)).min(-1).astype(np.uint8)


def _unfiltered(filters: np.ndarray, lines: np.ndarray, channels: int) -> np.ndarray:
    """The bytes of a PNG's lines, each of which says what was taken off it (PNG, section 9)."""
    out = np.zeros_like(lines)
    above = np.zeros(lines.shape[1], np.uint8)
    for row, (kind, line) in enumerate(zip(filters.tolist(), lines, strict=True)):
        if kind == 0:
            made = line.copy()
        elif kind == 2:
            made = line + above
        elif kind == 1:  # sums along the line, of each channel by itself
            made = line.reshape(-1, channels).cumsum(0, dtype=np.uint8).reshape(-1)
        else:
            made = _by_pixel(kind, line.astype(int), above.astype(int), channels)
        out[row] = above = made.astype(np.uint8)
    return out


def _by_pixel(kind: int, line: np.ndarray, above: np.ndarray, channels: int) -> np.ndarray:
    """A line whose pixels depend on the one before: "average" (3) and Paeth's (4)."""
    pixels, upper = line.reshape(-1, channels).tolist(), above.reshape(-1, channels).tolist()
    made: list[list[int]] = []
    left = corner = [0] * channels
    for given, over in zip(pixels, upper, strict=True):
        pixel: list[int] = []
        for a, b, c, value in zip(left, over, corner, given, strict=True):
            guess = (a + b) // 2 if kind == 3 else _paeth(a, b, c)
            pixel.append((value + guess) & 255)
        made.append(pixel)
        left, corner = pixel, over
    return np.asarray(made, np.uint8).reshape(-1)


def _paeth(a: int, b: int, c: int) -> int:
    """The one of left, above and the corner between that is nearest to left + above - corner."""
    guess: int = a + b - c
    return min((a, b, c), key=lambda value: abs(guess - value))

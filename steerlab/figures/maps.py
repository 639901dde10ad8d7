"""The languages on a map of two or three dimensions, a slider for the layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from steerlab.analysis.geometry.maps import layout
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import families_of, labelled
from steerlab.figures.given import by_layer, is_held
from steerlab.figures.style import GREY, INK, family_order, family_style, finish, sentence_of

# Where a code can stand beside its point, as plotly calls it, the nicest first.
_SIDES = [
    "top center",
    "bottom center",
    "middle right",
    "middle left",
    "top right",
    "top left",
    "bottom right",
    "bottom left",
]
# The sizes, in pixels, with which codes are placed: of a mark, of a code, and of half the map.
_MARK = 10
_CODE = np.array([14, 12])
_HALF_MAP = 240
# Maps of three dimensions know fewer symbols: the nearest to those of the others.
_SYMBOLS_3D = {
    "triangle-up": "diamond-open",
    "pentagon": "square-open",
    "star": "circle-open",
    "hexagon": "cross",
}


def language_map(
    positions: Any,
    shares: Float[np.ndarray, "layer axis"] | None = None,
    langs: Sequence[str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    layer: int | None = None,
    note: str = "",
) -> go.Figure:
    """Where each language lies at a layer, marked by family, with its code; the slider goes through
    the layers.

    All layers have one scale. Raises `SteerlabError` for another number of axes than two or three,
    and for a layer that is not there.

    Args:
        positions: `Directions` or `Moments`, which are laid out in two dimensions; or what
            `geometry.layout` gives, [layer lang axis], with what follows.
        shares: of the variance, by axis, as `geometry.layout` gives them.
        langs: the languages, in the order of the positions.
        layers: the numbers of the layers.
        layer: the one that is shown first, and that the caption is about; by default the middle
            one.
        note: a last sentence of the caption.
    """
    if is_held(positions):
        vectors, langs, layers = by_layer(positions)
        positions, shares = layout(vectors)
    if shares is None or langs is None or layers is None:
        raise SteerlabError(
            "language_map takes Directions or Moments, or the positions and shares of "
            "geometry.layout with langs= and layers=; some of these are missing"
        )
    layer = list(layers)[len(layers) // 2] if layer is None else layer
    if positions.shape[2] not in (2, 3):
        raise SteerlabError(
            f"a map has 2 or 3 axes, not {positions.shape[2]}; give geometry.layout as many "
            "dimensions"
        )
    if layer not in layers:
        raise SteerlabError(
            f"no layer {layer} here; there are layers {', '.join(map(str, layers))}"
        )
    start = list(layers).index(layer)
    # The axes go from -reach to reach, with a little room for the marks at the edge.
    reach = 1.08 * float(np.abs(positions).max())
    figure = go.Figure(_traces(positions[start], langs, reach))
    frames = []
    for number, points in zip(layers, positions, strict=True):
        frames.append(go.Frame(data=_traces(points, langs, reach), name=str(number)))
    figure.frames = frames
    _scale(figure, positions.shape[2], reach)
    slide(figure, layers, start)
    kept = f"{shares[start].sum():.0%} of the variance at layer {layer}"
    caption = sentence_of(
        "Classical multidimensional scaling of the chord distance √(2 − 2 cos) between centred "
        f"language means, {kept}; axes have no meaning of their own, and each layer is turned to "
        "fit the one before",
        f"n = {len(langs)} languages; layer {layer}",
        note,
    )
    return finish(figure, title="Map of the languages", caption=caption, height=680)


def _traces(
    points: np.ndarray, langs: Sequence[str], reach: float
) -> list[go.Scatter | go.Scatter3d]:
    """The marks and codes of one layer: one trace for each family.

    All layers have the same families in the same order, as the frames of plotly need.
    """
    sides = _sides(points[:, :2], reach)
    traces = []
    for family in dict.fromkeys(families_of(family_order(langs))):
        members = [index for index, lang in enumerate(langs) if labelled(lang).family == family]
        color, symbol = family_style(family)
        look = {
            "mode": "markers+text",
            "text": [langs[index] for index in members],
            "customdata": [labelled(langs[index]).name for index in members],
            "hovertemplate": "%{customdata}<extra>" + family + "</extra>",
            "name": family,
        }
        if points.shape[1] == 3:
            x, y, z = points[members].T
            # No sides for the codes: they change when the map is turned.
            symbol = _SYMBOLS_3D.get(symbol, symbol)
            trace = go.Scatter3d(
                x=x,
                y=y,
                z=z,
                marker={"color": color, "symbol": symbol, "size": 5},
                textfont={"size": 11, "color": INK},
                **look,
            )
        else:
            x, y = points[members].T
            edge = {"color": "#ffffff", "width": 1}
            trace = go.Scatter(
                x=x,
                y=y,
                marker={"color": color, "symbol": symbol, "size": _MARK, "line": edge},
                textposition=[sides[index] for index in members],
                textfont={"size": 11},
                cliponaxis=False,
                **look,
            )
        traces.append(trace)
    return traces


def place_codes(figure: go.Figure, size: float) -> None:
    """Put the codes of a map where they hide least on a map so many pixels wide, in place; nothing
    on another figure."""
    traces = [trace for trace in figure.data if trace.type == "scatter" and trace.textposition]
    if not traces or figure.layout.yaxis.scaleanchor != "x" or figure.layout.xaxis.range is None:
        return
    points = [np.stack([trace.x, trace.y], -1).astype(float) for trace in traces]
    sides = _sides(np.concatenate(points), float(figure.layout.xaxis.range[1]), size / 2)
    for trace, own in zip(traces, points, strict=True):
        trace.textposition, sides = sides[: len(own)], sides[len(own) :]


def _sides(points: np.ndarray, reach: float, half: float = _HALF_MAP) -> list[str]:
    """On which side of its point each code is written: where it hides least.

    Points are taken one by one, crowded ones first, since these have the fewest free sides. All is
    computed in pixels of a map of twice `half`. A box is [x y width height], x and y its middle.
    """
    pixels = points * half / reach
    distances = np.linalg.norm(pixels[:, None] - pixels[None], axis=-1)
    crowd = (distances < 30).sum(1)
    marks = np.column_stack([pixels, np.full_like(pixels, _MARK)])
    codes = np.zeros((0, 4))  # the boxes of the codes that have their side already
    chosen = [""] * len(pixels)
    for index in np.argsort(-crowd, kind="stable"):
        boxes = {}
        hidden = {}
        for side in _SIDES:
            box = np.array([*(pixels[index] + _offset(side)), *_CODE])
            boxes[side] = box
            # A code over another code cannot be read, so that counts twice.
            hidden[side] = _overlap(box, marks) + 2 * _overlap(box, codes)
        best = min(_SIDES, key=hidden.__getitem__)
        chosen[index] = best
        codes = np.vstack([codes, boxes[best]])
    return chosen


def _offset(side: str) -> np.ndarray:
    """From a point to the middle of its code, in pixels."""
    vertical, horizontal = side.split()
    step = np.array(
        [
            {"left": -1, "center": 0, "right": 1}[horizontal],
            {"bottom": -1, "middle": 0, "top": 1}[vertical],
        ]
    )
    # At a corner both steps are taken, and each can be smaller.
    return step * (_CODE if 0 in step else np.array([10, 10]))


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    """The area that a box shares with others, [box 4]; boxes are [x y width height]."""
    shared = (box[2:] + others[:, 2:]) / 2 - np.abs(others[:, :2] - box[:2])
    # Not below zero where they are apart, not above the smaller where one holds the other.
    shared = np.clip(shared, 0, np.minimum(box[2:], others[:, 2:]))
    return float(shared.prod(1).sum())


def _scale(figure: go.Figure, axes: int, reach: float) -> None:
    """Give all axes one scale, without numbers: only distances mean something."""
    axis = {
        "range": [-reach, reach],
        "showticklabels": False,
        "zeroline": True,
        "zerolinecolor": "#c3cad2",
        "dtick": 0.25,
    }
    if axes == 3:
        axis |= {"title": "", "backgroundcolor": "#fafbfc"}
        figure.update_layout(scene={"xaxis": axis, "yaxis": axis, "zaxis": axis})
        figure.update_layout(
            scene_aspectmode="cube", scene_camera_eye={"x": 1.0, "y": 1.0, "z": 0.65}
        )
        return
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis, scaleanchor="x")  # a unit is as long across as it is up


def slide(figure: go.Figure, layers: Sequence[int], start: int) -> None:
    """Put a slider below a figure whose frames are named by their layers.

    Args:
        figure: the figure, with a frame for each layer.
        layers: the layers along the slider.
        start: the index of the layer that is shown first.
    """
    transition = {
        "mode": "immediate",
        "frame": {"duration": 300, "redraw": True},
        "transition": {"duration": 0},
    }
    steps = []
    for layer in layers:
        arguments = [[str(layer)], transition]
        steps.append({"label": str(layer), "method": "animate", "args": arguments})
    slider = {
        "active": start,
        "currentvalue": {"prefix": "layer ", "font": {"size": 13, "color": INK}},
        "pad": {"t": 8, "b": 8},
        "font": {"color": GREY, "size": 11},
        "steps": steps,
    }
    figure.update_layout(sliders=[slider])


FIGURES = {"language_map": language_map}

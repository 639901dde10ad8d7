"""The languages on a map of two or three dimensions, a slider for the layer."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families, language
from steerlab.figures.style import GREY, INK, family_order, family_style, finish, sentence_of

_SIDES = ["top center", "bottom center", "middle right", "middle left"]
_SIDES += ["top right", "top left", "bottom right", "bottom left"]
_SYMBOLS_3D = {
    "triangle-up": "diamond-open",
    "pentagon": "square-open",
    "star": "circle-open",
    "hexagon": "cross",
}


def language_map(
    positions: Float[np.ndarray, "layer lang axis"],
    shares: Float[np.ndarray, "layer axis"],
    langs: Sequence[str],
    *,
    layers: Sequence[int],
    layer: int,
    note: str = "",
) -> go.Figure:
    """Where each language lies at a layer, marked by family, with its code; the slider goes through
    the layers.

    `positions` and `shares` (of the variance, by axis) as `geometry.layout` gives them, of two or
    three axes. All layers have one scale. Raises `SteerlabError` for another number of axes or a
    layer that is not there.
    """
    if positions.shape[2] not in (2, 3):
        raise SteerlabError(f"a map has 2 or 3 axes, not {positions.shape[2]}")
    if layer not in layers:
        raise SteerlabError(
            f"no layer {layer} here; there are layers {', '.join(map(str, layers))}"
        )
    start = list(layers).index(layer)
    reach = 1.08 * float(np.abs(positions).max())
    figure = go.Figure(_traces(positions[start], langs, reach))
    figure.frames = [
        go.Frame(data=_traces(points, langs, reach), name=str(here))
        for here, points in zip(layers, positions, strict=True)
    ]
    _scale(figure, positions.shape[2], reach)
    slide(figure, layers, start)
    kept = f"{shares[start].sum():.0%} of the variance at layer {layer}"
    caption = sentence_of(
        "Classical multidimensional scaling of the chord distance √(2 − 2 cos) between centred "
        "language means, "
        f"{kept}; axes have no meaning of their own, and each layer is turned to fit "
        "the one before",
        f"n = {len(langs)} languages; layer {layer}",
        note,
    )
    return finish(figure, title="Map of the languages", caption=caption, height=680)


def _traces(
    points: np.ndarray, langs: Sequence[str], reach: float
) -> list[go.Scatter | go.Scatter3d]:
    """One trace a family, in the same order at every layer."""
    sides = _sides(points[:, :2], reach)
    groups = dict.fromkeys(families(family_order(langs)))
    traces = []
    for family in groups:
        inside = [place for place, iso in enumerate(langs) if language(iso).family == family]
        color, symbol = family_style(family)
        about = {
            "mode": "markers+text",
            "text": [langs[place] for place in inside],
            "customdata": [language(langs[place]).name for place in inside],
            "hovertemplate": "%{customdata}<extra>" + family + "</extra>",
            "name": family,
        }
        x, y, *z = points[inside].T
        if z:
            marker = {"color": color, "symbol": _SYMBOLS_3D.get(symbol, symbol), "size": 5}
            traces.append(
                go.Scatter3d(
                    x=x, y=y, z=z[0], marker=marker, textfont={"size": 11, "color": INK}, **about
                )
            )
        else:
            marker = {
                "color": color,
                "symbol": symbol,
                "size": 10,
                "line": {"color": "#ffffff", "width": 1},
            }
            place = [sides[k] for k in inside]
            traces.append(
                go.Scatter(
                    x=x,
                    y=y,
                    marker=marker,
                    textposition=place,
                    textfont={"size": 11},
                    cliponaxis=False,
                    **about,
                )
            )
    return traces


def _sides(points: np.ndarray, reach: float) -> list[str]:
    """On which side of its point each code is written: where it hides least, crowded points first.

    In pixels of a map 480 wide: a mark is a square of 10, a code a box of 14 x 12.
    """
    at = points * 240 / reach
    crowd = (np.linalg.norm(at[:, None] - at[None], axis=-1) < 30).sum(1)
    marks, codes = np.column_stack([at, np.full_like(at, 10)]), np.zeros((0, 4))
    chosen = [""] * len(at)
    for place in np.argsort(-crowd, kind="stable"):
        boxes = {side: np.array([*(at[place] + _offset(side)), 14, 12]) for side in _SIDES}
        hidden = {
            side: _overlap(box, marks) + 2 * _overlap(box, codes) for side, box in boxes.items()
        }
        best = min(_SIDES, key=hidden.__getitem__)
        chosen[place], codes = best, np.vstack([codes, boxes[best]])
    return chosen


def _offset(side: str) -> np.ndarray:
    down, across = side.split()
    step = np.array(
        [{"left": -1, "center": 0, "right": 1}[across], {"bottom": -1, "middle": 0, "top": 1}[down]]
    )
    return step * (np.array([14, 12]) if 0 in step else np.array([10, 10]))


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    """The area that a box [x y width height] shares with others."""
    sides = (box[2:] + others[:, 2:]) / 2 - np.abs(others[:, :2] - box[:2])
    return float(np.clip(sides, 0, np.minimum(box[2:], others[:, 2:])).prod(1).sum())


def _scale(figure: go.Figure, axes: int, reach: float) -> None:
    axis = {
        "range": [-reach, reach],
        "showticklabels": False,
        "zeroline": True,
        "zerolinecolor": "#c3cad2",
        "dtick": 0.25,
    }
    if axes == 3:
        figure.update_layout(
            scene={
                name: {**axis, "title": "", "backgroundcolor": "#fafbfc"}
                for name in ("xaxis", "yaxis", "zaxis")
            }
        )
        figure.update_layout(
            scene_aspectmode="cube", scene_camera_eye={"x": 1.0, "y": 1.0, "z": 0.65}
        )
        return
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis, scaleanchor="x")


def slide(figure: go.Figure, layers: Sequence[int], start: int) -> None:
    """A slider below a figure whose frames are named by their layers."""
    calm = {
        "mode": "immediate",
        "frame": {"duration": 300, "redraw": True},
        "transition": {"duration": 0},
    }
    figure.update_layout(
        sliders=[
            {
                "active": start,
                "currentvalue": {"prefix": "layer ", "font": {"size": 13, "color": INK}},
                "pad": {"t": 8, "b": 8},
                "font": {"color": GREY, "size": 11},
                "steps": [
                    {"label": str(layer), "method": "animate", "args": [[str(layer)], calm]}
                    for layer in layers
                ],
            }
        ]
    )


FIGURES = {"language_map": language_map}

"""The cosines between languages raw and centred, side by side, a slider for the layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.analysis.geometry import cosine_matrices
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import labelled
from steerlab.figures.given import by_layer, is_held
from steerlab.figures.maps import slide
from steerlab.figures.panels import heading
from steerlab.figures.style import DIVERGING, SEQUENTIAL, family_style, finish, sentence_of
from steerlab.figures.trees import leaf_order, linkage_of


def cosine_layers(
    raw: Any,
    centred: Any = None,
    langs: Sequence[str] | None = None,
    *,
    layers: Sequence[int] | None = None,
    layer: int | None = None,
    order: Sequence[int] | None = None,
    note: str = "",
) -> go.Figure:
    """Cosines of language means at a layer, as they are and less the mean of all; the slider goes
    through the layers.

    Codes have the colour of their family. Raises `SteerlabError` for a layer that is not there, and
    for an order of other languages.

    Args:
        raw: `Directions` or `Moments`; or the cosines of the means as they are [layer lang lang],
            with the four that follow.
        centred: the cosines less the mean of all.
        langs: the languages, in the order of the matrices.
        layers: the numbers of the layers.
        layer: the one that is shown first, and that the caption is about; by default the middle
            one.
        order: the indices of the languages from top to bottom; by default the leaf order of the
            tree at that layer.
        note: a last sentence of the caption.
    """
    if is_held(raw):
        vectors, langs, layers = by_layer(raw)
        layer = layers[len(layers) // 2] if layer is None else layer
        raw, centred = cosine_matrices(vectors, centre=False), cosine_matrices(vectors)
        if order is None and layer in layers:
            order = leaf_order(linkage_of(vectors[layers.index(layer)], langs))
    if centred is None or langs is None or layers is None or layer is None:
        raise SteerlabError(
            "cosine_layers takes Directions or Moments, or the cosines raw and centred with langs, "
            "layers, layer and order"
        )
    if layer not in layers:
        raise SteerlabError(
            f"no layer {layer} here; there are layers {', '.join(map(str, layers))}"
        )
    order = list(range(len(langs))) if order is None else order
    if sorted(order) != list(range(len(langs))):
        raise SteerlabError(
            f"the order names the languages {', '.join(map(str, order))}; name each of the "
            f"{len(langs)} languages once, from 0 to {len(langs) - 1}"
        )
    start = list(layers).index(layer)
    codes = [langs[index] for index in order]
    # Rows and columns of every layer in the same order.
    ordered = np.ix_(range(len(layers)), order, order)
    raw = raw[ordered]
    centred = centred[ordered]
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1)
    for trace, col in zip(_pair(raw[start], centred[start], codes), (1, 2), strict=True):
        figure.add_trace(trace, row=1, col=col)
    frames = []
    for number, left, right in zip(layers, raw, centred, strict=True):
        frames.append(go.Frame(data=_pair(left, right, codes), traces=[0, 1], name=str(number)))
    figure.frames = frames
    _label(figure, codes)
    slide(figure, layers, start)
    caption = sentence_of(
        "Cosine between the means of every two languages: (a) as it is, (b) after the mean of all "
        "languages is taken off. Languages in the leaf order of average linkage on centred cosine "
        f"distance at layer {layer}, codes in the colour of their family",
        f"n = {len(codes)} languages; layer {layer}",
        note,
    )
    finish(figure, title="Cosines between languages, raw and centred", caption=caption, height=620)
    # plotly measures no room for letters that stand on their side.
    return figure.update_layout(margin_b=26)


def _pair(raw: np.ndarray, centred: np.ndarray, codes: list[str]) -> list[go.Heatmap]:
    """The two heatmaps of one layer; the codes are those of the languages, in their order."""
    names = [labelled(code).name for code in codes]
    pairs = []
    for a in names:
        pairs.append([f"{a} – {b}" for b in names])
    shared = {
        "x": codes,
        "y": codes,
        "text": pairs,
        "hovertemplate": "%{text}<br>cosine %{z:.3f}<extra></extra>",
    }
    bar = {
        "thickness": 7,
        "len": 0.6,
        "outlinewidth": 0,
        "xanchor": "left",
        "xpad": 3,
        "tickfont": {"size": 9},
    }
    return [
        # Means of one model share most of their direction, so raw cosines are rarely negative.
        go.Heatmap(
            z=raw, zmin=0, zmax=1, colorscale=SEQUENTIAL, colorbar={**bar, "x": 0.45}, **shared
        ),
        go.Heatmap(
            z=centred, zmin=-1, zmax=1, colorscale=DIVERGING, colorbar={**bar, "x": 1.0}, **shared
        ),
    ]


def _label(figure: go.Figure, codes: list[str]) -> None:
    """Write the codes in the colours of their families, and the headings."""
    colored = []
    for code in codes:
        color, _ = family_style(labelled(code).family)
        colored.append(f'<span style="color:{color}">{code}</span>')
    axis = {
        "type": "category",
        "tickvals": codes,
        "ticktext": colored,
        "showgrid": False,
        "tickfont_size": 8,
    }
    figure.update_xaxes(**axis, tickangle=-90)
    figure.update_yaxes(**axis, autorange="reversed")
    for index, kind in enumerate(("raw", "centred")):
        heading(figure, index, f"cosine, {kind}", shift=0)


FIGURES = {"cosine_layers": cosine_layers}

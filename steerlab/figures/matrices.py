"""The cosines between languages raw and centred, side by side, a slider for the layer."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import language
from steerlab.figures.maps import slide
from steerlab.figures.panels import heading
from steerlab.figures.style import DIVERGING, SEQUENTIAL, family_style, finish, sentence_of


def cosine_layers(
    raw: Float[np.ndarray, "layer lang lang"],
    centred: Float[np.ndarray, "layer lang lang"],
    langs: Sequence[str],
    *,
    layers: Sequence[int],
    layer: int,
    order: Sequence[int],
    note: str = "",
) -> go.Figure:
    """Cosines of language means at a layer, as they are and less the mean of all; the slider goes
    through the layers.

    `order`: the places of the languages from top to bottom, such as the leaf order of a tree. Codes
    have the colour of their family.
    """
    if layer not in layers or sorted(order) != list(range(len(langs))):
        raise SteerlabError(
            f"no layer {layer} among {', '.join(map(str, layers))}, or the order does not name "
            "each of the "
            f"{len(langs)} languages once"
        )
    start, isos = list(layers).index(layer), [langs[place] for place in order]
    grid = np.ix_(range(len(layers)), order, order)
    first, second = raw[grid], centred[grid]
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1)
    for trace, col in zip(_pair(first[start], second[start], isos), (1, 2), strict=True):
        figure.add_trace(trace, row=1, col=col)
    figure.frames = [
        go.Frame(data=_pair(a, b, isos), traces=[0, 1], name=str(here))
        for here, a, b in zip(layers, first, second, strict=True)
    ]
    _label(figure, isos)
    slide(figure, layers, start)
    caption = sentence_of(
        "Cosine between the means of every two languages: (a) as it is, (b) after the mean of all "
        "languages is taken "
        "off. Languages in the leaf order of average linkage on centred cosine distance at layer "
        f"{layer}, codes in "
        "the colour of their family",
        f"n = {len(isos)} languages; layer {layer}",
        note,
    )
    finish(figure, title="Cosines between languages, raw and centred", caption=caption, height=620)
    return figure.update_layout(
        margin_b=26
    )  # plotly measures no room for letters that stand on their side


def _pair(raw: np.ndarray, centred: np.ndarray, isos: list[str]) -> list[go.Heatmap]:
    names = [language(iso).name for iso in isos]
    pairs = [[f"{a} – {b}" for b in names] for a in names]
    about = {
        "x": isos,
        "y": isos,
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
        go.Heatmap(
            z=raw, zmin=0, zmax=1, colorscale=SEQUENTIAL, colorbar={**bar, "x": 0.45}, **about
        ),
        go.Heatmap(
            z=centred, zmin=-1, zmax=1, colorscale=DIVERGING, colorbar={**bar, "x": 1.0}, **about
        ),
    ]


def _label(figure: go.Figure, isos: list[str]) -> None:
    inked = [
        f'<span style="color:{family_style(language(iso).family)[0]}">{iso}</span>' for iso in isos
    ]
    about = {
        "type": "category",
        "tickvals": isos,
        "ticktext": inked,
        "showgrid": False,
        "tickfont_size": 8,
    }
    figure.update_xaxes(**about, tickangle=-90)
    figure.update_yaxes(**about, autorange="reversed")
    for place, kind in enumerate(("raw", "centred")):
        heading(figure, place, f"cosine, {kind}", shift=0)


FIGURES = {"cosine_layers": cosine_layers}

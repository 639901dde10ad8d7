"""Where in depth the units of languages lie."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.figures.grids import BAR
from steerlab.figures.panels import roomy, shade
from steerlab.figures.style import (
    DASHES,
    GREY,
    INK,
    PALETTE,
    SEQUENTIAL,
    check,
    family_order,
    finish,
    readable,
    sentence_of,
)

Parts = Mapping[str, Sequence[int]]

_CELLS = 18  # layers whose cells have room for a number
_KINDS = {"specific": PALETTE[1], "related": PALETTE[4], "agnostic": PALETTE[0], "other": "#c3cad2"}


def units_by_layer(
    counts: pd.DataFrame, *, units: str = "units", parts: Parts | None = None, note: str = ""
) -> go.Figure:
    """How many units each language has at each layer, with the sums of layers above and of
    languages at the right.

    `counts`: index languages, columns layers, such as `Selection.counts`; `units`: what they are,
    such as "neurons". `parts` divides the depth: lines between them, their names above. Languages
    are in the order of their families. Raises `SteerlabError` for an empty table.
    """
    if counts.empty:
        raise SteerlabError(
            "units_by_layer was given a table without languages or layers; give Selection.counts"
        )
    known = all(iso in LANGUAGES for iso in counts.index)
    counts = counts.loc[family_order(list(counts.index))] if known else counts
    layers = [int(layer) for layer in counts.columns]
    figure = make_subplots(
        rows=2,
        cols=2,
        row_heights=[0.18, 0.82],
        column_widths=[0.86, 0.14],
        horizontal_spacing=0.015,
        vertical_spacing=0.02,
        shared_xaxes="columns",
        shared_yaxes="rows",
    )
    names = [LANGUAGES[iso].name if iso in LANGUAGES else str(iso) for iso in counts.index]
    places, values = list(range(len(layers))), counts.to_numpy(float)
    figure.add_trace(_table(values, names, layers, units), row=2, col=1)
    about = {"marker": {"color": GREY}, "showlegend": False, "cliponaxis": False}
    hover = f"layer %{{customdata}}<br>%{{y:,.0f}} {units}<extra></extra>"
    figure.add_bar(
        x=places, y=values.sum(0), customdata=layers, hovertemplate=hover, **about, row=1, col=1
    )
    sums, hover = values.sum(1), f"%{{y}}<br>%{{x:,.0f}} {units}<extra></extra>"
    told = [f"{total:,.0f}" for total in sums]
    bars = {"x": sums, "y": names, "orientation": "h", "hovertemplate": hover}
    labels = {"text": told, "textposition": "outside", "textfont": {"size": 9}}
    figure.add_bar(**bars, **labels, **about, row=2, col=2)
    _axes(figure, layers, names, float(sums.max()))
    if parts:
        shade(figure, parts, layers, row=1, col=1)
        for edge in _edges(parts, layers):
            figure.add_vline(x=edge, line={"color": INK, "width": 1}, row=2, col=1)
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "colorbar": BAR, "cmin": 0}, bargap=0.15
    )
    caption = sentence_of(
        f"Number of {units} of each language at each layer; above the sum of each layer, at the "
        "right of each language",
        f"n = {len(names)} languages, {len(layers)} layers",
        note,
    )
    height = 250 + (16 if len(names) > _CELLS else 23) * len(names)
    figure = finish(
        figure,
        title=f"{units[:1].upper()}{units[1:]} by layer and language",
        caption=caption,
        height=height,
    )
    return roomy(figure, 30) if parts else figure


def kinds_by_layer(table: pd.DataFrame, *, parts: Parts | None = None, note: str = "") -> go.Figure:
    """The share of each kind of unit at each layer (specific, related and agnostic neurons), parts
    of the depth shaded.

    Columns: layer, kind, and share or count; a count is taken as a share of its layer. `parts`:
    each part's name and its layers, such as "understanding", "shared reasoning", "output" and
    "vocabulary".
    """
    value = "share" if "share" in table.columns else "count"
    check(table, ("layer", "kind", value), "kinds_by_layer")
    wide = table.pivot_table(
        index="layer", columns="kind", values=value, aggfunc="sum", sort=True
    ).fillna(0.0)
    if value == "count":
        wide = wide.div(wide.sum(axis=1).clip(lower=1e-30), axis=0)
    layers = [int(layer) for layer in wide.index]
    kinds = [kind for kind in _KINDS if kind in wide] + [
        str(kind) for kind in wide if kind not in _KINDS
    ]
    figure = make_subplots(rows=1, cols=1)
    if parts:
        shade(figure, parts, layers, row=1, col=1)
    for number, kind in enumerate(kinds):
        color = _KINDS.get(kind, PALETTE[(number + 3) % len(PALETTE)])
        figure.add_scatter(
            x=list(range(len(layers))),
            y=wide[kind],
            customdata=layers,
            mode="lines+markers",
            line={
                "color": color,
                "dash": DASHES[number % 6],
                "width": 2.5,
            },
            marker={"size": 6},
            name=readable(kind),
            hovertemplate=f"{readable(kind)}, layer %{{customdata}}<br>%{{y:.1%}}<extra></extra>",
        )
    figure.update_xaxes(
        title_text="layer", range=[-0.5, len(layers) - 0.5], showgrid=False, **_ticks(layers)
    )
    figure.update_yaxes(title_text="share of the units", tickformat=".0%", rangemode="tozero")
    caption = sentence_of(
        "Share of each kind among the units of a layer",
        f"Shaded: {', '.join(f'{name} ({_span(inside)})' for name, inside in parts.items())}"
        if parts
        else "",
        note,
    )
    figure = finish(figure, title="Kinds of units by layer", caption=caption, height=420)
    return roomy(figure, 30) if parts else figure


def _table(values: np.ndarray, names: list[str], layers: list[int], units: str) -> go.Heatmap:
    roomy = len(layers) <= _CELLS and len(names) <= 2 * _CELLS
    return go.Heatmap(
        z=values,
        x=list(range(len(layers))),
        y=names,
        customdata=[layers] * len(names),
        text=[[f"{count:.0f}" for count in line] for line in values] if roomy else None,
        texttemplate="%{text}" if roomy else None,
        textfont={"size": 10},
        hovertemplate=f"%{{y}}, layer %{{customdata}}<br>%{{z:.0f}} {units}<extra></extra>",
        xgap=1,
        ygap=1,
        coloraxis="coloraxis",
    )


def _axes(figure: go.Figure, layers: list[int], names: list[str], most: float) -> None:
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    figure.update_xaxes(
        title_text="layer", range=[-0.5, len(layers) - 0.5], **_ticks(layers), row=2, col=1
    )
    figure.update_yaxes(type="category", autorange="reversed", dtick=1, row=2)
    figure.update_yaxes(tickfont_size=9 if len(names) > _CELLS else 11, row=2, col=1)
    figure.update_yaxes(nticks=3, tickfont_size=10, rangemode="tozero", row=1, col=1)
    figure.update_xaxes(range=[0, 1.6 * max(most, 1)], showticklabels=False, row=2, col=2)


def _ticks(layers: list[int]) -> dict[str, list]:
    step = max(1, -(-len(layers) // 16))
    places = list(range(0, len(layers), step))
    return {"tickvals": places, "ticktext": [str(layers[place]) for place in places]}


def _edges(parts: Parts, layers: list[int]) -> list[float]:
    """Where one part ends and the next begins, as places between layers."""
    place = {layer: number for number, layer in enumerate(layers)}
    starts = sorted(
        min(place[layer] for layer in inside if layer in place)
        for inside in parts.values()
        if inside
    )
    return [start - 0.5 for start in starts if start]


def _span(layers: Sequence[int]) -> str:
    return f"{min(layers)}–{max(layers)}" if len(layers) > 1 else ", ".join(map(str, layers))


FIGURES = {"units_by_layer": units_by_layer, "kinds_by_layer": kinds_by_layer}

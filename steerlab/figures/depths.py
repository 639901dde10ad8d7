"""Where in the depth of a model the units of languages lie."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import is_plainly_language, language
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

Parts = Mapping[str, Sequence[int]]  # the layers of each part of the depth, by its name

_CELLS = 18  # so many layers have room for numbers in their cells
# The kinds of units in their order, with their colours.
_KINDS = {"specific": PALETTE[1], "related": PALETTE[4], "agnostic": PALETTE[0], "other": "#c3cad2"}


def units_by_layer(
    counts: Any, *, units: str = "units", parts: Parts | None = None, note: str = ""
) -> go.Figure:
    """How many units each language has at each layer, with the sums of layers above and of
    languages at the right.

    Languages are in the order of their families. Raises `SteerlabError` for an empty table.

    Args:
        counts: a `Selection`; or a table with the languages as its index and the layers as its
            columns.
        units: what they are called, such as "neurons".
        parts: divides the depth: lines between the parts, their names above.
        note: a last sentence of the caption.
    """
    counts = getattr(counts, "counts", counts)  # of a `Selection`
    if counts.empty:
        raise SteerlabError(
            "units_by_layer was given a table without languages or layers; give Selection.counts"
        )
    if all(map(is_plainly_language, counts.index)):
        counts = counts.loc[family_order(list(counts.index))]
    layers = [int(layer) for layer in counts.columns]
    # The heatmap at the lower left; the sums of its columns above it, those of its rows beside it.
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
    names = [
        language(lang).name if is_plainly_language(lang) else str(lang) for lang in counts.index
    ]
    values = counts.to_numpy(float)
    figure.add_trace(_table(values, names, layers, units), row=2, col=1)
    _add_sums(figure, values, names, layers, units)
    _axes(figure, layers, names, float(values.sum(1).max()))
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
    # Lines of many languages are lower, since they have no numbers in their cells.
    height = 250 + (16 if len(names) > _CELLS else 23) * len(names)
    figure = finish(
        figure,
        title=f"{units[:1].upper()}{units[1:]} by layer and language",
        caption=caption,
        height=height,
    )
    # The names of the parts stand above the panels, in up to two lines.
    return roomy(figure, 30) if parts else figure


def kinds_by_layer(table: Any, *, parts: Parts | None = None, note: str = "") -> go.Figure:
    """The share of each kind of unit at each layer (specific, related and agnostic neurons), parts
    of the depth shaded.

    Raises `SteerlabError` for a missing column or no rows.

    Args:
        table: what `units.nju` gives; or columns layer, kind, and share or count; a count is taken
            as a share of its layer.
        parts: divides the depth, such as "understanding", "shared reasoning", "output" and
            "vocabulary".
        note: a last sentence of the caption.
    """
    if hasattr(table, "kinds_by_layer"):
        table = table.kinds_by_layer()
    value = "share" if "share" in table.columns else "count"
    check(table, ("layer", "kind", value), "kinds_by_layer")
    wide = table.pivot_table(
        index="layer", columns="kind", values=value, aggfunc="sum", sort=True
    ).fillna(0.0)
    if value == "count":
        # Not 0 / 0 at a layer without units: its shares are 0.
        wide = wide.div(wide.sum(axis=1).clip(lower=1e-30), axis=0)
    layers = [int(layer) for layer in wide.index]
    kinds = [kind for kind in _KINDS if kind in wide]
    kinds += [str(kind) for kind in wide if kind not in _KINDS]
    figure = make_subplots(rows=1, cols=1)
    # First, so that the lines lie above the shades.
    if parts:
        shade(figure, parts, layers, row=1, col=1)
    for number, kind in enumerate(kinds):
        # Kinds that are not known take colours that the known ones leave.
        color = _KINDS.get(kind, PALETTE[(number + 3) % len(PALETTE)])
        figure.add_scatter(
            x=list(range(len(layers))),
            y=wide[kind],
            customdata=layers,
            mode="lines+markers",
            line={"color": color, "dash": DASHES[number % len(DASHES)], "width": 2.5},
            marker={"size": 6},
            name=readable(kind),
            hovertemplate=f"{readable(kind)}, layer %{{customdata}}<br>%{{y:.1%}}<extra></extra>",
        )
    figure.update_xaxes(
        title_text="layer", range=[-0.5, len(layers) - 0.5], showgrid=False, **_ticks(layers)
    )
    figure.update_yaxes(title_text="share of the units", tickformat=".0%", rangemode="tozero")
    shaded = [f"{name} ({_span(inside)})" for name, inside in (parts or {}).items()]
    caption = sentence_of(
        "Share of each kind among the units of a layer",
        f"n = {len(layers)} layers{_units_of(table)}",
        f"Shaded: {', '.join(shaded)}" if shaded else "",
        note,
    )
    figure = finish(figure, title="Kinds of units by layer", caption=caption, height=420)
    return roomy(figure, 30) if parts else figure


def _table(values: np.ndarray, names: list[str], layers: list[int], units: str) -> go.Heatmap:
    """The heatmap of counts [lang layer], with numbers in the cells where there is room."""
    numbers = None
    if len(layers) <= _CELLS and len(names) <= 2 * _CELLS:
        numbers = [[f"{count:.0f}" for count in line] for line in values]
    return go.Heatmap(
        z=values,
        x=list(range(len(layers))),
        y=names,
        customdata=[layers] * len(names),
        text=numbers,
        texttemplate=None if numbers is None else "%{text}",
        textfont={"size": 10},
        hovertemplate=f"%{{y}}, layer %{{customdata}}<br>%{{z:.0f}} {units}<extra></extra>",
        xgap=1,
        ygap=1,
        coloraxis="coloraxis",
    )


def _add_sums(
    figure: go.Figure, values: np.ndarray, names: list[str], layers: list[int], units: str
) -> None:
    """Add the bars of `units_by_layer`: the sum of each layer above, of each language beside.

    Args:
        figure: the figure, of two rows and two columns.
        values: the counts, [lang layer].
        names: of the languages.
        layers: the layers.
        units: what the units are called.
    """
    of_layers = values.sum(0)
    of_langs = values.sum(1)
    # Drawn beyond the axes too: the numbers stand behind the bars.
    bars = {"marker": {"color": GREY}, "showlegend": False, "cliponaxis": False}
    figure.add_bar(
        x=list(range(len(layers))),  # indices, so that a part can end between two layers
        y=of_layers,
        customdata=layers,
        hovertemplate=f"layer %{{customdata}}<br>%{{y:,.0f}} {units}<extra></extra>",
        **bars,
        row=1,
        col=1,
    )
    figure.add_bar(
        x=of_langs,
        y=names,
        orientation="h",
        hovertemplate=f"%{{y}}<br>%{{x:,.0f}} {units}<extra></extra>",
        text=[f"{total:,.0f}" for total in of_langs],
        textposition="outside",
        textfont={"size": 9},
        **bars,
        row=2,
        col=2,
    )


def _axes(figure: go.Figure, layers: list[int], names: list[str], most: float) -> None:
    """Set the axes of `units_by_layer`; `most` is the largest sum of a language."""
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    figure.update_xaxes(
        title_text="layer", range=[-0.5, len(layers) - 0.5], **_ticks(layers), row=2, col=1
    )
    figure.update_yaxes(type="category", autorange="reversed", dtick=1, row=2)
    figure.update_yaxes(tickfont_size=9 if len(names) > _CELLS else 11, row=2, col=1)
    figure.update_yaxes(nticks=3, tickfont_size=10, rangemode="tozero", row=1, col=1)
    # Room for the number behind the longest bar.
    figure.update_xaxes(range=[0, 1.6 * max(most, 1)], showticklabels=False, row=2, col=2)


def _ticks(layers: list[int]) -> dict[str, list]:
    """At most 16 ticks of an axis whose values are the indices of the layers."""
    step = max(1, -(-len(layers) // 16))  # rounded up
    indices = list(range(0, len(layers), step))
    return {"tickvals": indices, "ticktext": [str(layers[index]) for index in indices]}


def _edges(parts: Parts, layers: list[int]) -> list[float]:
    """Where one part ends and the next begins, between the indices of two layers."""
    index_of = {layer: index for index, layer in enumerate(layers)}
    starts = []
    for part in parts.values():
        inside = [index_of[layer] for layer in part if layer in index_of]
        if inside:
            starts.append(min(inside))
    # Nothing ends before the first layer.
    return [start - 0.5 for start in sorted(starts) if start > 0]


def _span(layers: Sequence[int]) -> str:
    """The first and the last of some layers."""
    if len(layers) > 1:
        return f"{min(layers)}–{max(layers)}"
    return ", ".join(map(str, layers))


def _units_of(table: pd.DataFrame) -> str:
    """How many units a layer has, where the table counts them and all layers have as many."""
    column = next((name for name in ("all", "count") if name in table), None)
    sizes = set() if column is None else set(table.groupby("layer")[column].sum())
    return f" of {int(sizes.pop()):,} units" if len(sizes) == 1 else ""


FIGURES = {"units_by_layer": units_by_layer, "kinds_by_layer": kinds_by_layer}

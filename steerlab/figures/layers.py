"""Panels over layers: how alike the languages are, and what explains it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.figures.given import depth_table, is_held
from steerlab.figures.panels import heading
from steerlab.figures.style import DASHES, GREY, PALETTE, SYMBOLS, check, finish, sentence_of


class _Panel(NamedTuple):
    """One panel of `depth`: its heading, its columns with their dashes, the type of its y axis."""

    heading: str
    lines: dict[str, str]
    axis: str = "linear"


_DEPTH = (
    _Panel("cosine of the means, raw", {"raw": "solid"}),
    _Panel("cosine, centred", {"within": "solid", "between": "dot"}),
    _Panel("neighbour of the same family", {"accuracy": "solid", "null": "dot"}),
    _Panel("gap ‖a − b‖", {"gap": "solid"}, axis="log"),
    _Panel("gap / norm", {"gap_ratio": "solid"}),
    _Panel("effective rank", {"effective_rank": "solid"}),
)
_DEPTH_COLUMNS = 3


def depth(table: Any, *, note: str = "") -> go.Figure:
    """Six statistics of the language means by layer, a line for each model.

    Raises `SteerlabError` for a missing column or no rows.

    Args:
        table: `Directions` or `Moments`; or columns model, layer, n, those of `geometry.by_layer`,
            accuracy, and null (the accuracy that 5 % of permutations of the family labels exceed).
        note: a last sentence of the caption.
    """
    if is_held(table):
        table = depth_table(table)
    columns = [name for panel in _DEPTH for name in panel.lines]
    check(table, ("model", "layer", "n", *columns), "depth")
    figure = _grid([panel.heading for panel in _DEPTH], columns=_DEPTH_COLUMNS)
    for index, panel in enumerate(_DEPTH):
        row = index // _DEPTH_COLUMNS + 1
        col = index % _DEPTH_COLUMNS + 1
        models = table.groupby("model", sort=False)
        for color, (model, part) in zip(PALETTE, models, strict=False):
            for name, dash in panel.lines.items():
                figure.add_scatter(
                    x=part["layer"],
                    y=part[name],
                    mode="lines",
                    line={"color": color, "width": 2, "dash": dash},
                    name=str(model),
                    legendgroup=str(model),
                    showlegend=index == 0,
                    hovertemplate=f"{model}, layer %{{x}}<br>{name} %{{y:.3f}}<extra></extra>",
                    row=row,
                    col=col,
                )
        # A logarithmic axis cannot reach zero.
        range_mode = "tozero" if panel.axis == "linear" else None
        figure.update_yaxes(type=panel.axis, row=row, col=col, rangemode=range_mode)
    _name_lines(figure, table)
    # Raw cosines and accuracies are shares of 1.
    figure.update_yaxes(range=[0, 1.04], row=1, col=1)
    figure.update_yaxes(range=[0, 1.04], row=1, col=3)
    figure.update_yaxes(tickvals=_decades(table["gap"]), tickformat="~g", row=2, col=1)
    sizes = [
        f"{model}: n = {part['n'].iloc[0]} languages"
        for model, part in table.groupby("model", sort=False)
    ]
    caption = sentence_of(
        "Language means by layer. (a) mean cosine over pairs. (b) the same after the mean of all "
        "languages is taken off, for pairs of one family and of two. (c) share of languages whose "
        "nearest neighbour by centred cosine is of their family; dotted: what 5 % of label "
        "permutations exceed at their best layer. (d) mean distance over pairs. (e) the same over "
        "the mean norm. (f) exp of the entropy of the centred means' spectrum",
        "; ".join(sizes),
        note,
    )
    return finish(figure, title="Languages by depth", caption=caption, height=560)


def explained(table: pd.DataFrame, *, note: str = "") -> go.Figure:
    """What goes with the distances between languages, layer by layer: a panel for each set of
    tests.

    A point is filled where its corrected p is below 0.05; the band is what 5 % of permutations
    exceed somewhere. Raises `SteerlabError` for a missing column or no rows.

    Args:
        table: columns panel (its heading), layer, distance, value (a correlation or a
            coefficient), p_corrected, critical (NaN where there is none), n.
        note: a last sentence of the caption.
    """
    check(
        table, ("panel", "layer", "distance", "value", "p_corrected", "critical", "n"), "explained"
    )
    panels = list(dict.fromkeys(table["panel"]))
    names = list(dict.fromkeys(table["distance"]))
    sizes = table.groupby("panel")["n"].first()
    headings = [f"{panel} (n = {sizes[panel]})" for panel in panels]
    figure = _grid(headings, columns=2 if len(panels) > 1 else 1)
    for index, panel in enumerate(panels):
        row = index // 2 + 1
        col = index % 2 + 1
        part = table[table["panel"] == panel]
        critical = part["critical"].iloc[0]
        if pd.notna(critical):
            figure.add_hrect(
                y0=-critical,
                y1=critical,
                row=row,
                col=col,
                fillcolor="#e9edf0",
                line_width=0,
                layer="below",
                exclude_empty_subplots=False,  # the band is drawn before the lines
            )
        for name in part["distance"].unique():
            line = part[part["distance"] == name]
            figure.add_trace(_points(line, name, names.index(name)), row=row, col=col)
    # The legend shows filled markers, whatever the first points of a line are: lines of their own
    # without a point stand in it.
    for style, name in enumerate(names):
        nowhere = table.head(1).assign(layer=np.nan, p_corrected=0.0)
        figure.add_trace(_points(nowhere, name, style, legend=True), 1, 1)
    pairs = sizes * (sizes - 1) // 2
    scopes = [f"{panel}, n = {sizes[panel]} languages, {pairs[panel]} pairs" for panel in panels]
    caption = sentence_of(
        "By layer, the correlation over pairs of n languages of cosine distance (centred means) "
        "with other distances, or standardised coefficients of a regression on them. Filled "
        "points: p < 0.05 by permutation of languages, corrected for the panel's layers and "
        "distances by the largest value of each permutation; the grey band holds what does not "
        "reach it",
        f"Panels: {'; '.join(scopes)}",
        note,
    )
    return finish(
        figure, title="What explains the distances between languages", caption=caption, height=660
    )


def _points(line: pd.DataFrame, name: str, style: int, *, legend: bool = False) -> go.Scatter:
    """The line of one distance in one panel.

    Args:
        line: its rows.
        name: of the distance.
        style: the number of its colour and symbol.
        legend: whether the line is named in the legend.
    """
    color = PALETTE[style % len(PALETTE)]
    symbol = SYMBOLS[style % len(SYMBOLS)]
    significant = line["p_corrected"] < 0.05
    return go.Scatter(
        x=line["layer"],
        y=line["value"],
        mode="lines+markers",
        line={"color": color, "width": 1.5, "dash": DASHES[0]},
        marker={
            "symbol": symbol,
            "size": 6,
            "color": [color if filled else "#ffffff" for filled in significant],
            "line": {"color": color, "width": 1},
        },
        name=name,
        legendgroup=name,
        showlegend=legend,
        customdata=line[["p_corrected", "n"]],
        hovertemplate=(
            f"{name}<br>layer %{{x}}: %{{y:.3f}}<br>"
            "corrected p = %{customdata[0]:.4f}, n = %{customdata[1]}<extra></extra>"
        ),
    )


def _name_lines(figure: go.Figure, table: pd.DataFrame) -> None:
    """Say in panels b and c of `depth` what solid and dotted lines are, where there is room."""
    last = table["layer"].max()
    middle = float(last) / 2
    at_right = {"x": last, "xanchor": "right"}
    above = {"yanchor": "bottom", "yshift": 2}
    below = {"yanchor": "top", "yshift": -2}
    within = at_right | above | {"text": "within family", "y": table["within"].max()}
    between = at_right | below | {"text": "between families", "y": table["between"].min()}
    null = above | {"text": "95 % of permutations", "y": table["null"].max()}
    null |= {"x": middle, "xanchor": "center"}
    for annotation, axis in ((within, "2"), (between, "2"), (null, "3")):
        figure.add_annotation(
            xref=f"x{axis}",
            yref=f"y{axis}",
            showarrow=False,
            font={"size": 10, "color": GREY},
            **annotation,
        )


def _grid(headings: Sequence[str], *, columns: int) -> go.Figure:
    """Panels with a letter and a heading each, layers along the bottom row."""
    rows = -(-len(headings) // columns)  # rounded up
    figure = make_subplots(
        rows=rows, cols=columns, horizontal_spacing=0.075, vertical_spacing=0.17 if rows > 1 else 0
    )
    for index, text in enumerate(headings):
        heading(figure, index, text)
    figure.update_xaxes(title_text="layer", row=rows)
    figure.update_layout(legend={"y": 0})
    figure.update_yaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1)
    return figure


def _decades(values: pd.Series) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, or 1, 2, 5 where there would be few."""
    low = float(values.min())
    high = float(values.max())
    steps = (1,) if high / low > 30 else (1, 2, 5)
    ticks = []
    for power in range(-6, 9):
        for step in steps:
            tick = step * 10.0**power
            if low / 2 < tick < high * 2:
                ticks.append(tick)
    return ticks


FIGURES = {"depth": depth, "explained": explained}

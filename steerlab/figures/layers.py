"""Panels over layers: how alike the languages are, and what explains it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.figures.panels import heading
from steerlab.figures.style import DASHES, GREY, PALETTE, SYMBOLS, check, finish, sentence_of

_DEPTH = (  # heading, columns with their dash, unit of the axis
    ("cosine of the means, raw", (("raw", "solid"),), "linear"),
    ("cosine, centred", (("within", "solid"), ("between", "dot")), "linear"),
    ("neighbour of the same family", (("accuracy", "solid"), ("null", "dot")), "linear"),
    ("gap ‖a − b‖", (("gap", "solid"),), "log"),
    ("gap / norm", (("gap_ratio", "solid"),), "linear"),
    ("effective rank", (("effective_rank", "solid"),), "linear"),
)


def depth(table: pd.DataFrame, *, note: str = "") -> go.Figure:
    """Six statistics of the language means by layer, a line for each model.

    Columns: model, layer, raw, within, between, accuracy, null (the share that 5 % of permutations
    exceed), gap, gap_ratio, effective_rank, n.
    """
    columns = [name for _, lines, _ in _DEPTH for name, _ in lines]
    check(table, ("model", "layer", "n", *columns), "depth")
    figure = _grid([text for text, *_ in _DEPTH], columns=3)
    for place, (_, lines, kind) in enumerate(_DEPTH):
        row, col = place // 3 + 1, place % 3 + 1
        for color, (model, part) in zip(PALETTE, table.groupby("model", sort=False), strict=False):
            for name, dash in lines:
                figure.add_scatter(
                    x=part["layer"],
                    y=part[name],
                    mode="lines",
                    line={"color": color, "width": 2, "dash": dash},
                    name=str(model),
                    legendgroup=str(model),
                    showlegend=place == 0,
                    hovertemplate=f"{model}, layer %{{x}}<br>{name} %{{y:.3f}}<extra></extra>",
                    row=row,
                    col=col,
                )
        figure.update_yaxes(
            type=kind, row=row, col=col, rangemode="tozero" if kind == "linear" else None
        )
    _name_lines(figure, table)
    figure.update_yaxes(range=[0, 1.04], row=1, col=1)
    figure.update_yaxes(range=[0, 1.04], row=1, col=3)
    figure.update_yaxes(tickvals=_decades(table["gap"]), tickformat="~g", row=2, col=1)
    sizes = "; ".join(
        f"{model}: n = {part['n'].iloc[0]} languages"
        for model, part in table.groupby("model", sort=False)
    )
    caption = sentence_of(
        "Language means by layer. (a) mean cosine over pairs. (b) the same after the mean of all "
        "languages is taken "
        "off, for pairs of one family and of two. (c) share of languages whose nearest neighbour "
        "by centred cosine is "
        "of their family; dotted: what 5 % of label permutations exceed at their best layer. (d) "
        "mean distance over "
        "pairs. (e) the same over the mean norm. (f) exp of the entropy of the centred means' "
        "spectrum",
        sizes,
        note,
    )
    return finish(figure, title="Languages by depth", caption=caption, height=560)


def explained(table: pd.DataFrame, *, note: str = "") -> go.Figure:
    """What goes with the distances between languages, layer by layer: a panel for each set of
    tests.

    Columns: panel (its heading), layer, distance, value (a correlation or a coefficient),
    p_corrected, critical (NaN where there is none), n. A point is filled where its corrected p is
    below 0.05; the band is what 5 % of permutations exceed somewhere.
    """
    check(
        table, ("panel", "layer", "distance", "value", "p_corrected", "critical", "n"), "explained"
    )
    panels = list(dict.fromkeys(table["panel"]))
    names = list(dict.fromkeys(table["distance"]))
    sizes = table.groupby("panel")["n"].first()
    figure = _grid(
        [f"{panel} (n = {sizes[panel]})" for panel in panels], columns=2 if len(panels) > 1 else 1
    )
    for place, panel in enumerate(panels):
        row, col = place // 2 + 1, place % 2 + 1
        part = table[table["panel"] == panel]
        critical = part["critical"].iloc[0]
        if pd.notna(critical):
            band = {
                "fillcolor": "#e9edf0",
                "line_width": 0,
                "layer": "below",
                "exclude_empty_subplots": False,
            }
            figure.add_hrect(y0=-critical, y1=critical, row=row, col=col, **band)
        for name in part["distance"].unique():
            line, style = part[part["distance"] == name], names.index(name)
            figure.add_trace(_points(line, name, style), row=row, col=col)
    for style, name in enumerate(
        names
    ):  # a legend of filled markers, whatever comes first in the panels
        figure.add_trace(
            _points(table.head(1).assign(layer=np.nan, p_corrected=0.0), name, style, legend=True),
            1,
            1,
        )
    caption = sentence_of(
        "By layer, the correlation over pairs of n languages of cosine distance (centred means) "
        "with other distances, "
        "or standardised coefficients of a regression on them. Filled points: p < 0.05 by "
        "permutation of languages, "
        "corrected for the panel's layers and distances by the largest value of each permutation; "
        "the grey band holds "
        "what does not reach it",
        "Panels: "
        + "; ".join(
            f"{panel}, n = {sizes[panel]} languages, {sizes[panel] * (sizes[panel] - 1) // 2} pairs"
            for panel in panels
        ),
        note,
    )
    return finish(
        figure, title="What explains the distances between languages", caption=caption, height=660
    )


def _points(line: pd.DataFrame, name: str, style: int, *, legend: bool = False) -> go.Scatter:
    color, symbol = PALETTE[style % len(PALETTE)], SYMBOLS[style % len(SYMBOLS)]
    sure = line["p_corrected"] < 0.05
    return go.Scatter(
        x=line["layer"],
        y=line["value"],
        mode="lines+markers",
        line={"color": color, "width": 1.5, "dash": DASHES[0]},
        marker={
            "symbol": symbol,
            "size": 6,
            "color": [color if yes else "#ffffff" for yes in sure],
            "line": {"color": color, "width": 1},
        },
        name=name,
        legendgroup=name,
        showlegend=legend,
        customdata=line[["p_corrected", "n"]],
        hovertemplate=(
            f"{name}<br>layer %{{x}}: %{{y:.3f}}<br>corrected p = %{{customdata[0]:.4f}}, n = "
            f"%{{customdata[1]}}"
            "<extra></extra>"
        ),
    )


def _name_lines(figure: go.Figure, table: pd.DataFrame) -> None:
    """What solid and dotted lines are, where there is room."""
    middle = float(table["layer"].max()) / 2
    for text, y, axis in (
        ("within family", table["within"].max(), "2"),
        ("between families", table["between"].min(), "2"),
        ("95 % of permutations", table["null"].max(), "3"),
    ):
        above = text != "between families"
        figure.add_annotation(
            text=text,
            x=middle if axis == "3" else table["layer"].max(),
            y=y,
            xref=f"x{axis}",
            yref=f"y{axis}",
            xanchor="center" if axis == "3" else "right",
            yanchor="bottom" if above else "top",
            yshift=2 if above else -2,
            showarrow=False,
            font={"size": 10, "color": GREY},
        )


def _grid(headings: Sequence[str], *, columns: int) -> go.Figure:
    """Panels with a letter and a heading each, layers along the bottom row."""
    rows = -(-len(headings) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, horizontal_spacing=0.075, vertical_spacing=0.17 if rows > 1 else 0
    )
    for place, text in enumerate(headings):
        heading(figure, place, text)
    figure.update_xaxes(title_text="layer", row=rows)
    figure.update_layout(legend={"y": 0})
    figure.update_yaxes(zeroline=True, zerolinecolor=GREY, zerolinewidth=1)
    return figure


def _decades(values: pd.Series) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, or 1, 2, 5 where there would be few."""
    low, high = float(values.min()), float(values.max())
    steps = (1,) if high / low > 30 else (1, 2, 5)
    return [
        step * 10.0**power
        for power in range(-6, 9)
        for step in steps
        if low / 2 < step * 10.0**power < high * 2
    ]


FIGURES = {"depth": depth, "explained": explained}

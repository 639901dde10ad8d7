"""How many features a filter leaves, and how many texts it takes to know them."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.core.languages import LANGUAGES
from steerlab.figures.grids import BAR
from steerlab.figures.panels import heading, roomy, some
from steerlab.figures.style import (
    INK,
    PALETTE,
    SEQUENTIAL,
    SYMBOLS,
    check,
    family_order,
    family_style,
    finish,
    sentence_of,
)

_COLUMNS = 4
_FEW = 6  # languages that can each have a line of their own with its interval


def threshold_counts(
    table: pd.DataFrame, *, mark: tuple[float, float] | None = (0.95, 0.05), note: str = ""
) -> go.Figure:
    """How many features pass both thresholds of LangFIR: a panel for each layer, the median over
    languages in a cell.

    Columns: language, layer, consistency, noise, count; one row for each combination. Of more than
    eight layers eight are drawn. `mark` frames the thresholds (consistency, noise) that are in use.
    The hover has the least and the most of the languages.
    """
    check(table, ("language", "layer", "consistency", "noise", "count"), "threshold_counts")
    layers = some(table["layer"].tolist())
    across, down = sorted(table["consistency"].unique()), sorted(table["noise"].unique())
    columns = min(_COLUMNS, len(layers))
    figure = make_subplots(
        rows=-(-len(layers) // columns),
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.12,
    )
    ticks = [f"{value:g}" for value in across], [f"{value:g}" for value in down]
    for place, layer in enumerate(layers):
        cells = (
            table[table["layer"] == layer]
            .groupby(["noise", "consistency"])["count"]
            .agg(["median", "min", "max"])
        )
        grid = cells.reindex(pd.MultiIndex.from_product([down, across])).to_numpy(float)
        counts, least, most = np.moveaxis(grid.reshape(len(down), len(across), 3), 2, 0)
        trace = go.Heatmap(
            z=np.log10(1 + counts),
            x=ticks[0],
            y=ticks[1],
            customdata=np.stack([counts, least, most], 2),
            text=[[_whole(count) for count in line] for line in counts],
            texttemplate="%{text}",
            textfont={"size": 10},
            hovertemplate=(
                f"layer {layer}<br>consistency ≥ %{{x}}, noise ≤ %{{y}}<br>median "
                f"%{{customdata[0]:.0f}} features"
                " (%{customdata[1]:.0f} to %{customdata[2]:.0f})<extra></extra>"
            ),
            xgap=1,
            ygap=1,
            coloraxis="coloraxis",
        )
        row, col = place // columns + 1, place % columns + 1
        figure.add_trace(trace, row=row, col=col)
        if mark and mark[0] in across and mark[1] in down:
            _frame(figure, across.index(mark[0]), down.index(mark[1]), row, col)
        heading(figure, place, f"layer {layer}")
    figure.update_xaxes(type="category", showgrid=False, tickfont_size=10, tickangle=0)
    figure.update_yaxes(type="category", showgrid=False, tickfont_size=10)
    _ends(figure, len(layers), columns)
    top = float(np.nanmax(np.log10(1 + table["count"].to_numpy(float))))
    steps = [
        0,
        *(
            step * 10**power
            for power in range(7)
            for step in (1, 3)
            if np.log10(1 + step * 10**power) <= top
        ),
    ]
    bar = BAR | {
        "tickvals": np.log10(1 + np.array(steps)),
        "ticktext": [f"{step:g}" for step in steps],
    }
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "colorbar": bar, "cmin": 0, "cmax": max(top, 0.3)}
    )
    caption = sentence_of(
        "Median number of features a language that are on in at least the share of its texts below "
        "the panel "
        "(consistency) and in at most the share of random tokens beside it (noise); colours are "
        "logarithmic",
        "The frame marks the thresholds in use" if mark else "",
        _of(table, layers),
        note,
    )
    height = 130 + 200 * -(-len(layers) // columns)
    return roomy(
        finish(figure, title="Features against both thresholds", caption=caption, height=height)
    )


def stability_curve(table: pd.DataFrame, *, note: str = "") -> go.Figure:
    """Overlap of the features that a draw of texts selects with those of all texts, against its
    size; a panel a layer.

    Columns: language, layer, samples, jaccard, low, high, as `langfir_stability` has them. Up to
    six languages have a line each with the middle 95 % of the draws as a bar; of more, thin lines
    in the colours of their families lie under their median and quartiles. Of more than eight layers
    eight are drawn.
    """
    check(table, ("language", "layer", "samples", "jaccard", "low", "high"), "stability_curve")
    layers, isos = some(table["layer"].tolist()), _languages(table)
    few = len(isos) <= _FEW
    columns = min(_COLUMNS, len(layers))
    figure = make_subplots(
        rows=-(-len(layers) // columns),
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.12,
    )
    for place, layer in enumerate(layers):
        part = table[table["layer"] == layer].sort_values("samples")
        traces = [
            _line(part, iso, number, len(isos), legend=place == 0)
            for number, iso in enumerate(isos)
        ]
        if not few:
            traces = [*traces, *_middle(part, legend=place == 0)]
        for trace in traces:
            figure.add_trace(trace, row=place // columns + 1, col=place % columns + 1)
        heading(figure, place, f"layer {layer}")
    sizes = sorted(table["samples"].unique())
    figure.update_xaxes(
        type="log", tickvals=sizes, ticktext=[f"{size:g}" for size in sizes], tickangle=0
    )
    figure.update_xaxes(range=[np.log10(sizes[0]) - 0.06, np.log10(sizes[-1]) + 0.06])
    figure.update_yaxes(range=[0, 1.04])
    _ends(figure, len(layers), columns, x="texts", y="Jaccard")
    caption = sentence_of(
        "Jaccard index (shared over all) of the features that a draw of so many texts selects and "
        "those of all texts",
        "A draw is a part of all texts, so that the index is 1 where all are drawn",
        "Bars: the middle 95 % of the draws"
        if few
        else "Line and band: median and quartiles over the languages",
        _of(table, layers),
        note,
    )
    height = 130 + 190 * -(-len(layers) // columns)
    return roomy(
        finish(
            figure, title="Stability against the number of texts", caption=caption, height=height
        )
    )


def _line(part: pd.DataFrame, iso: str, number: int, count: int, *, legend: bool) -> go.Scatter:
    mine, known = part[part["language"] == iso], LANGUAGES.get(iso)
    name, few = known.name if known else iso, count <= _FEW
    color = PALETTE[number % len(PALETTE)] if few or not known else family_style(known.family)[0]
    about = {
        "mode": "lines+markers",
        "marker": {"size": 6, "symbol": SYMBOLS[number % len(SYMBOLS)]},
        "opacity": 1.0,
    }
    if few:
        above, below = mine["high"] - mine["jaccard"], mine["jaccard"] - mine["low"]
        about["error_y"] = {"array": above, "arrayminus": below, "thickness": 1.2, "width": 0}
    else:
        about |= {"mode": "lines", "opacity": 0.35}
    return go.Scatter(
        x=mine["samples"],
        y=mine["jaccard"],
        line={"color": color, "width": 2 if few else 1},
        name=name,
        legendgroup=name,
        showlegend=legend and few,
        customdata=mine[["low", "high"]].to_numpy(float),
        hovertemplate=(
            f"{name}, %{{x}} texts<br>Jaccard %{{y:.3f}} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
        ),
        **about,
    )


def _middle(part: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    """The median over languages with its quartiles as a band."""
    found = part.groupby("samples")["jaccard"].quantile(np.array([0.25, 0.5, 0.75])).unstack()
    ends = np.concatenate([found[0.75], found[0.25][::-1]])
    band = go.Scatter(
        x=[*found.index, *found.index[::-1]],
        y=ends,
        fill="toself",
        fillcolor="rgba(31, 41, 51, 0.14)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        name="quartiles",
        legendgroup="quartiles",
        showlegend=legend,
    )
    line = go.Scatter(
        x=found.index,
        y=found[0.5],
        mode="lines+markers",
        line={"color": INK, "width": 2.5},
        marker={"size": 6},
        name="median over languages",
        legendgroup="median",
        showlegend=legend,
        hovertemplate="median, %{x} texts<br>Jaccard %{y:.3f}<extra></extra>",
    )
    return [band, line]


def _ends(
    figure: go.Figure, panels: int, columns: int, *, x: str = "consistency", y: str = "noise"
) -> None:
    """Titles and ticks at the lowest panel of each column and at the left."""
    for place in range(panels):
        row, col = place // columns + 1, place % columns + 1
        lowest = place + columns >= panels
        figure.update_xaxes(
            title_text=x if lowest else None, showticklabels=lowest, row=row, col=col
        )
        figure.update_yaxes(title_text=y if col == 1 else None, row=row, col=col)


def _frame(figure: go.Figure, x: int, y: int, row: int, col: int) -> None:
    ends = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
    figure.add_shape(type="rect", **ends, line={"color": PALETTE[1], "width": 2}, row=row, col=col)


def _languages(table: pd.DataFrame) -> list[str]:
    isos = table["language"].drop_duplicates().tolist()
    return family_order(isos) if all(iso in LANGUAGES for iso in isos) else isos


def _of(table: pd.DataFrame, layers: list[int]) -> str:
    known = table["layer"].nunique()
    told = "" if known == len(layers) else f", {len(layers)} of {known} layers"
    return f"n = {table['language'].nunique()} languages{told}"


def _whole(count: float) -> str:
    """A count in four letters or fewer."""
    if np.isnan(count):
        return ""
    return f"{count:.0f}" if count < 10_000 else f"{count / 1000:.0f}k"

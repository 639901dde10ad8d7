"""How many features a filter leaves, and how many texts it takes to know them."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from einops import rearrange
from plotly.subplots import make_subplots

from steerlab.core.languages import is_plainly_language, language
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

_COLUMNS = 4  # panels side by side
_FEW = 6  # so many languages can each have a line of their own with its interval


def threshold_counts(
    table: pd.DataFrame, *, mark: tuple[float, float] | None = (0.95, 0.05), note: str = ""
) -> go.Figure:
    """How many features pass both thresholds of LangFIR: a heatmap for each layer, the median over
    languages in each cell.

    The hover has the least and the most of the languages. Of more than eight layers eight are
    drawn. Raises `SteerlabError` for a missing column or no rows.

    Args:
        table: columns language, layer, consistency, noise, count; one row for each combination.
        mark: the thresholds in use, (consistency, noise), which get a frame; None for none.
        note: a last sentence of the caption.
    """
    check(table, ("language", "layer", "consistency", "noise", "count"), "threshold_counts")
    layers = some(table["layer"].tolist())
    consistencies = sorted(table["consistency"].unique())
    noises = sorted(table["noise"].unique())
    columns = min(_COLUMNS, len(layers))
    figure = _panels_of(len(layers), columns)
    for index, layer in enumerate(layers):
        row, col = _cell(index, columns)
        part = table[table["layer"] == layer]
        figure.add_trace(_counts(part, layer, consistencies, noises), row=row, col=col)
        if mark and mark[0] in consistencies and mark[1] in noises:
            x = consistencies.index(mark[0])
            y = noises.index(mark[1])
            _frame(figure, x, y, row, col)
        heading(figure, index, f"layer {layer}")
    # Thresholds as words, not numbers: the cells have one width, whatever the steps.
    figure.update_xaxes(type="category", showgrid=False, tickfont_size=10, tickangle=0)
    figure.update_yaxes(type="category", showgrid=False, tickfont_size=10)
    _label_edges(figure, len(layers), columns, x="consistency", y="noise")
    top = float(np.nanmax(_logarithm(table["count"].to_numpy(float))))
    ticks = _count_ticks(top)
    bar = BAR | {
        "tickvals": _logarithm(np.array(ticks)),
        "ticktext": [f"{tick:g}" for tick in ticks],
    }
    # One scale for all panels; not less than 0.3, the logarithm of about one feature.
    figure.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "colorbar": bar, "cmin": 0, "cmax": max(top, 0.3)}
    )
    caption = sentence_of(
        "Median number of features a language that are on in at least the share of its texts below "
        "the panel (consistency) and in at most the share of random tokens beside it (noise); "
        "colours are logarithmic",
        "The frame marks the thresholds in use" if mark else "",
        _scope(table, layers),
        note,
    )
    height = 130 + 200 * _rows(len(layers), columns)
    return roomy(
        finish(figure, title="Features against both thresholds", caption=caption, height=height)
    )


def _counts(
    part: pd.DataFrame, layer: int, consistencies: list[float], noises: list[float]
) -> go.Heatmap:
    """The heatmap of one layer."""
    cells = part.groupby(["noise", "consistency"])["count"].agg(["median", "min", "max"])
    # Combinations without a row become cells without a value.
    every = cells.reindex(pd.MultiIndex.from_product([noises, consistencies]))
    values = rearrange(  # median, least and most of each cell
        every.to_numpy(float),
        "(noise consistency) value -> noise consistency value",
        noise=len(noises),
    )
    medians = values[:, :, 0]
    return go.Heatmap(
        z=_logarithm(medians),
        x=[f"{value:g}" for value in consistencies],
        y=[f"{value:g}" for value in noises],
        customdata=values,
        text=[[_short_count(count) for count in line] for line in medians],
        texttemplate="%{text}",
        textfont={"size": 10},
        hovertemplate=(
            f"layer {layer}<br>consistency ≥ %{{x}}, noise ≤ %{{y}}<br>median "
            "%{customdata[0]:.0f} features (%{customdata[1]:.0f} to %{customdata[2]:.0f})"
            "<extra></extra>"
        ),
        xgap=1,
        ygap=1,
        coloraxis="coloraxis",
    )


def _logarithm(counts: np.ndarray) -> np.ndarray:
    """log10(1 + count): counts span many powers of ten, and some are 0."""
    return np.log10(1 + counts)


def _count_ticks(top: float) -> list[int]:
    """Ticks of the colour bar, 0, 1, 3, 10, 30 and so on, up to a logarithm."""
    ticks = [0]
    for power in range(7):
        for step in (1, 3):
            tick = step * 10**power
            if np.log10(1 + tick) <= top:
                ticks.append(tick)
    return ticks


def stability_curve(table: pd.DataFrame, *, note: str = "") -> go.Figure:
    """How much the features that a draw of texts selects overlap with those of all texts, against
    the size of the draw; a panel for each layer.

    Up to six languages have a line each, with the middle 95 % of the draws as a bar. Of more, thin
    lines in the colours of their families lie under their median and quartiles. Of more than eight
    layers eight are drawn. Raises `SteerlabError` for a missing column or no rows.

    Args:
        table: columns language, layer, samples (the texts of each draw), jaccard,
            low, high, as `langfir_stability` has them.
        note: a last sentence of the caption.
    """
    check(table, ("language", "layer", "samples", "jaccard", "low", "high"), "stability_curve")
    layers = some(table["layer"].tolist())
    langs = _languages(table)
    columns = min(_COLUMNS, len(layers))
    figure = _panels_of(len(layers), columns)
    for index, layer in enumerate(layers):
        part = table[table["layer"] == layer].sort_values("samples")
        legend = index == 0  # every line once
        traces = []
        for number, lang in enumerate(langs):
            traces.append(_line(part, lang, number, few=len(langs) <= _FEW, legend=legend))
        if len(langs) > _FEW:
            traces += _quartiles(part, legend=legend)
        row, col = _cell(index, columns)
        for trace in traces:
            figure.add_trace(trace, row=row, col=col)
        heading(figure, index, f"layer {layer}")
    sizes = sorted(table["samples"].unique())
    labels = [f"{size:g}" for size in sizes]
    figure.update_xaxes(type="log", tickvals=sizes, ticktext=labels, tickangle=0)
    # The range of a logarithmic axis is in powers of ten; a little room for the markers.
    figure.update_xaxes(range=[np.log10(sizes[0]) - 0.06, np.log10(sizes[-1]) + 0.06])
    figure.update_yaxes(range=[0, 1.04])
    _label_edges(figure, len(layers), columns, x="texts", y="Jaccard")
    caption = sentence_of(
        "Jaccard index (shared over all) of the features that a draw of so many texts selects and "
        "those of all texts",
        "A draw is a part of all texts, so that the index is 1 where all are drawn",
        "Bars: the middle 95 % of the draws"
        if len(langs) <= _FEW
        else "Line and band: median and quartiles over the languages",
        _scope(table, layers),
        note,
    )
    height = 130 + 190 * _rows(len(layers), columns)
    return roomy(
        finish(
            figure, title="Stability against the number of texts", caption=caption, height=height
        )
    )


def _line(part: pd.DataFrame, lang: str, number: int, *, few: bool, legend: bool) -> go.Scatter:
    """The line of one language at one layer.

    Args:
        part: the rows of the layer, by rising samples.
        lang: the language, or any other name.
        number: which line this is, from 0.
        few: whether there are few lines, so that each has a colour, markers and intervals.
        legend: whether the line is named in the legend.
    """
    of_lang = part[part["language"] == lang]
    entry = language(lang) if is_plainly_language(lang) else None
    name = entry.name if entry else lang
    # Of many lines, those of a family share its colour, which says more than a line of its own.
    color = PALETTE[number % len(PALETTE)]
    if entry and not few:
        color, _ = family_style(entry.family)
    look: dict[str, Any] = {"marker": {"size": 6, "symbol": SYMBOLS[number % len(SYMBOLS)]}}
    if few:
        look["mode"] = "lines+markers"
        look["opacity"] = 1.0
        look["error_y"] = {
            "array": of_lang["high"] - of_lang["jaccard"],
            "arrayminus": of_lang["jaccard"] - of_lang["low"],
            "thickness": 1.2,
            "width": 0,
        }
    else:
        look["mode"] = "lines"
        look["opacity"] = 0.35
    return go.Scatter(
        x=of_lang["samples"],
        y=of_lang["jaccard"],
        line={"color": color, "width": 2 if few else 1},
        name=name,
        legendgroup=name,
        showlegend=legend and few,
        customdata=of_lang[["low", "high"]].to_numpy(float),
        hovertemplate=(
            f"{name}, %{{x}} texts<br>Jaccard %{{y:.3f}} "
            "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
        ),
        **look,
    )


def _quartiles(part: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    """The median over languages, and a band between the quartiles below it."""
    levels = np.array([0.25, 0.5, 0.75])
    quartiles = part.groupby("samples")["jaccard"].quantile(levels).unstack()
    # The outline of the band: along the upper quartile, and back along the lower one.
    x = [*quartiles.index, *quartiles.index[::-1]]
    y = np.concatenate([quartiles[0.75], quartiles[0.25][::-1]])
    band = go.Scatter(
        x=x,
        y=y,
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
        x=quartiles.index,
        y=quartiles[0.5],
        mode="lines+markers",
        line={"color": INK, "width": 2.5},
        marker={"size": 6},
        name="median over languages",
        legendgroup="median",
        showlegend=legend,
        hovertemplate="median, %{x} texts<br>Jaccard %{y:.3f}<extra></extra>",
    )
    return [band, line]


def _panels_of(panels: int, columns: int) -> go.Figure:
    """An empty figure of so many panels, which share their axes."""
    return make_subplots(
        rows=_rows(panels, columns),
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.12,
    )


def _rows(panels: int, columns: int) -> int:
    """How many rows so many panels fill: the quotient, rounded up."""
    return -(-panels // columns)


def _cell(index: int, columns: int) -> tuple[int, int]:
    """(row, column) of a panel, which plotly counts from 1."""
    return index // columns + 1, index % columns + 1


def _label_edges(figure: go.Figure, panels: int, columns: int, *, x: str, y: str) -> None:
    """Write the titles of the axes at the edges only: x, with its ticks, at the lowest panel of
    each column, y at the left."""
    for index in range(panels):
        row, col = _cell(index, columns)
        # The last row may be shorter, so the lowest panel can be in the row above it.
        lowest = index + columns >= panels
        figure.update_xaxes(
            title_text=x if lowest else None, showticklabels=lowest, row=row, col=col
        )
        figure.update_yaxes(title_text=y if col == 1 else None, row=row, col=col)


def _frame(figure: go.Figure, x: int, y: int, row: int, col: int) -> None:
    """Frame one cell of a heatmap, which reaches half a unit to each side of its index."""
    figure.add_shape(
        type="rect",
        x0=x - 0.5,
        x1=x + 0.5,
        y0=y - 0.5,
        y1=y + 0.5,
        line={"color": PALETTE[1], "width": 2},
        row=row,
        col=col,
    )


def _languages(table: pd.DataFrame) -> list[str]:
    """The languages of a table, by family; as they come, where some are none."""
    langs = table["language"].drop_duplicates().tolist()
    if all(map(is_plainly_language, langs)):
        return family_order(langs)
    return langs


def _scope(table: pd.DataFrame, layers: list[int]) -> str:
    """How many languages a figure shows, and how many of the layers, if not all."""
    all_layers = table["layer"].nunique()
    scope = f"n = {table['language'].nunique()} languages"
    if all_layers != len(layers):
        scope += f", {len(layers)} of {all_layers} layers"
    return scope


def _short_count(count: float) -> str:
    """A count in four letters or fewer, so that it fits into its cell."""
    if np.isnan(count):
        return ""
    return f"{count:.0f}" if count < 10_000 else f"{count / 1000:.0f}k"


FIGURES = {"threshold_counts": threshold_counts, "stability_curve": stability_curve}

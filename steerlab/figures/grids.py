"""Heatmaps: a score by layer and language, and the cosines between languages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from einops import rearrange

from steerlab.analysis.intervals import by_sentence
from steerlab.analysis.results import SEED
from steerlab.analysis.sentences import Interval
from steerlab.core.columns import is_share
from steerlab.core.labels import labelled
from steerlab.core.languages import is_plainly_language, language
from steerlab.figures.given import at_layer
from steerlab.figures.style import (
    DIVERGING,
    GREY,
    SEQUENTIAL,
    check,
    family_order,
    finish,
    readable,
    sentence_of,
)
from steerlab.figures.trees import centred, leaf_order, linkage_of

BAR = {  # below the plot, where a phone has room for it
    "orientation": "h",
    "thickness": 9,
    "outlinewidth": 0,
    "x": 0.5,
    "y": 0,
    "yref": "container",
    "yanchor": "bottom",
    "ypad": 4,
    "len": 0.8,
    "tickfont": {"size": 11, "color": GREY},
}
# Columns that the caption names where all rows agree in them.
_CONSTANT = ("method", "operator", "layer", "strength", "split", "source")
# Columns that a cell may run over without a word: settings, not sentences.
_VARYING = ("model", "method", "operator", "layer", "strength", "split", "source", "target")
_NAMED = 5  # values of such a column that the caption names


def heatmap(
    rows: pd.DataFrame, *, x: str = "layer", y: str = "target", value: str = "joint", note: str = ""
) -> go.Figure:
    """The mean of a score in each cell of two columns, languages in the order of their families.

    Where other columns vary inside of a cell, such as methods or strengths, the mean is over them
    too, and the caption says so: for one setting give its rows alone.

    The hover shows n and the 95 % interval of `intervals.by_sentence`, over sentences, within
    targets that share none, and over the seeds of a control where there is a column `seed`; or over
    rows, where there is no column `sentence`. Values that are not finite are left out. Raises
    `SteerlabError` for a missing column or no rows.

    Args:
        rows: outputs, with the three columns.
        x: the column that runs across.
        y: the column that runs down.
        value: the column of the score.
        note: a last sentence of the caption.
    """
    check(rows, (x, y, value), "heatmap")
    across = _ordered(rows[x])
    down = _ordered(rows[y])
    # Combinations without a row become cells without a value.
    every = pd.MultiIndex.from_product([down, across])
    cells = _cells(rows, x, y, value).reindex(every)
    means = rearrange(cells["mean"].to_numpy(float), "(down across) -> down across", down=len(down))
    hover = rearrange(
        cells[["n", "low", "high"]].to_numpy(float),
        "(down across) value -> down across value",
        down=len(down),
    )
    low, high = _bounds(means)
    figure = go.Figure(
        go.Heatmap(
            z=means,
            x=[_tick(item) for item in across],
            y=[_tick(item) for item in down],
            customdata=hover,
            text=[[_short(mean) for mean in line] for line in means],
            texttemplate="%{text}",
            hovertemplate=(
                f"%{{y}} · {readable(x)} %{{x}}<br>{readable(value)} %{{z:.3f}} "
                "[%{customdata[1]:.3f}, %{customdata[2]:.3f}]<br>n = "
                "%{customdata[0]:.0f}<extra></extra>"
            ),
            colorscale=SEQUENTIAL,
            zmin=low,
            zmax=high,
            xgap=2,
            ygap=2,
            hoverongaps=False,
            colorbar=BAR,
        )
    )
    # Words, not numbers: the cells have one width, whatever the steps between strengths.
    figure.update_xaxes(type="category", title_text=readable(x), showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    name_families(figure, down)
    caption = sentence_of(
        f"Mean {readable(value)} by {readable(y)} and {readable(x)}{_averaged(rows, x, y)}",
        _scope(rows, x, y),
        note,
    )
    name = readable(value)
    title = f"{name[:1].upper()}{name[1:]} by {readable(x)} and {readable(y)}"
    finish(figure, title=title, caption=caption, height=190 + 25 * len(down))
    # By these a page goes from a cell to its outputs.
    fixed = {
        column: rows[column].iloc[0].item()
        if hasattr(rows[column].iloc[0], "item")
        else rows[column].iloc[0]
        for column in _CONSTANT
        if column in rows.columns and column not in (x, y) and rows[column].nunique() == 1
    }
    place = {"x": x, "y": y, "across": across, "down": down, "fixed": fixed}
    figure.update_layout(meta={**figure.layout.meta, "cells": place})
    return figure


def cosines(
    vectors: Any,
    langs: Sequence[str] | None = None,
    *,
    layer: int | None = None,
    note: str = "",
) -> go.Figure:
    """The cosine between every two language vectors, centred over the languages, neighbours side by
    side.

    Rows and columns are in the leaf order of average linkage on cosine distance. Raises
    `SteerlabError` as `linkage_of` does.

    Args:
        vectors: `Directions` or `Moments`; or a vector for each language, [lang width]. They are
            centred here, which changes nothing where they are centred already.
        langs: the languages of an array.
        layer: of several that are held, the one to draw; of an array, what the title and the
            caption say.
        note: a last sentence of the caption.
    """
    vectors, langs, layer = at_layer(vectors, langs, layer, "cosines")
    order = leaf_order(linkage_of(vectors, langs))
    unit = centred(vectors)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    # Rounding can carry a cosine just beyond 1.
    matrix = np.clip(unit @ unit.T, -1, 1)[np.ix_(order, order)]
    codes = [langs[index] for index in order]
    names = [labelled(code).name for code in codes]
    pairs = []
    for a in names:
        pairs.append([f"{a} – {b}" for b in names])
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            x=codes,
            y=names,
            text=pairs,
            hovertemplate="%{text}<br>cosine %{z:.3f}<extra></extra>",
            colorscale=DIVERGING,
            zmin=-1,
            zmax=1,
            xgap=1,
            ygap=1,
            colorbar=BAR,
        )
    )
    # `dtick=1`: plotly would leave out names where it finds them crowded.
    figure.update_xaxes(type="category", showgrid=False, tickangle=0, tickfont_size=11, dtick=1)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, dtick=1)
    title = "Cosines between languages"
    scope = f"n = {len(codes)} languages"
    if layer is not None:
        title += f", layer {layer}"
        scope += f", layer {layer}"
    caption = sentence_of(
        "Cosine of centred language vectors, in the leaf order of average linkage", scope, note
    )
    return finish(figure, title=title, caption=caption, height=170 + 24 * len(codes))


def _cells(rows: pd.DataFrame, x: str, y: str, value: str) -> pd.DataFrame:
    """mean, low, high and n of the finite values of each (y, x); NaN where it has none."""
    table = {}
    for key, cell in rows.groupby([y, x], sort=False):
        finite = cell[np.isfinite(cell[value].to_numpy(float))]
        interval = _interval(finite, value) if len(finite) else (np.nan, np.nan, np.nan)
        table[key] = (*interval, len(finite))
    return pd.DataFrame.from_dict(table, orient="index", columns=["mean", "low", "high", "n"])


def _interval(cell: pd.DataFrame, value: str) -> Interval:
    """The mean of a cell with its interval, as the tables have it: by sentence, within targets that
    share none, over other seeds of a control too; by row where there are no sentences."""
    values = cell[value].to_numpy(float)
    if "sentence" not in cell.columns:
        return by_sentence(values, np.arange(len(cell)), share=is_share(value))
    return by_sentence(
        values,
        cell["sentence"].to_numpy(),
        share=is_share(value),
        strata=cell["target"].to_numpy() if "target" in cell.columns else None,
        control_seeds=cell[SEED].to_numpy() if SEED in cell.columns else None,
    )


def _ordered(column: pd.Series) -> list[Any]:
    """The values of a column: languages by family, numbers sorted, words as they come."""
    items = column.unique().tolist()
    if all(map(is_plainly_language, items)):
        return family_order(items)
    if column.dtype.kind in "iufb":  # integers, unsigned ones, floats, booleans
        return sorted(items)
    return items


def _tick(item: Any) -> str:
    """How a value is written at an axis."""
    if is_plainly_language(item):
        return language(item).name
    return readable(item) if isinstance(item, str) else f"{item:g}"


def _short(mean: float) -> str:
    """Two decimals without the leading zero, so that it fits into a cell on a phone."""
    if np.isnan(mean):
        return ""
    text = f"{mean:.2f}"
    return text.replace("0.", ".", 1) if abs(mean) < 1 else text


def _bounds(means: np.ndarray) -> tuple[float, float]:
    """The ends of the colour scale: shares start at zero and end at the next tenth; anything else
    spans what it has."""
    finite = means[np.isfinite(means)]
    if not finite.size:
        return 0.0, 1.0
    low = float(finite.min())
    high = float(finite.max())
    if low >= 0 and high <= 1:
        # Less a little, so that 0.3 does not become 0.4 by rounding.
        next_tenth = float(np.ceil(high * 10 - 1e-9)) / 10
        return 0.0, max(0.1, next_tenth)
    # A scale needs two ends that differ.
    return low, high if high > low else low + 1


def name_families(figure: go.Figure, down: list[Any]) -> None:
    """Write family names at the right edge and draw a line between families.

    `down` are the rows of a heatmap from the top; where some are no languages, nothing is done.
    """
    if not all(map(is_plainly_language, down)):
        return
    names = [language(item).family for item in down]
    # Where a family begins: at the first row, and wherever the name changes.
    starts = [row for row in range(len(names)) if row == 0 or names[row] != names[row - 1]]
    ends = [*starts[1:], len(names)]
    for start, end in zip(starts, ends, strict=True):
        figure.add_annotation(
            text=names[start],
            x=1,
            xref="paper",
            xanchor="left",
            xshift=6,
            y=(start + end - 1) / 2,
            yref="y",
            showarrow=False,
            font={"size": 11, "color": GREY},
        )
        if start > 0:
            figure.add_shape(
                type="line",
                x0=0,
                x1=1,
                xref="paper",
                y0=start - 0.5,
                y1=start - 0.5,
                yref="y",
                line={"color": "#9aa5b1", "width": 1},
            )
    # Room for the longest name, at about 7 pixels a letter.
    figure.update_layout(margin_r=14 + 7 * max(map(len, names)))


def _scope(rows: pd.DataFrame, x: str, y: str) -> str:
    """n, and each column that is the same in all rows."""
    count = f"n = {len(rows):,} outputs"
    if "sentence" in rows.columns:
        count += f" of {rows['sentence'].nunique():,} sentences"
    facts = [count]
    for column in _CONSTANT:
        if column in rows.columns and column not in (x, y) and rows[column].nunique() == 1:
            facts.append(f"{column} {_tick(rows[column].iloc[0])}")
    return "; ".join(facts)


def _averaged(rows: pd.DataFrame, x: str, y: str) -> str:
    """What else varies inside of the cells, in words: a mean over it hides which is best."""
    facts = []
    for column in _VARYING:
        if column not in rows.columns or column in (x, y):
            continue
        if rows.groupby([y, x], sort=False)[column].nunique().max() < 2:
            continue  # as a method's own operator, which is another one in each row of the grid
        values = [_tick(item) for item in _ordered(rows[column])]
        shown = ", ".join(values) if len(values) <= _NAMED else f"{values[0]} to {values[-1]}"
        facts.append(f"{len(values)} values of {column} ({shown})")
    return f", each cell a mean over {' and '.join(facts)}" if facts else ""


FIGURES = {"heatmap": heatmap, "cosines": cosines}

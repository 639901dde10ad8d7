"""Heatmaps: a score by layer and language, and the cosines between languages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from steerlab.analysis.intervals import Interval, by_sentence
from steerlab.core.languages import LANGUAGES, language
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
_CONSTANT = ("method", "operator", "layer", "strength", "split", "source")


def heatmap(
    rows: pd.DataFrame, *, x: str = "layer", y: str = "target", value: str = "joint", note: str = ""
) -> go.Figure:
    """The mean of `value` in each (y, x) of tidy rows, languages in the order of their families.

    The hover shows n and the 95 % interval by resampling sentences, `intervals.by_sentence`: within
    targets that share none; rows, where there is no column `sentence`. Values that are not finite
    are left out. Raises `SteerlabError` for a missing column or no rows.
    """
    check(rows, (x, y, value), "heatmap")
    cells = _cells(rows, x, y, value)
    across, down = _ordered(rows[x]), _ordered(rows[y])
    grid = cells.reindex(pd.MultiIndex.from_product([down, across]))
    shape = (len(down), len(across))
    means = grid["mean"].to_numpy(float).reshape(shape)
    low, high = _bounds(means)
    figure = go.Figure(
        go.Heatmap(
            z=means,
            x=[_tick(item) for item in across],
            y=[_tick(item) for item in down],
            customdata=np.reshape(grid[["n", "low", "high"]].to_numpy(float), (*shape, 3)),
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
    figure.update_xaxes(type="category", title_text=readable(x), showgrid=False)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    name_families(figure, down)
    caption = sentence_of(
        f"Mean {readable(value)} by {readable(y)} and {readable(x)}", _scope(rows, x, y), note
    )
    title = f"{readable(value)[:1].upper()}{readable(value)[1:]} by {readable(x)} and {readable(y)}"
    return finish(figure, title=title, caption=caption, height=190 + 25 * len(down))


def cosines(
    vectors: Float[Any, "lang width"],
    langs: Sequence[str],
    *,
    layer: int | None = None,
    note: str = "",
) -> go.Figure:
    """The cosine between every two language vectors, centred over the languages, neighbours side by
    side.

    Rows and columns are in the leaf order of average linkage on cosine distance. The vectors are
    centred here; to centre what is centred changes nothing. Raises `SteerlabError` as `linkage_of`
    does.
    """
    order = leaf_order(linkage_of(vectors, langs))
    unit = centred(vectors)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    matrix = np.clip(unit @ unit.T, -1, 1)[np.ix_(order, order)]
    isos = [langs[place] for place in order]
    names = [language(iso).name for iso in isos]
    pairs = [[f"{a} – {b}" for b in names] for a in names]
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            x=isos,
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
    figure.update_xaxes(type="category", showgrid=False, tickangle=0, tickfont_size=11, dtick=1)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, dtick=1)
    where = "" if layer is None else f"layer {layer}"
    count = f"n = {len(isos)} languages"
    caption = sentence_of(
        "Cosine of centred language vectors, in the leaf order of average linkage",
        ", ".join(filter(None, (count, where))),
        note,
    )
    title = "Cosines between languages" + (f", {where}" if where else "")
    return finish(figure, title=title, caption=caption, height=170 + 24 * len(isos))


def _cells(rows: pd.DataFrame, x: str, y: str, value: str) -> pd.DataFrame:
    """mean, low, high and n of each (y, x), of its finite values; NaN where it has none."""
    table = {}
    for key, cell in rows.groupby([y, x], sort=False):
        known = cell[np.isfinite(cell[value].to_numpy(float))]
        interval = _interval(known, value) if len(known) else (np.nan,) * 3
        table[key] = (*interval, len(known))
    return pd.DataFrame.from_dict(table, orient="index", columns=["mean", "low", "high", "n"])


def _interval(cell: pd.DataFrame, value: str) -> Interval:
    """As the tables have it: by sentence, within targets that share none; by row without
    sentences."""
    values = cell[value].to_numpy(float)
    if "sentence" not in cell.columns:
        return by_sentence(values, np.arange(len(cell)))
    strata = cell["target"].to_numpy() if "target" in cell.columns else None
    return by_sentence(values, cell["sentence"].to_numpy(), strata=strata)


def _ordered(column: pd.Series) -> list[Any]:
    items = column.unique().tolist()
    if all(item in LANGUAGES for item in items):
        return family_order(items)
    return items if column.dtype.kind not in "iufb" else sorted(items)


def _tick(item: Any) -> str:
    if item in LANGUAGES:
        return LANGUAGES[item].name
    return readable(item) if isinstance(item, str) else f"{item:g}"


def _short(mean: float) -> str:
    """Two decimals without the leading zero, so that it fits into a cell on a phone."""
    if np.isnan(mean):
        return ""
    return f"{mean:.2f}".replace("0.", ".", 1) if abs(mean) < 1 else f"{mean:.2f}"


def _bounds(means: np.ndarray) -> tuple[float, float]:
    """Shares start at zero and end at the next tenth; anything else spans what it has."""
    finite = means[np.isfinite(means)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        return 0.0, max(0.1, float(np.ceil(high * 10 - 1e-9)) / 10)
    return low, high if high > low else low + 1


def name_families(figure: go.Figure, down: list[Any]) -> None:
    """Family names at the right edge and a line between families, where the rows are languages."""
    if not all(item in LANGUAGES for item in down):
        return
    names = [LANGUAGES[item].family for item in down]
    starts = [
        place for place in range(len(names)) if place == 0 or names[place] != names[place - 1]
    ]
    for first, after in zip(starts, [*starts[1:], len(names)], strict=True):
        middle = (first + after - 1) / 2
        figure.add_annotation(
            text=names[first],
            x=1,
            xref="paper",
            xanchor="left",
            xshift=6,
            y=middle,
            yref="y",
            showarrow=False,
            font={"size": 11, "color": GREY},
        )
        if first:
            edge = first - 0.5
            line = {"color": "#9aa5b1", "width": 1}
            figure.add_shape(
                type="line", x0=0, x1=1, xref="paper", y0=edge, y1=edge, yref="y", line=line
            )
    figure.update_layout(margin_r=14 + 7 * max(map(len, names)))


def _scope(rows: pd.DataFrame, x: str, y: str) -> str:
    """n, and each column of the rows that says the same everywhere."""
    said = [f"n = {len(rows):,} outputs"]
    if "sentence" in rows.columns:
        said[0] += f" of {rows['sentence'].nunique():,} sentences"
    for column in _CONSTANT:
        if column in rows.columns and column not in (x, y) and rows[column].nunique() == 1:
            item = rows[column].iloc[0]
            said.append(f"{column} {_tick(item)}")
    return "; ".join(said)


FIGURES = {"heatmap": heatmap, "cosines": cosines}

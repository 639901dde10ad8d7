"""What taking each language away does to every other: languages against edits."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.figures.grids import BAR, name_families
from steerlab.figures.style import (
    DIVERGING,
    INK,
    SEQUENTIAL,
    family_order,
    finish,
    readable,
    sentence_of,
)

_READABLE = 18  # languages whose cells have room for a number
_SMALL = 0.02  # of the largest rise: a fall below this is drawn as none


def selectivity(matrix: pd.DataFrame, *, unit: str = "nats per token", note: str = "") -> go.Figure:
    """The rise of each language's cross-entropy (down) under each language's edit (across), its own
    cell framed.

    `matrix`: what `effects.effect_matrix` gives: index languages, columns edits by language;
    columns that are no language, such as `control`, stand beside it. Languages are in the order of
    their families. `unit` is what the values are in. Raises `SteerlabError` where no column is a
    language of the index.
    """
    isos = [iso for iso in matrix.index if iso in matrix.columns]
    if not isos or any(iso not in LANGUAGES for iso in matrix.index):
        raise SteerlabError(
            f"selectivity was given rows {', '.join(map(str, matrix.index[:6])) or 'none'} and "
            "columns "
            f"{', '.join(map(str, matrix.columns[:6])) or 'none'}; give effect_matrix' table, of "
            "languages and edits"
        )
    down = family_order(list(matrix.index))
    across = [iso for iso in down if iso in matrix.columns]
    across += family_order([iso for iso in matrix.columns if iso in LANGUAGES and iso not in down])
    beside = [name for name in matrix.columns if name not in across]
    low, high, scale = _range(matrix.to_numpy(float))
    figure = make_subplots(
        rows=1,
        cols=2 if beside else 1,
        column_widths=[len(across), max(len(beside), 1)] if beside else None,
        horizontal_spacing=0.02,
        shared_yaxes=True,
    )
    for col, names in enumerate([across, beside] if beside else [across], start=1):
        figure.add_trace(_cells(matrix.loc[down, names], down, names), row=1, col=col)
    for x, iso in enumerate(across):
        if iso in down:
            y = down.index(iso)
            ends = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
            figure.add_shape(type="rect", **ends, line={"color": INK, "width": 1.4}, row=1, col=1)
    small = len(down) > _READABLE
    size = 9 if small else 11
    figure.update_xaxes(type="category", showgrid=False, tickangle=-90 if small else 0, dtick=1)
    figure.update_xaxes(title_text="edit", tickfont_size=size, row=1, col=1)
    if beside:
        figure.update_xaxes(tickangle=-90, tickfont_size=10, row=1, col=2)
    figure.update_yaxes(
        type="category", autorange="reversed", showgrid=False, dtick=1, tickfont_size=size
    )
    name_families(figure, down)
    figure.update_layout(
        coloraxis={"colorscale": scale, "colorbar": BAR, "cmin": low, "cmax": high}
    )
    caption = sentence_of(
        f"Rise of the mean cross-entropy ({unit}) of each language's text (down) under the edit "
        "meant for each "
        "language (across); frames mark a language's own edit",
        f"Beside: {', '.join(map(readable, beside))}" if beside else "",
        f"n = {len(down)} languages, {len(across)} edits",
        note,
    )
    height = 200 + (16 if small else 25) * len(down)
    return finish(
        figure, title="What each edit does to each language", caption=caption, height=height
    )


def _cells(part: pd.DataFrame, down: list[str], across: list[str]) -> go.Heatmap:
    values = part.to_numpy(float)
    edits = [LANGUAGES[name].name if name in LANGUAGES else readable(name) for name in across]
    return go.Heatmap(
        z=values,
        x=[name if name in LANGUAGES else readable(name) for name in across],
        y=[LANGUAGES[iso].name for iso in down],
        customdata=[edits] * len(down),
        text=[[_short(value) for value in line] for line in values]
        if len(down) <= _READABLE
        else None,
        texttemplate="%{text}" if len(down) <= _READABLE else None,
        textfont={"size": 10},
        hovertemplate="%{y} under the edit of %{customdata}<br>%{z:+.3f}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        coloraxis="coloraxis",
    )


def _range(values: np.ndarray) -> tuple[float, float, tuple]:
    """From zero where nothing falls much, else as far below zero as above."""
    finite = values[np.isfinite(values)]
    high = max(float(finite.max(initial=0)), 1e-9)
    low = float(finite.min(initial=0))
    if low >= -_SMALL * high:
        return 0.0, high, SEQUENTIAL
    reach = max(high, -low)
    return -reach, reach, DIVERGING


def _short(value: float) -> str:
    if not np.isfinite(value):
        return ""
    text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return "0" if float(text) == 0 else text.replace("0.", ".", 1).replace("-", "−")


FIGURES = {"selectivity": selectivity}

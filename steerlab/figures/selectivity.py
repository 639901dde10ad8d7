"""What taking each language away does to every other: languages against edits."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.analysis.effects.matrix import effect_matrix
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import is_plainly_language, language
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

_READABLE = 18  # so many languages have room for numbers in their cells
_SMALL = 0.02  # of the largest rise: a smaller fall is drawn as none


def selectivity(matrix: pd.DataFrame, *, unit: str = "nats per token", note: str = "") -> go.Figure:
    """The rise of each language's cross-entropy (down) under each language's edit (across), its own
    cell framed.

    Languages are in the order of their families. Raises `SteerlabError` where no column is a
    language of the index.

    Args:
        matrix: rows of `effects.language_effects`; or what `effects.effect_matrix` gives: index
            languages, columns edits by language; columns that are no language, such as `control`,
            stand beside the others.
        unit: what the values are in.
        note: a last sentence of the caption.
    """
    if {"edit", "language", "rise"} <= set(matrix.columns):
        matrix = effect_matrix(matrix)
    with_edit = [lang for lang in matrix.index if lang in matrix.columns]
    if not with_edit or not all(map(is_plainly_language, matrix.index)):
        rows = ", ".join(map(str, matrix.index[:6])) or "none"
        columns = ", ".join(map(str, matrix.columns[:6])) or "none"
        raise SteerlabError(
            f"selectivity was given rows {rows} and columns {columns}; give effect_matrix' table, "
            "of languages and edits"
        )
    down = family_order(list(matrix.index))
    # Edits of the languages that were read come first, so that their own cells are a diagonal.
    across = [lang for lang in down if lang in matrix.columns]
    unread = [lang for lang in matrix.columns if is_plainly_language(lang) and lang not in down]
    across += family_order(unread)
    beside = [name for name in matrix.columns if name not in across]
    groups = [across, beside] if beside else [across]
    low, high, scale = _range(matrix.to_numpy(float))
    figure = make_subplots(
        rows=1,
        cols=len(groups),
        column_widths=[len(group) for group in groups] if beside else None,
        horizontal_spacing=0.02,
        shared_yaxes=True,
    )
    # Two panels of one scale, so that controls stand apart and cells are of one width.
    for col, group in enumerate(groups, start=1):
        figure.add_trace(_cells(matrix.loc[down, group], down, group), row=1, col=col)
    _frame_own(figure, down, across)
    # Many languages get smaller letters, codes that stand on their side, and lower lines.
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
        "meant for each language (across); frames mark a language's own edit",
        f"Beside: {', '.join(map(readable, beside))}" if beside else "",
        f"n = {len(down)} languages, {len(across)} edits",
        note,
    )
    height = 200 + (16 if small else 25) * len(down)
    return finish(
        figure, title="What each edit does to each language", caption=caption, height=height
    )


def _frame_own(figure: go.Figure, down: list[str], across: list[str]) -> None:
    """Frame the cell of each language under its own edit."""
    for x, lang in enumerate(across):
        if lang not in down:
            continue
        y = down.index(lang)
        # A cell reaches half a unit to each side of its index.
        figure.add_shape(
            type="rect",
            x0=x - 0.5,
            x1=x + 0.5,
            y0=y - 0.5,
            y1=y + 0.5,
            line={"color": INK, "width": 1.4},
            row=1,
            col=1,
        )


def _cells(part: pd.DataFrame, down: list[str], across: list[str]) -> go.Heatmap:
    """The heatmap of some edits, with numbers in the cells where there is room.

    Args:
        part: the rises, languages down and edits across.
        down: the languages.
        across: the edits.
    """
    values = part.to_numpy(float)
    names = [
        language(edit).name if is_plainly_language(edit) else readable(edit) for edit in across
    ]
    numbers = None
    if len(down) <= _READABLE:
        numbers = [[_short(value) for value in line] for line in values]
    return go.Heatmap(
        z=values,
        x=[edit if is_plainly_language(edit) else readable(edit) for edit in across],
        y=[language(lang).name for lang in down],
        customdata=[names] * len(down),
        text=numbers,
        texttemplate=None if numbers is None else "%{text}",
        textfont={"size": 10},
        hovertemplate="%{y} under the edit of %{customdata}<br>%{z:+.3f}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        coloraxis="coloraxis",
    )


def _range(values: np.ndarray) -> tuple[float, float, tuple]:
    """(low, high, colours) of the scale: from zero where nothing falls much, else as far below zero
    as above."""
    finite = values[np.isfinite(values)]
    high = max(float(finite.max(initial=0)), 1e-9)  # a scale needs two ends that differ
    low = float(finite.min(initial=0))
    if low >= -_SMALL * high:
        return 0.0, high, SEQUENTIAL
    reach = max(high, -low)
    return -reach, reach, DIVERGING


def _short(value: float) -> str:
    """A value in few letters, so that it fits into its cell: without a leading zero, and 0 for what
    rounds to it."""
    if not np.isfinite(value):
        return ""
    text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    if float(text) == 0:
        return "0"
    return text.replace("0.", ".", 1).replace("-", "−")


FIGURES = {"selectivity": selectivity}

"""Curves over layers and strengths: separation, dose and families."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from steerlab.analysis.results import curve
from steerlab.core.columns import score_records
from steerlab.core.errors import SteerlabError
from steerlab.figures.given import apart_by_layer, families_table, is_held
from steerlab.figures.style import (
    CONTROLS,
    DASHES,
    GREY,
    INK,
    PALETTE,
    SYMBOLS,
    check,
    finish,
    readable,
    sentence_of,
)

_SHIFTED = "; points of equal x are drawn side by side"
# Methods that always have the same colour and marker, in the order of the legend.
_ORDER = ("diffmean", "lda", "pca", "probe", "eigengap", "diffmean_rotate")


# The panels of `separation_by_layer`: the column, its heading, and what the caption says of it.
_APART = {
    "trace_ratio": (
        "between / within trace",
        "trace of the scatter between language means over that within languages",
    ),
    "nearest_mean": (
        "nearest-mean accuracy",
        "share of dev lines nearest to their own language's mean",
    ),
    "gap_ratio": ("distance / length", "mean distance of two languages over their mean length"),
}


def separation_by_layer(
    table: Any,
    *,
    texts: Mapping[str, Any] | None = None,
    chance: float | None = None,
    note: str = "",
) -> go.Figure:
    """How far apart the languages lie at each layer: a panel for each statistic, one layer axis.

    Raises `SteerlabError` for a missing column or no rows.

    Args:
        table: `Moments` or `Directions`, of which is drawn what they say: of moments with their
            scatter the trace of the scatter between language means over that within languages, of
            others the mean distance of two languages over their mean length. Or the table that
            `geometry.separation` gives, with the columns layer, trace_ratio and nearest_mean.
        texts: beside `Moments` the mean vectors of texts that they have not seen, by language; then
            the share of these nearest to their own language's mean is drawn too.
        chance: draws a line in the panel of that share.
        note: a last sentence of the caption.
    """
    if is_held(table):
        table = apart_by_layer(table, texts)
    elif "gap_ratio" not in table:
        check(table, ("layer", "trace_ratio", "nearest_mean"), "separation_by_layer")
    table = table.sort_values("layer")
    panels = {column: words for column, words in _APART.items() if column in table}
    # A little room above the first panel, for its heading.
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.12,
        specs=[[{"t": 0.05}], [{}]][: len(panels)],
    )
    for row, (column, (label, _)) in enumerate(panels.items(), start=1):
        figure.add_scatter(
            x=table["layer"],
            y=table[column],
            mode="lines+markers",
            line={"color": PALETTE[row - 1], "width": 2},
            marker={"size": 7, "symbol": SYMBOLS[row - 1]},
            hovertemplate=f"layer %{{x}}<br>{label} %{{y:.3f}}<extra></extra>",
            showlegend=False,
            row=row,
            col=1,
        )
        figure.add_annotation(
            text=f"<b>{label}</b>",
            x=0,
            y=1,
            xref="x domain",
            yref="y domain" if row == 1 else f"y{row} domain",
            xanchor="left",
            yanchor="bottom",
            showarrow=False,
            font={"size": 13, "color": PALETTE[row - 1]},
        )
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(**_layers(table["layer"]))
    figure.update_xaxes(title_text="layer", row=len(panels), col=1)
    if "nearest_mean" in panels:
        figure.update_yaxes(range=[0, 1.04], row=2, col=1)  # a share, with room for markers at 1
        if chance is not None:
            _mark_chance(figure, chance, row=2, col=1)
    words = [said for _, said in panels.values()]
    says = f"Above: {words[0]}. Below: {words[1]}" if len(words) == 2 else words[0].capitalize()
    caption = sentence_of(says, f"n = {len(table)} layers", note)
    height = 460 if len(panels) == 2 else 320
    return finish(figure, title="Where the languages separate", caption=caption, height=height)


def dose_curves(
    table: pd.DataFrame,
    *,
    x: str = "x",
    value: str = "value",
    by: str = "by",
    x_label: str = readable("strength"),
    value_label: str = "joint",
    chance: float | None = None,
    note: str = "",
) -> go.Figure:
    """A score against strength or dose, one line for each method, with its interval as a bar.

    Controls are grey and dashed. Raises `SteerlabError` for a missing column or no rows, and for
    rows of several layers, whose mean would be of no setting.

    Args:
        table: rows of a sweep, of one layer, of which `joint` is drawn against the strength of each
            method unless other columns are named; or a table with the columns that are named here,
            and low and high, the ends of the interval.
        x: the column of the strength or dose.
        value: the column of the score.
        by: the column of the method.
        x_label: what x is called.
        value_label: what the score is called.
        chance: draws a line at this score.
        note: a last sentence of the caption.
    """
    if "sentence" in table and "low" not in table:
        given = {"x": (x, "strength"), "value": (value, "joint"), "by": (by, "method")}
        of = {key: usual if name == key else name for key, (name, usual) in given.items()}
        value_label = score_records()[of["value"]].label if value != "value" else value_label
        table, (x, value, by) = _curve_of(table, **of), ("x", "value", "by")
    check(table, (x, value, "low", "high", by), "dose_curves")
    figure = go.Figure()
    styles = _styles(table[by].unique().tolist())
    shift = _shift(table, x, by)
    middle = (len(styles) - 1) / 2
    for index, (name, color, dash, symbol) in enumerate(styles):
        line = table[table[by] == name].sort_values(x)
        figure.add_scatter(
            # Lines stand side by side about the true x, which the hover shows.
            x=line[x] + shift * (index - middle),
            y=line[value],
            error_y={
                "array": line["high"] - line[value],
                "arrayminus": line[value] - line["low"],
                "thickness": 1.2,
                "width": 0,
            },
            customdata=line[["low", "high", x]].to_numpy(float),
            mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2},
            marker={"size": 7, "symbol": symbol},
            name=readable(name),
            hovertemplate=(
                f"{readable(name)}<br>{x_label} %{{customdata[2]:.3g}}<br>{value_label} %{{y:.3f}} "
                "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
            ),
        )
    figure.update_xaxes(title_text=x_label)
    # Few strengths are each a tick; of many doses plotly chooses round ones.
    if table[x].nunique() <= 8:
        figure.update_xaxes(tickvals=sorted(table[x].unique()), tickformat=".3~g")
    figure.update_yaxes(title_text=value_label, rangemode="tozero")
    if chance is not None:
        _mark_chance(figure, chance)
    title = f"{value_label[:1].upper()}{value_label[1:]} against {x_label}"
    caption = sentence_of(
        f"Mean {value_label} by {x_label}, with 95 % intervals as bars{_SHIFTED if shift else ''}",
        note,
    )
    return finish(figure, title=title, caption=caption, height=430)


def _curve_of(rows: pd.DataFrame, *, x: str, value: str, by: str) -> pd.DataFrame:
    """The mean of a score with its interval by x, of rows of one layer."""
    check(rows, (x, value, by, "sentence"), "dose_curves")
    layers = [] if "layer" in (x, by) or "layer" not in rows else sorted(rows["layer"].unique())
    if len(layers) > 1:
        raise SteerlabError(
            f"dose_curves was given rows of layers {', '.join(map(str, layers))}, whose mean is of "
            f"no setting; give those of one, as rows[rows['layer'] == {layers[0]}], or by='layer'"
        )
    return curve(rows.assign(**{by: rows[by].astype(str)}), x=x, value=value, by=by)


def families(table: Any, *, note: str = "") -> go.Figure:
    """The share of languages whose nearest neighbour is of their own family, by layer, beside what
    it must exceed.

    Raises `SteerlabError` for a missing column, no rows, and where no series has layers.

    Args:
        table: `Directions` or `Moments`, whose shares are compared with family labels permuted
            within scripts; or columns layer, value, series. A series without a layer (NaN, or below
            0), such as token unigrams or the embedding layer, is a level line; one with "null" in
            its name is the dotted line of the permutations. The first series is the main one.
        note: a last sentence of the caption.
    """
    if is_held(table):
        table = families_table(table)
    check(table, ("layer", "value", "series"), "families")
    layers = table.loc[table["layer"] >= 0, "layer"]
    if layers.empty:
        raise SteerlabError(
            "families was given no row with a layer; at least one series needs layers from 0 up"
        )
    # Level lines belong to no layer: they go a little beyond the first and the last one.
    ends = [float(layers.min()) - 0.15, float(layers.max()) + 0.15]
    figure = go.Figure()
    colors = cycle(PALETTE)
    for index, name in enumerate(table["series"].unique().tolist()):
        part = table[table["series"] == name].sort_values("layer")
        is_null = "null" in name.lower()
        is_level = not (part["layer"] >= 0).any()
        color = GREY if is_null else next(colors)
        layer_line = "" if is_level else "layer %{x}<br>"
        figure.add_scatter(
            # A level line goes from end to end of the axis.
            x=ends if is_level else part["layer"],
            y=[part["value"].iloc[0]] * 2 if is_level else part["value"],
            mode="lines" if is_level or is_null else "lines+markers",
            line={
                "color": color,
                "width": 3 if index == 0 else 2,
                "dash": "dot" if is_null else DASHES[index % len(DASHES)],
            },
            marker={"size": 8, "symbol": SYMBOLS[index % len(SYMBOLS)]},
            name=name,
            hovertemplate=f"{name}<br>{layer_line}%{{y:.3f}}<extra></extra>",
        )
    figure.update_xaxes(title_text="layer", **_layers(layers))
    figure.update_yaxes(title_text="neighbour of the same family", range=[0, 1.04])
    caption = sentence_of(
        "Share of languages whose nearest neighbour by cosine of centred means belongs to their "
        "own family",
        f"n = {layers.nunique()} layers",
        note,
    )
    return finish(figure, title="Families among the languages", caption=caption, height=430)


def _styles(names: list[str]) -> list[tuple[str, str, str, str]]:
    """(name, colour, dash, marker) of each line: known methods in their order and colours, then
    others, then controls."""
    others = [name for name in names if name not in _ORDER and name not in CONTROLS]
    methods = [*_ORDER, *others]
    in_order = sorted(names, key=[*methods, *CONTROLS].index)
    styles = []
    for name in in_order:
        if name in CONTROLS:
            index = CONTROLS.index(name)
            # Never solid: controls are told apart from methods without colour too.
            dash = DASHES[1 + index % (len(DASHES) - 1)]
            styles.append((name, GREY, dash, f"{SYMBOLS[index]}-open"))
        else:
            index = methods.index(name)
            color = PALETTE[index % len(PALETTE)]
            styles.append((name, color, "solid", SYMBOLS[index % len(SYMBOLS)]))
    return styles


def _shift(table: pd.DataFrame, x: str, by: str) -> float:
    """How far apart lines are drawn that have points at the same x, so that their intervals do
    not hide each other."""
    shares_x = bool(table.groupby(x)[by].nunique().max() > 1)
    if not shares_x:
        return 0.0
    return 0.012 * float(table[x].max() - table[x].min())


def _mark_chance(
    figure: go.Figure, chance: float, *, row: int | None = None, col: int | None = None
) -> None:
    """Draw a line at the level of chance, with its value."""
    figure.add_hline(
        y=chance,
        line={"color": INK, "width": 1, "dash": "dot"},
        annotation={
            "text": f"chance {chance:.3g}",
            "font": {"size": 11, "color": GREY},
            "bgcolor": "rgba(255, 255, 255, 0.8)",
            "borderpad": 0,
            "yshift": 3,
        },
        annotation_position="top right",
        row=row,
        col=col,
    )


def _layers(layers: pd.Series) -> dict[str, object]:
    """Whole layers as ticks, no more of them than a phone has room for: 12."""
    first = int(layers.min())
    count = int(layers.max() - layers.min() + 1)
    step = max(1, -(-count // 12))  # rounded up
    return {"tick0": first, "dtick": step, "tickformat": "d"}


FIGURES = {
    "separation_by_layer": separation_by_layer,
    "dose_curves": dose_curves,
    "families": families,
}

"""The spectrum of paired differences, and the window of layers in which it counts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import LANGUAGES
from steerlab.figures.panels import heading, roomy
from steerlab.figures.style import INK, PALETTE, SEQUENTIAL, check, finish, sentence_of

_COLUMNS = ("kind", "target", "layer", "place", "value", "kept", "mass", "stability", "in_window")
_TARGETS = 3
_LINES = (("mass", PALETTE[1], "solid"), ("stability", PALETTE[2], "dash"))


def spectrum(
    table: pd.DataFrame,
    *,
    targets: Sequence[str] | None = None,
    kind: str = "pairs",
    note: str = "",
) -> go.Figure:
    """Singular values by place, a line for each layer, over what their subspaces hold, layer by
    layer.

    `table`: rows of `estimate.spectrum_table`. For each of `targets` (by default the first three) a
    column: above, the values of the layers inside the window dark, of the others pale, a point
    filled where the eigengap keeps it, and, dotted, the median of other kinds (deranged pairs) over
    the window's layers; below, mass and stability by layer with the window shaded. Raises
    `SteerlabError` for a target or a kind without rows.
    """
    check(table, _COLUMNS, "spectrum")
    chosen = (
        list(targets)
        if targets is not None
        else table["target"].drop_duplicates().tolist()[:_TARGETS]
    )
    figure = make_subplots(
        rows=2,
        cols=len(chosen),
        row_heights=[0.66, 0.34],
        horizontal_spacing=0.04,
        vertical_spacing=0.2,
        shared_yaxes="rows",
    )
    for place, iso in enumerate(chosen):
        part = table[table["target"] == iso]
        mine = part[part["kind"] == kind]
        if mine.empty:
            known = table[["kind", "target"]].drop_duplicates().itertuples(index=False)
            told = ", ".join(f"{pair.kind} of {pair.target}" for pair in list(known)[:6])
            raise SteerlabError(
                f"there is no spectrum of the kind {kind!r} of {iso!r}; there is {told}"
            )
        for trace in [
            *_values(mine, legend=place == 0),
            *_others(part, mine, kind, legend=place == 0),
        ]:
            figure.add_trace(trace, row=1, col=place + 1)
        for trace in _depth(mine, legend=place == 0):
            figure.add_trace(trace, row=2, col=place + 1)
        _shade(figure, mine, place + 1)
        heading(figure, place, LANGUAGES[iso].name if iso in LANGUAGES else str(iso))
    figure.update_yaxes(type="log", tickvals=_decades(table["value"]), tickformat="~g", row=1)
    figure.update_yaxes(range=[0, 1.04], row=2)
    figure.update_yaxes(title_text="singular value", row=1, col=1)
    figure.update_yaxes(title_text="share", row=2, col=1)
    figure.update_xaxes(
        title_text="place in the spectrum", tickvals=_places(int(table["place"].max())), row=1
    )
    figure.update_xaxes(title_text="layer", tickformat="d", row=2)
    caption = sentence_of(
        "Above: singular values of the differences between translations, a line for each layer; "
        "dark inside the "
        "window, the darker the deeper; filled where the eigengap keeps them. Below: the share of "
        "the squared spectrum "
        "that is kept (mass) and how alike the subspaces of resampled pairs are (stability); the "
        "window is shaded",
        f"n = {int(table['pairs'].max())} pairs a target" if "pairs" in table.columns else "",
        note,
    )
    return roomy(finish(figure, title="The spectrum and its window", caption=caption, height=520))


def _values(mine: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    inside = sorted(mine.loc[mine["in_window"].astype(bool), "layer"].unique())
    colors = (
        sample_colorscale(
            [color for _, color in SEQUENTIAL], list(np.linspace(0.55, 1, len(inside)))
        )
        if inside
        else []
    )
    shades = dict(zip(inside, colors, strict=True))
    layers = [*sorted(set(mine["layer"]) - set(inside)), *inside]  # the pale ones below
    said: set[bool] = set()
    traces = []
    for layer in layers:
        line, within = mine[mine["layer"] == layer].sort_values("place"), layer in shades
        color = shades.get(layer, "#cbd2d9")
        traces.append(
            go.Scatter(
                x=line["place"],
                y=line["value"],
                mode="lines+markers" if within else "lines",
                line={"color": color, "width": 2 if within else 1},
                marker={
                    "size": 6,
                    "color": [color if kept else "#ffffff" for kept in line["kept"]],
                    "line": {"color": color, "width": 1.2},
                },
                name="inside the window" if within else "other layers",
                legendgroup="in" if within else "out",
                showlegend=legend and within not in said,
                hovertemplate=f"layer {layer}, place %{{x}}<br>%{{y:.3g}}<extra></extra>",
            )
        )
        said.add(within)
    return traces


def _others(part: pd.DataFrame, mine: pd.DataFrame, kind: str, *, legend: bool) -> list[go.Scatter]:
    """Each other kind of pairs: the median over the window's layers."""
    inside = set(mine.loc[mine["in_window"].astype(bool), "layer"])
    traces = []
    for name, other in part[(part["kind"] != kind) & part["layer"].isin(inside)].groupby(
        "kind", sort=False
    ):
        middle = other.groupby("place")["value"].median()
        traces.append(
            go.Scatter(
                x=middle.index,
                y=middle,
                mode="lines",
                line={"color": INK, "width": 2, "dash": "dot"},
                name=f"{name} pairs (median)",
                legendgroup=str(name),
                showlegend=legend,
                hovertemplate=f"{name}, place %{{x}}<br>%{{y:.3g}}<extra></extra>",
            )
        )
    return traces


def _depth(mine: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    each = mine.drop_duplicates("layer").sort_values("layer")
    return [
        go.Scatter(
            x=each["layer"],
            y=each[name],
            mode="lines+markers",
            line={"color": color, "width": 2, "dash": dash},
            marker={"size": 5},
            name=name,
            legendgroup=name,
            showlegend=legend,
            hovertemplate=f"layer %{{x}}<br>{name} %{{y:.2f}}<extra></extra>",
        )
        for name, color, dash in _LINES
    ]


def _shade(figure: go.Figure, mine: pd.DataFrame, col: int) -> None:
    inside = mine.loc[mine["in_window"].astype(bool), "layer"]
    if len(inside):
        ends = {"x0": int(inside.min()) - 0.4, "x1": int(inside.max()) + 0.4}
        figure.add_vrect(**ends, fillcolor="#dfe8ef", line_width=0, layer="below", row=2, col=col)


def _places(last: int) -> list[int]:
    step = max(1, -(-last // 4))
    return sorted({1, *range(step, last + 1, step)})


def _decades(values: pd.Series) -> list[float]:
    low, high = float(values.min()), float(values.max())
    steps = (1, 3) if high / max(low, 1e-30) < 1e3 else (1,)
    return [
        step * 10.0**power
        for power in range(-9, 9)
        for step in steps
        if low / 3 < step * 10.0**power < high * 3
    ]


FIGURES = {"spectrum": spectrum}

"""The spectrum of paired differences, and the window of layers in which it counts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import is_plainly_language, language
from steerlab.figures.panels import heading, roomy
from steerlab.figures.style import INK, PALETTE, SEQUENTIAL, check, finish, sentence_of

_COLUMNS = ("kind", "target", "layer", "place", "value", "kept", "mass", "stability", "in_window")
_TARGETS = 3  # shown where none are named
_PALE = "#cbd2d9"  # of layers outside the window
# The lines of the lower panels: column, colour, dash.
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

    Each target has a column. Above are the values, dark for the layers inside the window and pale
    for the others, a point filled where the eigengap keeps it, and, dotted, the median of other
    kinds (deranged pairs) over the window's layers. Below are mass and stability by layer, with the
    window shaded. Raises `SteerlabError` for a target or a kind without rows.

    Args:
        table: rows of `estimate.spectrum_table`.
        targets: the targets to show; by default the first three.
        kind: the kind of pairs whose values are shown by layer.
        note: a last sentence of the caption.
    """
    check(table, _COLUMNS, "spectrum")
    if targets is None:
        targets = table["target"].drop_duplicates().tolist()[:_TARGETS]
    figure = make_subplots(
        rows=2,
        cols=len(targets),
        row_heights=[0.66, 0.34],
        horizontal_spacing=0.04,
        vertical_spacing=0.2,
        shared_yaxes="rows",
    )
    for index, target in enumerate(targets):
        of_target = table[table["target"] == target]
        of_kind = of_target[of_target["kind"] == kind]
        if of_kind.empty:
            spectra = table[["kind", "target"]].drop_duplicates().itertuples(index=False)
            listed = [f"{spectrum.kind} of {spectrum.target}" for spectrum in spectra]
            raise SteerlabError(
                f"there is no spectrum of the kind {kind!r} of {target!r}; there is "
                f"{', '.join(listed[:6])}"
            )
        col = index + 1
        legend = index == 0  # every line once
        above = _values(of_kind, legend=legend) + _others(of_target, kind, legend=legend)
        for trace in above:
            figure.add_trace(trace, row=1, col=col)
        for trace in _by_layer(of_kind, legend=legend):
            figure.add_trace(trace, row=2, col=col)
        _shade_window(figure, of_kind, col)
        heading(
            figure, index, language(target).name if is_plainly_language(target) else str(target)
        )
    # All targets share this axis, so its ticks span the values of all.
    figure.update_yaxes(type="log", tickvals=_decades(table["value"]), tickformat="~g", row=1)
    figure.update_yaxes(range=[0, 1.04], row=2)
    figure.update_yaxes(title_text="singular value", row=1, col=1)
    figure.update_yaxes(title_text="share", row=2, col=1)
    ticks = _ticks(int(table["place"].max()))
    figure.update_xaxes(title_text="place in the spectrum", tickvals=ticks, row=1)
    figure.update_xaxes(title_text="layer", tickformat="d", row=2)
    caption = sentence_of(
        "Above: singular values of the differences between translations, a line for each layer; "
        "dark inside the window, the darker the deeper; filled where the eigengap keeps them. "
        "Below: the share of the squared spectrum that is kept (mass) and how alike the subspaces "
        "of resampled pairs are (stability); the window is shaded",
        f"n = {int(table['pairs'].max())} pairs a target" if "pairs" in table.columns else "",
        note,
    )
    return roomy(finish(figure, title="The spectrum and its window", caption=caption, height=520))


def _window(spectra: pd.DataFrame) -> list[int]:
    """The layers inside the window."""
    inside = spectra.loc[spectra["in_window"].astype(bool), "layer"]
    return sorted(int(layer) for layer in inside.unique())


def _values(spectra: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    """The singular values of one target, a line for each layer."""
    window = _window(spectra)
    shades: dict[int, str] = {}
    if window:
        # The dark half of the scale, the deeper the darker.
        scale = [color for _, color in SEQUENTIAL]
        colors = sample_colorscale(scale, list(np.linspace(0.55, 1, len(window))))
        shades = dict(zip(window, colors, strict=True))
    # Pale lines first, so that they lie below the dark ones.
    layers = [*sorted(set(spectra["layer"]) - set(window)), *window]
    in_legend: set[bool] = set()  # inside and outside stand in the legend once each
    traces = []
    for layer in layers:
        line = spectra[spectra["layer"] == layer].sort_values("place")
        inside = layer in shades
        color = shades.get(layer, _PALE)
        traces.append(
            go.Scatter(
                x=line["place"],
                y=line["value"],
                mode="lines+markers" if inside else "lines",
                line={"color": color, "width": 2 if inside else 1},
                marker={
                    "size": 6,
                    "color": [color if kept else "#ffffff" for kept in line["kept"]],
                    "line": {"color": color, "width": 1.2},
                },
                name="inside the window" if inside else "other layers",
                legendgroup="in" if inside else "out",
                showlegend=legend and inside not in in_legend,
                hovertemplate=f"layer {layer}, place %{{x}}<br>%{{y:.3g}}<extra></extra>",
            )
        )
        in_legend.add(inside)
    return traces


def _others(spectra: pd.DataFrame, kind: str, *, legend: bool) -> list[go.Scatter]:
    """Each other kind of pairs of a target: the median over the layers of the window."""
    window = _window(spectra[spectra["kind"] == kind])
    others = spectra[(spectra["kind"] != kind) & spectra["layer"].isin(window)]
    traces = []
    for name, other in others.groupby("kind", sort=False):
        median = other.groupby("place")["value"].median()
        traces.append(
            go.Scatter(
                x=median.index,
                y=median,
                mode="lines",
                line={"color": INK, "width": 2, "dash": "dot"},
                name=f"{name} pairs (median)",
                legendgroup=str(name),
                showlegend=legend,
                hovertemplate=f"{name}, place %{{x}}<br>%{{y:.3g}}<extra></extra>",
            )
        )
    return traces


def _by_layer(spectra: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    """Mass and stability by layer, which all rows of a layer repeat."""
    layers = spectra.drop_duplicates("layer").sort_values("layer")
    traces = []
    for name, color, dash in _LINES:
        traces.append(
            go.Scatter(
                x=layers["layer"],
                y=layers[name],
                mode="lines+markers",
                line={"color": color, "width": 2, "dash": dash},
                marker={"size": 5},
                name=name,
                legendgroup=name,
                showlegend=legend,
                hovertemplate=f"layer %{{x}}<br>{name} %{{y:.2f}}<extra></extra>",
            )
        )
    return traces


def _shade_window(figure: go.Figure, spectra: pd.DataFrame, col: int) -> None:
    """Shade the window of a target in its lower panel."""
    window = _window(spectra)
    if window:
        figure.add_vrect(
            x0=window[0] - 0.4,
            x1=window[-1] + 0.4,
            fillcolor="#dfe8ef",
            line_width=0,
            layer="below",
            row=2,
            col=col,
        )


def _ticks(last: int) -> list[int]:
    """About four ticks from 1 to the last place of the spectrum."""
    step = max(1, -(-last // 4))  # a quarter, rounded up
    return sorted({1, *range(step, last + 1, step)})


def _decades(values: pd.Series) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, or 1 and 3 where there would be few."""
    low = float(values.min())
    high = float(values.max())
    # The last singular values may be 0.
    steps = (1, 3) if high / max(low, 1e-30) < 1e3 else (1,)
    ticks = []
    for power in range(-9, 9):
        for step in steps:
            tick = step * 10.0**power
            if low / 3 < tick < high * 3:
                ticks.append(tick)
    return ticks


FIGURES = {"spectrum": spectrum}

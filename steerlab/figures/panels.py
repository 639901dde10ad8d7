"""Panels that share a figure: a letter and a heading over each, some of many layers, parts of
the depth shaded."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from steerlab.figures.style import GREY

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PANELS = 8  # of layers that a page has room for
_SHADES = ("#eef2f5", "#ffffff")


def heading(figure: go.Figure, place: int, text: str, *, shift: float = 2) -> None:
    """Write a letter and a heading over the panel number `place`, from 0, as subplots count
    them."""
    axis = "" if place == 0 else str(place + 1)
    figure.add_annotation(
        text=f"<b>{_LETTERS[place]}</b>  {text}",
        x=0,
        y=1,
        xref=f"x{axis} domain",
        yref=f"y{axis} domain",
        xanchor="left",
        yanchor="bottom",
        yshift=shift,
        showarrow=False,
        font={"size": 11},
    )


def some(layers: Sequence[int], most: int = _PANELS) -> list[int]:
    """At most so many of the layers, the first and the last among them, evenly spread."""
    known = sorted(set(layers))
    if len(known) <= most:
        return known
    return [known[round(k * (len(known) - 1) / (most - 1))] for k in range(most)]


def shade(
    figure: go.Figure,
    parts: Mapping[str, Sequence[int]],
    order: Sequence[int],
    *,
    row: int,
    col: int,
) -> None:
    """Shade parts of the depth behind a panel whose x is the place of each layer in `order`,
    with their names above."""
    place = {layer: number for number, layer in enumerate(order)}
    for number, (name, layers) in enumerate(parts.items()):
        inside = [place[layer] for layer in layers if layer in place]
        if not inside:
            continue
        ends = {"x0": min(inside) - 0.5, "x1": max(inside) + 0.5}
        about = {
            "fillcolor": _SHADES[number % 2],
            "line_width": 0,
            "layer": "below",
            "exclude_empty_subplots": False,
        }
        figure.add_vrect(**ends, **about, row=row, col=col)
        _name(figure, name, sum(ends.values()) / 2, ends["x1"] - ends["x0"], row, col, len(order))


def roomy(figure: go.Figure, room: int = 14) -> go.Figure:
    """More space between the caption and what stands over the panels."""
    return figure.update_layout(
        margin_t=figure.layout.margin.t + room, height=figure.layout.height + room
    )


def _name(
    figure: go.Figure, name: str, x: float, span: float, row: int, col: int, layers: int
) -> None:
    """The name of a part over it, broken into lines where the part is narrow; at the right edge
    it ends there."""
    room = max(6, round(90 * span / layers))  # characters, of a figure 700 pixels wide
    last = x + span / 2 > layers - 1 and len(name) > room
    figure.add_annotation(
        text=name if len(name) <= room else name.replace(" ", "<br>"),
        x=x + span / 2 if last else x,
        xanchor="right" if last else "center",
        y=1,
        yref="y domain",
        yanchor="bottom",
        yshift=2,
        showarrow=False,
        font={"size": 11, "color": GREY},
        row=row,
        col=col,
    )

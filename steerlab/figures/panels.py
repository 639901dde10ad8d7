"""Panels that share a figure: a letter and a heading over each, some of many layers, parts of
the depth shaded."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from steerlab.figures.style import GREY

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PANELS = 8  # layers that a page has room for
_SHADES = ("#eef2f5", "#ffffff")  # of parts, in turn


def heading(figure: go.Figure, place: int, text: str, *, shift: float = 2) -> None:
    """Write a letter and a heading over a panel.

    Args:
        figure: the figure, of subplots.
        place: the number of the panel, from 0, row by row.
        text: the heading.
        shift: how many pixels above the panel it stands.
    """
    # plotly calls the axes x, x2, x3 and so on.
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
    distinct = sorted(set(layers))
    if len(distinct) <= most:
        return distinct
    last = len(distinct) - 1
    return [distinct[round(step * last / (most - 1))] for step in range(most)]


def shade(
    figure: go.Figure,
    parts: Mapping[str, Sequence[int]],
    order: Sequence[int],
    *,
    row: int,
    col: int,
) -> None:
    """Shade parts of the depth behind a panel, with their names above.

    Args:
        figure: the figure, of subplots.
        parts: the layers of each part, by its name; layers that the panel lacks are left out.
        order: the layers along the x axis, whose values are their indices.
        row: the row of the panel, from 1.
        col: the column of the panel, from 1.
    """
    index_of = {layer: index for index, layer in enumerate(order)}
    for number, (name, layers) in enumerate(parts.items()):
        inside = [index_of[layer] for layer in layers if layer in index_of]
        if not inside:
            continue
        left = min(inside) - 0.5
        right = max(inside) + 0.5
        figure.add_vrect(
            x0=left,
            x1=right,
            fillcolor=_SHADES[number % 2],
            line_width=0,
            layer="below",
            exclude_empty_subplots=False,  # it may be drawn before the lines
            row=row,
            col=col,
        )
        _name(figure, name, left, right, row, col, len(order))


def roomy(figure: go.Figure, room: int = 14) -> go.Figure:
    """Add so many pixels between the caption and what stands over the panels."""
    return figure.update_layout(
        margin_t=figure.layout.margin.t + room, height=figure.layout.height + room
    )


def _name(
    figure: go.Figure, name: str, left: float, right: float, row: int, col: int, layers: int
) -> None:
    """Write the name of a part over it.

    It is broken into lines where the part is narrow. Over the last part a long name ends at the
    right edge, so that it does not leave the figure.
    """
    room = max(6, round(90 * (right - left) / layers))  # characters, of a figure 700 pixels wide
    too_long = len(name) > room
    at_right_edge = too_long and right > layers - 1
    figure.add_annotation(
        text=name.replace(" ", "<br>") if too_long else name,
        x=right if at_right_edge else (left + right) / 2,
        xanchor="right" if at_right_edge else "center",
        y=1,
        yref="y domain",
        yanchor="bottom",
        yshift=2,
        showarrow=False,
        font={"size": 11, "color": GREY},
        row=row,
        col=col,
    )

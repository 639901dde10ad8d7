"""Two trees of the same languages face to face."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families, language
from steerlab.figures.style import GREY, family_style, finish, sentence_of

_GAP = 0.8  # the room for names and lines between the trees, in widths of a tree
_PLAIN = "#9aa5b1"


def tanglegram(
    left: np.ndarray,
    right: np.ndarray,
    langs: Sequence[str],
    *,
    orders: tuple[Sequence[int], Sequence[int]],
    headings: tuple[str, str],
    statistic: str,
    layer: int | None = None,
    note: str = "",
) -> go.Figure:
    """Two linkage matrices of the same languages, a line from each leaf to itself, in the colour of
    its family.

    `orders`: the leaf orders, as `geometry.untangle` gives them; each tree is drawn to its own
    height. `statistic` says how alike they are, and stands in the caption.
    """
    for tree, order in zip((left, right), orders, strict=True):
        if len(tree) != len(langs) - 1 or sorted(order) != list(range(len(langs))):
            raise SteerlabError(
                f"each tree and each order needs exactly the {len(langs)} languages "
                f"{' '.join(langs)}"
            )
    figure = go.Figure()
    for side, (tree, order) in enumerate(zip((left, right), orders, strict=True)):
        _branches(figure, tree, list(order), langs, side)
    _threads(figure, orders, langs)
    _names(figure, orders, langs)
    for side, heading in enumerate(headings):
        x = 0.0 if side == 0 else 2 + _GAP
        anchor = "left" if side == 0 else "right"
        figure.add_annotation(
            text=f"<b>{'ab'[side]}</b>  {heading}",
            x=x,
            y=1,
            yref="y domain",
            yanchor="bottom",
            xanchor=anchor,
            showarrow=False,
        )
    figure.update_xaxes(visible=False, range=[-0.03, 2.03 + _GAP])
    figure.update_yaxes(visible=False, range=[len(langs) - 0.4, -0.6])
    where = "" if layer is None else f"; layer {layer}"
    caption = sentence_of(
        f"Left: {headings[0]}, average linkage on the cosine distance of centred language means. "
        f"Right: {headings[1]}, "
        "whose height counts shared nodes. Branches are turned so that few lines cross",
        f"n = {len(langs)} languages{where}",
        statistic,
        note,
    )
    return finish(
        figure,
        title="Two trees of the same languages",
        caption=caption,
        height=150 + 20 * len(langs),
    )


def _branches(
    figure: go.Figure, tree: np.ndarray, order: list[int], langs: Sequence[str], side: int
) -> None:
    """Every merge as a bracket, grouped by colour; the root at the outer edge."""
    groups, shown = families(langs), _shared(langs)
    top = float(tree[-1, 2])
    place = {leaf: float(order.index(leaf)) for leaf in range(len(langs))}
    height = dict.fromkeys(range(len(langs)), 0.0)
    inside = {leaf: {groups[leaf]} for leaf in range(len(langs))}
    drawn: dict[str, tuple[list[float | None], list[float | None]]] = {}
    for node, (a, b, up, _) in enumerate(tree, start=len(langs)):
        a, b = int(a), int(b)
        inside[node], height[node], place[node] = (
            inside[a] | inside[b],
            up / top,
            (place[a] + place[b]) / 2,
        )
        color = _color(next(iter(inside[node])), shown) if len(inside[node]) == 1 else _PLAIN
        x, y = drawn.setdefault(color, ([], []))
        x += [
            _across(height[a], side),
            _across(up / top, side),
            _across(up / top, side),
            _across(height[b], side),
            None,
        ]
        y += [place[a], place[a], place[b], place[b], None]
    for color, (x, y) in drawn.items():
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": color, "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        )


def _across(height: float, side: int) -> float:
    return 1 - height if side == 0 else 1 + _GAP + height


def _shared(langs: Sequence[str]) -> set[str]:
    """The families with two or more of the languages: only these have a colour, since colours
    are few."""
    groups = families(langs)
    return {family for family in groups if groups.count(family) > 1}


def _color(family: str, shown: set[str]) -> str:
    return family_style(family)[0] if family in shown else _PLAIN


def _threads(
    figure: go.Figure, orders: tuple[Sequence[int], Sequence[int]], langs: Sequence[str]
) -> None:
    shown, alone = _shared(langs), "alone in its family"
    groups = [family if family in shown else alone for family in families(langs)]
    for family in sorted(set(groups), key=lambda name: (name == alone, groups.index(name))):
        x: list[float | None] = []
        y: list[float | None] = []
        for leaf, group in enumerate(groups):
            if group == family:
                x += [1 + 0.42 * _GAP, 1 + 0.58 * _GAP, None]
                y += [orders[0].index(leaf), orders[1].index(leaf), None]
        line = {"color": _color(family, shown), "width": 1.5}
        figure.add_scatter(
            x=x, y=y, mode="lines", line=line, opacity=0.75, name=family, hoverinfo="skip"
        )


def _names(
    figure: go.Figure, orders: tuple[Sequence[int], Sequence[int]], langs: Sequence[str]
) -> None:
    for side, order in enumerate(orders):
        figure.add_scatter(
            x=[1.01 if side == 0 else 0.99 + _GAP] * len(langs),
            y=list(range(len(langs))),
            mode="text",
            text=[language(langs[leaf]).name for leaf in order],
            textposition="middle right" if side == 0 else "middle left",
            textfont={"size": 10, "color": "#1f2933"},
            hoverinfo="skip",
            showlegend=False,
            cliponaxis=False,
        )
    figure.update_layout(legend_font_color=GREY)


FIGURES = {"tanglegram": tanglegram}

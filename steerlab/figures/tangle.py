"""Two trees of the same languages face to face."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.cluster.hierarchy import cophenet

from steerlab.analysis.geometry import entanglement, untangle
from steerlab.core.errors import SteerlabError
from steerlab.core.labels import families_of, labelled
from steerlab.figures.given import at_layer, is_held
from steerlab.figures.style import GREY, family_style, finish, sentence_of
from steerlab.figures.trees import leaf_order, linkage_of

# The left tree stands between x = 0 and 1, the right one between 1 + _GAP and 2 + _GAP: the room
# for names and lines between them, in widths of a tree.
_GAP = 0.8
_PLAIN = "#9aa5b1"  # of branches of several families, and of families of one language


def tanglegram(
    left: Any,
    right: Any,
    langs: Sequence[str] | None = None,
    *,
    orders: tuple[Sequence[int], Sequence[int]] | None = None,
    headings: tuple[str, str] | None = None,
    statistic: str = "",
    layer: int | None = None,
    note: str = "",
) -> go.Figure:
    """Two trees of the same languages face to face, with a line from each language to itself, in
    the colour of its family.

    Each tree is drawn to its own height. Raises `SteerlabError` for trees and orders of other
    languages.

    Args:
        left: `Directions` or `Moments` of one layer, such as `directions.at(5)`; or a linkage
            matrix, with langs, orders, headings and statistic. Its root is drawn at the left edge.
        right: another one of the same languages, whose root is drawn at the right edge.
        langs: the languages.
        orders: the leaf order of each tree, as `geometry.untangle` gives them.
        headings: what each tree is of.
        statistic: says how alike they are, in the caption.
        layer: the layer that the left tree is of, for the caption.
        note: a last sentence of the caption.
    """
    if is_held(left) and is_held(right):
        return _of_two(left, right, headings, note)
    if langs is None or orders is None or headings is None:
        raise SteerlabError(
            "tanglegram takes Directions or Moments of one layer each, or two linkage matrices "
            "with langs, orders, headings and statistic"
        )
    return _facing(
        (left, right),
        langs,
        orders,
        headings,
        of_right=f"{headings[1]}, whose height counts shared nodes",
        says=(statistic, note),
        layer=layer,
    )


def _facing(
    trees: tuple[np.ndarray, np.ndarray],
    langs: Sequence[str],
    orders: tuple[Sequence[int], Sequence[int]],
    headings: tuple[str, str],
    *,
    of_right: str,
    says: Sequence[str],
    layer: int | None = None,
) -> go.Figure:
    """The figure of two trees; `of_right` is what the caption calls the right one."""
    for tree, order in zip(trees, orders, strict=True):
        if len(tree) != len(langs) - 1 or sorted(order) != list(range(len(langs))):
            raise SteerlabError(
                f"each tree and each order needs exactly the {len(langs)} languages "
                f"{' '.join(langs)}"
            )
    figure = go.Figure()
    for side, (tree, order) in enumerate(zip(trees, orders, strict=True)):
        _branches(figure, tree, list(order), langs, side)
    _threads(figure, orders, langs)
    _names(figure, orders, langs)
    outer = ((0.0, "left"), (2 + _GAP, "right"))  # the outer edge of each tree
    for letter, heading, (x, anchor) in zip("ab", headings, outer, strict=True):
        figure.add_annotation(
            text=f"<b>{letter}</b>  {heading}",
            x=x,
            y=1,
            yref="y domain",
            yanchor="bottom",
            xanchor=anchor,
            showarrow=False,
        )
    # No axes: each tree has its own height. The first leaf is at the top.
    figure.update_xaxes(visible=False, range=[-0.03, 2.03 + _GAP])
    figure.update_yaxes(visible=False, range=[len(langs) - 0.4, -0.6])
    scope = f"n = {len(langs)} languages"
    if layer is not None:
        scope += f"; layer {layer}"
    caption = sentence_of(
        f"Left: {headings[0]}, average linkage on the cosine distance of centred language means. "
        f"Right: {of_right}. Branches are turned so that few lines cross",
        scope,
        *says,
    )
    return finish(
        figure,
        title="Two trees of the same languages",
        caption=caption,
        height=150 + 20 * len(langs),
    )


def _of_two(left: Any, right: Any, headings: tuple[str, str] | None, note: str) -> go.Figure:
    """The figure of two objects of one layer each, with how alike their trees are."""
    (first, langs, a), (second, others, b) = (
        at_layer(each, None, None, "tanglegram") for each in (left, right)
    )
    if langs != others:
        raise SteerlabError(
            f"the two sides are of {' '.join(langs)} and of {' '.join(others)}; give the same "
            "languages, in one order"
        )
    trees = (linkage_of(first, langs), linkage_of(second, langs))
    orders = untangle(trees[0], trees[1], start=leaf_order(trees[0]))
    r = float(np.corrcoef(cophenet(trees[0]), cophenet(trees[1]))[0, 1])
    headings = headings or (f"one side, layer {a}", f"the other, layer {b}")
    alike = (
        f"Correlation of the cophenetic distances of the two trees r = {r:.2f}; entanglement "
        f"{entanglement(*orders):.2f}"
    )
    says = (alike, note)
    return _facing(trees, langs, orders, headings, of_right=f"{headings[1]}, the same", says=says)


def _branches(
    figure: go.Figure, tree: np.ndarray, order: list[int], langs: Sequence[str], side: int
) -> None:
    """Draw every merge as a bracket, the root at the outer edge.

    Args:
        figure: the figure.
        tree: the linkage matrix.
        order: its leaves from top to bottom.
        langs: the languages.
        side: 0 for the left tree, 1 for the right one.
    """
    family_of = families_of(langs)
    shown = _shared(langs)
    top = float(tree[-1, 2])
    # Of every node, the leaves first: its y, its height as a share of the tree's, and the families
    # that it holds.
    y_of = {leaf: float(order.index(leaf)) for leaf in range(len(langs))}
    height_of = dict.fromkeys(range(len(langs)), 0.0)
    inside = {leaf: {family_of[leaf]} for leaf in range(len(langs))}
    # The brackets of one colour are one line, with gaps (None) between them.
    lines: dict[str, tuple[list[float | None], list[float | None]]] = {}
    for node, (left, right, height, _) in enumerate(tree, start=len(langs)):
        a = int(left)
        b = int(right)
        inside[node] = inside[a] | inside[b]
        height_of[node] = height / top
        y_of[node] = (y_of[a] + y_of[b]) / 2
        color = _PLAIN
        if len(inside[node]) == 1:
            color = _color(next(iter(inside[node])), shown)
        xs, ys = lines.setdefault(color, ([], []))
        x = _x(height_of[node], side)
        # From one child up to the height of the merge, across, and down to the other child.
        xs += [_x(height_of[a], side), x, x, _x(height_of[b], side), None]
        ys += [y_of[a], y_of[a], y_of[b], y_of[b], None]
    for color, (xs, ys) in lines.items():
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": color, "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        )


def _x(height: float, side: int) -> float:
    """Where a height of a tree lies: leaves at the inner edge, the root at the outer one."""
    return 1 - height if side == 0 else 1 + _GAP + height


def _shared(langs: Sequence[str]) -> set[str]:
    """The families with two or more of the languages: only these have a colour, since colours
    are few."""
    family_of = families_of(langs)
    return {family for family in family_of if family_of.count(family) > 1}


def _color(family: str, shown: set[str]) -> str:
    return family_style(family)[0] if family in shown else _PLAIN


def _threads(
    figure: go.Figure, orders: tuple[Sequence[int], Sequence[int]], langs: Sequence[str]
) -> None:
    """Draw a line from each leaf of the left tree to the same leaf of the right one, by family."""
    shown = _shared(langs)
    alone = "alone in its family"
    groups = [family if family in shown else alone for family in families_of(langs)]
    # In the legend families stand in the order of the languages, those alone at the end.
    names = sorted(set(groups), key=lambda name: (name == alone, groups.index(name)))
    for name in names:
        xs: list[float | None] = []
        ys: list[float | None] = []
        for leaf, group in enumerate(groups):
            if group == name:
                # The middle of the gap; the names take the rest.
                xs += [1 + 0.42 * _GAP, 1 + 0.58 * _GAP, None]
                ys += [orders[0].index(leaf), orders[1].index(leaf), None]
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": _color(name, shown), "width": 1.5},
            opacity=0.75,
            name=name,
            hoverinfo="skip",
        )


def _names(
    figure: go.Figure, orders: tuple[Sequence[int], Sequence[int]], langs: Sequence[str]
) -> None:
    """Write the languages beside the leaves of both trees, inside."""
    sides = ((1.01, "middle right"), (0.99 + _GAP, "middle left"))
    for order, (x, position) in zip(orders, sides, strict=True):
        figure.add_scatter(
            x=[x] * len(langs),
            y=list(range(len(langs))),
            mode="text",
            text=[labelled(langs[leaf]).name for leaf in order],
            meta={"short": [langs[leaf] for leaf in order]},  # where names do not fit
            textposition=position,
            textfont={"size": 10, "color": "#1f2933"},
            hoverinfo="skip",
            showlegend=False,
            cliponaxis=False,
        )
    figure.update_layout(legend_font_color=GREY)


FIGURES = {"tanglegram": tanglegram}

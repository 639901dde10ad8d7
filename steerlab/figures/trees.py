"""How languages cluster: average linkage on cosine distance, its fit, and the tree."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
from scipy.cluster.hierarchy import dendrogram as layout_of
from scipy.spatial.distance import pdist

from steerlab.core.errors import SteerlabError
from steerlab.core.labels import families_of, labelled
from steerlab.figures.given import as_array, at_layer
from steerlab.figures.style import GREY, family_style, finish, sentence_of

_MIXED = "#9aa5b1"  # of branches that hold several families


def linkage_of(vectors: Float[Any, "lang width"], langs: Sequence[str]) -> np.ndarray:
    """The tree of the languages, as scipy's linkage matrix [merge 4].

    It is average linkage on the cosine distance of centred vectors, with the leaves in the order in
    which neighbours are nearest. Raises `SteerlabError` for fewer than two languages, a doubled or
    unknown one, and a vector that is zero or not finite.
    """
    if len(langs) != len(vectors) or len(set(langs)) != len(langs) or len(langs) < 2:
        raise SteerlabError(
            f"{len(vectors)} vectors for the languages {' '.join(langs)!r}; "
            "a tree needs two or more different languages and one vector each"
        )
    families_of(langs)  # raises for an unknown language
    return linkage(_distances(vectors), method="average", optimal_ordering=True)


def cophenetic(vectors: Float[Any, "lang width"]) -> float:
    """The cophenetic correlation: of the distances in the tree with the cosine distances.

    It is 1 where the tree loses nothing. Source: Sokal and Rohlf (1962). Raises `SteerlabError` for
    fewer than three languages, since two have a single distance.
    """
    if len(vectors) < 3:
        raise SteerlabError(
            f"{len(vectors)} languages given; a cophenetic correlation needs at least three"
        )
    distances = _distances(vectors)
    correlation, _ = cophenet(linkage(distances, method="average"), distances)
    return float(correlation)


@lru_cache(maxsize=32)
def cophenetic_null(
    count: int, width: int, *, draws: int = 200, seed: int = 0
) -> tuple[float, float]:
    """The cophenetic correlation of vectors without any structure: its mean, and what 95 % of such
    vectors stay below.

    A tree fits any distances to some degree: the merges are made from them. The vectors are
    normally distributed, alike in all dimensions. Raises `SteerlabError` as `cophenetic` does.

    Args:
        count: how many languages.
        width: how many dimensions.
        draws: how many times vectors are drawn.
        seed: decides them.
    """
    random = np.random.default_rng(seed)
    values = [cophenetic(random.standard_normal((count, width))) for _ in range(draws)]
    return float(np.mean(values)), float(np.quantile(values, 0.95))


def leaf_order(tree: np.ndarray) -> list[int]:
    """The leaves of a linkage matrix from one end of the drawing to the other."""
    return [int(leaf) for leaf in leaves_list(tree)]


def centred(vectors: Float[Any, "lang width"]) -> np.ndarray:
    """The vectors less their mean over languages, as an array of float64 [lang width]."""
    array = as_array(vectors)
    return array - array.mean(0)


def dendrogram(
    directions: Any,
    *,
    layer: int | None = None,
    marks: Sequence[str] | None = None,
    note: str = "",
) -> go.Figure:
    """The tree of the languages at one layer, leaves marked by family, its cophenetic correlation
    in the title.

    Branches within one family have the family's colour. Raises `SteerlabError` unless there is
    exactly one layer, and as `linkage_of` does.

    Args:
        directions: `Directions` or `Moments`.
        layer: which of their layers; of one layer it need not be named.
        marks: short words for the merges, in the order of `linkage_of`, such as how stable each
            branch is; empty for none.
        note: a last sentence of the caption.
    """
    vectors, langs, layer = at_layer(directions, None, layer, "dendrogram")
    tree = linkage_of(vectors, langs)
    figure = go.Figure()
    _draw_branches(figure, tree, langs)
    _draw_leaves(figure, [langs[leaf] for leaf in leaf_order(tree)])
    if marks is not None:
        _draw_marks(figure, tree, marks)
    # From the leaves at distance 0 at the left to the root at the right.
    figure.update_xaxes(title_text="cosine distance", range=[0, 1.03 * tree[-1, 2]])
    title = f"Language tree, layer {layer}"
    facts = [f"n = {len(langs)} languages", f"layer {layer}"]
    # Two languages have a single distance, and no correlation.
    if len(langs) > 2:
        fit = f"{cophenetic(vectors):.2f}"
        title += f" (cophenetic {fit})"
        mean, most = cophenetic_null(*vectors.shape)
        facts.append(
            f"cophenetic correlation {fit}; vectors without structure have {mean:.2f}, 95 % of "
            f"them less than {most:.2f}"
        )
    caption = sentence_of(
        "Average linkage on the cosine distance of centred language vectors",
        "; ".join(facts),
        note,
    )
    return finish(figure, title=title, caption=caption, height=190 + 24 * len(langs))


def _distances(vectors: Float[Any, "lang width"]) -> np.ndarray:
    """The cosine distance of every two centred vectors, in scipy's condensed form."""
    array = centred(vectors)
    if not np.isfinite(array).all():
        raise SteerlabError(
            "the language vectors hold NaN or infinity; fit them again from sound activations"
        )
    norm = np.linalg.norm(array, axis=1)
    # Zero up to rounding: its direction would be noise.
    if (norm <= 1e-12 * max(1.0, float(norm.max()))).any():
        raise SteerlabError(
            "a language vector equals the mean of all, so it points nowhere; drop that language"
        )
    return np.clip(pdist(array, "cosine"), 0, 2)  # rounding can carry it just below 0


def _leaves_under(tree: np.ndarray, count: int) -> list[list[int]]:
    """The leaves under every node: first the leaves, then the merges, numbered as scipy numbers
    them."""
    nodes = [[leaf] for leaf in range(count)]
    for left, right, *_ in tree:
        nodes.append(nodes[int(left)] + nodes[int(right)])
    return nodes


def _brackets(tree: np.ndarray) -> list[tuple[int, list[float], list[float]]]:
    """(node, places, heights) of every merge: the four corners of the bracket that draws it.

    The places are scipy's; `_row` has ours.
    """
    # A link carries the name of its "colour"; with `str` that is the number of its node.
    drawn = layout_of(tree, no_plot=True, link_color_func=str)
    brackets = []
    for places, heights, node in zip(
        drawn["icoord"], drawn["dcoord"], drawn["color_list"], strict=True
    ):
        brackets.append((int(node), places, heights))
    return brackets


def _row(place: float) -> float:
    """scipy puts the k-th leaf at 10 k + 5; the figures have it at k."""
    return (place - 5) / 10


def _draw_branches(figure: go.Figure, tree: np.ndarray, langs: list[str]) -> None:
    leaves_under = _leaves_under(tree, len(langs))
    family_of = families_of(langs)
    for node, places, heights in _brackets(tree):
        leaves = leaves_under[node]
        inside = {family_of[leaf] for leaf in leaves}
        color = family_style(inside.pop())[0] if len(inside) == 1 else _MIXED
        figure.add_scatter(
            x=heights,
            y=[_row(place) for place in places],
            mode="lines",
            line={"color": color, "width": 2},
            text=", ".join(labelled(langs[leaf]).name for leaf in leaves),
            hovertemplate="distance %{x:.3f}<br>%{text}<extra></extra>",
            showlegend=False,
        )


def _draw_marks(figure: go.Figure, tree: np.ndarray, marks: Sequence[str]) -> None:
    """Write the marks at their merges, where there is room: on the branch that leads to the merge,
    or else inside its bracket."""
    if len(marks) != len(tree):
        raise SteerlabError(
            f"{len(marks)} marks for a tree of {len(tree)} merges; give one for each, empty for "
            "none"
        )
    count = len(tree) + 1
    height_above: dict[int, float] = {}  # of each node, the height of the merge above it
    for left, right, height, _ in tree:
        height_above[int(left)] = float(height)
        height_above[int(right)] = float(height)
    for node, places, heights in _brackets(tree):
        text = marks[node - count]
        height = heights[1]
        room = 0.012 * len(text) * tree[-1, 2]  # what so many letters take of the whole height
        on_branch = height_above.get(node, height) - height > room
        in_bracket = height - max(heights[0], heights[3]) >= room
        # Without room the mark is left out: the table beside the figure has it.
        if not text or not (on_branch or in_bracket):
            continue
        figure.add_annotation(
            x=height,
            y=_row((places[1] + places[2]) / 2),
            text=text,
            showarrow=False,
            xanchor="left" if on_branch else "right",
            yanchor="bottom" if on_branch else "middle",
            xshift=1 if on_branch else -2,
            font={"size": 8, "color": GREY},
        )


def _draw_leaves(figure: go.Figure, order: list[str]) -> None:
    places = {lang: place for place, lang in enumerate(order)}
    # A trace for each family, so that each stands in the legend once.
    for family in dict.fromkeys(families_of(order)):
        inside = [lang for lang in order if labelled(lang).family == family]
        color, symbol = family_style(family)
        figure.add_scatter(
            x=[0] * len(inside),
            y=[places[lang] for lang in inside],
            mode="markers",
            marker={
                "color": color,
                "symbol": symbol,
                "size": 10,
                "line": {"color": "#ffffff", "width": 1},
            },
            cliponaxis=False,
            name=family,
            text=[labelled(lang).name for lang in inside],
            hovertemplate="%{text}<extra>" + family + "</extra>",
        )
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[labelled(lang).name + "  " for lang in order],
        range=[len(order) - 0.5, -0.5],  # the first leaf at the top
        showgrid=False,
        tickfont_color=GREY if len(order) > 40 else None,
    )


FIGURES = {"dendrogram": dendrogram}

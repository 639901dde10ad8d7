"""How languages cluster: average linkage on cosine distance, its fit, and the tree."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
from scipy.cluster.hierarchy import dendrogram as layout_of
from scipy.spatial.distance import pdist

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families, language
from steerlab.figures.style import GREY, family_style, finish, sentence_of


@runtime_checkable
class LanguageVectors(Protocol):
    """What `dendrogram` reads of a `Directions`: languages, layers, and vectors [lang layer
    width]."""

    @property
    def langs(self) -> tuple[str, ...]: ...
    @property
    def layers(self) -> tuple[int, ...]: ...
    @property
    def vectors(self) -> Any: ...


def linkage_of(vectors: Float[Any, "lang width"], langs: Sequence[str]) -> np.ndarray:
    """scipy's linkage matrix: average linkage on the cosine distance of centred vectors, leaves in
    optimal order.

    Raises `SteerlabError` for fewer than two languages, a doubled or unknown one, a vector that is
    zero or not finite.
    """
    if len(langs) != len(vectors) or len(set(langs)) != len(langs) or len(langs) < 2:
        raise SteerlabError(
            f"{len(vectors)} vectors for the languages {' '.join(langs)!r}; "
            "a tree needs two or more different languages and one vector each"
        )
    families(langs)
    return linkage(_distances(vectors), method="average", optimal_ordering=True)


def cophenetic(vectors: Float[Any, "lang width"]) -> float:
    """The correlation between the distances in the tree and the cosine distances: 1 where the tree
    loses nothing.

    Sokal and Rohlf (1962). Raises `SteerlabError` for fewer than three languages: two have one
    distance.
    """
    if len(vectors) < 3:
        raise SteerlabError(
            f"{len(vectors)} languages given; a cophenetic correlation needs at least three"
        )
    distances = _distances(vectors)
    return float(cophenet(linkage(distances, method="average"), distances)[0])


def leaf_order(tree: np.ndarray) -> list[int]:
    """The leaves of a linkage matrix from one end of the drawing to the other."""
    return [int(leaf) for leaf in leaves_list(tree)]


def centred(vectors: Float[Any, "lang width"]) -> np.ndarray:
    """The vectors less their mean over languages, as float64 [lang width], from a tensor or an
    array."""
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().cpu().double().numpy()
    array = np.asarray(vectors, dtype=float)
    return array - array.mean(0)


def dendrogram(
    directions: LanguageVectors, *, marks: Sequence[str] | None = None, note: str = ""
) -> go.Figure:
    """The tree of the languages at one layer, leaves marked by family, its cophenetic correlation
    in the title.

    Branches within one family have the family's colour. `marks` are short words for the merges, in
    the order of `linkage_of`, such as how stable each is. Raises `SteerlabError` unless there is
    exactly one layer.
    """
    if len(directions.layers) != 1:
        raise SteerlabError(
            f"dendrogram was given {len(directions.layers)} layers "
            f"({', '.join(map(str, directions.layers))}); "
            "it draws one: choose it, as in dendrogram(directions.at(layer))"
        )
    vectors, langs, layer = directions.vectors[:, 0], list(directions.langs), directions.layers[0]
    tree = linkage_of(vectors, langs)
    figure = go.Figure()
    _draw_branches(figure, tree, langs)
    _draw_leaves(figure, [langs[leaf] for leaf in leaf_order(tree)])
    if marks is not None:
        _draw_marks(figure, tree, marks)
    fit = f"cophenetic correlation {cophenetic(vectors):.2f}" if len(langs) > 2 else ""
    figure.update_xaxes(title_text="cosine distance", range=[0, 1.03 * tree[-1, 2]])
    title = f"Language tree, layer {layer}" + (
        f" ({fit.replace('correlation ', '')})" if fit else ""
    )
    caption = sentence_of(
        "Average linkage on the cosine distance of centred language vectors",
        "; ".join(filter(None, (f"n = {len(langs)} languages", f"layer {layer}", fit))),
        note,
    )
    return finish(figure, title=title, caption=caption, height=190 + 24 * len(langs))


def _distances(vectors: Float[Any, "lang width"]) -> np.ndarray:
    array = centred(vectors)
    if not np.isfinite(array).all():
        raise SteerlabError(
            "the language vectors hold NaN or infinity; fit them again from sound activations"
        )
    size = np.linalg.norm(array, axis=1)
    if (size <= 1e-12 * max(1.0, float(size.max()))).any():
        raise SteerlabError(
            "a language vector equals the mean of all, so it points nowhere; drop that language"
        )
    return np.clip(pdist(array, "cosine"), 0, 2)


def _members(tree: np.ndarray, count: int) -> list[list[int]]:
    """The leaves under every node: first the leaves, then the merges, numbered as scipy numbers
    them."""
    nodes = [[leaf] for leaf in range(count)]
    for left, right, *_ in tree:
        nodes.append(nodes[int(left)] + nodes[int(right)])
    return nodes


def _draw_branches(figure: go.Figure, tree: np.ndarray, langs: list[str]) -> None:
    nodes, groups = _members(tree, len(langs)), families(langs)
    drawn = layout_of(
        tree, no_plot=True, link_color_func=str
    )  # the "colour" of a link is the number of its node
    for places, heights, node in zip(
        drawn["icoord"], drawn["dcoord"], drawn["color_list"], strict=True
    ):
        under = {groups[leaf] for leaf in nodes[int(node)]}
        figure.add_scatter(
            x=heights,
            y=[(place - 5) / 10 for place in places],
            mode="lines",
            line={
                "color": family_style(under.pop())[0] if len(under) == 1 else "#9aa5b1",
                "width": 2,
            },
            text=", ".join(language(langs[leaf]).name for leaf in nodes[int(node)]),
            hovertemplate="distance %{x:.3f}<br>%{text}<extra></extra>",
            showlegend=False,
        )


def _draw_marks(figure: go.Figure, tree: np.ndarray, marks: Sequence[str]) -> None:
    if len(marks) != len(tree):
        raise SteerlabError(
            f"{len(marks)} marks for a tree of {len(tree)} merges; give one for each, empty for "
            "none"
        )
    drawn = layout_of(tree, no_plot=True, link_color_func=str)
    count, above = (
        len(tree) + 1,
        {int(child): float(up) for a, b, up, _ in tree for child in (a, b)},
    )
    for places, heights, node in zip(
        drawn["icoord"], drawn["dcoord"], drawn["color_list"], strict=True
    ):
        text, here = marks[int(node) - count], heights[1]
        room = 0.012 * len(text) * tree[-1, 2]
        right = above.get(int(node), here) - here > room
        if not text or (not right and here - max(heights[0], heights[3]) < room):
            continue  # no room on the branch, nor inside: the table beside the figure has it
        figure.add_annotation(
            x=here,
            y=((places[1] + places[2]) / 2 - 5) / 10,
            text=text,
            showarrow=False,
            xanchor="left" if right else "right",
            yanchor="bottom" if right else "middle",
            xshift=1 if right else -2,
            font={"size": 8, "color": GREY},
        )


def _draw_leaves(figure: go.Figure, order: list[str]) -> None:
    places = {iso: place for place, iso in enumerate(order)}
    for family in dict.fromkeys(families(order)):
        inside = [iso for iso in order if language(iso).family == family]
        color, symbol = family_style(family)
        figure.add_scatter(
            x=[0] * len(inside),
            y=[places[iso] for iso in inside],
            mode="markers",
            marker={
                "color": color,
                "symbol": symbol,
                "size": 10,
                "line": {"color": "#ffffff", "width": 1},
            },
            cliponaxis=False,
            name=family,
            text=[language(iso).name for iso in inside],
            hovertemplate="%{text}<extra>" + family + "</extra>",
        )
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[language(iso).name + "  " for iso in order],
        range=[len(order) - 0.5, -0.5],
        showgrid=False,
        tickfont_color=GREY if len(order) > 40 else None,
    )


FIGURES = {"dendrogram": dendrogram}

"""Trees of languages: which branches last, a classification as a tree, how two trees face each
other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from steerlab.core.errors import SteerlabError


def clades(tree: Float[np.ndarray, "merge 4"], langs: Sequence[str]) -> list[frozenset[str]]:
    """The languages under each merge of a linkage matrix, in its order."""
    if len(tree) != len(langs) - 1:
        raise SteerlabError(
            f"a tree of {len(tree) + 1} leaves was given with {len(langs)} languages; give those "
            "it has"
        )
    under = [frozenset([iso]) for iso in langs]
    for left, right, *_ in tree:
        under.append(under[int(left)] | under[int(right)])
    return under[len(langs) :]


def support(
    tree: Float[np.ndarray, "merge 4"],
    others: Sequence[Float[np.ndarray, "merge 4"]],
    langs: Sequence[str],
) -> Float[np.ndarray, " merge"]:
    """The share of other trees that hold each branch of a tree: exactly these languages under
    one node."""
    if not others:
        raise SteerlabError(
            "no other tree was given; a branch is stable against some, such as those of other "
            "layers"
        )
    held = [set(clades(other, langs)) for other in others]
    return np.array(
        [np.mean([branch in there for there in held]) for branch in clades(tree, langs)]
    )


def resampled(
    vectors: Float[np.ndarray, "lang width"], *, count: int = 200, seed: int = 0
) -> Iterator[Float[np.ndarray, "lang width"]]:
    """The vectors with dimensions drawn anew with replacement, the same for all languages.

    This is the bootstrap of phylogenies (Felsenstein 1985), with dimensions for characters: it says
    how much of a tree hangs on few dimensions, not what other texts would give.
    """
    random, width = np.random.default_rng(seed), vectors.shape[1]
    for _ in range(count):
        yield vectors[:, random.integers(width, size=width)]


def classification(shared: Float[np.ndarray, "lang lang"]) -> Float[np.ndarray, "merge 4"]:
    """A classification as a linkage matrix: the more nodes two languages share, the lower they
    merge.

    `shared` counts the nodes above both. The heights 1 - shared / (largest + 1) are those of a tree
    already, so the linkage is exact; what has no common node merges at 1, and a node of many
    children is several merges at one height.
    """
    height = 1 - shared / (np.triu(shared, 1).max() + 1)
    distance = (height + height.T) / 2
    np.fill_diagonal(distance, 0)
    return linkage(squareform(distance, checks=False), method="average")


@dataclass(frozen=True)
class _Node:
    """A leaf (no children), or a node with all children that merge at its height."""

    height: float
    children: tuple["_Node", ...] = ()
    leaf: int = -1


def untangle(
    left: Float[np.ndarray, "merge 4"], right: Float[np.ndarray, "merge 4"], *, start: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Leaf orders of two trees of the same leaves that face each other with few crossings.

    Each tree in turn has its branches sorted by where the other has their leaves, and the best pair
    is kept; `start` is the left tree's order at first, which stays the best unless turning helps.
    """
    trees = _node(left), _node(right)
    one = list(start)
    best = (one, _sorted(trees[1], one))
    for _ in range(4):
        one = _sorted(trees[0], best[1])
        other = _sorted(trees[1], one)
        if entanglement(one, other) >= entanglement(*best):
            break
        best = (one, other)
    return best


def entanglement(left: Sequence[int], right: Sequence[int]) -> float:
    """How far two leaf orders lie apart: 0 the same, 1 the opposite (Galili 2015, with distances
    to the power 1)."""
    places = {leaf: place for place, leaf in enumerate(right)}
    if set(left) != set(places) or len(left) != len(right):
        raise SteerlabError("two leaf orders need the same leaves, each once")
    apart = sum(abs(place - places[leaf]) for place, leaf in enumerate(left))
    return apart / sum(abs(2 * place - len(left) + 1) for place in range(len(left)))


def _node(tree: np.ndarray) -> _Node:
    nodes = [_Node(0.0, leaf=leaf) for leaf in range(len(tree) + 1)]
    for left, right, height, _ in tree:
        children: list[_Node] = []
        for child in (nodes[int(left)], nodes[int(right)]):
            joined = child.children and np.isclose(child.height, height, rtol=0, atol=1e-9)
            children.extend(child.children if joined else [child])
        nodes.append(_Node(float(height), tuple(children)))
    return nodes[-1]


def _sorted(node: _Node, order: Sequence[int]) -> list[int]:
    """The leaves of a node, every branch's children sorted by the mean place of their leaves in
    `order`."""
    places = {leaf: place for place, leaf in enumerate(order)}

    def sort(node: _Node) -> list[int]:
        if not node.children:
            return [node.leaf]
        parts = [sort(child) for child in node.children]
        return [
            leaf
            for part in sorted(parts, key=lambda part: np.mean([places[x] for x in part]))
            for leaf in part
        ]

    return sort(node)

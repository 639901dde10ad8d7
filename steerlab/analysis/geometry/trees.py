"""Trees of languages: which branches are stable, a classification as a tree, how two trees face
each other.

A tree is scipy's linkage matrix [merge 4]: each row merges two nodes (columns 0 and 1) at a height
(column 2). The leaves are the nodes 0 to n - 1, the merges those that follow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from steerlab.core.errors import SteerlabError


def clades(tree: Float[np.ndarray, "merge 4"], langs: Sequence[str]) -> list[frozenset[str]]:
    """The set of languages under each merge of a tree, in its order.

    Raises `SteerlabError` for another number of languages than the tree has leaves.
    """
    if len(tree) != len(langs) - 1:
        raise SteerlabError(
            f"a tree of {len(tree) + 1} leaves was given with {len(langs)} languages; give those "
            "it has"
        )
    under = [frozenset([lang]) for lang in langs]
    for left, right, *_ in tree:
        under.append(under[int(left)] | under[int(right)])
    return under[len(langs) :]


def support(
    tree: Float[np.ndarray, "merge 4"],
    others: Sequence[Float[np.ndarray, "merge 4"]],
    langs: Sequence[str],
) -> Float[np.ndarray, " merge"]:
    """The share of other trees that have each branch of a tree: exactly these languages under
    one node.

    Raises `SteerlabError` for no other trees.

    Args:
        tree: the tree whose branches are judged.
        others: trees of the same languages.
        langs: the languages.
    """
    if not others:
        raise SteerlabError(
            "no other tree was given; a branch is stable against some, such as those of other "
            "layers"
        )
    branches_of_others = [set(clades(other, langs)) for other in others]
    shares = []
    for branch in clades(tree, langs):
        shares.append(np.mean([branch in branches for branches in branches_of_others]))
    return np.array(shares)


def resampled(
    vectors: Float[np.ndarray, "lang width"], *, count: int = 200, seed: int = 0
) -> Iterator[Float[np.ndarray, "lang width"]]:
    """Yield the vectors `count` times with dimensions drawn with replacement, alike for all
    languages.

    This is the bootstrap of phylogenies (Felsenstein 1985), with dimensions for characters: it says
    how much of a tree hangs on few dimensions, not what other texts would give.
    """
    random = np.random.default_rng(seed)
    width = vectors.shape[1]
    for _ in range(count):
        yield vectors[:, random.integers(width, size=width)]


def classification(shared: Float[np.ndarray, "lang lang"]) -> Float[np.ndarray, "merge 4"]:
    """A classification of languages as a tree: the more nodes two languages share, the lower they
    merge.

    `shared` counts the nodes above both. The heights 1 - shared / (largest + 1) are those of a tree
    already, so the linkage is exact; languages without a common node merge at 1, and a node of many
    children becomes several merges at one height.
    """
    height = 1 - shared / (np.triu(shared, 1).max() + 1)
    # scipy wants a distance: exactly symmetric, and zero from a language to itself.
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

    Each tree in turn has its branches sorted by where the other has their leaves, as long as that
    helps. This is a heuristic: a better pair of orders may exist.

    Args:
        left: one tree.
        right: the other.
        start: the left tree's order at first, which is kept unless turning helps.
    """
    left_root = _root(left)
    right_root = _root(right)
    best = (list(start), _sorted(right_root, start))
    for _ in range(4):  # the first round that does not help ends it earlier
        left_order = _sorted(left_root, best[1])
        right_order = _sorted(right_root, left_order)
        if entanglement(left_order, right_order) >= entanglement(*best):
            break
        best = (left_order, right_order)
    return best


def entanglement(left: Sequence[int], right: Sequence[int]) -> float:
    """How far two orders of the same leaves lie apart: 0 for the same order, 1 for the opposite.

    Formula: the sum over leaves of the distance of their two places, over its largest value
    (Galili 2015, with distances to the power 1). Raises `SteerlabError` for different leaves.
    """
    place_on_right = {leaf: place for place, leaf in enumerate(right)}
    if set(left) != set(place_on_right) or len(left) != len(right):
        raise SteerlabError(
            f"two leaf orders need the same leaves, each once; orders of {len(left)} and "
            f"{len(right)} leaves were given: take both from trees of the same languages"
        )
    apart = sum(abs(place - place_on_right[leaf]) for place, leaf in enumerate(left))
    # In the opposite order the leaf at a place is at n - 1 - place.
    largest = sum(abs(2 * place - len(left) + 1) for place in range(len(left)))
    return apart / largest


def _root(tree: np.ndarray) -> _Node:
    """The root of a tree whose merges at one height, each above the other, are one node."""
    nodes = [_Node(0.0, leaf=leaf) for leaf in range(len(tree) + 1)]
    for left, right, height, _ in tree:
        children: list[_Node] = []
        for child in (nodes[int(left)], nodes[int(right)]):
            # A merge at the same height as its child is the same node of many children: all of
            # them may be sorted freely.
            if child.children and np.isclose(child.height, height, rtol=0, atol=1e-9):
                children.extend(child.children)
            else:
                children.append(child)
        nodes.append(_Node(float(height), tuple(children)))
    return nodes[-1]


def _sorted(root: _Node, order: Sequence[int]) -> list[int]:
    """The leaves under a node, the children of every node sorted by the mean place of their leaves
    in `order`."""
    places = {leaf: place for place, leaf in enumerate(order)}

    def mean_place(leaves: list[int]) -> np.floating:
        return np.mean([places[leaf] for leaf in leaves])

    def sort(node: _Node) -> list[int]:
        if not node.children:
            return [node.leaf]
        parts = sorted((sort(child) for child in node.children), key=mean_place)
        leaves = []
        for part in parts:
            leaves.extend(part)
        return leaves

    return sort(root)

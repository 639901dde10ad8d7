"""Trees and maps of languages: clades, support, entanglement, kept distances."""

import numpy as np
import pytest
from kin_vectors import LANGS, square, vectors
from scipy.cluster.hierarchy import cophenet, leaves_list, linkage
from scipy.spatial.distance import squareform

from steerlab.analysis.geometry import (
    clades,
    classification,
    cosine_matrices,
    entanglement,
    layout,
    resampled,
    support,
    untangle,
)
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families

# -------------------------------------------------------------------------------------------- trees


def tree_of(given: np.ndarray) -> np.ndarray:
    return np.asarray(linkage(given - given.mean(0), "average", metric="cosine"))


def test_clades_are_what_merges() -> None:
    tree = np.array([[0, 1, 0.1, 2], [2, 3, 0.2, 2], [4, 5, 0.9, 4]], dtype=float)
    assert clades(tree, ["en", "de", "es", "fr"]) == [
        frozenset(x) for x in (["en", "de"], ["es", "fr"], LANGS4)
    ]
    with pytest.raises(SteerlabError, match="a tree of 4 leaves was given with 2 languages"):
        clades(tree, ["en", "de"])


LANGS4 = ["en", "de", "es", "fr"]


def test_planted_families_have_support_and_noise_has_not() -> None:
    random = np.random.default_rng(0)
    places = np.unique(families(LANGS), return_inverse=True)[1]
    family = random.standard_normal((places.max() + 1, 300))[places]
    for size, low, high in ((2.0, 0.95, 1.0), (0.0, 0.0, 0.6)):
        given = size * family + random.standard_normal((len(LANGS), 300))
        tree = tree_of(given)
        found = support(tree, [tree_of(x) for x in resampled(given, count=40)], LANGS)
        held = dict(zip(clades(tree, LANGS), found, strict=True))
        inside = [
            share for branch, share in held.items() if size == 0 or branch == frozenset(LANGS[4:8])
        ]
        assert low <= np.mean(inside) <= high
        assert held[frozenset(LANGS)] == 1
    assert support(tree, [tree], LANGS).tolist() == [1.0] * (len(LANGS) - 1)
    with pytest.raises(SteerlabError, match="no other tree was given"):
        support(tree, [], LANGS)


def test_resampling_draws_the_same_dimensions_for_all_languages() -> None:
    given = np.arange(12.0).reshape(2, 6)
    drawn = list(resampled(given, count=5, seed=1))
    assert all(((x[1] - x[0]) == 6).all() and set(x[0]) <= set(given[0]) for x in drawn)
    assert len({tuple(x[0]) for x in drawn}) == 5
    np.testing.assert_array_equal(drawn[0], next(resampled(given, count=1, seed=1)))


def test_a_classification_is_its_own_tree() -> None:
    """Two families of unequal depth, a node with three children, and a language alone."""
    paths = [
        ("ie", "g", "w"),
        ("ie", "g", "w"),
        ("ie", "g", "w"),
        ("ie", "g", "n"),
        ("ie", "r"),
        ("ie", "r"),
        ("u",),
    ]
    shared = np.array(
        [[float(sum(x == y for x, y in zip(a, b, strict=False))) for b in paths] for a in paths]
    )
    np.fill_diagonal(shared, 9)
    tree = classification(shared)
    expected = 1 - shared / 4
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(squareform(cophenet(tree)), expected)
    names = ["en", "de", "nl", "sv", "es", "fr", "hu"]
    for branch in (["en", "de", "nl"], ["en", "de", "nl", "sv"], ["es", "fr"], names[:6]):
        assert frozenset(branch) in clades(tree, names)


def test_entanglement_is_zero_for_one_order_and_one_for_its_opposite() -> None:
    order = list(range(7))
    assert entanglement(order, order) == 0
    assert entanglement(order, order[::-1]) == 1
    assert 0 < entanglement(order, [1, 0, 2, 3, 4, 5, 6]) < 0.2
    with pytest.raises(SteerlabError, match="the same leaves, each once"):
        entanglement(order, [0, 0, 1, 2, 3, 4, 5])


def test_untangling_only_turns_branches_and_undoes_what_was_turned() -> None:
    random = np.random.default_rng(0)
    tree = tree_of(random.standard_normal((12, 30)))
    turned = tree.copy()
    flip = random.random(len(tree)) < 0.5
    turned[flip, 0], turned[flip, 1] = tree[flip, 1], tree[flip, 0]
    start = leaves_list(tree).tolist()
    assert entanglement(start, leaves_list(turned).tolist()) > 0.2
    left, right = untangle(tree, turned, start=start)
    assert (left, right) == (start, start)
    other = tree_of(random.standard_normal((12, 30)))
    left, right = untangle(tree, other, start=start)
    for one, order in ((tree, left), (other, right)):
        for branch in clades(one, [str(k) for k in range(12)]):
            places = sorted(order.index(int(leaf)) for leaf in branch)
            assert places == list(range(places[0], places[-1] + 1)), (
                "a branch's leaves stay side by side"
            )
    assert entanglement(left, right) <= entanglement(start, leaves_list(other).tolist())


# ---------------------------------------------------------------------------------------------- map


def test_a_map_of_all_dimensions_keeps_every_distance() -> None:
    given = vectors(0, layers=2)
    points, shares = layout(
        given, dimensions=len(LANGS) - 1 if given.shape[2] >= len(LANGS) else 12
    )
    chord = np.sqrt(np.clip(2 - 2 * cosine_matrices(given), 0, None))
    for place in range(2):
        np.testing.assert_allclose(square(points[place]), chord[place], atol=1e-6)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    plane, part = layout(given, dimensions=2)
    assert plane.shape == (2, 16, 2)
    np.testing.assert_allclose(part, shares[:, :2])
    assert (square(plane) <= chord + 1e-9).all(), "fewer dimensions only shorten"


def test_layers_are_turned_alike() -> None:
    given = vectors(0, layers=1, kin=2.0)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    points, _ = layout(np.concatenate([given, given @ turn]), dimensions=3)
    np.testing.assert_allclose(points[0], points[1], atol=1e-6)
    with pytest.raises(SteerlabError, match="a map of 16 languages has 1 to 15 dimensions, not 16"):
        layout(given, dimensions=16)

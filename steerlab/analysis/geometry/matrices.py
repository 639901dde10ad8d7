"""Distances explained by other distances: Mantel's test, alone or given others, and regression on
matrices.

Languages are permuted, never pairs: the pairs of one language are not independent. A permutation
takes all layers and all distances at once, so that its largest |r| corrects for having looked at
them all (Westfall and Young 1993).

Throughout, `[pair]` is the axis of the pairs of languages, the upper triangle of a matrix, and
vectors along it are standardised (mean 0, length 1), so that an inner product is a correlation.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.core.errors import SteerlabError

_CHUNK = 500  # permutations at a time, to bound the memory
_TIE = 1e-12  # a permuted statistic this much smaller is equal: it was summed in another order


def mantel(
    of: Float[np.ndarray, "layer lang lang"],
    against: Mapping[str, Float[np.ndarray, "_ _"]],
    *,
    given: Mapping[str, Float[np.ndarray, "_ _"]] | None = None,
    within: Sequence[object] | None = None,
    rank: bool = False,
    permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Mantel's test: the correlation of each layer's distances with other distances, over pairs of
    languages.

    One row for each layer and distance, with the columns layer (its index), distance, r, p
    (two-sided), p_corrected (for layers × distances, by the largest |r| of each permutation),
    critical (the |r| that 5 % of those exceed), n languages, pairs.

    With `given` other distances, r is the partial correlation, and its p is by double
    semi-partialling (Dekker, Krackhardt and Snijders 2007): permuted is what the distance does not
    share with `given`, since permuting the raw matrix breaks its tie to `given` too. Where
    languages come in clusters, as families do, partial tests find too much (Guillot and Rousset
    2013); if what is given is a grouping, `within` makes the test exact.

    Raises `SteerlabError` for fewer than five languages, and for matrices that are of other
    languages, not symmetric, constant or a sum of the others.

    Args:
        of: the distances at each layer.
        against: the distances to compare them with, by name.
        given: distances to take out of both sides first, by name; none is taken from itself.
        within: a group for each language; only languages of one group change places.
        rank: whether to correlate ranks (Spearman).
        permutations: how many permutations.
        seed: decides them.
    """
    against = dict(against)
    given = dict(given or {})
    count = of.shape[1]
    _check(of, against | given)
    pairs = _pairs(count)
    y = _prepare(of[:, pairs[0], pairs[1]], rank=rank)
    vectors = {}
    for name, matrix in (against | given).items():
        vectors[name] = _prepare(matrix[pairs], rank=rank)
    # The same orders for every distance, so that the largest |r| of each can be taken.
    orders = _orders(count, permutations, seed, within)
    correlations = []
    nulls = []
    for name in against:
        others = [vectors[other] for other in given if other != name]
        r, null = _partial(y, vectors[name], others, orders, name)
        correlations.append(r)
        nulls.append(null)
    return _table(list(against), np.stack(correlations), np.stack(nulls), count)


def regression(
    of: Float[np.ndarray, "layer lang lang"],
    on: Mapping[str, Float[np.ndarray, "_ _"]],
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Multiple regression on distance matrices (MRM): what each distance explains that the others
    do not.

    The columns are those of `mantel`, each predictor given the others, with beta (both sides in
    standard deviations), r2 of the whole, its r2_p (all predictors permuted together) and
    r2_p_corrected (for the choice of the layer). Source: Lichstein (2007); p by double
    semi-partialling, as in `mantel`. Raises `SteerlabError` as `mantel` does.

    Args:
        of: the distances at each layer.
        on: the distances that explain them, by name.
        permutations: how many permutations.
        seed: decides them.
    """
    table = mantel(of, on, given=on, permutations=permutations, seed=seed)
    pairs = _pairs(of.shape[1])
    y = standardised(of[:, pairs[0], pairs[1]])
    x = standardised(np.stack([matrix[pairs] for matrix in on.values()]))
    betas, *_ = np.linalg.lstsq(x.T, y.T, rcond=None)
    # With orthonormal axes instead of the predictors, r² is a sum of squared projections: no
    # permutation has to be fitted again.
    axes = np.linalg.qr(x.T)[0].T
    total = (y**2).sum(1)
    r2 = ((axes @ y.T) ** 2 / total).sum(0)
    null = np.zeros((permutations, len(y)))
    for span, moved in _permuted(axes, _orders(of.shape[1], permutations, seed)):
        null[span] = ((moved @ y.T) ** 2 / total).sum(1)
    of_layer = {
        "r2": r2,
        "r2_p": p_value(null, r2),
        "r2_p_corrected": p_value(null.max(1)[:, None], r2),
    }
    table.insert(3, "beta", betas.T.ravel())
    return table.join(pd.DataFrame(of_layer).rename_axis("layer"), on="layer")


def _check(of: np.ndarray, others: Mapping[str, np.ndarray]) -> None:
    """Raise for too few languages, and for distances that do not fit to them or explain nothing."""
    if of.ndim != 3 or of.shape[1] != of.shape[2]:
        raise SteerlabError(
            f"the distances have shape {of.shape}; give [layer lang lang], a matrix for each layer"
        )
    if of.shape[1] < 5:
        raise SteerlabError(
            f"{of.shape[1]} languages were given; to permute them says something from 5 on: add "
            "some"
        )
    if not others:
        raise SteerlabError(
            "no distance was given to compare with; name at least one, such as {'syntax': matrix}"
        )
    for layer, matrix in enumerate(of):
        if not _is_distance(matrix):
            raise SteerlabError(
                f"the distances at index {layer} are not symmetric and finite, and of each pair "
                "one value is read; average the two, or leave the layer out"
            )
    for name, matrix in others.items():
        if matrix.shape != of.shape[1:]:
            raise SteerlabError(
                f"the distance {name!r} has shape {matrix.shape}, but there are {of.shape[1]} "
                "languages; choose the same languages in the same order"
            )
        if not _is_distance(matrix):
            raise SteerlabError(
                f"the distance {name!r} is not symmetric and finite; drop the languages that lack "
                "it"
            )
        if np.ptp(matrix[_pairs(len(matrix))]) == 0:
            raise SteerlabError(
                f"the distance {name!r} is the same for all pairs and explains nothing; leave it "
                "out"
            )


def _is_distance(matrix: np.ndarray) -> bool:
    """Whether all values are finite, and those of the two triangles equal up to rounding."""
    if not np.isfinite(matrix).all():
        return False
    # In proportion to the values, which may all be small.
    return bool(np.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-4 * np.abs(matrix).max()))


def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """(first, second) language of every pair."""
    return np.triu_indices(count, 1)


def standardised(values: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 along the pairs, the last axis, so that an inner product correlates."""
    centred = values - values.mean(-1, keepdims=True)
    # Not 0 / 0 where all pairs are equal: such a vector correlates with nothing.
    length = np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-30)
    return np.asarray(centred / length)


def _prepare(values: np.ndarray, *, rank: bool) -> np.ndarray:
    """Distances [... pair] standardised, or their ranks."""
    if rank:
        from scipy.stats import rankdata

        values = rankdata(values, axis=-1)
    return standardised(np.asarray(values, dtype=float))


def _partial(
    y: np.ndarray, x: np.ndarray, others: list[np.ndarray], orders: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """The correlation of x with y beyond the others: (r [layer], its null [permutation layer]).

    Args:
        y: the distances at each layer, [layer pair].
        x: the distance to compare them with, [pair].
        others: the distances to take out of both, [pair] each.
        orders: the permutations of the languages, [permutation lang].
        name: of x, for the message.
    """
    # What the others explain is the projection onto an orthonormal basis of them.
    basis = np.zeros((0, len(x)))
    if others:
        basis = np.linalg.qr(np.stack(others).T)[0].T
    x_rest = x - (x @ basis.T) @ basis
    if np.linalg.norm(x_rest) < 1e-6:
        raise SteerlabError(
            f"the distance {name!r} is a sum of the others and has no share of its own; leave one "
            "out"
        )
    y_rest = standardised(y - (y @ basis.T) @ basis)
    null = np.zeros((len(orders), len(y)))
    for span, moved in _permuted(x_rest[None], orders):
        # A permuted rest has something of the others again: take it out a second time.
        moved_rest = moved[:, 0] - (moved[:, 0] @ basis.T) @ basis
        null[span] = standardised(moved_rest) @ y_rest.T
    return y_rest @ standardised(x_rest), null


def _orders(
    count: int, permutations: int, seed: int, within: Sequence[object] | None = None
) -> np.ndarray:
    """Random orders of the languages [permutation lang], each staying in the places of its
    group."""
    if within is not None and len(within) != count:
        raise SteerlabError(
            f"{len(within)} groups were named for {count} languages; name one for each"
        )
    groups = np.zeros(count, int)
    if within is not None:
        _, groups = np.unique(np.asarray(within), return_inverse=True)
    if np.bincount(groups).max() < 2:
        raise SteerlabError(
            "every language is alone in its group, so none can change places; give larger groups"
        )
    random = np.random.default_rng(seed)
    orders = np.tile(np.arange(count), (permutations, 1))
    for group in range(groups.max() + 1):
        members = np.flatnonzero(groups == group)
        orders[:, members] = random.permuted(orders[:, members], axis=1)
    return orders


def _permuted(vectors: np.ndarray, orders: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Vectors [vector pair] with their languages in other orders, some permutations at a time.

    Yields (which permutations, the vectors [permutation vector pair]).
    """
    count = orders.shape[1]
    first, second = _pairs(count)
    # Back to symmetric matrices, whose rows and columns are languages.
    matrices = np.zeros((len(vectors), count, count))
    matrices[:, first, second] = vectors
    matrices[:, second, first] = vectors
    for start in range(0, len(orders), _CHUNK):
        order = orders[start : start + _CHUNK]
        moved = matrices[:, order[:, first], order[:, second]].swapaxes(0, 1)
        yield slice(start, start + len(order)), moved


def p_value(null: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """The share of permutations that are at least as large; null is [permutation ...].

    The observed order counts as one of them, so that p is never 0.
    """
    return np.asarray((1 + (null >= observed - _TIE).sum(0)) / (1 + len(null)))


def _table(
    names: list[str], correlations: np.ndarray, nulls: np.ndarray, count: int
) -> pd.DataFrame:
    """The result of `mantel`, by layer and then distance.

    Args:
        names: of the distances.
        correlations: r, [distance layer].
        nulls: r of each permutation, [distance permutation layer].
        count: how many languages.
    """
    # The largest |r| of each permutation, over all that was looked at.
    largest = np.abs(nulls).max((0, 2))
    p = p_value(np.abs(nulls).swapaxes(0, 1), np.abs(correlations))
    p_corrected = p_value(largest[:, None, None], np.abs(correlations))
    rows = []
    for layer in range(correlations.shape[1]):
        for index, name in enumerate(names):
            rows.append(
                {
                    "layer": layer,
                    "distance": name,
                    "r": float(correlations[index, layer]),
                    "p": float(p[index, layer]),
                    "p_corrected": float(p_corrected[index, layer]),
                }
            )
    return pd.DataFrame(rows).assign(
        critical=float(np.quantile(largest, 0.95)), n=count, pairs=count * (count - 1) // 2
    )

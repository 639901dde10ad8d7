"""Distances explained by other distances: Mantel's test, alone or given others, and regression on
matrices.

Languages are permuted, never pairs: the pairs of one language are not independent. A permutation
takes all layers and all distances at once, so that its largest |r| corrects for having looked at
them all (Westfall and Young 1993).
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.core.errors import SteerlabError

_CHUNK = 500  # permutations at a time


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
    """The correlation of each layer's distances with each other distance, over pairs of languages.

    Columns: layer (its place), distance, r, p (two-sided), p_corrected (for layers × distances, by
    the largest |r| of each permutation), critical (the |r| that 5 % of those exceed), n languages,
    pairs. `given` takes other distances out of both first: r is then the partial correlation, and
    its p by double semi-partialling, which permutes what the distance does not share with `given`
    (Dekker, Krackhardt and Snijders 2007), since permuting the raw matrix breaks its tie to `given`
    too. A distance in `against` is not taken from itself.

    Where languages come in clusters, as families do, partial tests find too much (Guillot and
    Rousset 2013). If what is given is a grouping, name each language's group in `within`: only
    languages of one group change places, which is exact. `rank`: of ranks (Spearman).
    """
    against, given = dict(against), dict(given or {})
    _check(of, against | given)
    pairs = _pairs(of.shape[1])
    y = _ready(of[:, pairs[0], pairs[1]], rank=rank)
    known = {name: _ready(matrix[pairs], rank=rank) for name, matrix in (against | given).items()}
    orders = _orders(of.shape[1], permutations, seed, within)
    found, nulls = [], []
    for name in against:
        others = [known[other] for other in given if other != name]
        here, null = _partial(y, known[name], others, orders, name)
        found.append(here)
        nulls.append(null)
    return _table(list(against), np.stack(found), np.stack(nulls), of.shape[1])


def regression(
    of: Float[np.ndarray, "layer lang lang"],
    on: Mapping[str, Float[np.ndarray, "_ _"]],
    *,
    permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Multiple regression on distance matrices: what each distance explains that the others do not
    (MRM).

    The columns of `mantel` for each predictor given the others, with beta (both sides in standard
    deviations), r2 of the whole and its r2_p (all predictors permuted together) and r2_p_corrected
    (for the choice of the layer). Source: Lichstein (2007); p by double semi-partialling, as in
    `mantel`.
    """
    table = mantel(of, on, given=on, permutations=permutations, seed=seed)
    pairs = _pairs(of.shape[1])
    y = _standard(of[:, pairs[0], pairs[1]])
    x = _standard(np.stack([matrix[pairs] for matrix in on.values()]))
    betas, *_ = np.linalg.lstsq(x.T, y.T, rcond=None)
    axes = np.linalg.qr(x.T)[0].T  # orthonormal, so that a permuted fit is a projection
    fit = (axes @ y.T) ** 2 / (y**2).sum(1)
    null = np.zeros((permutations, len(y)))
    for span, moved in _moved(axes, _orders(of.shape[1], permutations, seed)):
        null[span] = ((moved @ y.T) ** 2 / (y**2).sum(1)).sum(1)
    r2 = fit.sum(0)
    every = {
        "r2": r2,
        "r2_p": _p(null, r2),
        "r2_p_corrected": _p(null.max(1)[:, None], r2),
    }
    table.insert(3, "beta", betas.T.ravel())
    return table.join(pd.DataFrame(every).rename_axis("layer"), on="layer")


def _check(of: np.ndarray, others: Mapping[str, np.ndarray]) -> None:
    if of.shape[1] < 5:
        raise SteerlabError(
            f"{of.shape[1]} languages were given; to permute them tells something from 5 on: add "
            "some"
        )
    if not others:
        raise SteerlabError(
            "no distance was given to compare with; name at least one, such as {'syntax': matrix}"
        )
    for name, matrix in others.items():
        if matrix.shape != of.shape[1:]:
            raise SteerlabError(
                f"the distance {name!r} has shape {matrix.shape}, but there are {of.shape[1]} "
                "languages; choose the "
                "same languages in the same order"
            )
        if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-4):
            raise SteerlabError(
                f"the distance {name!r} is not symmetric and finite; drop the languages that lack "
                "it"
            )
        if np.ptp(matrix[_pairs(len(matrix))]) == 0:
            raise SteerlabError(
                f"the distance {name!r} is the same for all pairs and explains nothing; leave it "
                "out"
            )


def _pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(count, 1)


def _standard(values: np.ndarray) -> np.ndarray:
    """Mean 0 and length 1 along the pairs, so that an inner product is a correlation."""
    centred = values - values.mean(-1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-30))


def _ready(values: np.ndarray, *, rank: bool) -> np.ndarray:
    if rank:
        from scipy.stats import rankdata

        values = rankdata(values, axis=-1)
    return _standard(np.asarray(values, dtype=float))


def _partial(
    y: np.ndarray, x: np.ndarray, others: list[np.ndarray], orders: np.ndarray, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """r [layer] of x with y beyond the others, and its null [permutation layer]."""
    basis = np.linalg.qr(np.stack(others).T)[0].T if others else np.zeros((0, len(x)))
    own = x - (x @ basis.T) @ basis
    if np.linalg.norm(own) < 1e-6:
        raise SteerlabError(
            f"the distance {name!r} is a sum of the others and has no share of its own; leave one "
            "out"
        )
    rest = _standard(y - (y @ basis.T) @ basis)
    null = np.zeros((len(orders), len(y)))
    for span, moved in _moved(own[None], orders):
        shifted = moved[:, 0] - (moved[:, 0] @ basis.T) @ basis
        null[span] = _standard(shifted) @ rest.T
    return rest @ _standard(own), null


def _orders(
    count: int, permutations: int, seed: int, within: Sequence[object] | None = None
) -> np.ndarray:
    """Random orders of the languages [permutation lang], each staying in the places of its
    group."""
    if within is not None and len(within) != count:
        raise SteerlabError(
            f"{len(within)} groups were named for {count} languages; name one for each"
        )
    groups = (
        np.zeros(count, int)
        if within is None
        else np.unique(np.asarray(within), return_inverse=True)[1]
    )
    if np.bincount(groups).max() < 2:
        raise SteerlabError(
            "every language is alone in its group, so none can change places; give larger groups"
        )
    random = np.random.default_rng(seed)
    orders = np.tile(np.arange(count), (permutations, 1))
    for group in range(groups.max() + 1):
        places = np.flatnonzero(groups == group)
        orders[:, places] = random.permuted(orders[:, places], axis=1)
    return orders


def _moved(vectors: np.ndarray, orders: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Vectors over pairs [k pair] with their languages in other orders, some at a time:
    [permutation k pair]."""
    count = orders.shape[1]
    pairs = _pairs(count)
    matrices = np.zeros((len(vectors), count, count))
    matrices[:, pairs[0], pairs[1]] = matrices[:, pairs[1], pairs[0]] = vectors
    for start in range(0, len(orders), _CHUNK):
        order = orders[start : start + _CHUNK]
        yield (
            slice(start, start + len(order)),
            matrices[:, order[:, pairs[0]], order[:, pairs[1]]].swapaxes(0, 1),
        )


def _p(null: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The share of permutations, the truth among them, that are at least as large; null is
    [permutation ...]."""
    return np.asarray((1 + (null >= found - 1e-12).sum(0)) / (1 + len(null)))


def _table(names: list[str], found: np.ndarray, nulls: np.ndarray, count: int) -> pd.DataFrame:
    """Rows by layer, then distance, of r [distance layer] and its null [distance permutation
    layer]."""
    largest = np.abs(nulls).max((0, 2))
    alone = _p(np.abs(nulls).swapaxes(0, 1), np.abs(found))
    corrected = _p(largest[:, None, None], np.abs(found))
    rows = [
        (layer, name, float(found[k, layer]), float(alone[k, layer]), float(corrected[k, layer]))
        for layer in range(found.shape[1])
        for k, name in enumerate(names)
    ]
    table = pd.DataFrame(rows, columns=["layer", "distance", "r", "p", "p_corrected"])
    return table.assign(
        critical=float(np.quantile(largest, 0.95)), n=count, pairs=count * (count - 1) // 2
    )

"""Which language helps which: every source against every target, and what explains it.

A matrix of transfer is directed: from German to Dutch is not from Dutch to German. So both halves
are read, each with its own interval, and languages are permuted as sources and targets at once.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from steerlab.analysis.geometry.matrices import p_value, standardised
from steerlab.analysis.intervals import by_sentence, named
from steerlab.analysis.tables import need_columns
from steerlab.core.errors import SteerlabError

_CHUNK = 500  # permutations at a time, to bound the memory
_OWN = 1e-6  # below this length (of 1) a predictor has no share of its own


def transfer(
    rows: pd.DataFrame,
    *,
    value: str = "joint",
    source: str = "source",
    target: str = "target",
    seed: int = 0,
) -> pd.DataFrame:
    """The mean score from every source to every target, with its 95 % interval over sentences.

    One row for each ordered pair that was run, with the columns source, target, own (whether they
    are one language), value, low, high and n, the number of sentences. The columns that say what
    was learned or fitted on, and what it was tried on, are the caller's: `source="edit"` and
    `target="language"` read the rows of `language_effects`. Outputs without a score (NaN) are left
    out. Raises `SteerlabError` for a missing column, and for rows of several methods, layers or
    strengths, whose mean would be of no setting.

    Args:
        rows: outputs with both columns, `sentence` and the score.
        value: the column of the score.
        source: the column of what it comes from.
        target: the column of what it is tried on.
        seed: decides the resampling of sentences.
    """
    need_columns(rows, "transfer", source, target, "sentence", value)
    _need_one_setting(rows)
    results = []
    for (first, second), part in rows.groupby([source, target], sort=False):
        scored = part[np.isfinite(part[value].to_numpy(float))]
        if scored.empty:
            raise SteerlabError(
                f"no output from {first} to {second} has a finite {value!r}; leave the pair out"
            )
        interval = by_sentence(
            scored[value].to_numpy(float), scored["sentence"].to_numpy(), seed=seed
        )
        results.append(
            {"source": first, "target": second, "own": bool(first == second)}
            | named("value", interval)
            | {"n": scored["sentence"].nunique()}
        )
    table = pd.DataFrame(results)
    return table.rename(columns={"value_low": "low", "value_high": "high"})


def _need_one_setting(rows: pd.DataFrame) -> None:
    """Raise where rows of several settings would be averaged without a word."""
    for column in ("method", "operator", "layer", "strength", "split", "kind"):
        if column in rows and rows[column].nunique() > 1:
            values = ", ".join(map(str, rows[column].unique()[:4]))
            raise SteerlabError(
                f"the rows have several values of {column!r} ({values}), and a matrix is of one; "
                "choose one, as with rows[rows[...] == ...]"
            )


def transfer_matrix(
    table: pd.DataFrame, *, value: str = "value"
) -> tuple[list[str], Float[np.ndarray, "lang lang"]]:
    """The table of `transfer` as a square matrix: (languages, values [source target]).

    The languages are those that are both source and target, in the order of the sources; what was
    not run is NaN.
    """
    need_columns(table, "a matrix of transfer", "source", "target", value)
    targets = set(table["target"])
    langs = [lang for lang in dict.fromkeys(table["source"]) if lang in targets]
    square = table.pivot_table(index="source", columns="target", values=value, sort=False)
    matrix = square.reindex(index=langs, columns=langs).to_numpy(float)
    return [str(lang) for lang in langs], matrix


def transfer_regression(
    matrix: Float[np.ndarray, "_ _"],
    distances: Mapping[str, Float[np.ndarray, "_ _"]],
    *,
    effects: bool = True,
    permutations: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """What explains transfer: regression on all ordered pairs, with source and target effects.

    For a ≠ b, y[a, b] = mean + source effect of a + target effect of b + Σ β_k d_k[a, b]: a
    language that helps everyone, or that everyone helps, is no evidence for a distance. Sides are
    in standard deviations. One row for each distance, with the columns distance, beta, r (the
    partial correlation), p (two-sided), p_corrected (for the number of distances, by the largest
    |r| of each permutation), r2 (of the whole), r2_effects (of the source and target effects
    alone), n languages, pairs.

    p is by double semi-partialling: what a distance does not share with the others is permuted,
    rows and columns together, and what the permuted one shares with them taken out again. Source:
    Dekker, Krackhardt and Snijders (2007). Raises `SteerlabError` for fewer than five languages, a
    missing or infinite value off the diagonal, and a distance that the others or the effects
    explain whole, such as the size of the source's corpus.

    Args:
        matrix: the score of every source (down) on every target (across); the diagonal is not
            read.
        distances: what may explain it, by name; they need not be symmetric.
        effects: whether sources and targets have an effect each.
        permutations: how many permutations of the languages.
        seed: decides them.
    """
    count = _check(matrix, distances)
    first, second = np.nonzero(~np.eye(count, dtype=bool))
    pairs = (first, second)
    y = standardised(matrix[pairs])
    x = {name: standardised(given[pairs]) for name, given in distances.items()}
    base = _basis(_effects(count, pairs) if effects else np.ones((1, len(pairs[0]))))
    orders = np.argsort(np.random.default_rng(seed).random((permutations, count)), axis=1)
    r, nulls = [], []
    for name in x:
        others = np.stack([*base, *(x[other] for other in x if other != name)])
        observed, null = _partial(y, x[name], _basis(others), orders, name)
        r.append(observed)
        nulls.append(null)
    null = np.abs(np.stack(nulls))
    size = np.abs(np.array(r))
    design = np.stack([*base, *x.values()])
    betas = np.linalg.lstsq(design.T, y, rcond=None)[0][len(base) :]
    return pd.DataFrame(
        {
            "distance": list(x),
            "beta": betas,
            "r": r,
            "p": p_value(null.T, size),
            "p_corrected": p_value(null.max(0)[:, None], size),
            "r2": _explained(y, _basis(design)),
            "r2_effects": _explained(y, base),
            "n": count,
            "pairs": len(y),
        }
    )


def _check(matrix: np.ndarray, distances: Mapping[str, np.ndarray]) -> int:
    """How many languages there are; raises for matrices that cannot be compared."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise SteerlabError(
            f"the matrix has shape {matrix.shape}; give [source target] with the same languages on "
            "both sides, as transfer_matrix does"
        )
    count = len(matrix)
    if count < 5:
        raise SteerlabError(
            f"{count} languages were given; to permute them says something from 5 on: add some"
        )
    if not distances:
        raise SteerlabError("no distance was given; name at least one, as in {'syntax': matrix}")
    off = ~np.eye(count, dtype=bool)
    for name, given in {"the score": matrix, **distances}.items():
        if given.shape != matrix.shape:
            raise SteerlabError(
                f"{name!r} has shape {given.shape}, and the matrix {matrix.shape}: choose the same "
                "languages in the same order"
            )
        if not np.isfinite(given[off]).all():
            missing = [f"{a} to {b}" for a, b in np.argwhere(~np.isfinite(given) & off)[:4]]
            raise SteerlabError(
                f"{name!r} lacks the pairs {', '.join(missing)} (by place); drop the languages "
                "that lack one"
            )
        if np.ptp(given[off]) == 0:
            raise SteerlabError(f"{name!r} is the same for all pairs; there is nothing to explain")
    return count


def _effects(
    count: int, pairs: tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]
) -> Float[np.ndarray, "column pair"]:
    """The mean, and an indicator of each source and target but the first."""
    sources, targets = np.eye(count)[pairs[0]].T, np.eye(count)[pairs[1]].T
    return np.concatenate([np.ones((1, len(pairs[0]))), sources[1:], targets[1:]])


def _basis(columns: Float[np.ndarray, "column pair"]) -> Float[np.ndarray, "axis pair"]:
    """Orthonormal axes of what the columns span."""
    return np.asarray(np.linalg.qr(columns.T)[0].T)


def _explained(y: Float[np.ndarray, " pair"], basis: Float[np.ndarray, "axis pair"]) -> float:
    """The share of the variance of y (mean 0, length 1) that the axes explain."""
    return float(((basis @ y) ** 2).sum())


def _partial(
    y: Float[np.ndarray, " pair"],
    x: Float[np.ndarray, " pair"],
    basis: Float[np.ndarray, "axis pair"],
    orders: Int[np.ndarray, "permutation lang"],
    name: str,
) -> tuple[float, Float[np.ndarray, " permutation"]]:
    """The correlation of x with y beyond the basis, and what it is when languages are permuted."""
    rest = x - (basis @ x) @ basis
    if np.linalg.norm(rest) < _OWN:
        raise SteerlabError(
            f"the distance {name!r} has no share of its own: it is a sum of the others and of what "
            "belongs to the source or the target alone; leave it out, or set effects=False"
        )
    y_rest = standardised(y - (basis @ y) @ basis)
    null = np.zeros(len(orders))
    for span, moved in _permuted(rest, orders):
        again = moved - (moved @ basis.T) @ basis
        null[span] = standardised(again) @ y_rest
    return float(y_rest @ standardised(rest)), null


def _permuted(
    vector: Float[np.ndarray, " pair"], orders: Int[np.ndarray, "permutation lang"]
) -> Iterator[tuple[slice, Float[np.ndarray, "permutation pair"]]]:
    """A vector over ordered pairs with its languages in other orders, some orders at a time."""
    count = orders.shape[1]
    first, second = np.nonzero(~np.eye(count, dtype=bool))
    matrix = np.zeros((count, count))
    matrix[first, second] = vector
    for start in range(0, len(orders), _CHUNK):
        order = orders[start : start + _CHUNK]
        yield slice(start, start + len(order)), matrix[order[:, first], order[:, second]]

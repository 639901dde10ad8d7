"""How alike languages are at each layer: cosines raw and centred, gaps, families, effective
rank."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.core.errors import SteerlabError
from steerlab.core.labels import families_of


def cosine_matrices(
    vectors: Float[np.ndarray, "layer lang width"], *, centre: bool = True
) -> Float[np.ndarray, "layer lang lang"]:
    """The cosine of every two languages at each layer.

    By default the mean over the languages is subtracted first: raw cosines are mostly that of this
    shared mean, while centred ones do not change when a vector is added to all. Raises
    `SteerlabError` for a vector without a direction.
    """
    vectors = np.asarray(vectors, dtype=float)
    if centre:
        vectors = vectors - vectors.mean(1, keepdims=True)
    norm = np.linalg.norm(vectors, axis=2, keepdims=True)
    # A vector that is the mean of all is zero up to rounding: its direction would be noise.
    if not np.isfinite(norm).all() or (norm <= 1e-12 * norm.max()).any():
        problem = "the mean of all" if centre else "zero"
        raise SteerlabError(
            f"a language vector is {problem} or not finite at some layer, so it has no cosine; "
            "drop that language or layer"
        )
    unit = vectors / norm
    # Rounding can carry a cosine just beyond 1.
    return np.clip(unit @ unit.transpose(0, 2, 1), -1, 1)


def effective_rank(vectors: Float[np.ndarray, "lang width"]) -> float:
    """How many dimensions the centred vectors fill: exp of the entropy of their shares of variance.

    Formula: exp(-Σ p log p), p = σ²/Σσ², σ the singular values of the centred vectors (Roy and
    Vetterli 2007, with variances in the place of singular values). At most the number of languages
    less one.
    """
    variances = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False) ** 2
    # Those that are mere rounding are left out, since log 0 is none.
    share = variances[variances > variances[0] * 1e-12] / variances.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def by_layer(
    vectors: Float[np.ndarray, "layer lang width"],
    langs: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """How alike the languages are at each layer: means over pairs, and the effective rank.

    One row for each layer, with the columns:

    - layer;
    - raw: the mean cosine of two languages;
    - within, between: the mean centred cosine of two languages of one family, of two families; NaN
      where there is no such pair;
    - gap: the mean distance ‖a - b‖; norm: the mean length ‖a‖; gap_ratio: gap / norm;
    - effective_rank;
    - n, pairs, pairs_within: how many languages, pairs, and pairs of one family.

    `layers` are the numbers of the layers, by default from 0.
    """
    family = np.asarray(families_of(langs))
    pair = np.triu_indices(len(family), 1)  # every pair once
    related = family[pair[0]] == family[pair[1]]
    raw = cosine_matrices(vectors, centre=False)
    centred = cosine_matrices(vectors)
    rows = []
    for index, layer in enumerate(range(len(vectors)) if layers is None else layers):
        at_layer = np.asarray(vectors[index], dtype=float)
        cosine = centred[index][pair]
        gap = float(np.linalg.norm(at_layer[pair[0]] - at_layer[pair[1]], axis=1).mean())
        norm = float(np.linalg.norm(at_layer, axis=1).mean())
        rows.append(
            {
                "layer": layer,
                "raw": float(raw[index][pair].mean()),
                "within": float(cosine[related].mean()) if related.any() else np.nan,
                "between": float(cosine[~related].mean()) if not related.all() else np.nan,
                "gap": gap,
                "norm": norm,
                "gap_ratio": gap / norm,
                "effective_rank": effective_rank(at_layer),
                "n": len(family),
                "pairs": len(related),
                "pairs_within": int(related.sum()),
            }
        )
    return pd.DataFrame(rows)

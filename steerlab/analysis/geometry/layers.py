"""How alike languages are at each layer: cosines raw and centred, gaps, families, effective
rank."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families


def cosine_matrices(
    vectors: Float[np.ndarray, "layer lang width"], *, centre: bool = True
) -> Float[np.ndarray, "layer lang lang"]:
    """The cosine of every two languages at each layer, by default after the mean over these
    languages is taken off.

    Raw cosines are mostly that of the shared mean; centred ones do not change when a vector is
    added to all.
    """
    given = np.asarray(vectors, dtype=float)
    if centre:
        given = given - given.mean(1, keepdims=True)
    size = np.linalg.norm(given, axis=2, keepdims=True)
    if not np.isfinite(size).all() or (size <= 1e-12 * size.max()).any():
        raise SteerlabError(
            f"a language vector is {'the mean of all' if centre else 'zero'} or not finite at some "
            "layer, so it has no "
            "cosine; drop that language or layer"
        )
    unit = given / size
    return np.clip(unit @ unit.transpose(0, 2, 1), -1, 1)


def effective_rank(vectors: Float[np.ndarray, "lang width"]) -> float:
    """How many dimensions the centred vectors fill: exp of the entropy of their shares of variance.

    Formula: exp(-Σ p log p), p = σ²/Σσ², σ the singular values of the centred vectors (Roy and
    Vetterli 2007, with variances in the place of singular values). At most the number of languages
    less one.
    """
    values = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False) ** 2
    share = values[values > values[0] * 1e-12] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def by_layer(
    vectors: Float[np.ndarray, "layer lang width"],
    langs: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """One row a layer: means over pairs of languages, and the effective rank.

    raw: cosine as it is; within, between: cosine of centred vectors for two languages of one
    family, of two (`within` is NaN where no two share a family); gap: ‖a - b‖; norm: mean ‖a‖;
    gap_ratio: gap / norm; effective_rank; n: languages; pairs; pairs_within.
    """
    names = np.asarray(families(langs))
    pair = np.triu_indices(len(names), 1)
    kin = names[pair[0]] == names[pair[1]]
    raw, centred = cosine_matrices(vectors, centre=False), cosine_matrices(vectors)
    rows = []
    for place, layer in enumerate(range(len(vectors)) if layers is None else layers):
        here, cosine = np.asarray(vectors[place], dtype=float), centred[place][pair]
        gap = float(np.linalg.norm(here[pair[0]] - here[pair[1]], axis=1).mean())
        norm = float(np.linalg.norm(here, axis=1).mean())
        rows.append(
            {
                "layer": layer,
                "raw": float(raw[place][pair].mean()),
                "within": float(cosine[kin].mean()) if kin.any() else np.nan,
                "between": float(cosine[~kin].mean()) if not kin.all() else np.nan,
                "gap": gap,
                "norm": norm,
                "gap_ratio": gap / norm,
                "effective_rank": effective_rank(here),
                "n": len(names),
                "pairs": len(kin),
                "pairs_within": int(kin.sum()),
            }
        )
    return pd.DataFrame(rows)

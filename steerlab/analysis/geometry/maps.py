"""Maps of the languages: few dimensions that keep most of the distances, turned alike from layer
to layer."""

import numpy as np
from jaxtyping import Float

from steerlab.analysis.geometry.layers import cosine_matrices
from steerlab.core.errors import SteerlabError


def layout(
    vectors: Float[np.ndarray, "layer lang width"], *, dimensions: int = 2
) -> tuple[Float[np.ndarray, "layer lang axis"], Float[np.ndarray, "layer axis"]]:
    """Positions of the languages on a map of few dimensions, and each axis' share of the variance.

    This is classical multidimensional scaling of the chord distance √(2 - 2 cos) between centred
    vectors. That distance is Euclidean, so it is also the PCA of the centred vectors at unit length
    (Gower 1966). Axes mean nothing by themselves: each layer is turned to lie as near to the one
    before as a rotation or reflection brings it (orthogonal Procrustes), which keeps every
    distance. Raises `SteerlabError` for more dimensions than the languages can fill.
    """
    from scipy.linalg import orthogonal_procrustes

    if not 1 <= dimensions < vectors.shape[1]:
        raise SteerlabError(
            f"a map of {vectors.shape[1]} languages has 1 to {vectors.shape[1] - 1} dimensions, "
            f"not {dimensions}"
        )
    positions: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    for cosine in cosine_matrices(vectors):
        points, share = _scale(cosine, dimensions)
        # The first layer stays as it comes; each later one is turned towards the one before.
        if positions:
            rotation, _ = orthogonal_procrustes(points, positions[-1])
            points = points @ rotation
        positions.append(points)
        shares.append(share)
    return np.stack(positions), np.stack(shares)


def _scale(cosine: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """(points [lang axis], each axis' share of the variance) of a matrix of cosines."""
    from sklearn.manifold import ClassicalMDS

    chord = np.sqrt(np.clip(2 - 2 * cosine, 0, None))
    np.fill_diagonal(chord, 0)  # exactly: rounding leaves the root of a tiny number
    fit = ClassicalMDS(n_components=dimensions, metric="precomputed")
    points = fit.fit_transform(chord)
    # All variance is the trace of the doubly centred matrix, the sum of all its eigenvalues.
    total = (chord**2).sum() / (2 * len(chord))
    return points, fit.eigenvalues_ / total

"""Maps of the languages: few dimensions that keep most of the distances, turned alike from layer
to layer."""

import numpy as np
from jaxtyping import Float

from steerlab.analysis.geometry.layers import cosine_matrices
from steerlab.core.errors import SteerlabError


def layout(
    vectors: Float[np.ndarray, "layer lang width"], *, dimensions: int = 2
) -> tuple[Float[np.ndarray, "layer lang axis"], Float[np.ndarray, "layer axis"]]:
    """Positions by classical multidimensional scaling, and each axis' share of the variance.

    The distance is the chord √(2 - 2 cos) of centred vectors, which is Euclidean, so that this is
    also the PCA of the centred vectors at unit length (Gower 1966). Axes mean nothing: each layer
    is turned to lie as near to the one before as a rotation or reflection brings it (orthogonal
    Procrustes), which keeps every distance.
    """
    from scipy.linalg import orthogonal_procrustes

    if not 1 <= dimensions < vectors.shape[1]:
        raise SteerlabError(
            f"a map of {vectors.shape[1]} languages has 1 to {vectors.shape[1] - 1} dimensions, "
            f"not {dimensions}"
        )
    placed: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    for cosine in cosine_matrices(vectors):
        points, share = _scale(cosine, dimensions)
        if placed:
            points = points @ orthogonal_procrustes(points, placed[-1])[0]
        placed.append(points)
        shares.append(share)
    return np.stack(placed), np.stack(shares)


def _scale(cosine: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.manifold import ClassicalMDS

    chord = np.sqrt(np.clip(2 - 2 * cosine, 0, None))
    np.fill_diagonal(chord, 0)
    fit = ClassicalMDS(n_components=dimensions, metric="precomputed")
    points = fit.fit_transform(chord)
    total = (chord**2).sum() / (2 * len(chord))  # the trace of the doubly centred matrix
    return points, fit.eigenvalues_ / total

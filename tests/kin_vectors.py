"""Vectors of languages, with families planted in them."""

import numpy as np

from steerlab.core.languages import families

LANGS = "en de nl sv es fr it pt ru uk bg pl hu tr hi ja".split()
ALONE = 4  # hu tr hi ja have no kin here


def vectors(seed: int, *, layers: int = 5, kin: float = 0.0, at: int | None = None) -> np.ndarray:
    """[layer lang width] with the family's own vector, `kin` times as long, at one layer or all
    of them."""
    random = np.random.default_rng(seed)
    found = random.standard_normal((layers, len(LANGS), 12))
    names, places = np.unique(families(LANGS), return_inverse=True)
    own = random.standard_normal((len(names), 12)) * kin
    for layer in range(layers) if at is None else [at]:
        found[layer] += own[places]
    return np.asarray(found + 100)  # far from the origin, as activations are


def square(values: np.ndarray) -> np.ndarray:
    """Euclidean distances between rows [..., row, width]."""
    return np.asarray(np.linalg.norm(values[..., :, None, :] - values[..., None, :, :], axis=-1))

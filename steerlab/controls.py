"""What a direction has to beat: directions of the same dose that know nothing, or the wrong thing, of the target."""

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.directions import Directions
from steerlab.terms import SteerlabError

__all__ = ["random", "shuffled", "wrong"]
SALT = 20_261_121  # so that no one else's generator of seed 0 draws the same numbers


def random(
    directions: Directions, *, seed: int, covariance: Float[Tensor, "layer width width"] | None = None
) -> Directions:
    """Random vectors for every language, with the true means and so the true gaps: equal strength is equal dose.

    Isotropic, or with `covariance` spread like the activations are.
    """
    generator = torch.Generator().manual_seed(SALT + seed)
    vectors = torch.randn(directions.means.shape, generator=generator)
    if covariance is not None:
        values, axes = torch.linalg.eigh(covariance.double())
        root = (axes * values.clamp(min=0).sqrt()[:, None]).float()
        vectors = torch.einsum("klw,lvw->klv", vectors, root)
    return _with(directions, vectors, f"random {'isotropic' if covariance is None else 'covariance'} {seed}")


def shuffled(directions: Directions, *, seed: int) -> Directions:
    """Every language gets another's vector (a derangement of the labels); the true gaps stay."""
    order = _derangement(len(directions.langs), seed)
    return _with(directions, directions.vectors[order], f"shuffled {seed}")


def wrong(directions: Directions, *, source: str, seed: int) -> Directions:
    """Every target gets another target's vector while the source keeps its own; the true gaps stay."""
    targets = [i for i, iso in enumerate(directions.langs) if iso != source]
    if len(targets) < 2:
        raise SteerlabError("a wrong target's direction needs two targets or more; fit directions of more languages")
    order = list(range(len(directions.langs)))
    for place, other in zip(targets, _derangement(len(targets), seed).tolist(), strict=True):
        order[place] = targets[other]
    return _with(directions, directions.vectors[order], f"wrong {seed}")


def _derangement(count: int, seed: int) -> Tensor:
    """A seeded permutation without a fixed point (of two or more things)."""
    generator = torch.Generator().manual_seed(seed)
    while count > 1:
        order = torch.randperm(count, generator=generator)
        if not (order == torch.arange(count)).any():
            return order
    return torch.arange(count)


def _with(directions: Directions, vectors: Tensor, estimator: str) -> Directions:
    centred = vectors - vectors.mean(0, keepdim=True)
    basis = centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return Directions(
        vectors=vectors,
        basis=basis[:, :, None],
        means=directions.means,
        langs=directions.langs,
        layers=directions.layers,
        site=directions.site,
        source=directions.source,
        provenance={**directions.provenance, "estimator": estimator},
    )

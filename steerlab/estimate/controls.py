"""What a direction has to beat: directions of the same dose that know nothing, or the wrong
thing, of the target."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import derangement
from steerlab.core.random import generator

__all__ = ["random", "shuffled", "wrong"]


def random(
    directions: Directions,
    *,
    seed: int,
    covariance: Float[Tensor, "layer width width"] | None = None,
) -> Directions:
    """Random vectors for every language, with the true means and so the true gaps: equal strength
    is equal dose.

    Isotropic, or with `covariance` spread like the activations are. Subspaces become random ones of
    the same rank, and what only some operators ask for random too: as many dimensions or neurons,
    an ellipsoid as long, a projection of equal rank, decoder rows of equal lengths and angles, so
    that latents are read where they are and written elsewhere.
    """
    if covariance is None:
        rng = generator("random directions", seed)
    else:
        rng = generator("random directions spread like activations", seed)
    vectors = torch.randn(directions.means.shape, generator=rng)
    if covariance is not None:
        values, axes = torch.linalg.eigh(covariance.double())
        root = (axes * values.clamp(min=0).sqrt()[:, None]).float()
        vectors = torch.einsum("klw,lvw->klv", vectors, root)
    kind, rank = "isotropic" if covariance is None else "covariance", directions.basis.shape[2]
    basis = None if rank == 1 else _orthonormal(directions.basis, rng)
    return _with(
        directions,
        vectors,
        f"random {kind} {seed}",
        basis=basis,
        extra=_blind(directions.extra, rng),
    )


def shuffled(directions: Directions, *, seed: int) -> Directions:
    """Every language gets another's vector (a derangement of the labels); the true gaps stay."""
    order = derangement(len(directions.langs), seed)
    return _dealt(directions, order, f"shuffled {seed}")


def wrong(directions: Directions, *, source: str, seed: int) -> Directions:
    """Every target gets another target's vector while the source keeps its own; the true gaps
    stay."""
    targets = [i for i, iso in enumerate(directions.langs) if iso != source]
    if len(targets) < 2:
        raise SteerlabError(
            "a wrong target's direction needs two targets or more; fit directions of more languages"
        )
    order = list(range(len(directions.langs)))
    for place, other in zip(targets, derangement(len(targets), seed).tolist(), strict=True):
        order[place] = targets[other]
    return _dealt(directions, torch.tensor(order), f"wrong {seed}")


def _dealt(directions: Directions, order: Int[Tensor, " lang"], estimator: str) -> Directions:
    """Language i gets what language `order[i]` has; what all share cannot be dealt and is left
    out."""
    extra = {name: value[order] for name, value in directions.extra.items() if len(value) > 1}
    return _with(
        directions, directions.vectors[order], estimator, basis=directions.basis[order], extra=extra
    )


def _blind(extra: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    found = dict(extra)
    for name in ("read", "axes"):
        if name in extra:
            found[name] = _orthonormal(extra[name], generator)
    if "write" in found:
        found["write"] = found["read"]
    if "mask" in extra:
        order = torch.rand(extra["mask"].shape[-1], generator=generator).argsort()
        found |= {
            name: extra[name][..., order] for name in ("mask", "values", "rest") if name in extra
        }
    if "decoder" in extra:
        found["decoder"] = _turned(extra["decoder"], generator)
    return found


def _turned(rows: Float[Tensor, "lang layer rank width"], generator: torch.Generator) -> Tensor:
    """Rows with the same inner products in random directions: whatever is written along them has
    the same length."""
    left, sizes, _ = torch.linalg.svd(rows.double(), full_matrices=False)
    drawn = torch.randn(
        *rows.shape[:2], rows.shape[3], sizes.shape[-1], generator=generator, dtype=torch.float64
    )
    axes = torch.linalg.qr(drawn)[0].mT
    return ((left * sizes[..., None, :]) @ axes).float() * rows.any(-1, keepdim=True)


def _orthonormal(
    like: Float[Tensor, "lang layer rank width"], generator: torch.Generator
) -> Tensor:
    """Random orthonormal rows where there are rows, and zero ones where there are none."""
    drawn = torch.randn(like.mT.shape, generator=generator)
    return torch.linalg.qr(drawn)[0].mT * like.any(-1, keepdim=True)


def _with(
    directions: Directions,
    vectors: Tensor,
    estimator: str,
    *,
    basis: Tensor | None = None,
    extra: Mapping[str, Tensor] | None = None,
) -> Directions:
    if basis is None:
        centred = vectors - vectors.mean(0, keepdim=True)
        basis = (centred / centred.norm(dim=-1, keepdim=True).clamp(min=1e-30))[:, :, None]
    return Directions(
        vectors=vectors,
        basis=basis,
        means=directions.means,
        langs=directions.langs,
        layers=directions.layers,
        site=directions.site,
        source=directions.source,
        provenance={**directions.provenance, "estimator": estimator},
        extra=extra or {},
        strength_unit=directions.strength_unit,
    )

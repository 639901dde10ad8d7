"""LEACE: the least change after which no linear probe finds the language."""

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.build import build, need_two
from steerlab.estimate.record import Estimator


def leace(
    moments: Moments,
    *,
    concept: str = "all",
    shrinkage: float | None = None,
    tolerance: float = 0.01,
) -> Directions:
    """What `erase` needs so that no linear probe finds the language (or whether it is the
    target's).

    Formula: x - W⁺ U Uᵀ W (x - μ), W = Σ_xx^(-1/2) of all tokens, U the left singular vectors of W
    Σ_xz with values above `tolerance`, z which of all languages (`concept="all"`, rank languages -
    1, one for all) or whether it is the target (`concept="target"`, rank 1, one for each: read
    along LDA, write along DiffMean). Σ_xx is shrunk towards a multiple of I by Bodnar, Gupta and
    Parolya's (2014) share, unless `shrinkage` gives one. `extra` holds `read` = UᵀW, `write` = UᵀW⁺
    and `centre` = μ; vectors are the language means, as DiffMean's, and the basis spans what is
    written. Source: LEACE (arXiv 2306.03819). Needs `scatter`.
    """
    if concept not in ("all", "target"):
        raise SteerlabError(f"leace erases the concept 'all' or 'target', not {concept!r}")
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise SteerlabError(
            f"the shrinkage is {shrinkage}; give a share from 0 to 1, or none for Bodnar's"
        )
    need_two(moments)
    covariance = moments.spread()
    share = moments.count / moments.count.sum()
    centre = (share[:, None, None] * moments.mean).sum(0)
    cross = share[:, None, None] * (moments.mean - centre)  # Σ_xz, a language a row
    parts = []
    for place, layer in enumerate(covariance):
        whitener, colourer = _roots(_shrunk(layer, int(moments.count.sum()), shrinkage))
        for crossing in [cross[:, place]] if concept == "all" else cross[:, place, None]:
            u, found, _ = torch.linalg.svd(whitener @ crossing.T, full_matrices=False)
            rows = u[:, found > tolerance].T
            parts.append((rows @ whitener, rows @ colourer))
    rank = max(1, *(len(read) for read, _ in parts))
    shape = (len(moments.layers), -1, rank, moments.width)
    read, write = (
        torch.stack([_filled(pair[side], rank) for pair in parts]).view(shape).transpose(0, 1)
        for side in (0, 1)
    )
    axes = torch.linalg.qr(write.mT)[0].mT * write.any(-1, keepdim=True)
    extra = {"read": read, "write": write, "centre": centre[None]}
    basis = axes.expand(len(moments.langs), -1, -1, -1)
    name = "leace" if concept == "all" else "leace target"
    return build(
        moments,
        moments.mean,
        name,
        basis=basis,
        extra=extra,
        settings={"shrinkage": shrinkage, "tolerance": tolerance},
    )


def _roots(
    covariance: Float[Tensor, "width width"],
) -> tuple[Float[Tensor, "width width"], Float[Tensor, "width width"]]:
    """(Σ^(-1/2), its pseudo-inverse), zero on axes without variance."""
    values, axes = torch.linalg.eigh(covariance)
    real = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root = torch.where(real, values, 0).sqrt()
    inverse = torch.where(real, root.clamp(min=1e-30).reciprocal(), 0)
    return (axes * inverse) @ axes.T, (axes * root) @ axes.T


def _shrunk(
    covariance: Tensor, count: int, shrinkage: float | None
) -> Float[Tensor, "width width"]:
    """Bodnar, Gupta and Parolya's optimal linear shrinkage towards tr(S)/d I, from the
    covariance of `count` tokens."""
    width = len(covariance)
    trace, square = covariance.trace(), covariance.square().sum()
    if shrinkage is None:
        spread = (square - trace.square() / width).clamp(min=1e-30)
        shrinkage = float((trace.square() / count / spread).clamp(0, 1))
    one = torch.eye(width, dtype=covariance.dtype)
    return (1 - shrinkage) * covariance + shrinkage * trace / width * one


def _filled(rows: Float[Tensor, "rank width"], rank: int) -> Float[Tensor, "full width"]:
    return torch.nn.functional.pad(rows, (0, 0, 0, rank - len(rows)))


RECORDS = {
    "leace": Estimator(make=leace, needs=("scatter",), estimates="mean difference"),
    "leace target": Estimator(make=leace, knobs={"concept": "target"}, needs=("scatter",)),
}

"""LEACE: the least change after which no linear probe finds the language."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

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
    """What the operator `erase` needs so that no linear probe finds the language.

    Formula: x - W⁺ U Uᵀ W (x - μ), W = Σ_xx^(-1/2) of all tokens, U the left singular vectors of
    W Σ_xz, z the concept. Source: LEACE (arXiv 2306.03819). Needs `scatter`.

    `extra` holds `read` = UᵀW, `write` = UᵀW⁺ and `centre` = μ; vectors are the language means, as
    DiffMean's, and the basis spans what is written.

    Args:
        moments: statistics with the scatter.
        concept: what is erased. "all" is which of all languages it is: one projection of rank
            languages - 1 for all. "target" is whether it is the target or not: a projection of rank
            1 for each language, which reads along LDA and writes along DiffMean.
        shrinkage: the share by which Σ_xx is shrunk towards a multiple of I; by default Bodnar,
            Gupta and Parolya's (2014).
        tolerance: singular values of W Σ_xz above it count.
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
    total = int(moments.count.sum())
    # Of each layer, and within it of each language for the concept "target".
    read_rows = []
    write_rows = []
    for index, layer in enumerate(covariance):
        whitener, colourer = _roots(_shrunk(layer, total, shrinkage))
        # One projection for all languages, or one for each: the concept has all or one column.
        crossings = [cross[:, index]] if concept == "all" else cross[:, index, None]
        for crossing in crossings:
            u, values, _ = torch.linalg.svd(whitener @ crossing.T, full_matrices=False)
            rows = u[:, values > tolerance].T
            read_rows.append(rows @ whitener)
            write_rows.append(rows @ colourer)
    rank = max(1, *(len(rows) for rows in read_rows))
    layers = len(moments.layers)
    read = _stacked(read_rows, rank, layers)
    write = _stacked(write_rows, rank, layers)
    # Rows of padding stay zero.
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
    """(Σ^(-1/2), its pseudo-inverse Σ^(1/2)), both zero on axes without variance."""
    values, axes = torch.linalg.eigh(covariance)
    # The usual tolerance of a matrix rank: what is smaller is rounding.
    nonzero = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root = torch.where(nonzero, values, 0).sqrt()
    inverse = torch.where(nonzero, root.clamp(min=1e-30).reciprocal(), 0)
    return (axes * inverse) @ axes.T, (axes * root) @ axes.T


def _shrunk(
    covariance: Tensor, count: int, shrinkage: float | None
) -> Float[Tensor, "width width"]:
    """The covariance of `count` tokens, shrunk towards tr(S)/d I.

    By default by Bodnar, Gupta and Parolya's (2014) share: tr(S)² / n over tr(S²) - tr(S)² / d,
    from 0 to 1.
    """
    width = len(covariance)
    trace = covariance.trace()
    square = covariance.square().sum()
    if shrinkage is None:
        # How unequal the eigenvalues are: 0 for a multiple of I, which needs no shrinking.
        spread = (square - trace.square() / width).clamp(min=1e-30)
        shrinkage = float((trace.square() / count / spread).clamp(0, 1))
    one = torch.eye(width, dtype=covariance.dtype)
    return (1 - shrinkage) * covariance + shrinkage * trace / width * one


def _stacked(rows: list[Tensor], rank: int, layers: int) -> Float[Tensor, "some layer rank width"]:
    """Rows of each layer, and within it of each language, padded with zeros to one rank."""
    padded = [pad(part, (0, 0, 0, rank - len(part))) for part in rows]
    return rearrange(
        torch.stack(padded), "(layer some) rank width -> some layer rank width", layer=layers
    )


RECORDS = {
    "leace": Estimator(
        make=leace,
        needs=("scatter",),
        estimates="mean difference",
        cites=("belrose2023leace", "bodnar2014strong"),
    ),
    "leace target": Estimator(make=leace, knobs={"concept": "target"}, needs=("scatter",)),
}

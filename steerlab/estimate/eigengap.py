"""Eigengap: the leading axes of paired differences, which are what a sentence and its translation
do not share."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.core.samples import Paired
from steerlab.estimate.build import build, need_moments, need_two
from steerlab.estimate.record import Estimator

# How many axes to keep, from the singular values and the number of pairs.
Rank = Callable[[Tensor, int], int]


def eigengap(moments: Moments, *, largest: int = 12) -> Directions:
    """The leading subspace of the paired differences, its rank by the eigengap.

    Formula: σ the singular values of the differences d; r = min(⌈effective rank⌉, argmax σᵢ/σᵢ₊₁),
    the argmax over the first `largest` numerically non-zero values, effective rank = exp of the
    entropy of σ²/Σσ². The direction is the mean difference projected on the subspace. Source:
    Neural FOXP2 stage II (2026); the released code looks for the gap in the zero part of the
    spectrum too, and so always finds its own mask's size. Reading: on the residual stream, where
    the paper has the masked latents of a sparse autoencoder. Needs `pairs`; directions lead from
    their source only.
    """
    need_largest(largest)

    def rank(values: Tensor, count: int) -> int:
        return ranks(values, count, largest)[2]

    return leading(moments, "eigengap", rank, {"largest": largest})


def need_largest(largest: int) -> None:
    """Raise where the gap would be looked for among no values."""
    if largest < 1:
        raise SteerlabError(
            f"the gap is looked for among the first {largest} values; give 1 or more"
        )


def ranks(values: Float[Tensor, " width"], count: int, largest: int) -> tuple[float, int, int]:
    """(effective rank, rank by the eigengap, the smaller of both) of a spectrum of `count`
    pairs."""
    effective = float(effective_rank(values))
    # σ comes from dᵀd in single precision: what is this small beside the largest σ cannot be told
    # from zero.
    zero = float(values[0]) * (len(values) * torch.finfo(torch.float32).eps) ** 0.5
    # Of n differences at most n singular values are non-zero.
    nonzero = values[: min(count, len(values))]
    nonzero = nonzero[nonzero > zero][: largest + 1]
    # A single value has no gap: it is kept.
    gap = 1
    if len(nonzero) >= 2:
        gap = int((nonzero[:-1] / nonzero[1:]).argmax()) + 1
    rank = max(1, min(math.ceil(effective), gap))
    return effective, gap, rank


def effective_rank(values: Float[Tensor, "*any value"]) -> Float[Tensor, "*any"]:
    """exp of the entropy of σ²/Σσ²: how many axes there would be if all were equally long."""
    squares = values.square()
    share = (squares / squares.sum(-1, keepdim=True).clamp(min=1e-30)).clamp(min=1e-12)
    return torch.exp(-(share * share.log()).sum(-1))


def leading(
    moments: Moments, estimator: str, keep: Rank, settings: Mapping[str, object]
) -> Directions:
    """Directions along the leading axes of each target's paired differences.

    The vector is the mean difference, projected on them.

    Args:
        moments: statistics with the paired differences.
        estimator: its name.
        keep: says how many axes to keep.
        settings: the estimator's knobs.
    """
    need_two(moments)
    pairs = need_pairs(moments)
    shape = (len(moments.langs), len(moments.layers), moments.width)
    vectors = torch.zeros(shape)
    subspaces: dict[tuple[int, int], Tensor] = {}
    for lang, layer, values, axes in decomposed(pairs):
        kept = axes[: keep(values, int(pairs.count[lang]))]
        mean = pairs.total[lang, layer] / pairs.count[lang]
        vectors[lang, layer] = (kept.T @ (kept @ mean)).float()
        subspaces[lang, layer] = kept.float()
    # Subspaces of lower rank are padded with rows of zeros.
    rank = max(len(rows) for rows in subspaces.values())
    basis = torch.zeros(*shape[:2], rank, moments.width)
    for (lang, layer), rows in subspaces.items():
        basis[lang, layer, : len(rows)] = rows
    return build(moments, vectors, estimator, basis=basis, source=pairs.source, settings=settings)


def decomposed(pairs: Paired) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(language's index, layer's index, singular values [width], right singular vectors
    [width width]) of the differences, the largest value first."""
    for lang_index, lang in enumerate(pairs.langs):
        # The source has no differences from itself.
        if lang == pairs.source:
            continue
        for layer_index in range(pairs.square.shape[1]):
            # The eigenvalues of dᵀd are σ², in ascending order; rounding may leave them below 0.
            squares, axes = torch.linalg.eigh(pairs.square[lang_index, layer_index].double())
            yield lang_index, layer_index, squares.flip(0).clamp(min=0).sqrt(), axes.flip(1).T


def need_pairs(moments: Moments, number: int = 1) -> Paired:
    """The pairs, if there are at least so many of every target; else it raises."""
    need_moments(moments)
    pairs = moments.need("pairs")
    counts = dict(zip(pairs.langs, pairs.count.int().tolist(), strict=True))
    del counts[pairs.source]  # the source has no differences from itself
    missing = [lang for lang, count in counts.items() if not count]
    if missing:
        raise SteerlabError(
            f"the pairs hold nothing of {', '.join(missing)}; add some: moments.pairs.update(means)"
        )
    few = [f"{lang} {count}" for lang, count in counts.items() if count < number]
    if few:
        raise SteerlabError(
            f"a rank of {number} needs as many pairs; there are {', '.join(few)}: add some, or ask "
            "less"
        )
    return pairs


RECORDS = {
    "eigengap": Estimator(
        make=eigengap,
        needs=("pairs",),
        estimates="subspace of the paired differences",
        cites=("saha2026neural",),
    ),
}

"""Paired differences and their leading axes: what one sentence and its translation do not share."""

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments, Paired
from steerlab.estimate.build import build, need_two
from steerlab.estimate.record import Estimator

Rank = Callable[[Tensor, int], int]  # of the singular values and the number of pairs


def eigengap(moments: Moments, *, largest: int = 12) -> Directions:
    """The leading subspace of the paired differences, its rank by the eigengap.

    Formula: σ the singular values of the differences d; r = min(⌈effective rank⌉, argmax σᵢ/σᵢ₊₁),
    the argmax over the first `largest` numerically non-zero values, effective rank = exp of the
    entropy of σ²/Σσ². The direction is the mean difference projected on the subspace. Source:
    Neural FOXP2 stage II (2026); the released code looks for the gap in the zero part of the
    spectrum and so always finds its own mask's size. Reading: on the residual stream, where the
    paper has the masked latents of a sparse autoencoder. Needs `pairs`; from their source only.
    """
    need_largest(largest)
    return leading(
        moments,
        "eigengap",
        lambda values, count: ranks(values, count, largest)[2],
        {"largest": largest},
    )


def need_largest(largest: int) -> None:
    """Raise where the gap is looked for nowhere."""
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
    real = values[: min(count, len(values))]
    real = real[real > zero][: largest + 1]
    gap = 1 if len(real) < 2 else int((real[:-1] / real[1:]).argmax()) + 1
    return effective, gap, max(1, min(int(-(-effective // 1)), gap))


def effective_rank(values: Float[Tensor, "*any value"]) -> Float[Tensor, "*any"]:
    """exp of the entropy of σ²/Σσ²: how many axes it would be if all were equally long."""
    squares = values.square()
    share = (squares / squares.sum(-1, keepdim=True).clamp(min=1e-30)).clamp(min=1e-12)
    return torch.exp(-(share * share.log()).sum(-1))


def leading(
    moments: Moments, estimator: str, keep: Rank, settings: Mapping[str, object]
) -> Directions:
    """Directions of the leading axes of each target's differences: the mean difference,
    projected on them."""
    need_two(moments)
    pairs = need_pairs(moments)
    shape = (len(moments.langs), len(moments.layers), moments.width)
    vectors = torch.zeros(shape)
    found: dict[tuple[int, int], Tensor] = {}
    for lang, place, values, axes in decomposed(pairs):
        kept = axes[: keep(values, int(pairs.count[lang]))]
        mean = pairs.total[lang, place] / pairs.count[lang]
        vectors[lang, place] = (kept.T @ (kept @ mean)).float()
        found[lang, place] = kept.float()
    basis = torch.zeros(*shape[:2], max(map(len, found.values())), moments.width)
    for (lang, place), kept in found.items():
        basis[lang, place, : len(kept)] = kept
    return build(moments, vectors, estimator, basis=basis, source=pairs.source, settings=settings)


def decomposed(pairs: Paired) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(language, layer's place, singular values [width], right singular vectors [width width])
    of the differences."""
    for lang, iso in enumerate(pairs.langs):
        for place in range(pairs.square.shape[1]) if iso != pairs.source else ():
            values, axes = torch.linalg.eigh(pairs.square[lang, place].double())
            yield lang, place, values.flip(0).clamp(min=0).sqrt(), axes.flip(1).T


def need_pairs(moments: Moments, number: int = 1) -> Paired:
    """The pairs, if there are at least so many of every target."""
    pairs = moments.need("pairs")
    found = {
        iso: int(n)
        for iso, n in zip(pairs.langs, pairs.count.tolist(), strict=True)
        if iso != pairs.source
    }
    if missing := [iso for iso, count in found.items() if not count]:
        raise SteerlabError(
            f"the pairs hold nothing of {', '.join(missing)}; add some: moments.pairs.update(means)"
        )
    if few := [f"{iso} {count}" for iso, count in found.items() if count < number]:
        raise SteerlabError(
            f"a rank of {number} needs as many pairs; there are {', '.join(few)}: add some, or ask "
            "less"
        )
    return pairs


RECORDS = {
    "eigengap": Estimator(
        make=eigengap, needs=("pairs",), estimates="subspace of the paired differences"
    ),
}

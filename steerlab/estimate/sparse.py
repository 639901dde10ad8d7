"""Sparse dimensions: a language in a few hundred of the model's own dimensions."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.moments import Moments
from steerlab.estimate.build import build, source_of
from steerlab.estimate.record import Estimator

SHARE = 400 / 4096  # of the dimensions: 400 in Llama-2-7B
ANCHOR = 0.58  # of the depth: layer 19 of Llama-2-7B's 32, counted from the embedding


def sparse(
    moments: Moments,
    *,
    setting: str = "parallel",
    dims: int | None = None,
    anchor: int | None = None,
    massive: Sequence[int] = (),
    source: str = "en",
) -> Directions:
    """The dimensions in which a language's last layer differs most, and their values there, for
    the operator `overwrite`.

    Formula: d = m_ref - m_t, m the mean of sentence means, m_t the target's in the last layer that
    was read; the mask keeps the `dims` largest |d|. Source: Zhong et al. 2026 (arXiv 2510.07213),
    whose last layer is read before its MLP: here after the block.

    `extra` holds `mask` and `values` = m_t; the vectors are the mean differences at each layer, in
    the masked dimensions only.

    Args:
        moments: statistics of texts, up to the model's last layer.
        setting: "parallel" sets the target against the source in the last layer, and the fit is for
            that source. "monolingual" sets it against itself at the layer `anchor`, which stands in
            for English, so that no other language is needed.
        dims: how many dimensions are kept; by default as large a share as 400 of 4096.
        anchor: the layer of the setting "monolingual"; by default that at 58 % of the depth.
        massive: dimensions that are left out, such as those of massive activations.
        source: the source of the setting "parallel".
    """
    if setting not in ("parallel", "monolingual"):
        raise SteerlabError(
            f"sparse dimensions are of the setting 'parallel' or 'monolingual', not {setting!r}"
        )
    moments.need_texts()
    last = moments.pooled[:, moments.layers.index(max(moments.layers))]
    difference = _reference(moments, setting, anchor, source) - last
    wrong = [dim for dim in massive if not 0 <= dim < moments.width]
    if wrong:
        raise SteerlabError(f"there is no dimension {wrong[0]}; the width is {moments.width}")
    difference[:, list(massive)] = 0
    number = round(SHARE * moments.width) if dims is None else dims
    if not 0 < number <= moments.width - len(massive):
        raise SteerlabError(
            f"{number} dimensions cannot be kept of {moments.width - len(massive)}; give fewer, or "
            "more"
        )
    mask = torch.zeros_like(last).scatter_(1, difference.abs().topk(number).indices, 1.0)
    only_source = source_of(moments, setting, source) if setting == "parallel" else None
    if only_source is None:
        origin = moments.mean.mean(0)
    else:
        index = moments.langs.index(only_source)
        mask[index] = 0  # the source has no direction to itself
        origin = moments.mean[index]
    vectors = mask[:, None] * (moments.mean - origin)
    # The mask and the values come from the last layer, and hold at every layer.
    shape = (-1, len(moments.layers), -1)
    return build(
        moments,
        vectors,
        "sparse" if setting == "parallel" else "sparse monolingual",
        basis=torch.nn.functional.normalize(vectors, dim=-1)[:, :, None],
        source=only_source,
        extra={"mask": mask[:, None].expand(shape), "values": last[:, None].expand(shape)},
        settings={"dims": number, "anchor": anchor, "massive": list(massive)},
    )


def _reference(
    moments: Moments, setting: str, anchor: int | None, source: str
) -> Float[Tensor, "_ width"]:
    """What a language is compared with: the source in the last layer [1 width], or itself at the
    anchor [lang width]."""
    last = max(moments.layers)
    if setting == "parallel":
        source_of(moments, setting, source)
        return moments.pooled[[moments.langs.index(source)], moments.layers.index(last)]
    if anchor is None:
        below = min(moments.layers, key=lambda layer: abs(layer - ANCHOR * last))
    else:
        below = anchor
    if below not in moments.layers or below >= last:
        layers = ", ".join(map(str, sorted(moments.layers)))
        raise SteerlabError(
            f"the anchor {below} is no layer below the last of {layers}; collect more, or name "
            "another"
        )
    return moments.pooled[:, moments.layers.index(below)]


RECORDS = {
    "sparse": Estimator(
        make=sparse,
        estimates="dimensions of the mean difference",
        sourced=True,
        every=True,
        cites=("zhong2026language",),
    ),
    "sparse monolingual": Estimator(make=sparse, knobs={"setting": "monolingual"}, every=True),
}

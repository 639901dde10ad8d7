"""Single heads of attention: what lies at `attn_z`, head by head."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError

_DEPENDENT = 1e-6  # of the largest singular value


def only_heads(
    directions: Directions, heads: Sequence[int] | Mapping[int, Sequence[int]], *, count: int
) -> Directions:
    """The directions in some heads alone: vectors, subspaces and means, with 0 in the other heads.

    What is made of them edits these heads and no other; strength 1 is the distance of the two
    means within them. Layers without a head are left out. Raises `SteerlabError` for directions of
    another site, and for those that hold more than vectors, such as `leace`'s.

    Args:
        directions: at `attn_z`, where heads lie side by side.
        heads: their numbers, from 0; or of each layer by itself.
        count: how many heads the model has (`model.heads`).
    """
    size = _size(directions, count)
    if directions.extra:
        raise SteerlabError(
            f"these directions hold the {', '.join(directions.extra)} of all heads together; fit "
            "the heads by themselves, or take another estimator"
        )
    of_layer = heads if isinstance(heads, Mapping) else dict.fromkeys(directions.layers, heads)
    if missing := [layer for layer in of_layer if layer not in directions.layers]:
        raise SteerlabError(
            f"no layer {missing[0]} here; there are layers {', '.join(map(str, directions.layers))}"
        )
    chosen = {layer: list(some) for layer, some in of_layer.items() if list(some)}
    wrong = [head for some in chosen.values() for head in some if not 0 <= head < count]
    if wrong or not chosen:
        given = f"head {wrong[0]}" if wrong else "no head"
        raise SteerlabError(f"{given} was asked for; there are heads 0 to {count - 1}")
    kept = directions.at(*(layer for layer in directions.layers if layer in chosen))
    mask = torch.zeros(len(kept.layers), count)
    for number, layer in enumerate(kept.layers):
        mask[number, chosen[layer]] = 1
    wide = mask.repeat_interleave(size, dim=1)
    return replace(
        kept,
        vectors=kept.vectors * wide,
        means=kept.means * wide,
        basis=_spans(kept.basis * wide[:, None]),
        provenance={**kept.provenance, "heads": {str(key): each for key, each in chosen.items()}},
    )


def head_gaps(directions: Directions, source: str, target: str, *, count: int) -> pd.DataFrame:
    """How far apart two languages' means are in each head (across) of each layer (down).

    Args:
        directions: at `attn_z`.
        source: one language.
        target: the other one.
        count: how many heads the model has (`model.heads`).
    """
    size = _size(directions, count)
    for lang in (source, target):
        if lang not in directions.langs:
            raise SteerlabError(f"there is no {lang!r}; there are {' '.join(directions.langs)}")
    start, end = (directions.means[directions.langs.index(lang)] for lang in (source, target))
    apart = rearrange(end - start, "layer (head size) -> layer head size", size=size)
    return pd.DataFrame(apart.norm(dim=-1).numpy(), index=list(directions.layers))


def _size(directions: Directions, count: int) -> int:
    """How many numbers a head has."""
    width = directions.means.shape[-1]
    if directions.site != "attn_z":
        raise SteerlabError(
            f"heads lie side by side at attn_z, and these directions are of {directions.site}; "
            "collect with site='attn_z'"
        )
    if count < 1 or width % count:
        raise SteerlabError(
            f"{count} heads do not divide the width {width}; count is the model's (`model.heads`)"
        )
    return width // count


def _spans(
    rows: Float[Tensor, "lang layer rank width"],
) -> Float[Tensor, "lang layer rank width"]:
    """Orthonormal rows of the same span, with rows of zeros where there are fewer."""
    _, sizes, axes = torch.linalg.svd(rows.double(), full_matrices=False)
    kept = (sizes > _DEPENDENT * sizes[..., :1]) & (sizes > 0)
    return (axes * kept[..., None]).float()

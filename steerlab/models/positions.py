"""Positions in absolute terms: what an edit must know of a pass beside the activations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass
class Positions:
    """Which positions of a forward pass are which: what an edit needs to know beside the
    activations.

    `text` [row pos]: neither padding nor BOS. `generated` [row pos]: after the prompt. `rows`: the
    row of the whole batch that each row of this pass is; -1 for a prompt that rows are still to
    branch from. `step`: a pass of decoding, in which every position is text and generated.
    """

    text: Bool[Tensor, "row pos"]
    generated: Bool[Tensor, "row pos"]
    rows: Int[Tensor, " row"]
    step: bool = False


HookFn = Callable[[Tensor, Positions], Tensor | None]


def where(
    ids: Int[Tensor, "row pos"],
    mask: Tensor | None,
    *,
    past: int,
    bos: int | None,
    rows: Tensor | None,
) -> Positions:
    """Positions in absolute terms: with a cache, what comes after the prompt's pass is
    generated."""
    text = torch.ones_like(ids, dtype=torch.bool)
    if mask is not None and mask.ndim == 2:
        text = mask[:, -ids.shape[1] :].bool().clone()
    generated = torch.full_like(text, past > 0)
    if bos is not None and not past:
        first = text & (text.long().cumsum(1) == 1)
        text &= ~(first & (ids == bos))
    return Positions(
        text, generated, torch.arange(len(ids), device=ids.device) if rows is None else rows
    )

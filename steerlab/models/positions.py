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


def positions_of(
    ids: Int[Tensor, "row pos"],
    mask: Tensor | None,
    *,
    past: int,
    bos: int | None,
    rows: Int[Tensor, " row"] | None = None,
) -> Positions:
    """Positions in absolute terms: with a cache, what comes after the prompt's pass is generated.

    Args:
        ids: the tokens of this pass.
        mask: [row total] true where there is no padding, those in the cache included; None for no
            padding at all. One of another shape, as models make for themselves, is not looked at.
        past: how many positions the cache has.
        bos: the token that does not count as text where a row begins with it.
        rows: which row of the whole each one is; by default they are all there, in order.
    """
    text = torch.ones_like(ids, dtype=torch.bool)
    if mask is not None and mask.ndim == 2:
        text = mask[:, -ids.shape[1] :].bool().clone()
    generated = torch.full_like(text, past > 0)
    if bos is not None and not past:
        first = text & (text.long().cumsum(1) == 1)
        text &= ~(first & (ids == bos))
    if rows is None:
        rows = torch.arange(len(ids), device=ids.device)
    return Positions(text, generated, rows)


def step_positions(
    rows: Int[Tensor, " row"], live: Bool[Tensor, " row"] | None = None
) -> Positions:
    """Positions of a step of decoding, one token a row behind the cache; `live`: the rows that have
    not ended.

    A row that has ended stays in its batch for a while. Its position is then no text, so that no
    edit touches or counts it.
    """
    new = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
    if live is None:
        return Positions(new, new, rows, step=True)
    return Positions(live[:, None], new, rows)

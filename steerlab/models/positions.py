"""What an edit must know about a forward pass beside the activations: which positions are text,
which were generated, and which row is which."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass
class Positions:
    """Which positions of a forward pass are which.

    Args:
        text: whether a position is neither padding nor BOS, `[row pos]`.
        generated: whether it comes after the prompt, `[row pos]`.
        rows: the number by which an edit knows each row of this pass: with a stack, which of its
            edits the row carries. It is -1 for a prompt that rows are still to branch from, which
            no edit touches.
        step: whether this is a step of decoding in which every position is text and generated, so
            that an edit need not look.
    """

    text: Bool[Tensor, "row pos"]
    generated: Bool[Tensor, "row pos"]
    rows: Int[Tensor, " row"]
    step: bool = False

    def of(self, rows: Int[Tensor, " kept"]) -> "Positions":
        """Those of some of the rows, in this order."""
        return Positions(self.text[rows], self.generated[rows], self.rows[rows], self.step)

    def followed_by(self, new: "Positions") -> "Positions":
        """These and, behind them in the same rows, new ones."""
        text = torch.cat([self.text, new.text], 1)
        return Positions(text, torch.cat([self.generated, new.generated], 1), new.rows)


# What is attached to a site: takes the activations there, and returns them changed, or None to
# leave them as they are.
HookFn = Callable[[Tensor, Positions], Tensor | None]


def positions_of(
    ids: Int[Tensor, "row pos"],
    mask: Tensor | None,
    *,
    past: int,
    bos: int | None,
    rows: Int[Tensor, " row"] | None = None,
) -> Positions:
    """The positions of a pass: the first one is the prompt's, and all behind a cache is generated.

    Args:
        ids: the tokens of this pass.
        mask: [row total] true where there is no padding, those in the cache included; None for no
            padding at all. One of another shape, as models make for themselves, is not looked at.
        past: how many positions the cache has.
        bos: the token that does not count as text where a row begins with it.
        rows: the number by which an edit knows each row; by default they count from 0.
    """
    text = torch.ones_like(ids, dtype=torch.bool)
    if mask is not None and mask.ndim == 2:
        # A copy, since BOS is taken out below and the mask is the caller's.
        text = mask[:, -ids.shape[1] :].bool().clone()
    generated = torch.full_like(text, past > 0)
    if bos is not None and not past:
        # Only where a row begins with it: the same token may also stand for the end of a text, in
        # the middle of a chat. A row begins behind its padding.
        first = text & (text.long().cumsum(1) == 1)
        text &= ~(first & (ids == bos))
    if rows is None:
        rows = torch.arange(len(ids), device=ids.device)
    return Positions(text, generated, rows)


def step_positions(
    rows: Int[Tensor, " row"], live: Bool[Tensor, " row"] | None = None
) -> Positions:
    """The positions of a step of decoding, one new token in each row.

    A row that has ended stays in its batch for a while. Its position is then not text, so that no
    edit touches or counts it.

    Args:
        rows: the number by which an edit knows each row.
        live: which rows have not ended; None for all.
    """
    new = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
    if live is None:
        return Positions(new, new, rows, step=True)
    return Positions(rearrange(live, "row -> row 1"), new, rows)

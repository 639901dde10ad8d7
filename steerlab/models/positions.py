"""What an edit must know about a forward pass beside the activations: which positions are text,
which were generated, and which row is which."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from steerlab.core.errors import SteerlabError


@dataclass
class Positions:
    """Which positions of a forward pass are which.

    Args:
        text: whether a position counts: it is neither padding nor the beginning of its row,
            `[row pos]`.
        generated: whether it comes after the prompt, `[row pos]`.
        rows: the number by which an edit knows each row of this pass: with a stack, which of its
            edits the row carries. It is -1 for a prompt that rows are still to branch from, which
            no edit touches.
        step: whether this is a step of decoding in which every position is text and generated, so
            that an edit need not look.
        again: which positions an earlier pass has run already, where there is no cache; None for
            none.
        image: which positions hold parts of a picture and no text; None where there are none.
        begins: which positions are how their row begins, such as BOS, and so are no text; None
            where there are none.
        before: how many tokens of each row are in the cache, padding not counted, `[row]`; None for
            none.
        chunk: of a prompt that is read in pieces, how many positions that count came before this
            pass, and how many of the prompt's tokens come after it, `[row]` each; None for a whole
            one.
    """

    text: Bool[Tensor, "row pos"]
    generated: Bool[Tensor, "row pos"]
    rows: Int[Tensor, " row"]
    step: bool = False
    again: Bool[Tensor, "row pos"] | None = None
    begins: Bool[Tensor, "row pos"] | None = None
    before: Int[Tensor, " row"] | None = None
    chunk: tuple[Int[Tensor, " row"], Int[Tensor, " row"]] | None = None
    image: Bool[Tensor, "row pos"] | None = None

    @property
    def real(self) -> Bool[Tensor, "row pos"]:
        """Which positions are no padding."""
        real = self.text if self.begins is None else self.text | self.begins
        return real if self.image is None else real | self.image

    def of(self, rows: Int[Tensor, " kept"]) -> "Positions":
        """Those of some of the rows, in this order."""
        return Positions(
            self.text[rows],
            self.generated[rows],
            self.rows[rows],
            self.step,
            begins=None if self.begins is None else self.begins[rows],
            before=None if self.before is None else self.before[rows],
            chunk=None if self.chunk is None else (self.chunk[0][rows], self.chunk[1][rows]),
            image=None if self.image is None else self.image[rows],
        )

    def followed_by(self, new: "Positions") -> "Positions":
        """These and, behind them in the same rows, new ones."""
        text = torch.cat([self.text, new.text], 1)
        again = torch.zeros_like(text)
        again[:, : self.text.shape[1]] = True
        generated = torch.cat([self.generated, new.generated], 1)
        begins = image = None
        if self.begins is not None:
            begins = torch.cat([self.begins, torch.zeros_like(new.text)], 1)
        if self.image is not None:
            image = torch.cat([self.image, torch.zeros_like(new.text)], 1)
        return Positions(text, generated, new.rows, again=again, begins=begins, image=image)


# What is attached to a site: takes the activations there, and returns them changed, or None to
# leave them as they are.
HookFn = Callable[[Tensor, Positions], Tensor | None]


def positions_of(
    ids: Int[Tensor, "row pos"],
    mask: Tensor | None,
    *,
    past: int,
    bos: int | Sequence[int] | None,
    special: Sequence[int] = (),
    image: Sequence[int] = (),
    rows: Int[Tensor, " row"] | None = None,
) -> Positions:
    """The positions of a pass: the first one is the prompt's, and all behind a cache is generated.

    What stands first in a text is no text to a model: attention that has nowhere else to go ends up
    there, and activations are many times longer than elsewhere. So BOS does not count, and where a
    model's texts begin with none, neither does their first token.

    Args:
        ids: the tokens of this pass.
        mask: [row total] true where there is no padding, those in the cache included; None for no
            padding at all.
        past: how many positions the cache has.
        bos: the token, or tokens, that texts begin with, which do not count where a row begins with
            them; none at all for a model whose texts begin with none.
        special: other tokens that do not count where a row begins with one, as that of a chat.
        image: the tokens in whose places a model puts the parts of a picture. They are no text,
            and a text may begin behind them.
        rows: the number by which an edit knows each row; by default they count from 0.
    """
    text = torch.ones_like(ids, dtype=torch.bool)
    if mask is not None:
        text = _visible(mask, ids.shape[1], past)
    generated = torch.full_like(text, past > 0)
    begins = before = pictures = None
    if image:
        found = text & torch.isin(ids, torch.tensor(tuple(image), device=ids.device))
        if bool(found.any()):
            pictures = found
    if not past:
        bos = (bos,) if isinstance(bos, int) else tuple(bos or ())
        # Where texts begin with BOS it may stand behind a picture; where they begin with none, the
        # first position is what attention goes to, also if it is of a picture.
        read = text if pictures is None or not bos else text & ~pictures
        begins = _beginning(ids, read, bos, special)
        text &= ~begins
    else:
        seen = past if mask is None or mask.shape[1] == ids.shape[1] else mask[:, :past].sum(1)
        before = torch.zeros(len(ids), dtype=torch.long, device=ids.device) + seen
    if pictures is not None:
        begins = None if begins is None else begins & ~pictures
        text &= ~pictures
    if rows is None:
        rows = torch.arange(len(ids), device=ids.device)
    return Positions(text, generated, rows, begins=begins, before=before, image=pictures)


def _visible(mask: Tensor, new: int, past: int) -> Bool[Tensor, "row pos"]:
    """Where the last `new` positions behind `past` of them have no padding; raises for a mask that
    does not say."""
    if mask.ndim == 2 and mask.shape[1] in (new, past + new):
        # A copy, since BOS is taken out of it and the mask is the caller's.
        return mask[:, -new:].bool().clone()
    if mask.ndim == 2 and mask.shape[1] > past + new:  # as long as a cache that is never full
        return mask[:, past : past + new].bool().clone()
    raise SteerlabError(
        f"an edit cannot tell the padding of {new} tokens behind {past} by an attention mask of "
        f"shape {tuple(mask.shape)}; give one with a number for each token, [row token]"
    )


def _beginning(
    ids: Tensor, text: Tensor, bos: Sequence[int], special: Sequence[int]
) -> Bool[Tensor, "row pos"]:
    """Which positions are the beginning of their row, and so do not count."""
    number = text.long().cumsum(1)  # a row begins behind its padding
    first = text & (number == 1)
    if not bos:
        return first
    # Only where a row begins with it: the same token may also stand for the end of a text, in the
    # middle of a chat.
    left = first & torch.isin(ids, torch.tensor([bos[0], *special], device=ids.device))
    before = first & (ids == bos[0])
    for place, token in enumerate(bos[1:], 2):
        before = before.any(1, keepdim=True) & text & (number == place) & (ids == token)
        left |= before
    return left


def step_positions(
    rows: Int[Tensor, " row"],
    live: Bool[Tensor, " row"] | None = None,
    before: Int[Tensor, " row"] | None = None,
) -> Positions:
    """The positions of a step of decoding, one new token in each row.

    A row that has ended stays in its batch for a while. Its position is then not text, so that no
    edit touches or counts it.

    Args:
        rows: the number by which an edit knows each row.
        live: which rows have not ended; None for all.
        before: how many tokens each row has already.
    """
    new = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
    if live is None:
        return Positions(new, new, rows, step=True, before=before)
    return Positions(rearrange(live, "row -> row 1"), new, rows, before=before)

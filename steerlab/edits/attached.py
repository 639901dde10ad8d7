"""Edits at work: the functions that a model attaches, what they count, and plain hooks for
TransformerLens."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.core.tokens import has_bos
from steerlab.edits.part import Part


class EditStats:
    """What an edit did: positions per layer on prefill and on decode, and the dose ‖Δh‖/‖h‖ of
    each row."""

    def __init__(self) -> None:
        self.passes = 0
        self.prefill: dict[int, int] = {}
        self.decode: dict[int, int] = {}
        self._sums = torch.zeros(0, 2)  # of each row: its doses added up, and how many they are

    def record(
        self, layer: int, rows: Tensor, mask: Tensor | None, generated: Tensor, ratio: Tensor
    ) -> None:
        """Count positions of batch rows `rows`: those of `mask` [row pos], or all if None; `ratio`
        is their dose.

        `generated` [row pos] says which of them count as decoded.
        """
        ratio = ratio.expand_as(generated)
        if mask is None:
            self._count(self.decode, layer, ratio.numel())
            number = torch.ones_like(ratio)
        else:
            self._count(self.prefill, layer, int((mask & ~generated).sum()))
            self._count(self.decode, layer, int((mask & generated).sum()))
            ratio, number = ratio.masked_fill(~mask, 0), mask.to(ratio.dtype)
        self._sums.index_add_(0, rows, torch.stack([ratio, number], 2).sum(1))

    def make_room(self, rows: int, device: torch.device) -> None:
        """Be ready to count rows below `rows`."""
        if rows > len(self._sums):
            # What inference mode made cannot be changed outside of it.
            with torch.inference_mode(mode=False):
                more = torch.zeros(rows - len(self._sums), 2, device=device)
                self._sums = torch.cat([self._sums.to(device), more])

    def mark(self) -> tuple[Any, ...]:
        """What was touched until now, for `undo`."""
        return self.passes, dict(self.prefill), dict(self.decode), self._sums.clone()

    def undo(self, mark: tuple[Any, ...]) -> None:
        """Forget what came after a mark: a batch that failed did nothing."""
        self.passes, self.prefill, self.decode, self._sums = mark

    def _count(self, counts: dict[int, int], layer: int, number: int) -> None:
        counts[layer] = counts.get(layer, 0) + number

    def doses(self, rows: int) -> Float[Tensor, " row"]:
        """Mean dose of each row over its touched positions; 0 where nothing was touched."""
        counted = self._sums[:rows].cpu()
        total, number = torch.nn.functional.pad(counted, (0, 0, 0, rows - len(counted))).T
        return total / number.clamp(min=1)


class AttachedPart:
    """The function that a model attaches for a part: finds its rows in the batch, changes them,
    records their doses.

    It is called with h [row pos width] and the pass's positions, and gives the new h, or None where
    nothing changes. `edits`: how many rows a stack has, None if the edit is no stack.
    """

    def __init__(self, part: Part, stats: EditStats, edits: int | None):
        self.part = part
        self.stats = stats
        self.edits = edits
        # The rows of the batch for which `pick`, `names` and `tensors` were looked up. A model
        # gives the same tensor in every step of decoding, so that this is done once.
        self.rows: Tensor | None = None

    def __call__(self, h: Tensor, positions: Any) -> Tensor | None:
        self.stats.passes += 1
        if self.rows is not positions.rows:
            self._look_up(positions.rows, h.device)
        if not len(self.names) or (positions.step and self.part.positions == "prompt"):
            return None
        edited = positions if self.whole else self._picked(positions)
        mask = None if positions.step else self._mask(edited)
        old = h[self.pick]
        x = old.float()
        delta = self.part.change(x, self.tensors, edited)
        norm = torch.linalg.vector_norm
        ratio = norm(delta, dim=-1) / norm(x, dim=-1).clamp(min=1e-30)
        self.stats.record(self.part.layer, self.names, mask, edited.generated, ratio.detach())
        if self.part.identity:
            return None
        changed = (x + delta).to(h.dtype)
        if mask is not None:
            # A choice and no product: padding may hold NaN, and has to keep its bits.
            changed = torch.where(mask[..., None], changed, old)
        if self.whole:
            return changed
        new = h.clone()
        new[self.pick] = changed
        return new

    def _look_up(self, rows: Tensor, device: torch.device) -> None:
        """Where this part's rows are in a batch of the rows `rows`, and the tensors of each."""
        names = rows.tolist()
        last = int(rows.max())
        if self.edits is not None and last >= self.edits:
            raise SteerlabError(
                f"the batch has {last + 1} rows or more and the stack {self.edits} edits; give "
                "each row one"
            )
        if self.part.rows is None:
            # A row of -1 is a prompt that rows are still to branch from: nothing is edited there.
            numbers = [number for number, name in enumerate(names) if name >= 0]
            index = None
        else:
            tensor_row = {name: number for number, name in enumerate(self.part.rows.tolist())}
            numbers = [number for number, name in enumerate(names) if name in tensor_row]
            index = torch.tensor(
                [tensor_row[names[number]] for number in numbers], dtype=torch.long
            )
        self.rows = rows
        self.whole = len(numbers) == len(names)
        self.pick = slice(None) if self.whole else _span(numbers, device)
        self.names = rows[self.pick]
        self.tensors = {
            name: (tensor if index is None else tensor[index]).to(device)
            for name, tensor in self.part.tensors.items()
        }
        self.stats.make_room(last + 1, device)

    def _picked(self, positions: Any) -> Any:
        """The positions of this part's rows alone."""
        return replace(
            positions,
            text=positions.text[self.pick],
            generated=positions.generated[self.pick],
            rows=self.names,
        )

    def _mask(self, positions: Any) -> Tensor:
        if self.part.positions == "prompt":
            return positions.text & ~positions.generated
        if self.part.positions == "generated":
            return positions.text & positions.generated
        return positions.text


def _span(numbers: list[int], device: torch.device) -> Any:
    """A slice where the rows follow each other, for then no copy is made."""
    if numbers and numbers[-1] - numbers[0] + 1 == len(numbers):
        return slice(numbers[0], numbers[-1] + 1)
    return torch.tensor(numbers, dtype=torch.long, device=device)


# -------------------------------------------------------------------------------------- plain hooks


def plain_hook(part: Part, edits: int | None, *, bos: bool) -> Callable[..., Tensor | None]:
    """A hook for TransformerLens, which sees no tokens: with `bos` it spares the first position of
    each pass of two or more."""

    def hook(h: Tensor, hook: Any = None) -> Tensor | None:
        if part.identity:
            return None
        tensors = {name: tensor.to(h.device) for name, tensor in part.tensors.items()}
        rows: Tensor | slice = slice(None)
        if part.rows is not None:
            rows = part.rows.to(h.device)
            if edits != len(h):
                raise SteerlabError(
                    f"the batch has {len(h)} rows and the stack {edits} edits; give each row one"
                )
        new, first = h.clone(), 1 if bos and h.shape[1] > 1 else 0
        x = h[rows, first:].float()
        new[rows, first:] = (x + part.change(x, tensors, None)).to(h.dtype)
        return new

    return hook


def begins_with_bos(model: Any) -> bool:
    """Whether the texts of a model begin with BOS: of ours if there is one, TransformerLens says
    so in its `cfg`."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise SteerlabError(
            "a plain hook does not see the tokens, and what begins a text is not known without a "
            "model that has a tokenizer; give the model, as in edit.hooks(model), or bos=True or "
            "bos=False"
        )
    if not hasattr(model, "cfg"):
        return tokenizer.bos_token_id is not None
    if not model.cfg.default_prepend_bos and has_bos(tokenizer):
        raise SteerlabError(
            "TransformerLens puts no BOS before this model's texts (cfg.default_prepend_bos is "
            f"False), but its tokenizer has one, {tokenizer.bos_token!r}; give bos=True if your "
            "texts begin with it, or bos=False"
        )
    return bool(model.cfg.default_prepend_bos)

"""Rows of tokens that go on a step at a time, under an edit that is on the model during the steps
alone: between two of them the model may do something else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.edits import Edit, EditStats
from steerlab.engine.forward import Pass, need_rows
from steerlab.engine.prompts import pad
from steerlab.models.model import Model
from steerlab.models.positions import HookFn


class Walk:
    """Rows whose prompts run together, and that then go on together, a token each at every step.

    Raises `SteerlabError`, before anything runs, for rows and edits that `rows_on` refuses.

    Args:
        model: what runs the rows.
        ids: the tokens of each row, BOS included.
        edit: the edit of all rows, or a stack with one for each; None for the model as it is.
        room: how many tokens will follow, for which there is to be room in the cache.
        looks: (site, layer, function) of each function that looks on; they see what the edit made.
    """

    def __init__(
        self,
        model: Model,
        ids: Sequence[Sequence[int]],
        edit: Edit | None,
        *,
        room: int,
        looks: Sequence[tuple[str, int, HookFn]] = (),
    ):
        need_rows(model, ids, edit, None, new=room, unsteered=False)
        self.model = model
        self.ids = ids
        self.edit = edit
        self.room = room
        self.touched = EditStats()
        changes: list[tuple[str, int, Any]] = []
        if edit is not None:
            self.touched, changes = edit.changes(model)
        self._on = [*changes, *looks]
        self._done: Pass | None = None

    def begin(self) -> Float[Tensor, "row vocab"]:
        """The logits after the prompts."""
        return self._begin(last=1)[:, -1]

    def begin_and_read(self) -> Float[Tensor, "row pos vocab"]:
        """The logits after each token of the prompts, which are padded on the left."""
        return self._begin(last=0)

    @torch.inference_mode()
    def _begin(self, *, last: int) -> Float[Tensor, "row pos vocab"]:
        model = self.model
        tokens, mask = pad(self.ids, model.padding, model.device)
        carries = torch.arange(len(self.ids), device=model.device)
        with self._attached():
            positions = model.positions(tokens, mask, rows=carries)
            logits, cache = model.forward(
                tokens, mask, last=last, room=self.room, positions=positions
            )
        self._done = Pass(model, tokens, mask, carries, cache)
        return logits

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Float[Tensor, "row vocab"]:
        """The logits after one more token of each row that is left."""
        assert self._done is not None
        with self._attached():
            return self._done.step(torch.tensor(tokens, device=self.model.device))

    @torch.inference_mode()
    def take(self, rows: Sequence[int]) -> None:
        """Keep these of the rows that are left, by their places among them; the others leave the
        cache."""
        assert self._done is not None
        self._done.take(torch.tensor(rows, dtype=torch.long, device=self.model.device))

    def need_touched(self) -> None:
        """Raise where the edit has changed no position."""
        if self.edit is not None:
            self.touched.need_touched(*self.edit.where)

    @contextmanager
    def _attached(self) -> Iterator[None]:
        with self.model.turns.taken(), self.model.attached(self._on):
            yield

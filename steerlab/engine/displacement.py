"""How far an edit moves the last of the residual stream: what its dose at a layer has become at the
end."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Rows that are compared with their prompts at once: the differences are in float32, and those of a
# whole batch would take as much memory again as its last activations.
AT_ONCE = 64


class Displacement:
    """‖h' - h‖ / ‖h‖ of each row, h' the output of the last block and h what it is without the
    edit: the mean over the text of the row's prompt.

    The prompts run along, as they are, with the rows that branch off from them: a pass has the rows
    first and then each of their distinct prompts. What is generated is not looked at, since the
    model as it is would have said something else. A prompt may come in two passes, of which the
    first may have one row for many that begin alike.
    """

    def __init__(self, count: int):
        self._sums = torch.zeros(count)
        self._texts = torch.zeros(count)
        self._expected: tuple[Sequence[Sequence[int]], Int[Tensor, " row"]] | None = None

    @property
    def values(self) -> Float[Tensor, " row"]:
        """That of each row; NaN until its pass has run."""
        return self._sums / self._texts

    def begin(self, rows: Sequence[int]) -> None:
        """Forget what was seen of rows that are about to run: it may have been a batch that
        failed."""
        self._sums[list(rows)] = 0
        self._texts[list(rows)] = 0

    def expect(self, rows: Sequence[Sequence[int]], prompts: Int[Tensor, " row"]) -> None:
        """Say what the next pass holds: for each of its rows the numbers of those that it stands
        for, and which of the prompts behind them it is compared with."""
        self._expected = rows, prompts

    def __call__(self, h: Float[Tensor, "member pos width"], positions: Any) -> None:
        """Look at the output of the last block, after all edits."""
        if self._expected is None:
            return
        rows, prompts = self._expected
        self._expected = None  # what follows are steps of decoding
        norm = torch.linalg.vector_norm
        for first in range(0, len(rows), AT_ONCE):
            some = slice(first, min(first + AT_ONCE, len(rows)))
            plain = h[len(rows) + prompts[some]].float()
            moved = norm(h[some].float() - plain, dim=-1)
            text = positions.text[some]
            # Padding may hold anything, NaN too.
            ratio = (moved / norm(plain, dim=-1).clamp(min=1e-30)).masked_fill(~text, 0)
            sums = ratio.sum(1).detach().float().cpu()
            texts = text.sum(1).float().cpu()
            for numbers, total, count in zip(rows[some], sums, texts, strict=True):
                self._sums[list(numbers)] += total
                self._texts[list(numbers)] += count

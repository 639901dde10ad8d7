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
    model as it is would have said something else. `values` are NaN until a row's pass has run.
    """

    def __init__(self, count: int):
        self.values = torch.full((count,), torch.nan)
        self._expected: tuple[Sequence[int], Int[Tensor, " row"]] | None = None

    def expect(self, rows: Sequence[int], prompts: Int[Tensor, " row"]) -> None:
        """Say what the next pass holds: the numbers of its rows, and which of the prompts behind
        them each one is compared with."""
        self._expected = rows, prompts

    def __call__(self, h: Float[Tensor, "member pos width"], positions: Any) -> None:
        """Look at the output of the last block, after all edits."""
        if self._expected is None:
            return
        rows, prompts = self._expected
        self._expected = None  # what follows are steps of decoding
        norm = torch.linalg.vector_norm
        found = []
        for first in range(0, len(rows), AT_ONCE):
            some = slice(first, min(first + AT_ONCE, len(rows)))
            plain = h[len(rows) + prompts[some]].float()
            moved = norm(h[some].float() - plain, dim=-1)
            text = positions.text[some]
            # Padding may hold anything, NaN too.
            ratio = (moved / norm(plain, dim=-1).clamp(min=1e-30)).masked_fill(~text, 0)
            found.append(ratio.sum(1) / text.sum(1))
        self.values[list(rows)] = torch.cat(found).detach().float().cpu()

"""Which experts tokens meet under an edit of the router, and which they would have met without."""

import pandas as pd
import torch
from torch import Tensor

from steerlab.core.routing import in_top

COLUMNS = ["layer", "expert", "before", "after"]


class Routed:
    """Of the positions that an edit touched, how many have each expert among their top k: by the
    router's logits as they came, and by those that the edit made of them.

    `tokens`: by layer, how many positions. `before`, `after`: by layer, the counts [expert].

    Args:
        per_token: how many experts a token meets.
    """

    def __init__(self, per_token: int):
        self.per_token = per_token
        self.tokens: dict[int, int] = {}
        self.before: dict[int, Tensor] = {}
        self.after: dict[int, Tensor] = {}

    def add(self, layer: int, before: Tensor, after: Tensor, mask: Tensor | None) -> None:
        """Count the positions of `mask` [row pos], or all if None, of logits [row pos expert]."""
        if mask is None:
            mask = torch.ones(before.shape[:2], dtype=torch.bool, device=before.device)
        self.tokens[layer] = self.tokens.get(layer, 0) + int(mask.sum())
        for counts, logits in ((self.before, before), (self.after, after)):
            met = in_top(logits[mask], self.per_token).sum(0).cpu()
            counts[layer] = counts[layer] + met if layer in counts else met

    def copy(self) -> "Routed":
        """One that stays as it is while this one counts on."""
        made = Routed(self.per_token)
        # Tensors are replaced and never changed in place.
        made.tokens, made.before, made.after = (
            dict(self.tokens),
            dict(self.before),
            dict(self.after),
        )
        return made

    def table(self) -> pd.DataFrame:
        """A row for each layer and expert: the share of the touched positions that have it among
        their top k, before and after."""
        rows = [
            (layer, expert, float(before) / total, float(after) / total)
            for layer, total in sorted(self.tokens.items())
            if total
            for expert, (before, after) in enumerate(
                zip(self.before[layer].tolist(), self.after[layer].tolist(), strict=True)
            )
        ]
        return pd.DataFrame(rows, columns=COLUMNS)

"""Rows that run twice in one batch, under their edit and without, of whose logits one is made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlab.edits.amplified import Amplification, amplified_logits
from steerlab.edits.edit import Edit, stack
from steerlab.engine.forward import Pass, Rows

Ids = Sequence[Sequence[int]]


def doubled(ids: Ids, edit: Edit | None) -> tuple[Ids, Edit | None, dict[int, int]]:
    """(rows with those that are amplified once more behind them, their edit without the rule, the
    number of each such row's plain one)."""
    if edit is None or not edit.logits:
        return ids, edit, {}
    rules = _rules(edit, len(ids))
    twice = [row for row, rule in enumerate(rules) if rule is not None]
    plain = {row: len(ids) + number for number, row in enumerate(twice)}
    whole = replace(edit, logits=())
    if whole.rows is None:
        whole = stack([whole] * len(ids))
    # The rows behind are in no part of the stack.
    return (
        [*ids, *(ids[row] for row in twice)],
        replace(whole, rows=len(ids) + len(twice)),
        plain,
    )


def _rules(edit: Edit, count: int) -> Sequence[Amplification | None]:
    return edit.logits if edit.rows is not None else edit.logits * count


@dataclass(frozen=True)
class Doubled:
    """What decodes rows as if they were single ones, each from the logits of two.

    Args:
        rows: all of them, the plain ones behind.
        rules: what is made of the logits, of each row.
        plain: the number of the plain one of each row that has one.
    """

    rows: Rows
    rules: Sequence[Amplification | None]
    plain: dict[int, int]

    @classmethod
    def of(cls, rows: Rows, edit: Edit, count: int, plain: dict[int, int]) -> "Doubled":
        """Of the edit as it was given."""
        return cls(rows, _rules(edit, count), plain)

    @property
    def model(self) -> Any:
        return self.rows.model

    @property
    def ids(self) -> Ids:
        """The rows that are decoded."""
        return self.rows.ids[: len(self.rules)]

    def forward(
        self, rows: Sequence[int], *, room: int | None = None
    ) -> tuple[Float[Tensor, "row 1 vocab"], "DoubledPass"]:
        """Run the prompts of some rows, as `Rows.forward` does."""
        own = [number for number, row in enumerate(rows) if row in self.plain]
        logits, done = self.rows.forward(
            [*rows, *(self.plain[rows[number]] for number in own)], room=room
        )
        rules = [rule for number in own if (rule := self.rules[rows[number]]) is not None]
        made = DoubledPass(done, torch.tensor(own, device=logits.device).long(), rules)
        return made.together(logits[:, -1])[:, None], made


@dataclass
class DoubledPass:
    """Rows whose prompts have run together, with the plain ones of some of them behind.

    Args:
        done: of all.
        own: which rows have a plain one, in the order in which these stand behind.
        rules: what is made of the logits of each of these.
    """

    done: Pass
    own: Int[Tensor, " twice"]
    rules: list[Amplification]

    def together(self, logits: Float[Tensor, "both vocab"]) -> Float[Tensor, "row vocab"]:
        """One row's logits from two."""
        count = len(logits) - len(self.own)
        edited, plain = logits[:count], logits[count:]
        if not len(self.own):
            return edited
        made = edited.float().clone()
        made[self.own] = amplified_logits(edited[self.own], plain, self.rules)
        return made

    def take(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these of the rows, in this order, and their plain ones."""
        count = len(self.done.carries) - len(self.own)
        place = {int(row): number for number, row in enumerate(self.own.tolist())}
        kept = [(number, place[row]) for number, row in enumerate(rows.tolist()) if row in place]
        behind = torch.tensor([count + at for _, at in kept], device=rows.device).long()
        self.done.take(torch.cat([rows, behind]))
        self.own = torch.tensor([number for number, _ in kept], device=rows.device).long()
        self.rules = [self.rules[at] for _, at in kept]

    def step(
        self, tokens: Int[Tensor, " row"], live: Bool[Tensor, " row"] | None = None
    ) -> Float[Tensor, "row vocab"]:
        """The logits after one more token, which both of a row read."""
        both = torch.cat([tokens, tokens[self.own]])
        alive = None if live is None else torch.cat([live, live[self.own]])
        return self.together(self.done.step(both, alive))

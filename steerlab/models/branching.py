"""One forward pass in which many edited rows share a prompt.

Below the first block at which its edit acts, an edited row is the same as its prompt without an
edit. So the prompts alone start out, and each row joins the batch, as a copy of its prompt, only at
the depth where its edit first acts.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from steerlab.models.layout import Layout, Path
from steerlab.models.outputs import first_of, with_first


@dataclass(frozen=True)
class Branch:
    """How rows join a batch of prompts, in the order of the depth at which they join.

    Depth d is before block d, or after the last block. At a depth the batch has the prompts first,
    as long as some row is still to come, and then the rows that have joined; its members are both.

    Args:
        parent: the index of each row's prompt in the batch of prompts.
        depth: at which depth each row joins; it never falls from one row to the next.
        names: the number by which an edit knows each row, as in `Positions.rows`.
        order: the index that each row had when it was asked for.
        prompts: how many prompts there are.
        kept: how many of the rows are gone on with, the first ones; those behind them are only
            looked at.
    """

    parent: Int[Tensor, " row"]
    depth: tuple[int, ...]
    names: Int[Tensor, " row"]
    order: tuple[int, ...]
    prompts: int
    kept: int | None = None

    def joined(self, depth: int) -> int:
        """How many rows have joined when block `depth` runs."""
        return bisect_right(self.depth, depth)

    def origins(self, depth: int) -> Int[Tensor, " member"]:
        """The prompt of each member of the batch at a depth; a prompt is its own."""
        joined = self.joined(depth)
        rows = self.parent[:joined]
        if joined == len(self.depth):
            return rows  # all rows have come, and the prompts have left
        return torch.cat([self._prompt_index, rows])

    def members(self, depth: int) -> Int[Tensor, " member"]:
        """The name of each member of the batch at a depth; -1 for a prompt, which no edit may
        touch."""
        joined = self.joined(depth)
        rows = self.names[:joined]
        if joined == len(self.depth):
            return rows
        return torch.cat([torch.full_like(self._prompt_index, -1), rows])

    def step(self, depth: int) -> Int[Tensor, " member"]:
        """For each member at a depth, the index of what it continues in the batch of the depth
        before: itself, or its prompt if it joins here."""
        before = self.joined(depth - 1)
        after = self.joined(depth)
        # Some row joins here, so that the prompts were still there and stood before the rows.
        stayed = torch.arange(before, device=self.parent.device) + self.prompts
        rows = torch.cat([stayed, self.parent[before:after]])
        if after == len(self.depth):
            return rows
        return torch.cat([self._prompt_index, rows])

    def final(self, block: int) -> Int[Tensor, " row"]:
        """For each row that is kept, the index of its keys and values in those of a block: the
        row's own, or its prompt's if it joined later."""
        joined = self.joined(block)
        rows = torch.arange(joined, device=self.parent.device)
        if joined < len(self.depth):
            rows = torch.cat([rows + self.prompts, self.parent[joined:]])
        return rows[: self.kept]

    @property
    def _prompt_index(self) -> Tensor:
        return torch.arange(self.prompts, device=self.parent.device)


def branch(
    ids: Sequence[Sequence[int]],
    depth: Sequence[int],
    names: Sequence[int],
    device: torch.device,
    *,
    kept: int | None = None,
) -> tuple[list[list[int]], Branch | None]:
    """The prompts to run for some rows, and how the rows join them; no branch where no two rows
    share a prompt.

    The prompts are in the order of their lengths and tokens, as in a plan: their pass does not
    depend on the order in which rows are asked for.

    Args:
        ids: the tokens of each row.
        depth: at which depth each row joins.
        names: the number by which an edit knows each row.
        device: of the model.
        kept: how many of the rows are gone on with, by default all; those behind them join after
            the last block.
    """
    rows = [tuple(row) for row in ids]
    prompts = sorted(set(rows), key=lambda prompt: (len(prompt), prompt))
    if len(prompts) == len(rows):
        return [list(row) for row in rows], None
    index_of = {prompt: index for index, prompt in enumerate(prompts)}
    order = sorted(range(len(rows)), key=lambda row: depth[row])
    # Both in one tensor, so that they travel to the device in one copy.
    parents_and_names = [[index_of[rows[row]], names[row]] for row in order]
    parent, name = torch.tensor(parents_and_names, device=device).T
    depths = tuple(depth[row] for row in order)
    joined = Branch(parent, depths, name, tuple(order), len(prompts), kept)
    return [list(prompt) for prompt in prompts], joined


@contextmanager
def joining(
    branch: Branch, blocks: torch.nn.ModuleList, positions: Any, layout: Layout
) -> Iterator[None]:
    """For one forward pass of the prompts: let rows join at their depths, before any edit acts
    there.

    Args:
        branch: how the rows join.
        blocks: the blocks of the model.
        positions: the `Positions` of the prompts; they are changed in place as the batch grows.
        layout: where the rows are in what the blocks are given.
    """
    handles = []
    # Those of the prompts: each depth's are made from them, as the batch may also become smaller.
    text = positions.text
    generated = positions.generated
    begins, image = positions.begins, positions.image

    def join(h: Tensor, depth: int) -> Tensor:
        origin = branch.origins(depth)
        positions.text = text[origin]
        positions.generated = generated[origin]
        positions.begins = None if begins is None else begins[origin]
        positions.image = None if image is None else image[origin]
        positions.rows = branch.members(depth)
        return h[branch.step(depth).to(h.device)]

    def before(block: int, copies: Copies) -> Any:
        """A hook that fits a block's other inputs, such as masks, to the batch."""
        fit = _Fit(layout, block, branch.origins(block), branch.prompts, copies)

        def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            named = dict(kwargs)
            # Architectures differ in whether activations come by position or by name.
            h, *others = args or (named.pop("hidden_states"),)
            if block == 0:
                h = join(h, 0)  # there is no block before it, whose output they could join in
            start = 1 if args else 0
            fitted = [fit(each, ("args", start + number)) for number, each in enumerate(others)]
            return (h, *fitted), {name: fit(each, (name,)) for name, each in named.items()}

        return hook

    def after(depth: int) -> Any:
        """A hook that lets rows join in a block's output, which comes alone or with others."""

        def hook(_: Any, __: tuple, out: Any) -> Any:
            return with_first(out, join(first_of(out), depth))

        return hook

    try:
        copies: Copies = {}  # kept as long as no row joins
        for index, block in enumerate(blocks):
            if branch.joined(index) != branch.joined(index - 1):
                copies = {}
            # `prepend`: before the hooks of edits, which must see the rows that join here.
            if branch.joined(index):
                hook = before(index, copies)
                handles.append(
                    block.register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
                )
            if branch.joined(index + 1) != branch.joined(index):
                handles.append(block.register_forward_hook(after(index + 1), prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


# What was made of each tensor, by its id and path, beside the tensor itself: as long as it is held
# here no other one can take its id.
Copies = dict[tuple[int, Path], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Fit:
    """Makes a block's inputs fit the members of the batch: of every tensor with rows for each
    prompt, those of each member's prompt.

    Masks and position embeddings are the same objects in every block, so `copies` keeps what was
    made of each. A block that makes its tensors anew gets new ones.

    Args:
        layout: where the rows are.
        block: the number of the block.
        origin: the prompt of each member.
        prompts: how many there are.
        copies: what was made so far.
    """

    layout: Layout
    block: int
    origin: Tensor
    prompts: int
    copies: Copies

    def __call__(self, given: Any, path: Path) -> Any:
        if isinstance(given, Tensor):
            kept = self.copies.get((id(given), path))
            if kept is None or kept[0] is not given:
                made = self.layout.pick(self.block, path, given, self.origin, self.prompts)
                kept = self.copies[id(given), path] = given, made
            return kept[1]
        if type(given) in (tuple, list):
            return type(given)(self(item, (*path, at)) for at, item in enumerate(given))
        if type(given) is dict:
            return {key: self(item, (*path, key)) for key, item in given.items()}
        return given

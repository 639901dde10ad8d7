"""One forward pass in which many edited rows share a prompt: each joins the batch where its edit
first acts."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """Rows in the order of the depth at which they join; depth d is before block d, or after the
    last block.

    `parent`: the index of each row's prompt in the batch of prompts. `names`: which row of the
    whole each one is. `order`: the index that each had in what was asked for. `prompts`: how many
    there are.
    """

    parent: Int[Tensor, " row"]
    depth: tuple[int, ...]
    names: Int[Tensor, " row"]
    order: tuple[int, ...]
    prompts: int

    def joined(self, depth: int) -> int:
        """How many rows have joined when block `depth` runs."""
        return bisect_right(self.depth, depth)

    def origins(self, depth: int) -> Int[Tensor, " member"]:
        """The prompt of each member of the batch at a depth: the prompts, while some row is
        still to come, and rows."""
        joined = self.joined(depth)
        rows = self.parent[:joined]
        return rows if joined == len(self.depth) else torch.cat([self._clean, rows])

    def members(self, depth: int) -> Int[Tensor, " member"]:
        """The name of each member of the batch at a depth; -1 for a prompt that is nobody's row."""
        joined = self.joined(depth)
        rows = self.names[:joined]
        if joined == len(self.depth):
            return rows
        return torch.cat([torch.full_like(self._clean, -1), rows])

    def step(self, depth: int) -> Int[Tensor, " member"]:
        """The index of each member at a depth in the batch just above it."""
        before, after = self.joined(depth - 1), self.joined(depth)
        rows = torch.arange(before, device=self.parent.device) + self.prompts
        rows = torch.cat([rows, self.parent[before:after]])
        return rows if after == len(self.depth) else torch.cat([self._clean, rows])

    def final(self, block: int) -> Int[Tensor, " row"]:
        """The index of each row, or of its prompt, in what a block saw: where its keys and
        values lie."""
        joined = self.joined(block)
        if joined == len(self.depth):
            return torch.arange(joined, device=self.parent.device)
        rows = torch.arange(joined, device=self.parent.device) + self.prompts
        return torch.cat([rows, self.parent[joined:]])

    @property
    def _clean(self) -> Tensor:
        return torch.arange(self.prompts, device=self.parent.device)


def branch(
    ids: Sequence[Sequence[int]], depth: Sequence[int], names: Sequence[int], device: torch.device
) -> tuple[list[list[int]], Branch | None]:
    """The prompts to run for rows of tokens, and how the rows join them; no branch where no two
    share a prompt.

    The prompts are in the order of their lengths and tokens, as in a plan: their pass does not
    depend on the order in which rows are asked for.
    """
    rows = [tuple(row) for row in ids]
    prompts = sorted(set(rows), key=lambda prompt: (len(prompt), prompt))
    if len(prompts) == len(rows):
        return [list(row) for row in rows], None
    index = {prompt: number for number, prompt in enumerate(prompts)}
    order = sorted(range(len(rows)), key=lambda row: depth[row])
    joining_rows = [[index[rows[row]], names[row]] for row in order]
    parent, name = torch.tensor(joining_rows, device=device).T
    joined = Branch(parent, tuple(depth[row] for row in order), name, tuple(order), len(prompts))
    return [list(prompt) for prompt in prompts], joined


@contextmanager
def joining(branch: Branch, blocks: torch.nn.ModuleList, where: Any) -> Iterator[None]:
    """For one forward pass of the prompts: let rows join above their blocks, before any edit acts
    there.

    `where`, the positions of the prompts, is kept true to the batch as it grows.
    """
    handles = []
    text, generated = where.text, where.generated

    def join(h: Tensor, depth: int) -> Tensor:
        origin = branch.origins(depth)
        where.text, where.generated, where.rows = (
            text[origin],
            generated[origin],
            branch.members(depth),
        )
        return h[branch.step(depth)]

    def before(block: int, grown: dict[int, Tensor]) -> Any:
        origin = branch.origins(block)

        def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            named = dict(kwargs)
            h, *others = args or (named.pop("hidden_states"),)
            h = join(h, 0) if block == 0 else h
            others = _rows(tuple(others), origin, branch.prompts, grown)
            return (h, *others), _rows(named, origin, branch.prompts, grown)

        return hook

    def after(depth: int) -> Any:
        def hook(_: Any, __: tuple, out: Any) -> Any:
            return (join(out[0], depth), *out[1:]) if isinstance(out, tuple) else join(out, depth)

        return hook

    try:
        grown: dict[int, Tensor] = {}  # of the blocks between two depths at which rows join
        for number, block in enumerate(blocks):
            if branch.joined(number) != branch.joined(number - 1):
                grown = {}
            if branch.joined(number):
                handles.append(
                    block.register_forward_pre_hook(
                        before(number, grown), with_kwargs=True, prepend=True
                    )
                )
            if branch.joined(number + 1) != branch.joined(number):
                handles.append(block.register_forward_hook(after(number + 1), prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(given: Any, origin: Tensor, prompts: int, grown: dict[int, Tensor]) -> Any:
    """Masks and position embeddings of the members; they are the same objects in every block, so
    `grown` keeps them."""
    if isinstance(given, Tensor):
        if given.ndim < 2 or given.shape[0] != prompts:
            return given
        if id(given) not in grown:
            grown[id(given)] = given[origin]
        return grown[id(given)]
    if isinstance(given, tuple):
        return tuple(_rows(item, origin, prompts, grown) for item in given)
    if isinstance(given, dict):
        return {key: _rows(item, origin, prompts, grown) for key, item in given.items()}
    return given

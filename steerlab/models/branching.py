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

    `parent`: the place of each row's prompt in the batch of prompts. `names`: which row of the
    whole each one is. `order`: the place that each had in what was asked for.
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
        return (
            rows
            if joined == len(self.depth)
            else torch.cat([torch.full_like(self._clean, -1), rows])
        )

    def step(self, depth: int) -> Int[Tensor, " member"]:
        """The place of each member at a depth in the batch just above it."""
        before, after = self.joined(depth - 1), self.joined(depth)
        rows = torch.arange(before, device=self.parent.device) + self.prompts
        rows = torch.cat([rows, self.parent[before:after]])
        return rows if after == len(self.depth) else torch.cat([self._clean, rows])

    def final(self, block: int) -> Int[Tensor, " row"]:
        """The place of each row, or of its prompt, in what a block saw: where its keys and
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
    share a prompt."""
    place: dict[tuple[int, ...], int] = {}
    parent = [place.setdefault(tuple(row), len(place)) for row in ids]
    if len(place) == len(ids):
        return [list(row) for row in ids], None
    order = sorted(range(len(ids)), key=lambda row: depth[row])
    rows = torch.tensor([[parent[row], names[row]] for row in order], device=device)
    joined = Branch(
        rows[:, 0], tuple(depth[row] for row in order), rows[:, 1], tuple(order), len(place)
    )
    return [list(prompt) for prompt in place], joined


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

    def before(block: int, known: dict[int, Tensor]) -> Any:
        origin = branch.origins(block)

        def hook(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            named = dict(kwargs)
            h, *more = args or (named.pop("hidden_states"),)
            h = join(h, 0) if block == 0 else h
            grown = [_rows(item, origin, branch.prompts, known) for item in (tuple(more), named)]
            return (h, *grown[0]), grown[1]

        return hook

    def after(depth: int) -> Any:
        def hook(_: Any, __: tuple, out: Any) -> Any:
            return (join(out[0], depth), *out[1:]) if isinstance(out, tuple) else join(out, depth)

        return hook

    try:
        known: dict[int, Tensor] = {}
        for number, block in enumerate(blocks):
            if branch.joined(number) != branch.joined(number - 1):
                known = {}
            if branch.joined(number):
                handles.append(
                    block.register_forward_pre_hook(
                        before(number, known), with_kwargs=True, prepend=True
                    )
                )
            if branch.joined(number + 1) != branch.joined(number):
                handles.append(block.register_forward_hook(after(number + 1), prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(given: Any, origin: Tensor, prompts: int, known: dict[int, Tensor]) -> Any:
    """Masks and position embeddings of the members; they are the same objects in every block, so
    `known` keeps them."""
    if isinstance(given, Tensor):
        if given.ndim < 2 or given.shape[0] != prompts:
            return given
        if id(given) not in known:
            known[id(given)] = given[origin]
        return known[id(given)]
    if isinstance(given, tuple):
        return tuple(_rows(item, origin, prompts, known) for item in given)
    if isinstance(given, dict):
        return {key: _rows(item, origin, prompts, known) for key, item in given.items()}
    return given

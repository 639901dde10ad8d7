"""Which inputs of a decoder's blocks have a row for each row of the batch, and how: learnt from two
passes, not guessed from names.

A mask may have a row for each, ALiBi's biases one for each row and head, rotary embeddings one for
all. Two batches of different sizes tell which: what grows with the batch belongs to its rows.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

Path = tuple[int | str, ...]  # of a tensor among a block's inputs: a number or name at each level
Axis = tuple[int, int]  # of a tensor: which axis holds the rows, and how many numbers each row has


class Layout:
    """Where the rows of a batch are in the inputs of each block.

    Args:
        axes: by block and by path, the axis of the rows; None for a tensor that all rows share.
    """

    def __init__(self, axes: Mapping[tuple[int, Path], Axis | None]):
        self.axes = dict(axes)

    @classmethod
    def of(cls, small: "Seen", large: "Seen") -> "Layout | None":
        """From what the blocks were given for two batches; None where a tensor grows in a way that
        is no row each."""
        axes: dict[tuple[int, Path], Axis | None] = {}
        for key, shape in small.shapes.items():
            other = large.shapes.get(key)
            if other is None or len(other) != len(shape):
                return None
            grown = [axis for axis, size in enumerate(shape) if size != other[axis]]
            if not grown:
                axes[key] = None
                continue
            each = shape[grown[0]] // small.rows
            sizes = (shape[grown[0]], other[grown[0]])
            if len(grown) > 1 or sizes != (each * small.rows, each * large.rows):
                return None
            axes[key] = (grown[0], each)
        return cls(axes)

    def pick(
        self, block: int, path: Path, given: Tensor, rows: Int[Tensor, " member"], before: int
    ) -> Tensor:
        """A tensor for other rows of the batch, which had `before` of them; the tensor itself where
        it is no matter of rows."""
        if (block, path) in self.axes:
            axis = self.axes[block, path]
        else:  # one that is there only at times: by its shape
            axis = (0, 1) if given.ndim > 1 and given.shape[0] == before else None
        if axis is None:
            return given
        dim, each = axis
        if given.shape[dim] != each * before:
            return given  # one row that stands for all
        if each > 1:
            rows = (rows[:, None] * each + torch.arange(each, device=rows.device)).flatten()
        return given.index_select(dim, rows.to(given.device))


class Seen:
    """The shapes of what the blocks of a model are given in a pass of so many rows."""

    def __init__(self, rows: int):
        self.rows = rows
        self.shapes: dict[tuple[int, Path], tuple[int, ...]] = {}

    def hook(self, block: int) -> Any:
        """What a block calls before it runs."""

        def look(_: Any, args: tuple, kwargs: dict) -> None:
            for path, tensor in tensors(({"args": args} | kwargs), ()):
                self.shapes[block, path] = tuple(tensor.shape)

        return look


def tensors(given: Any, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """The tensors in tuples, lists and dicts, with their paths."""
    if isinstance(given, Tensor):
        yield path, given
    elif isinstance(given, tuple | list):
        for number, item in enumerate(given):
            yield from tensors(item, (*path, number))
    elif isinstance(given, dict):
        for name, item in given.items():
            yield from tensors(item, (*path, name))

"""What rows have in common before they differ: the examples of a prompt form, or a system prompt.

Rows that begin alike and carry equal edits are the same until they differ, keys and values
included. So a common beginning runs once for each distinct edit, and each row goes on from there
with its own tokens (`Rows.forward`).
"""

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from steerlab.edits import Edit
from steerlab.edits.own_function import OwnFunction
from steerlab.engine.prompts import pad
from steerlab.models.model import Model

LEAST = 16  # tokens of a beginning that is worth a pass of its own
_TRIED = 9  # tokens of the rows by which a model is tried: five of a beginning, then two and four


def common(ids: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with; each keeps at least one of its own."""
    columns = zip(*(row[:-1] for row in ids), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def alike(edit: Edit | None, carries: Sequence[int]) -> list[int] | None:
    """For each row a number, which rows of equal edits share; None where that is not known.

    A user's own function may look at all positions of a row together, and would see a part of them;
    so may a gate. A window that counts would count from the wrong beginning or end.

    Args:
        edit: the edit of all rows, or a stack.
        carries: which edit of the stack each row carries.
    """
    if edit is None or not edit.parts:
        return [0] * len(carries)
    if any(isinstance(part.change, OwnFunction) for part in edit.parts):
        return None
    if any(part.gate is not None and part.gate.whole for part in edit.parts):
        return None
    if any(not part.kinds.halves for part in edit.parts):
        return None
    kinds: dict[int, list[tuple[int, bytes]]] = {}
    for number, part in enumerate(edit.parts):
        if part.rows is None:
            continue  # the same for all rows
        for index, row in enumerate(part.rows.tolist()):
            own = [part.tensors[name][index] for name in sorted(part.tensors)]
            content = b"".join(tensor.contiguous().cpu().numpy().tobytes() for tensor in own)
            kinds.setdefault(row, []).append((number, content))
    numbers: dict[tuple, int] = {}
    return [numbers.setdefault(tuple(kinds.get(row, ())), len(numbers)) for row in carries]


def pays(ids: Sequence[Sequence[int]], depth: Sequence[int], kinds: Sequence[int], end: int) -> int:
    """How many tokens of a common beginning should run by themselves; 0 where that would not be
    less work, counted in tokens times blocks.

    Args:
        ids: the tokens of each row.
        depth: the block at which each row's edit first acts.
        kinds: numbers that rows of equal edits share.
        end: how many blocks there are.
    """
    length = common(ids)
    if length < LEAST:
        return 0
    # As it is: each distinct prompt below the edits, and each row above its own.
    prompts = {tuple(row): len(row) for row in ids}
    whole = sum(prompts.values()) * end
    whole += sum(len(row) * (end - of_row) for row, of_row in zip(ids, depth, strict=True))
    # In two: the beginning below the edits once and above them for each edit, then rows to the end.
    of_kind = dict(zip(kinds, depth, strict=True))
    split = length * (end + sum(end - of_row for of_row in of_kind.values()))
    split += sum(len(row) - length for row in ids) * end
    return length if split < whole else 0


def can_go_on(model: Model, row: Sequence[int], total: int) -> bool:
    """Whether rows may go on from a common beginning, with padding between it and their own tokens.

    Where attention slides over a window, padding would count as distance. And a model may tell
    positions in another way than by the numbers that it gets, or remember more than keys and
    values: that is tried, once, on two rows.

    Args:
        model: on which nothing is attached.
        row: some tokens to try it with.
        total: the most positions that a row will have.
    """
    window = getattr(model.config, "sliding_window", None)
    if window is not None and total > window:
        return False
    if model.goes_on is None:
        model.goes_on = len(row) >= _TRIED and _agrees(model, list(row[:_TRIED]))
    return model.goes_on


@torch.inference_mode()
def _agrees(model: Model, row: list[int]) -> bool:
    """Whether two rows have the same logits whole as from a beginning on."""
    start, rows = row[:5], [row[:7], row]
    tokens, mask = pad(rows, model.padding, model.device)
    whole = model.forward(tokens, mask, last=1)[0][:, -1].double()
    tokens, mask = pad([start] * 2, model.padding, model.device)
    _, cache = model.forward(tokens, mask, last=1, room=4)
    if cache is None:
        return False
    own, real = pad([each[5:] for each in rows], model.padding, model.device)
    full = torch.cat([mask, real], 1)
    parts = model.forward(own, full, past=cache, last=1)[0][:, -1].double()
    # Rounding, which grows with the depth, against what a wrong position does.
    return bool(_distance(whole, parts) < 0.5 * torch.finfo(model.dtype).eps ** 0.5)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """How far logits are from others, as a share of how far they are from their own mean."""
    spread = torch.linalg.vector_norm(one - one.mean(-1, keepdim=True))
    return torch.linalg.vector_norm(one - other) / spread

"""How far weights are from hooks, and the step that stands for what weights cannot say."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.edits.edit import Edit
from steerlab.edits.part import Part
from steerlab.edits.windows import touched
from steerlab.engine.weights.apart import Apart
from steerlab.engine.weights.weight_edit import WeightEdit
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.positions import Positions


@torch.inference_mode()
def apart(
    model: HuggingFaceModel, edit: Edit, weights: WeightEdit, ids: Sequence[Sequence[int]]
) -> Apart:
    """How far a model with changed weights, or built with new blocks, is from the same one under an
    edit's hooks, on rows of tokens, whose second halves are read as if they were generated."""
    with edit.on(model):
        hooked = [_logits(model, row) for row in ids]
    with weights.running(model) as changed:
        baked = [_logits(changed, row) for row in ids]
    one, other = torch.cat(hooked), torch.cat(baked)
    first, second = one.log_softmax(-1), other.log_softmax(-1)
    nats = (first.exp() * (first - second)).sum(-1)
    unlike = (one.argmax(-1) != other.argmax(-1)).double().mean()
    largest = (one - other).abs().max() / one.std().clamp(min=1e-30)
    return Apart(max(0.0, float(nats.mean())), float(unlike), float(largest), len(one))


@torch.inference_mode()
def mean_step(
    model: HuggingFaceModel, part: Part, ids: Sequence[Sequence[int]]
) -> Float[Tensor, " width"]:
    """The mean of what a part adds at the positions that it touches, on rows of tokens; a gate
    before it is left open."""
    total = torch.zeros(model.width_of(part.site), dtype=torch.float64)
    count = 0

    def look(h: Tensor, positions: Positions) -> None:
        nonlocal count
        tensors = {name: value.to(h.device) for name, value in part.tensors.items()}
        added = part.change(h.float(), tensors, positions).expand(h.shape)
        mask = touched(part.kinds, positions)
        chosen = added.flatten(0, 1) if mask is None else added[mask]
        total.add_(chosen.double().sum(0).cpu())
        count += len(chosen)

    with model.attached([(part.site, part.layer, look)]):
        for row in ids:
            _logits(model, row)
    return total / max(1, count)


def _logits(model: HuggingFaceModel, row: Sequence[int]) -> Float[Tensor, "pos vocab"]:
    """The logits of a row, of which the second half comes behind a cache, as what is generated."""
    tokens = torch.tensor([list(row)], device=model.device)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    half = max(1, len(row) // 2)
    first, past = model.forward(tokens[:, :half], mask[:, :half], room=len(row) - half)
    found = [first[0]]
    if half < len(row):
        found.append(model.forward(tokens[:, half:], mask, past=past)[0][0])
    return torch.cat(found).double().cpu()

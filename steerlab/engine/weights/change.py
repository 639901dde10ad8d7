"""Changes of linear maps, and the weights that they make of a model's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.models.writers import oriented

# What a change is of: of what a map gives (y becomes T y), of what it reads (x becomes T x), of
# each row of an embedding, or a matrix that is added to the map itself.
Side = Literal["output", "input", "rows", "added"]


@dataclass(frozen=True, eq=False)
class Change:
    """One change of a linear map y = W x + b, or of an embedding, whose rows are such y.

    T h = h + left (right h) + shift. With "added", W becomes W + left right.

    Args:
        module: the map's name in the network.
        side: what the change is of.
        left: [width rank]; of "added", [out rank].
        right: [rank width]; of "added", [rank in].
        shift: [width].
        why: what it came from, in words.
    """

    module: str
    side: Side
    left: Float[Tensor, "width rank"]
    right: Float[Tensor, "rank other"]
    shift: Float[Tensor, " width"]
    why: str = ""


@torch.no_grad()
def changed(hf: Any, changes: Sequence[Change]) -> dict[tuple[str, str], Tensor]:
    """The weights and biases that differ after changes, made in their order, by the names of module
    and parameter; in the precision and layout of the model's own.

    Every product is taken in double precision and rounded once.
    """
    made: dict[str, _Weights] = {}
    for change in changes:
        own = made.setdefault(change.module, _Weights(hf.get_submodule(change.module)))
        _apply(change, own)
    found: dict[tuple[str, str], Tensor] = {}
    for name, own in made.items():
        module = hf.get_submodule(name)
        kept = module.weight
        if "weight" in own:
            weight = oriented(module, own["weight"]) if _is_map(module) else own["weight"]
            found[name, "weight"] = weight.to(kept.device, kept.dtype).contiguous()
        if "bias" in own:
            found[name, "bias"] = own["bias"].to(kept.device, kept.dtype)
    return found


class _Weights(dict[str, Tensor]):
    """Weights in double precision, which are read when one of them is first changed."""

    def __init__(self, module: Any):
        super().__init__()
        self._module = module

    def __missing__(self, key: str) -> Tensor:
        weight = self._module.weight.detach().cpu()
        whole = oriented(self._module, weight) if _is_map(self._module) else weight
        if key == "weight":
            return whole.double()
        bias = getattr(self._module, "bias", None)
        if bias is None:
            return torch.zeros(whole.shape[0], dtype=torch.float64)
        return bias.detach().cpu().double()

    @property
    def biased(self) -> bool:
        """Whether there is a bias, or will be."""
        return "bias" in self or getattr(self._module, "bias", None) is not None


def _is_map(module: Any) -> bool:
    return not isinstance(module, torch.nn.Embedding)


def _apply(change: Change, own: _Weights) -> None:
    left, right, shift = change.left, change.right, change.shift
    rank = left.shape[1]
    if change.side == "added":
        own["weight"] = own["weight"] + left @ right
    elif change.side == "rows":
        table = own["weight"]
        own["weight"] = table + (table @ right.mT) @ left.mT + shift
    elif change.side == "output":
        if rank:
            own["weight"] = own["weight"] + left @ (right @ own["weight"])
        if (rank and own.biased) or shift.any():
            bias = own["bias"]
            own["bias"] = bias + left @ (right @ bias) + shift
    else:
        weight = own["weight"]
        if shift.any():
            own["bias"] = own["bias"] + weight @ shift
        if rank:
            own["weight"] = weight + (weight @ left) @ right


def new_biases(hf: Any, weights: Mapping[tuple[str, str], Tensor]) -> list[str]:
    """The biases among changed weights that the network has none of yet, by their whole names."""
    return [
        f"{module}.{name}"
        for module, name in weights
        if name == "bias" and getattr(hf.get_submodule(module), "bias", None) is None
    ]

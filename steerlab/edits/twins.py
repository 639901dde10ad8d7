"""Random twins: an edit like a given one that knows nothing of any language."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

# As a module, since it imports all modules of this folder while it is made itself.
import steerlab.edits.registry as registry
from steerlab.core.errors import SteerlabError
from steerlab.core.random import generator
from steerlab.edits.drawn import draw_unit
from steerlab.edits.edit import Edit
from steerlab.edits.gates import own_tensors
from steerlab.edits.operators import shift
from steerlab.edits.part import Part

# By the same operator in random directions, or by plain shifts in random directions.
Kind = Literal["operator", "shift"]


@dataclass(frozen=True)
class Twin:
    """Which random twin of an edit is meant.

    Args:
        seed: of what is drawn.
        scale: what the twin's length, fraction or angle is multiplied by; of a shift, its length.
        kind: the same operator in random directions of the same rank, or a shift along a random
            direction at each place of the edit, all equally long.
    """

    seed: int
    scale: float = 1.0
    kind: Kind = "operator"

    def __str__(self) -> str:
        return f"random {self.kind} × {self.scale:.4g}"


def twin_of(edit: Edit, twin: Twin, *, widths: Mapping[str, int] | None = None) -> Edit:
    """The random twin of an edit: what the operators' records draw (`Operator.twin`), or shifts.

    Raises `SteerlabError` for a function of your own and for an operator without a twin, of which
    there are shifts only.

    Args:
        edit: what the twin is like.
        twin: which one.
        widths: how wide activations are at its sites; a shift needs it.
    """
    random = generator("random edit", twin.seed)
    if twin.kind == "operator":
        parts = [_drawn(part, random, twin.scale) for part in edit.parts]
        return replace(edit, parts=tuple(parts))
    if widths is None:
        raise SteerlabError("a random shift is of some width; give widths=")
    # One shift at each place, however many parts the edit has there.
    places = {(part.layer, part.site, part.positions): part for part in edit.parts}
    shifts = []
    for part in places.values():
        vector = twin.scale * draw_unit(torch.empty(1, widths[part.site]), random)
        tensors = {"shift": vector, **_of_gate(part)}  # behind the same gate
        shifts.append(replace(part, change=shift, operator="random shift", tensors=tensors))
    return replace(edit, parts=tuple(shifts))


def _of_gate(part: Part) -> dict[str, torch.Tensor]:
    own = own_tensors(part.tensors)
    return {name: tensor for name, tensor in part.tensors.items() if name not in own}


def _drawn(part: Part, random: torch.Generator, scale: float) -> Part:
    record = registry.record_of(part)
    if record is None or record.twin is None:
        reason = "it is your own function; draw one yourself" if record is None else record.no_twin
        able = ", ".join(name for name, each in registry.OPERATORS.items() if each.twin is not None)
        raise SteerlabError(
            f"there is no random control of the operator {part.operator!r}: {reason}. Only {able} "
            "have one"
        )
    # Drawn where the generator is, so that a seed means the same on every device.
    tensors = {name: tensor.cpu() for name, tensor in part.tensors.items()}
    return replace(part, tensors={**tensors, **record.twin(tensors, random, scale)})

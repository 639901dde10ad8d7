"""What the files of other tools hold: a vector for each block, added to its output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.core.targets import MADE_BY

OFF = "off"  # the other end of a direction of which only a vector is known


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors to add to the outputs of blocks.

    Args:
        by_block: of each block, counted from 0, its vector in float32.
        about: what made them, as JSON has it; of a file without room for it, nothing.
        model: the model's name or kind, where that is known.
    """

    by_block: Mapping[int, Float[Tensor, " width"]]
    about: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""

    def __post_init__(self) -> None:
        if not self.by_block:
            raise SteerlabError("there is no vector in it")
        widths = {len(vector) for vector in self.by_block.values()}
        if len(widths) > 1:
            raise SteerlabError(f"its vectors have several lengths: {sorted(widths)}")
        for block, vector in self.by_block.items():
            if not torch.isfinite(vector).all():
                raise SteerlabError(f"its vector of block {block} holds NaN or infinity")

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks, in ascending order."""
        return tuple(sorted(self.by_block))


def vectors_of(direction: Any, strength: float) -> Vectors:
    """What `add(direction, strength)` adds: strength · gap · unit at each layer.

    Raises `SteerlabError` for a site whose vectors are not added to a block's output; what is added
    to the input of block k is added to the output of block k - 1.
    """
    if not isinstance(direction, Direction):
        raise SteerlabError(
            f"one direction is exported, not {type(direction).__name__}; give "
            "directions.between('en', 'es').at(5)"
        )
    before = {"resid_post": 0, "resid_pre": 1}.get(direction.site)
    if before is None:
        raise SteerlabError(
            f"the direction is of {direction.site}, and files of other tools hold what is added "
            "to the residual stream; give one of resid_post or resid_pre"
        )
    if before and 0 in direction.layers:
        raise SteerlabError(
            "what is added to the input of block 0 is the output of no block; leave layer 0 out "
            "with .at"
        )
    strength = need_finite("strength", strength)
    steps = strength * direction.gap[:, None] * direction.unit
    nowhere = [
        layer
        for layer, some in zip(direction.layers, steps.any(-1).tolist(), strict=True)
        if not some
    ]
    if nowhere:
        raise SteerlabError(
            f"strength {strength!r} adds nothing at layers {', '.join(map(str, nowhere))}; give "
            "another strength, or leave these layers out with .at"
        )
    return Vectors(
        {
            layer - before: step.float().cpu()
            for layer, step in zip(direction.layers, steps, strict=True)
        },
        {
            **MADE_BY,
            "source": direction.source,
            "target": direction.target,
            "strength": strength,
            "gaps": [float(gap) for gap in direction.gap],
            "model": dict(direction.model),
        },
        str(direction.model.get("name", "")),
    )


def directions_of(vectors: Vectors, file: str, format: str) -> Directions:
    """`Directions` between "off" and the vectors' target: their difference is the vectors."""
    blocks = vectors.blocks
    steps = torch.stack([vectors.by_block[block] for block in blocks])
    if not steps.any(-1).all():
        empty = [
            block for block, some in zip(blocks, steps.any(-1).tolist(), strict=True) if not some
        ]
        raise SteerlabError(f"its vectors of blocks {empty} are zero, and have no direction")
    unit = steps / steps.norm(dim=-1, keepdim=True)
    target = vectors.about.get("target")
    name = target if isinstance(target, str) and target not in ("", OFF) else "on"
    both = torch.stack([torch.zeros_like(steps), steps])
    model = vectors.about.get("model")
    known = model if isinstance(model, dict) else {}
    directions = Directions(
        vectors=both,
        basis=torch.stack([torch.zeros_like(unit), unit])[:, :, None],
        means=both.clone(),
        langs=(OFF, name),
        layers=blocks,
        site="resid_post",
        source=OFF,
        provenance={
            "estimator": f"read from {format}",
            "file": file,
            "model": known or ({"name": vectors.model} if vectors.model else {}),
            "about": dict(vectors.about),
        },
    )
    # The file's blocks are those that somebody chose, so that `add` has nothing to warn of.
    return directions.at(*blocks)

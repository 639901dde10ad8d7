"""Scaling single coordinates of what a linear map reads: atomic units."""

from typing import Any

import torch
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import extra_of
from steerlab.edits.windows import Window


def scale(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """Each unit, times its rate and the strength."""
    return tensors["strength"][:, None, None] * tensors["rates"][:, None] * h


def random_units(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """As many random units, which get the same rates, times `scale` of the strength."""
    order = torch.randperm(tensors["rates"].shape[-1], generator=random)
    return {"rates": tensors["rates"][..., order], "strength": scale * tensors["strength"]}


def scale_units(direction: Direction, *, strength: float = 1.0, positions: Window = "all") -> Edit:
    """Scale the target's units, each by its own rate: h + strength · rates ∘ h.

    The rate of a unit is the share of pairs in which the target's text has the larger value, or
    less the share in which it has the smaller one, whichever is more; of all other units it is 0.
    So it acts by as much as the unit is on: what is near 0 stays there, and below -1 a value
    changes its sign. Strength 0 is the identity. Needs what `momenta` makes of a selection by
    `austeer`; layers without a unit are left alone. Source: AUSteer (arXiv 2602.04428).

    Args:
        direction: to the target, of `momenta`.
        strength: how many times its own value a unit gets at a rate of 1; the paper's are 8 to 100.
        positions: which positions are edited (see `sl.edits.window`).
    """
    rates = extra_of(direction, "scale_units", "momenta", "rates")["rates"]
    busy = rates.any(-1)
    if not busy.any():
        raise SteerlabError(
            f"scale_units: {direction.target!r} has no unit at layers "
            f"{', '.join(map(str, direction.layers))}, so that nothing would change; take more "
            "layers, or choose more units"
        )
    size = need_finite("strength", strength)
    return edit_along(
        direction,
        scale,
        {"rates": rates, "strength": torch.full((len(rates),), size)},
        operator="scale_units",
        positions=positions,
        identity=strength == 0,
        busy=busy,
    )


RECORDS = {
    "scale_units": Operator(
        make=scale_units,
        change=scale,
        knob="strength",
        unit="times a unit's own value, at a rate of 1",
        grid=(2.0, 4.0, 8.0, 16.0),
        identity={"strength": 0.0},
        twin=random_units,
        whole=True,
        units="neurons",
        needs="rates",
        cites=("feng2026fine",),
    ),
}

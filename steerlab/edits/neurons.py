"""Edits of the MLPs' neurons, at `mlp_post`: a language's own are added to, set or zeroed.

CLaS-Bench edits act(gate) before it is multiplied by `up`; here it is the product, the neuron's
value, which the output projection reads. A zero is the same zero at both places. Layers at which no
neuron changes are left alone.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.settings import need_finite
from steerlab.edits.edit import Edit, edit_along
from steerlab.edits.part import Tensors
from steerlab.edits.record import Operator
from steerlab.edits.requirements import extra_of, source_extra_of
from steerlab.edits.windows import Window

SITE, FIT = "mlp_post", "masked"


def reset(h: Tensor, tensors: Tensors, positions: Any) -> Tensor:
    """One vector, less each neuron by its weight: the function of all operators of this module."""
    return tensors["shift"][:, None] - tensors["weight"][:, None] * h


def random_neurons(tensors: Tensors, random: torch.Generator, scale: float) -> Tensors:
    """As many random neurons, of which each gets `scale` times what one of the edit's gets."""
    order = torch.randperm(tensors["weight"].shape[-1], generator=random)
    return {name: scale * tensors[name][..., order] for name in ("shift", "weight")}


def neuron_add(
    direction: Direction,
    *,
    strength: float = 1.0,
    against: str | None = None,
    silence: bool = False,
    positions: Window = "all",
) -> Edit:
    """Add to the target's neurons their mean values on its text: h + strength · mask ∘ values.

    `against="rest"` adds values less the other languages' mean (CLaS-Bench's "diffmean" of neurons;
    the first is its "additive"). `silence` first sets the source's neurons to 0, but those that are
    the target's too. Strength 0 without `silence` is the identity. Needs what `masked` makes of a
    selection of neurons. Source: CLaS-Bench (arXiv 2601.08331), after LAPE (arXiv 2402.16438).

    Args:
        direction: to the target, of neurons.
        strength: how many times the neurons' mean values are added.
        against: None, or "rest" to add only what is above the other languages' mean.
        silence: whether the source's neurons are set to 0 first.
        positions: which positions are edited (see `sl.edits.window`).
    """
    if against not in (None, "rest"):
        raise SteerlabError(
            f"the values are taken as they are (against=None) or less the 'rest', not {against!r}"
        )
    units = _neurons(direction, "neuron_add", *(("rest",) if against else ()))
    values = units["values"] - units["rest"] if against else units["values"]
    shift = need_finite("strength", strength) * units["mask"] * values
    quiet = _silenced(direction, "neuron_add", units["mask"]) if silence else 0 * units["mask"]
    nothing = strength == 0 and not silence
    return _where_busy("neuron_add", direction, positions, shift, quiet, identity=nothing)


def neuron_set(
    direction: Direction,
    *,
    scale: float = 1.0,
    fraction: float = 1.0,
    silence: bool = False,
    positions: Window = "all",
) -> Edit:
    """Set the target's neurons to their mean values on its text: h + fraction · mask ∘ (scale ·
    values - h).

    `silence` sets the source's neurons to 0 likewise, but those that are the target's too;
    `fraction=0` is the identity. Needs what `masked` makes of a selection of neurons. Source:
    CLaS-Bench's "replacement" (arXiv 2601.08331).

    Args:
        direction: to the target, of neurons.
        scale: how many times its mean value each neuron is set to.
        fraction: how much of the way there it goes.
        silence: whether the source's neurons are set to 0 too.
        positions: which positions are edited (see `sl.edits.window`).
    """
    units = _neurons(direction, "neuron_set")
    mask, size = units["mask"], need_finite("fraction", fraction)
    shift = size * need_finite("scale", scale) * mask * units["values"]
    weight = mask + _silenced(direction, "neuron_set", mask) if silence else mask
    return _where_busy("neuron_set", direction, positions, shift, size * weight, identity=size == 0)


def neuron_zero(direction: Direction, *, fraction: float = 1.0, positions: Window = "all") -> Edit:
    """Take the target's neurons away: h - fraction · mask ∘ h.

    Fraction 1 sets them to 0, 0 is the identity. Needs what `masked` makes of a selection of
    neurons. Source: LAPE's deactivation (arXiv 2402.16438).
    """
    mask = _neurons(direction, "neuron_zero")["mask"]
    size = need_finite("fraction", fraction)
    return _where_busy(
        "neuron_zero", direction, positions, 0 * mask, size * mask, identity=size == 0
    )


def _neurons(direction: Direction, operator: str, *more: str) -> dict[str, Tensor]:
    """The target's mask and values; a direction of another site, and layers without a neuron,
    raise."""
    if direction.site != SITE:
        raise SteerlabError(
            f"{operator} edits neurons, at {SITE}, and this direction to {direction.target!r} is "
            f"of {direction.site}: collect the firing of neurons (no SAEs) and select from that"
        )
    units = extra_of(direction, operator, FIT, "mask", "values", *more)
    if not units["mask"].any():
        layers = ", ".join(map(str, direction.layers))
        raise SteerlabError(
            f"{operator}: {direction.target!r} has no neuron at layers {layers}, so that nothing "
            "would change; take more layers, or select with other thresholds"
        )
    return units


def _silenced(direction: Direction, operator: str, kept: Tensor) -> Tensor:
    """1 at the source's neurons that are not the target's; a layer may have none, all layers may
    not."""
    theirs = source_extra_of(direction, operator, FIT, "mask")["mask"]
    if not theirs.any():
        layers = ", ".join(map(str, direction.layers))
        raise SteerlabError(
            f"{operator}: {direction.source!r} has no neuron at layers {layers} that could be "
            "silenced; leave silence= out, or select with other thresholds"
        )
    return theirs * (1 - kept)


def _where_busy(
    operator: str,
    direction: Direction,
    positions: Window,
    shift: Tensor,
    weight: Tensor,
    *,
    identity: bool,
) -> Edit:
    """The edit at the layers where some neuron changes; at all of them if none is to change."""
    busy = (shift != 0).any(-1) | (weight != 0).any(-1)
    if not identity and not busy.any():
        raise SteerlabError(
            f"{operator}: the neurons of {direction.target!r} have values of 0, so that "
            "nothing would change; take others"
        )
    return edit_along(
        direction,
        reset,
        {"shift": shift, "weight": weight},
        operator=operator,
        positions=positions,
        identity=identity,
        busy=None if identity else busy,
    )


RECORDS = {
    "neuron_add": Operator(
        make=neuron_add,
        change=reset,
        knob="strength",
        unit="mean values of the neurons on the target's text",
        grid=(0.5, 1.0, 2.0, 4.0),
        identity={"strength": 0.0},
        twin=random_neurons,
        whole=True,
        units="neurons",
        cites=("tang2024language", "gurgurov2026clas"),
    ),
    "neuron_swap": Operator(
        make=partial(neuron_add, silence=True),
        change=reset,
        knob="strength",
        unit="mean values of the neurons on the target's text",
        grid=(0.5, 1.0, 2.0, 4.0),
        identity={"strength": 0.0, "silence": False},
        twin=random_neurons,
        whole=True,
        units="neurons",
        cites=("tang2024language", "gurgurov2026clas"),
    ),
    "neuron_set": Operator(
        make=neuron_set,
        change=reset,
        knob="scale",
        unit="mean values of the neurons on the target's text",
        grid=(0.5, 1.0, 2.0, 4.0),
        identity={"fraction": 0.0},
        twin=random_neurons,
        whole=True,
        units="neurons",
        cites=("gurgurov2026clas",),
    ),
    "neuron_zero": Operator(
        make=neuron_zero,
        change=reset,
        knob="fraction",
        unit="fraction of each neuron's value",
        grid=(0.5, 1.0),
        identity={"fraction": 0.0},
        twin=random_neurons,
        removes=True,
        whole=True,
        units="neurons",
        cites=("tang2024language",),
    ),
}

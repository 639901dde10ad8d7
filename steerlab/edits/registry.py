"""The operators in one table: what a grid of them needs to know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits.edit import Edit
from steerlab.edits.latents import clamp, gate, signed_shift
from steerlab.edits.neurons import neuron_add, neuron_set, neuron_zero
from steerlab.edits.operators import (
    ablate,
    add,
    affine,
    conceptor,
    detour,
    erase,
    overwrite,
    push,
    rotate,
)


@dataclass(frozen=True)
class Operator:
    """One operator as a sweep sees it: `make(direction, **{knob: value})`, over `grid` by default.

    `identity` are the knobs at which it is nothing; `estimator` the only one that fits what it
    needs, or None for any; `removes`: it takes a language away and names no other, so it acts on
    `directions[target]` and is judged on removal; `whole`: it acts on all layers of the directions
    at once, not on one; `units`: what a selection must be of for this operator to act on it,
    "latents" or "neurons", or None where any fit of activations will do.
    """

    make: Callable[..., Edit]
    knob: str
    grid: tuple[float, ...]
    identity: Mapping[str, float] = field(default_factory=dict)
    estimator: str | None = None
    removes: bool = False
    whole: bool = False
    units: Literal["latents", "neurons"] | None = None


_ALL = Operator(
    detour,
    "remove",
    (0.1, 0.2, 0.3, 0.4),
    {"remove": 0.0, "restore": 0.0},
    removes=True,
    whole=True,
)
_QUIET = Operator(
    neuron_zero,
    "fraction",
    (0.5, 1.0),
    {"fraction": 0.0},
    removes=True,
    whole=True,
    units="neurons",
)
_SOME = (0.5, 1.0, 2.0, 4.0)
_SWAP = Operator(
    partial(neuron_add, silence=True),
    "strength",
    _SOME,
    {"strength": 0.0, "silence": False},
    whole=True,
    units="neurons",
)
_BOTH = Operator(
    partial(signed_shift, pull=1.0),
    "push",
    _SOME,
    {"push": 0.0, "pull": 0.0},
    whole=True,
    units="latents",
)
OPERATORS: dict[str, Operator] = {
    "add": Operator(add, "strength", (0.5, 1.0, 1.5, 2.0), {"strength": 0.0}),
    "rotate": Operator(rotate, "share", (0.25, 0.5, 1.0, 1.5), {"share": 0.0}),
    "ablate": Operator(ablate, "fraction", (0.5, 1.0), {"fraction": 0.0}, removes=True),
    "affine": Operator(affine, "level", (0.5, 1.0, 1.5, 2.0), {"fraction": 0.0}),
    "push": Operator(push, "strength", (0.5, 1.0, 1.5, 2.0), {"strength": 0.0}),
    "conceptor": Operator(
        conceptor, "quota", (0.05, 0.1, 0.2, 0.4), {"fraction": 0.0}, "ellipsoid"
    ),
    "overwrite": Operator(overwrite, "scale", (0.3, 0.5, 0.7, 1.0), {"fraction": 0.0}, "sparse"),
    "erase": Operator(erase, "fraction", (0.5, 1.0), {"fraction": 0.0}, "leace", removes=True),
    "detour": _ALL,
    "neuron_add": Operator(
        neuron_add, "strength", _SOME, {"strength": 0.0}, whole=True, units="neurons"
    ),
    "neuron_swap": _SWAP,
    "neuron_set": Operator(
        neuron_set, "scale", _SOME, {"fraction": 0.0}, whole=True, units="neurons"
    ),
    "neuron_zero": _QUIET,
    "clamp": Operator(clamp, "level", (1.0, 2.0, 4.0, 8.0), {"fraction": 0.0}, units="latents"),
    "gate": Operator(gate, "strength", (0.5, 1.0, 1.5, 2.0), {"strength": 0.0}, units="latents"),
    "signed_shift": Operator(
        signed_shift, "push", _SOME, {"push": 0.0, "pull": 0.0}, whole=True, units="latents"
    ),
    "push_pull": _BOTH,
}


def steer(
    operator: str,
    directions: Directions,
    value: float,
    *,
    source: str,
    target: str,
    layer: int | None = None,
) -> Edit:
    """The edit of one cell of a grid: the operator at one value of its knob, from source to target
    at a layer.

    What removes acts on the target's direction alone; `layer` None means all layers of the
    directions. An operator that acts on all layers at once gets those at which there is a
    direction.
    """
    if operator not in OPERATORS:
        raise SteerlabError(f"there is no operator {operator!r}; there are {', '.join(OPERATORS)}")
    told = OPERATORS[operator]
    if layer is not None and not told.whole:
        directions = directions.at(layer)
    elif told.whole and (there := directions.where(target, None if told.removes else source)):
        directions = directions.at(*there)
    step = directions[target] if told.removes else directions.between(source, target)
    return told.make(step, **{told.knob: value})

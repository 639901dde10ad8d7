"""Edits: pure functions of the residual stream that move it along a direction, each row of a
batch in its own way."""

from steerlab.edits.changes import CHANGES as CHANGES
from steerlab.edits.edit import POSITIONS as POSITIONS
from steerlab.edits.edit import Edit as Edit
from steerlab.edits.edit import EditStats as EditStats
from steerlab.edits.edit import Part as Part
from steerlab.edits.edit import stack as stack
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
from steerlab.edits.operators import means_angle as means_angle
from steerlab.edits.registry import OPERATORS as OPERATORS
from steerlab.edits.registry import Operator as Operator
from steerlab.edits.registry import steer as steer

# The operators; the names above that are no operators are public too.
__all__ = [  # noqa: RUF022
    "ablate",
    "add",
    "rotate",
    "affine",
    "conceptor",
    "detour",
    "erase",
    "overwrite",
    "push",
    "neuron_add",
    "neuron_set",
    "neuron_zero",
    "clamp",
    "gate",
    "signed_shift",
]

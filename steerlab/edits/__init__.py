"""Edits: pure functions of the residual stream that move it along a direction, each row of a batch in its own way."""

from steerlab.edits.changes import CHANGES as CHANGES
from steerlab.edits.latents import clamp, gate, signed_shift
from steerlab.edits.neurons import neuron_add, neuron_set, neuron_zero
from steerlab.edits.operators import ablate, add, affine, conceptor, detour, erase, overwrite, push, rotate
from steerlab.edits.operators import means_angle as means_angle
from steerlab.edits.parts import POSITIONS as POSITIONS
from steerlab.edits.parts import Edit as Edit
from steerlab.edits.parts import Part as Part
from steerlab.edits.parts import Touched as Touched
from steerlab.edits.parts import stack as stack
from steerlab.edits.table import OPERATORS as OPERATORS
from steerlab.edits.table import Operator as Operator
from steerlab.edits.table import steer as steer

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

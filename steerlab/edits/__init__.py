"""Edits: pure functions of the activations that are added to them, each row of a batch in its own
way."""

from steerlab.edits.edit import Edit as Edit
from steerlab.edits.edit import edit_along as edit_along
from steerlab.edits.edit import stack as stack
from steerlab.edits.experts import route as route
from steerlab.edits.latents import add_code as add_code
from steerlab.edits.latents import clamp as clamp
from steerlab.edits.latents import gate as gate
from steerlab.edits.latents import signed_shift as signed_shift
from steerlab.edits.neurons import neuron_add as neuron_add
from steerlab.edits.neurons import neuron_set as neuron_set
from steerlab.edits.neurons import neuron_zero as neuron_zero
from steerlab.edits.operators import ablate as ablate
from steerlab.edits.operators import add as add
from steerlab.edits.operators import affine as affine
from steerlab.edits.operators import detour as detour
from steerlab.edits.operators import means_angle as means_angle
from steerlab.edits.operators import push as push
from steerlab.edits.operators import rotate as rotate
from steerlab.edits.part import Part as Part
from steerlab.edits.record import Operator as Operator
from steerlab.edits.registry import OPERATORS as OPERATORS
from steerlab.edits.registry import record_of as record_of
from steerlab.edits.registry import steer as steer
from steerlab.edits.scaling import scale_units as scale_units
from steerlab.edits.single_fit import conceptor as conceptor
from steerlab.edits.single_fit import erase as erase
from steerlab.edits.single_fit import overwrite as overwrite
from steerlab.edits.stats import EditStats as EditStats
from steerlab.edits.stream import ablate_stream as ablate_stream
from steerlab.edits.turning import cap as cap
from steerlab.edits.turning import slerp as slerp
from steerlab.edits.turning import spherical as spherical
from steerlab.edits.turning import turn_to as turn_to
from steerlab.edits.windows import POSITIONS as POSITIONS
from steerlab.edits.windows import window as window
from steerlab.edits.writing import write_along as write_along

# The operators by the names of their functions, as the records have them; a record of another
# operator's function with some knob set has no function of its own. The names above that are no
# operators are public too.
__all__ = [
    name for name, record in OPERATORS.items() if getattr(record.make, "__name__", "") == name
]

# Type checkers read the imports above; an operator in a new file of this folder is here without.
globals().update({name: OPERATORS[name].make for name in __all__})

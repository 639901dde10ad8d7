"""What strength 1 of a direction is: the gap between two means, or a length of 1."""

import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

from steerlab.core.errors import SteerlabError

if TYPE_CHECKING:
    from steerlab.core.directions import Direction

StrengthUnit = Literal["gap", "absolute"]


def need_unit(unit: Any) -> StrengthUnit:
    """The unit of strength, if it is one."""
    if unit not in get_args(StrengthUnit):
        units = " or ".join(map(repr, get_args(StrengthUnit)))
        raise SteerlabError(f"the unit of strength is {unit!r}; give {units}")
    checked: StrengthUnit = unit
    return checked


def warn_of_every_layer(
    direction: "Direction", acts: str, *, example: str = "{acts}(direction.at({layer}))"
) -> None:
    """Warn where something acts at several layers and nobody chose them: each gets the whole of
    the knob, and together they move far more than one.

    Args:
        direction: whose layers they are.
        acts: what does, such as the name of an operator.
        example: a call that chooses a layer.
    """
    count = len(direction.layers)
    if count > 1 and not getattr(direction, "layers_chosen", True):
        call = example.format(acts=acts, layer=direction.layers[count // 2])
        message = (
            f"{acts} acts by its full strength at each of the {count} layers of this direction, "
            f"which together is about {count} times the move of one; choose layers, as in {call}, "
            "or divide the strength"
        )
        warnings.warn(message, UserWarning, stacklevel=3)  # 3: the line that called the operator

"""What strength 1 of a direction is: the gap between two means, or a length of 1."""

from typing import Any, Literal, get_args

from steerlab.core.errors import SteerlabError

StrengthUnit = Literal["gap", "absolute"]


def need_unit(unit: Any) -> StrengthUnit:
    """The unit of strength, if it is one."""
    if unit not in get_args(StrengthUnit):
        units = " or ".join(map(repr, get_args(StrengthUnit)))
        raise SteerlabError(f"the unit of strength is {unit!r}; give {units}")
    checked: StrengthUnit = unit
    return checked

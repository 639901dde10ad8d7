"""Every operator by its name: what a grid, a sweep and the random controls need to know of it.

A module of `steerlab.edits` that exports `RECORDS`, a dict of names and `Operator` records, adds
its operators; nothing else has to be changed.
"""

from typing import Any

from steerlab.core.directions import Directions
from steerlab.core.discovery import exported
from steerlab.core.errors import SteerlabError
from steerlab.edits.part import Part
from steerlab.edits.record import Operator


def _order(item: tuple[str, Operator]) -> tuple[str, bool]:
    """First what takes any fit, then what needs that of one estimator, then what acts on units."""
    _, record = item
    return record.units or "", record.estimator is not None


OPERATORS: dict[str, Operator] = dict(
    sorted(exported("steerlab.edits", "RECORDS").items(), key=_order)
)


def record_of(part: Part) -> Operator | None:
    """The record of the operator whose function a part holds; None for a function of a user's own.

    Of operators that share a function it is the first: they share the twin too.
    """
    for record in OPERATORS.values():
        if record.change is part.change:
            return record
    return None


def steer(
    operator: str | Operator,
    directions: Directions,
    value: float,
    *,
    source: str,
    target: str,
    layer: int | None = None,
) -> Any:  # an Edit, or what a record of your own makes
    """Make the edit of one cell of a grid: an operator at one value of its knob.

    Args:
        operator: its name, or the record of one of your own.
        directions: what it acts along.
        value: the strength, or what the operator's knob is called.
        source: the language that is steered from. An operator that removes acts on the target's
            direction alone, without regard to it.
        target: the language that is steered to, or that is removed.
        layer: where the edit is; by default at all layers of the directions. An operator that acts
            on all layers at once gets those at which there is a direction, whatever `layer` says.
    """
    if isinstance(operator, str) and operator not in OPERATORS:
        raise SteerlabError(f"there is no operator {operator!r}; there are {', '.join(OPERATORS)}")
    record = OPERATORS[operator] if isinstance(operator, str) else operator
    if record.whole:
        with_direction = directions.where(target, None if record.removes else source)
        if with_direction:
            directions = directions.at(*with_direction)
    elif layer is not None:
        directions = directions.at(layer)
    direction = directions[target] if record.removes else directions.between(source, target)
    return record.make(direction, **{record.knob: value})

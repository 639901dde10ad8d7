"""Every operator by its name: what a grid, a sweep and the random controls need to know of it.

A module of `steerlab.edits` that exports `RECORDS`, a dict of names and `Operator` records, adds
its operators; nothing else has to be told of them.
"""

from steerlab.core.directions import Directions
from steerlab.core.discovery import exported
from steerlab.core.errors import SteerlabError
from steerlab.edits.edit import Edit
from steerlab.edits.part import Part
from steerlab.edits.record import Operator


def _order(record: Operator) -> tuple[str, bool]:
    """First what takes any fit, then what needs that of one estimator, then what acts on units."""
    return record.units or "", record.estimator is not None


OPERATORS: dict[str, Operator] = dict(
    sorted(exported("steerlab.edits", "RECORDS").items(), key=lambda item: _order(item[1]))
)


def record_of(part: Part) -> Operator | None:
    """The record of the operator whose function a part holds; None for a function of a user's
    own. Of operators that share a function it is the first: they share the twin too."""
    return next((each for each in OPERATORS.values() if each.change is part.change), None)


def steer(
    operator: str | Operator,
    directions: Directions,
    value: float,
    *,
    source: str,
    target: str,
    layer: int | None = None,
) -> Edit:
    """The edit of one cell of a grid: the operator at one value of its knob, from source to target
    at a layer.

    `operator` is a name, or the record of one of your own. What removes acts on the target's
    direction alone; `layer` None means all layers of the directions. An operator that acts on all
    layers at once gets those at which there is a direction.
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

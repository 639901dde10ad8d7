"""The operators in one table: what a grid of them needs to know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steerlab.directions import Directions
from steerlab.edits.operators import ablate, add, affine, conceptor, detour, erase, overwrite, push, rotate
from steerlab.edits.parts import Edit
from steerlab.terms import SteerlabError


@dataclass(frozen=True)
class Operator:
    """One operator as a sweep sees it: `make(direction, **{knob: value})`, over `grid` by default.

    `identity` are the knobs at which it is nothing; `estimator` the only one that fits what it needs, or None for any;
    `removes`: it takes a language away and names no other, so it acts on `directions[target]` and is judged on removal;
    `whole`: it acts on all layers of the directions at once, not on one.
    """

    make: Callable[..., Edit]
    knob: str
    grid: tuple[float, ...]
    identity: Mapping[str, float] = field(default_factory=dict)
    estimator: str | None = None
    removes: bool = False
    whole: bool = False


_ALL = Operator(detour, "remove", (0.1, 0.2, 0.3, 0.4), {"remove": 0.0, "restore": 0.0}, removes=True, whole=True)
OPERATORS: dict[str, Operator] = {
    "add": Operator(add, "strength", (0.5, 1.0, 1.5, 2.0), {"strength": 0.0}),
    "rotate": Operator(rotate, "share", (0.25, 0.5, 1.0, 1.5), {"share": 0.0}),
    "ablate": Operator(ablate, "fraction", (0.5, 1.0), {"fraction": 0.0}, removes=True),
    "affine": Operator(affine, "level", (0.5, 1.0, 1.5, 2.0), {"fraction": 0.0}),
    "push": Operator(push, "strength", (0.5, 1.0, 1.5, 2.0), {"strength": 0.0}),
    "conceptor": Operator(conceptor, "quota", (0.05, 0.1, 0.2, 0.4), {"fraction": 0.0}, "ellipsoid"),
    "overwrite": Operator(overwrite, "scale", (0.3, 0.5, 0.7, 1.0), {"fraction": 0.0}, "sparse"),
    "erase": Operator(erase, "fraction", (0.5, 1.0), {"fraction": 0.0}, "leace", removes=True),
    "detour": _ALL,
}


def steer(
    operator: str, directions: Directions, value: float, *, source: str, target: str, layer: int | None = None
) -> Edit:
    """The edit of one cell of a grid: the operator at one value of its knob, from source to target at a layer.

    What removes acts on the target's direction alone; `layer` None means all layers of the directions.
    """
    if operator not in OPERATORS:
        raise SteerlabError(f"there is no operator {operator!r}; there are {', '.join(OPERATORS)}")
    told = OPERATORS[operator]
    if layer is not None and not told.whole:
        directions = directions.at(layer)
    step = directions[target] if told.removes else directions.between(source, target)
    return told.make(step, **{told.knob: value})

"""The ways of applying one direction that are compared: operators, windows, gates, layers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import steerlab as sl
from steerlab.core.directions import Direction
from steerlab.core.moments import Moments
from steerlab.edits import Edit, Operator, add, gates, rotate

GAPS = (0.5, 0.75, 1.0, 1.5)
SHARES = (0.1, 0.2, 0.3, 0.4)
BUILT_IN: dict[str, tuple[float, ...]] = {
    "add": GAPS,
    "add_keep_norm": GAPS,
    "rotate": (0.5, 1.0, 1.5, 2.0),
    "turn_to": (75.0, 60.0, 45.0, 30.0),
    "slerp": SHARES,
    "spherical": SHARES,
    "cap": (0.5, 1.0, 1.5, 2.0),
}
LAYERWISE = (5.0, 10.0, 20.0, 40.0)


def adaptive(direction: Direction, *, strength: float) -> Edit:
    return sl.edits.turn_to(direction, degrees=strength, adaptive=True)


def where_positive(direction: Direction, *, strength: float) -> Edit:
    return add(direction, strength=strength).when(gates.positive(direction))


def short_of_half(direction: Direction, *, strength: float) -> Edit:
    """Only where a position is not yet halfway to the target's mean."""
    away = gates.positive(_turned(direction), level=0.5)
    return add(direction, strength=strength).when(away)


def _turned(direction: Direction) -> Direction:
    """The same direction from the target to the source."""
    from dataclasses import replace

    end = direction.end if direction.end is not None else direction.start
    return replace(direction, unit=-direction.unit, start=end, end=direction.start)


def flexac(direction: Direction, *, strength: float) -> Edit:
    return add(direction, strength=strength, keep_norm=True).when(gates.sic(direction))


def after_two(direction: Direction, *, strength: float) -> Edit:
    return add(direction, strength=strength).when(gates.after(2))


def windowed(direction: Direction, *, strength: float, positions: str) -> Edit:
    return add(direction, strength=strength, positions=positions)


def selective_turn(
    direction: Direction, *, strength: float, moments: Moments, which: str, origin: str
) -> Edit:
    """Rotation in the one plane of all layers, at some of them."""
    found = sl.estimate.selective(
        moments, direction.target, source=direction.source or "en", origin=origin
    )
    if which == "apart":
        return rotate(found.at("apart"), degrees=strength)
    layers = found.direction.layers
    # For languages nearly every layer tells the two apart: the last as many would be all of them.
    some = layers if which == "all" else layers[len(layers) // 2 :]
    return rotate(found.direction.at(*some), degrees=strength)


def record(
    make: Callable[..., Edit], unit: str, grid: tuple[float, ...], *, whole: bool = False
) -> Operator:
    return Operator(
        make=make, knob="strength", unit=unit, grid=grid, no_twin="add has one", whole=whole
    )


def ways(moments: Moments, origin: str = "zero") -> Mapping[str, Any]:
    """Operators of our own, by the names that rows call them; `origin` is that of the selective
    layers."""
    made: dict[str, Any] = {
        "turn_to adaptive": record(adaptive, "degrees", BUILT_IN["turn_to"]),
        "add when positive": record(where_positive, "natural gaps", GAPS),
        "add when short of half": record(short_of_half, "natural gaps", GAPS),
        "add_keep_norm when sic": record(flexac, "natural gaps", (1.0, 1.5, 2.0, 3.0)),
        "add after 2": record(after_two, "natural gaps", GAPS),
    }
    for positions in ("prompt", "generated", "last", "first:3", "last generated", "everywhere"):
        name = "add at " + positions.replace(":", " ")
        make = partial(windowed, positions=positions)
        made[name] = record(make, "natural gaps", GAPS)
    for which in ("apart", "all", "last half"):
        make = partial(selective_turn, moments=moments, which=which, origin=origin)
        made[f"selective {which}"] = record(make, "degrees", LAYERWISE, whole=True)
    return made

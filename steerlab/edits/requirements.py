"""What an operator asks for: finite knobs, and tensors beside a direction's vectors that only some
fits and selections leave."""

from typing import Any

from torch import Tensor

from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError


def need_direction(direction: Any) -> None:
    """Raise for what is no `Direction`, and say what makes one."""
    if isinstance(direction, Directions):
        _ = direction.unit  # raises, and says that one of them is needed
    if not isinstance(direction, Direction):
        raise SteerlabError(
            f"one direction is needed, not a {type(direction).__name__}; give "
            "directions.between('en', 'es') of what an estimator, such as diffmean, gives"
        )


def extra_of(direction: Direction, operator: str, fit: str, *names: str) -> dict[str, Tensor]:
    """The target's; a direction that lacks one raises and says which fit has it."""
    if missing := [name for name in names if name not in direction.extra]:
        raise SteerlabError(
            f"{operator} needs the {', '.join(missing)} that {fit} fits, and this direction to "
            f"{direction.target!r} has none: fit with {fit}"
        )
    return {name: direction.extra[name] for name in names}


def source_extra_of(
    direction: Direction, operator: str, fit: str, *names: str
) -> dict[str, Tensor]:
    """The source's; a direction from no language in particular has none."""
    if direction.source is None:
        raise SteerlabError(
            f"{operator} asks what is the source's own, and this direction to {direction.target!r} "
            "is from no language in particular: take directions.between(source, target)"
        )
    if missing := [name for name in names if name not in direction.source_extra]:
        raise SteerlabError(
            f"{operator} needs the {', '.join(missing)} that {fit} fits, and this direction has "
            f"none of {direction.source!r}: fit with {fit}"
        )
    return {name: direction.source_extra[name] for name in names}


def need_units(
    direction: Direction, operator: str, units: Tensor, *, lang: str | None = None
) -> None:
    """Raise and name the layers of `units` [layer ...] where a language (by default the target)
    has none."""
    has_some = units.flatten(1).any(1).tolist()
    without = [layer for layer, some in zip(direction.layers, has_some, strict=True) if not some]
    if without:
        raise SteerlabError(
            f"{operator}: {(lang or direction.target)!r} has no unit at layers "
            f"{', '.join(map(str, without))}, where nothing would change; leave these layers out, "
            "or select with other thresholds"
        )

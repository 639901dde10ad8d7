"""Integrals along a path, on pieces that are halved until each gives the difference of its ends."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, stack

# What is divided by a norm changes on the scale of the norm's epsilon, which may be a thousandth of
# the path's length: pieces are cut by size, not evenly.
START = (0.0, 0.001, 0.01, 0.1, 1.0)
FIRST = 4 * len(START) - 3  # points of the first look
BOOLE = (7 / 90, 32 / 90, 12 / 90, 32 / 90, 7 / 90)

Piece = tuple[float, float]
Look = Callable[[Sequence[float]], tuple[Float[Tensor, " point"], Float[Tensor, "point part"]]]


@dataclass(frozen=True)
class Integral:
    """An integral over [0, 1], by parts.

    Args:
        parts: the integral of each part.
        change: what all parts should add up to: the difference of the ends.
        missed: the sum over pieces of what each misses of the difference of its own ends. No less
            than what the whole misses, as the pieces' errors cannot cancel.
        points: at how many points it was looked.
        reached: whether what is missed is as little as was asked.
    """

    parts: Float[Tensor, " part"]
    change: float
    missed: float
    points: int
    reached: bool


def integrate(look: Look, *, tolerance: float, smallest: float, most: int) -> Integral:
    """The integral of each part of a function's derivative over [0, 1].

    Boole's rule on each piece, over the logarithm of the place but for the piece that begins at 0.
    What a piece misses is known, since its parts must add up to the difference of the function
    between its ends; pieces are halved, the worst first, and each half knows three of its five
    points already.

    Args:
        look: the function and the parts of its derivative at some points.
        tolerance: how much may be missed, as a share of the function's change.
        smallest: the least change that this is a share of, where the change is smaller.
        most: how many points may be looked at; what is missed then stands in the result.
    """
    value: dict[float, float] = {}
    slope: dict[float, Tensor] = {}
    parts: dict[Piece, Tensor] = {}
    missed: dict[Piece, float] = {}
    new: list[Piece] = list(pairwise(START))
    while True:
        needed = {at for piece in new for at in _points(piece)}
        at = sorted(needed - value.keys())
        values, slopes = look(at)
        value |= zip(at, values.tolist(), strict=True)
        slope |= zip(at, slopes, strict=True)
        change = value[1.0] - value[0.0]
        limit = tolerance * max(abs(change), smallest)
        for piece in new:
            low, high = piece
            parts[piece] = _boole(piece, slope)
            missed[piece] = abs(float(parts[piece].sum()) - (value[high] - value[low]))
        total = sum(missed.values())
        worst = _worst(missed, limit)
        reached = total <= limit
        # `worst` is empty before the limit is reached only where NaN compares as no larger.
        if reached or not worst or len(value) + 4 * len(worst) > most:
            whole = stack([*parts.values()]).sum(0)
            return Integral(whole, change, total, len(value), reached)
        new = []
        for piece in worst:
            del parts[piece], missed[piece]
            low, _, middle, _, high = _points(piece)
            new += [(low, middle), (middle, high)]


def _points(piece: Piece) -> list[float]:
    """Five places of a piece, evenly on the scale of logarithms; from 0 on, evenly."""
    low, high = piece
    if not low:
        return [low, high / 4, high / 2, 3 * high / 4, high]
    middle = math.sqrt(low * high)
    return [low, math.sqrt(low * middle), middle, math.sqrt(middle * high), high]


def _boole(piece: Piece, slope: Mapping[float, Tensor]) -> Float[Tensor, " part"]:
    """The integral over a piece, by five points."""
    low, high = piece
    # ∫ f'(x) dx = ∫ f'(x) x d(log x)
    length = math.log(high / low) if low else high
    inner = [
        weight * slope[at] * (at if low else 1)
        for weight, at in zip(BOOLE, _points(piece), strict=True)
    ]
    return stack(inner).sum(0) * length


def _worst(missed: Mapping[Piece, float], limit: float) -> list[Piece]:
    """All pieces but the best ones, which together miss half of the limit at most."""
    left = 0.0
    ordered = sorted(missed, key=lambda piece: missed[piece])
    for number, piece in enumerate(ordered):
        left += missed[piece]
        if left > limit / 2:
            return ordered[number:]
    return []

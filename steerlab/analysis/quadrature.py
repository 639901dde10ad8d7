"""Integrals along a path, on pieces that are halved until each gives the difference of its ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# What is divided by a norm changes on the scale of the norm's epsilon, which may be a thousandth of
# the path's length: the first pieces are cut by size, not evenly.
START = (0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0)
NODES = 4  # of Gauss and Legendre on each piece

Values = Callable[[Sequence[float]], Float[Tensor, " point"]]
Slopes = Callable[[Sequence[float]], Float[Tensor, "point part"]]


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


def integrate(
    values: Values, slopes: Slopes, *, tolerance: float, smallest: float, most: int
) -> Integral:
    """The integral of each part of a function's derivative over [0, 1].

    Gauss and Legendre's rule with four nodes on each piece. What a piece misses is known, since its
    parts must add up to the difference of the function between its ends; pieces that miss more than
    their share are halved, on the scale of logarithms where they span more than a factor of 4.

    Args:
        values: the function at some points, for the ends of pieces.
        slopes: the parts of its derivative at some points.
        tolerance: how much may be missed, as a share of the function's change.
        smallest: the least change that this is a share of, where the change is smaller.
        most: how many points may be looked at; what is missed then stands in the result.
    """
    nodes, weights = (torch.tensor(each) / 2 for each in np.polynomial.legendre.leggauss(NODES))
    ends = dict(zip(START, values(START).tolist(), strict=True))
    change = ends[1.0] - ends[0.0]
    limit = tolerance * max(abs(change), smallest)
    new = list(pairwise(START))
    parts: dict[tuple[float, float], Tensor] = {}
    missed: dict[tuple[float, float], float] = {}
    points = len(START)
    while True:
        at = [low + (high - low) * (0.5 + float(node)) for low, high in new for node in nodes]
        found = slopes(at).reshape(len(new), NODES, -1)
        points += len(at)
        for (low, high), of_piece in zip(new, found, strict=True):
            parts[low, high] = (weights[:, None] * of_piece).sum(0) * (high - low)
            missed[low, high] = abs(float(parts[low, high].sum()) - (ends[high] - ends[low]))
        total = sum(missed.values())
        share = limit / len(missed)
        wrong = [piece for piece, by in missed.items() if by > share]
        reached = total <= limit
        # `wrong` is empty before the limit is reached only where NaN compares as no larger.
        if reached or not wrong or points + len(wrong) * (1 + 2 * NODES) > most:
            return Integral(torch.stack([*parts.values()]).sum(0), change, total, points, reached)
        middles = [_middle(*piece) for piece in wrong]
        ends |= zip(middles, values(middles).tolist(), strict=True)
        points += len(middles)
        new = []
        for piece, middle in zip(wrong, middles, strict=True):
            del parts[piece], missed[piece]
            new += [(piece[0], middle), (middle, piece[1])]


def _middle(low: float, high: float) -> float:
    """Where a piece is cut in two."""
    if low == 0:
        return high / 8
    return (low * high) ** 0.5 if high > 4 * low else (low + high) / 2

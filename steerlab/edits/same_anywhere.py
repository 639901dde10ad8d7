"""Functions whose last bit does not depend on how many numbers are computed at once.

Some of torch's work on eight or sixteen numbers at a time by one formula and on the rest of a
tensor by another: a row of a batch would then differ by a bit from the same row alone. `tanh`,
`atan`, `exp`, `sin` and `cos` do not.
"""

import math

import torch
from torch import Tensor


def angle_of(y: Tensor, x: Tensor) -> Tensor:
    """The angle of the points (x, y), in radians from -π to π, as `torch.atan2`; 0 at the
    origin."""
    flat = y.abs() <= x.abs()
    shorter, longer = torch.where(flat, y, x), torch.where(flat, x, y)
    angle = torch.atan(shorter / torch.where(longer == 0, 1, longer))  # within an eighth of a turn
    half = torch.copysign(torch.full_like(y, math.pi), y)
    return torch.where(flat, angle + torch.where(x < 0, half, 0), half / 2 - angle)


def logistic(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), as `torch.sigmoid`."""
    return (1 + torch.tanh(x / 2)) / 2

"""Functions of numbers: the values of torch's, and the same bits however many are computed."""

import math
from collections.abc import Callable

import pytest
import torch
from edits_by_hand import same_bits
from torch import Tensor

from steerlab.edits.same_anywhere import angle_of, logistic


def numbers(seed: int) -> Tensor:
    return 3 * torch.randn(1001, generator=torch.Generator().manual_seed(seed))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "angle_of": lambda x: angle_of(x, 0.3 - x),
    "logistic": logistic,
    # What edits trust beside them.
    "tanh": torch.tanh,
    "exp": torch.exp,
    "sin": torch.sin,
    "cos": torch.cos,
    "hypot": lambda x: torch.hypot(x, 0.3 - x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("size", [2, 3, 5, 7, 9, 18, 24, 33])
def test_a_part_has_the_bits_of_the_whole(name: str, size: int) -> None:
    function, x = FUNCTIONS[name], numbers(0)
    whole = function(x)
    for start in range(0, len(x) - size, size):
        part = function(x[start : start + size].clone())
        assert same_bits(part, whole[start : start + size])


def test_angles_are_those_of_atan2() -> None:
    y, x = numbers(1), numbers(2)
    torch.testing.assert_close(angle_of(y, x), torch.atan2(y, x), rtol=1e-6, atol=1e-6)
    small = torch.tensor([1e-7, 1e-20])
    torch.testing.assert_close(angle_of(small, torch.ones(2)), small, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("y", "x", "angle"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 1.0, 0.0),
        (1.0, 0.0, math.pi / 2),
        (-1.0, 0.0, -math.pi / 2),
        (0.0, -1.0, math.pi),
        (-0.0, -1.0, -math.pi),
        (1.0, 1.0, math.pi / 4),
        (1.0, -1.0, 3 * math.pi / 4),
        (-1.0, -1.0, -3 * math.pi / 4),
        (-1.0, 1.0, -math.pi / 4),
    ],
)
def test_angles_on_the_axes_and_between(y: float, x: float, angle: float) -> None:
    made = angle_of(torch.tensor([y]), torch.tensor([x]))
    assert float(made[0]) == pytest.approx(angle, abs=1e-6)


def test_the_logistic_function_has_its_values() -> None:
    x = torch.cat([numbers(3), torch.tensor([-200.0, 200.0, 0.0])])
    torch.testing.assert_close(logistic(x), torch.sigmoid(x), rtol=0, atol=2e-7)
    assert logistic(x)[-3:].tolist() == [0.0, 1.0, 0.5]

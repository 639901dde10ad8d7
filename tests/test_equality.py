"""Values with tensors are equal by what they hold, whatever is compared with whatever, and `==`
never raises."""

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlab.core.directions import Direction, Directions
from steerlab.core.firing import Gradients, LatentPairs, Lift
from steerlab.edits import Edit, Part, ablate, add, stack
from steerlab.estimate.units import Selection
from steerlab.sae import SAE

LANGS, LAYERS, WIDTH = ("en", "de", "es"), (1, 4), 8


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def directions() -> Directions:
    means = randn(3, 2, WIDTH)
    about = {
        "estimator": "diffmean",
        "model": {"fingerprint": "abc"},
        "table": np.arange(3),
        "more": [randn(2), "x"],
    }
    basis, extra = means[:, :, None], {"mask": means}
    return Directions(means, basis, means, LANGS, LAYERS, "resid_post", None, about, extra)


def direction() -> Direction:
    return directions().between("en", "de")


def retyped(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value.int()


def sae() -> SAE:
    biases = randn(12, seed=1), randn(12, WIDTH, seed=2), randn(WIDTH, seed=3)
    return SAE(
        randn(WIDTH, 12),
        *biases,
        "jumprelu",
        1,
        "resid_post",
        randn(12, seed=4).abs(),
        about={"id": "a"},
    )


def lift() -> Lift:
    # NaN is what was not tried
    slope = randn(3, 2, 5).masked_fill(randn(3, 2, 5, seed=1) > 0, torch.nan)
    return Lift(LANGS, LAYERS, "en", (1.0, 2.0), slope, randn(3, 2, 5, 2), {"model": "abc"})


def pairs() -> LatentPairs:
    units, found, means = {("de", 1): (3, 4)}, {("de", 1): randn(6, 2)}, {("de", 1): randn(2)}
    return LatentPairs("en", LANGS, LAYERS, units, found, means, {"model": "abc"})


def selection() -> Selection:
    return Selection(
        "by hand", LANGS, LAYERS, "resid_post", randn(3, 2, 5) > 0, randn(3, 2, 5), {"knob": 3}
    )


def gradients() -> Gradients:
    return Gradients(
        LANGS, LAYERS, "mlp_post", randn(3, 2, 5), randn(3, 2, 5, seed=1), {"model": "abc"}
    )


def part() -> Part:
    return stack([add(direction()), Edit(())]).parts[0]


MADE: dict[str, Callable[[], Any]] = {
    "Directions": directions,
    "Direction": direction,
    "Part": part,
    "Edit": lambda: add(direction()) | ablate(direction()),
    "a stack": lambda: stack([add(direction()), ablate(direction().at(1))]),
    "Selection": selection,
    "Gradients": gradients,
    "Lift": lift,
    "LatentPairs": pairs,
    "SAE": sae,
}


def changed(value: Any) -> Any:
    """Another value of its kind."""
    if isinstance(value, Tensor):
        new = value.clone()
        new.view(-1)[-1] = ~new.view(-1)[-1] if new.dtype == torch.bool else 7
        return new
    if isinstance(value, dict):
        first = next(iter(value), None)
        return {"new": 1} if first is None else value | {first: changed(value[first])}
    if isinstance(value, tuple):
        return (*value[:-1], changed(value[-1])) if value else (3,)
    if callable(value):
        return lambda *given: value(*given)
    if isinstance(value, Part):
        return replace(value, tensors=changed(value.tensors))
    return {bool: lambda: not value, str: lambda: value + "x", type(None): lambda: 3}.get(
        type(value), lambda: value + 1
    )()


@pytest.mark.parametrize("kind", MADE)
def test_equal_contents_are_equal_and_others_are_not(kind: str) -> None:
    one, other = MADE[kind](), MADE[kind]()
    assert one == other
    assert other in [one]
    assert one == copy.deepcopy(one)
    names = [each.name for each in fields(one)]
    assert names
    for name in names:
        different = copy.copy(one)
        different.__dict__.pop("digest", None)  # an SAE remembers it
        object.__setattr__(different, name, changed(getattr(one, name)))
        assert one != different, name
        assert different != one, name
        assert different not in [one], name
    for foreign in (None, 3, "x", randn(2), object()):
        assert (one == foreign) is False
    assert all((one == MADE[name]()) is (name == kind) for name in MADE)


# it makes all of its tensors float32
@pytest.mark.parametrize("kind", [kind for kind in MADE if kind != "SAE"])
def test_tensors_of_another_shape_dtype_or_absence_are_unequal(kind: str) -> None:
    one = MADE[kind]()
    holder = one.parts[0] if isinstance(one, Edit) else one
    for each in fields(holder):
        if not isinstance(value := getattr(holder, each.name), Tensor):
            continue
        for other in (
            value[:0],
            value.double() if value.is_floating_point() else value.int(),
            value[None],
            None,
        ):
            different = copy.copy(holder)
            object.__setattr__(different, each.name, other)
            assert holder != different, each.name
            assert different != holder, each.name


@pytest.mark.parametrize("kind", MADE)
def test_a_hash_is_of_the_content_or_there_is_none(kind: str) -> None:
    """Tensors can change in place, so that what was put into a set would not be found there
    again."""
    one, other = MADE[kind](), MADE[kind]()
    if kind == "SAE":
        assert hash(one) == hash(other)
        assert len({one, other, replace(one, layer=2)}) == 2
    else:
        with pytest.raises(TypeError, match="unhashable type: '(?!dict)"):
            hash(one)

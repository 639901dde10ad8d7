"""Laws of the operators that turn: norms, identities, compositions, and who is left alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from edits_by_hand import WIDTH, Fake, direction, randn, same_bits, steer, where
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, add, affine, cap, rotate, slerp, spherical, stack, turn_to

STEP = direction()
UNIT = STEP.unit[0]


def change(edit: Edit, h: Tensor) -> Tensor:
    """What an edit of one place makes of h, at every position."""
    [part] = edit.parts
    return h + part.change(h, part.tensors, None)


def activations(seed: int = 0) -> Tensor:
    return 3 * randn(4, 6, WIDTH, seed=seed)


def norms(h: Tensor) -> Tensor:
    return torch.linalg.vector_norm(h, dim=-1)


def angles(h: Tensor) -> Tensor:
    """Of each position with the direction."""
    return torch.nn.functional.cosine_similarity(h.double(), UNIT.double(), dim=-1).arccos()


KEEPING: dict[str, Callable[..., Edit]] = {
    "rotate": lambda value: rotate(STEP, degrees=100 * value),
    "turn_to": lambda value: turn_to(STEP, degrees=100 * value),
    "adaptive turn_to": lambda value: turn_to(STEP, degrees=100 * value, adaptive=True),
    "part of turn_to": lambda value: turn_to(STEP, degrees=50, fraction=value),
    "slerp": lambda value: slerp(STEP, share=value),
    "spherical": lambda value: spherical(STEP, strength=value),
    "add_keep_norm": lambda value: add(STEP, strength=value, keep_norm=True),
}


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("value", [-0.7, 0.3, 1.0, 3.1])
def test_norms_are_kept(name: str, value: float) -> None:
    h = activations()
    h[0, 0] = 5 * UNIT  # along the direction, against it, and nothing at all
    h[0, 1] = -5 * UNIT
    h[0, 2] = 0
    new = change(KEEPING[name](value), h)
    torch.testing.assert_close(norms(new), norms(h), rtol=1e-5, atol=1e-6)
    assert torch.isfinite(new).all()
    assert not torch.allclose(new[1:], h[1:], atol=1e-3)


def test_a_shift_does_not_keep_them() -> None:
    """What is measured above could fail."""
    h = activations()
    assert not torch.allclose(norms(change(add(STEP), h)), norms(h), rtol=1e-2)


IDENTITIES = {
    "turn_to": turn_to(STEP, fraction=0),
    "slerp": slerp(STEP, share=0),
    "spherical": spherical(STEP, strength=0),
    "cap": cap(STEP, fraction=0),
    "add_keep_norm": add(STEP, strength=0, keep_norm=True),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_the_identity_is_exact(name: str) -> None:
    h, edit = activations(), IDENTITIES[name]
    assert same_bits(steer(edit, h), steer(Edit(()), h))
    torch.testing.assert_close(change(edit, h), h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("degrees", [0, 37, 90, 180, 250, 360, -40])
def test_turning_to_an_angle_twice_is_turning_once(degrees: float) -> None:
    h, edit = activations(), turn_to(STEP, degrees=degrees)
    once = change(edit, h)
    torch.testing.assert_close(change(edit, once), once, rtol=1e-4, atol=1e-4)
    # And where it ends is the same from wherever: an offset before it changes nothing.
    before = change(rotate(STEP, degrees=77), h)
    torch.testing.assert_close(change(edit, before), once, rtol=1e-4, atol=1e-4)
    [part] = edit.parts
    first, second = part.tensors["first"][0], part.tensors["second"][0]
    torch.testing.assert_close(first, UNIT, rtol=1e-5, atol=1e-6)
    reached = torch.atan2(once @ second, once @ first).double()
    off = (reached - math.radians(degrees)).sin().abs()
    assert float(off.max()) < 1e-4
    assert ((reached - math.radians(degrees)).cos() > 0).all()
    # What is across the plane stays.
    outside = lambda x: x - (x @ first)[..., None] * first - (x @ second)[..., None] * second  # noqa: E731
    torch.testing.assert_close(outside(once), outside(h), rtol=1e-4, atol=1e-4)


def test_offsets_add_up_and_angles_do_not() -> None:
    h = activations()
    both = change(rotate(STEP, degrees=50), change(rotate(STEP, degrees=30), h))
    torch.testing.assert_close(both, change(rotate(STEP, degrees=80), h), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(change(rotate(STEP, degrees=360), h), h, rtol=1e-4, atol=1e-4)
    last = change(turn_to(STEP, degrees=50), change(turn_to(STEP, degrees=30), h))
    torch.testing.assert_close(last, change(turn_to(STEP, degrees=50), h), rtol=1e-4, atol=1e-4)


def test_the_adaptive_form_turns_exactly_what_leans_towards_the_direction() -> None:
    h = activations()
    new, all_of_it = (change(turn_to(STEP, degrees=60, adaptive=flag), h) for flag in (True, False))
    leans = h @ UNIT > 0
    assert 0 < int(leans.sum()) < leans.numel()
    assert torch.equal(new[~leans], h[~leans])
    assert torch.equal(new[leans], all_of_it[leans])
    assert ((new - h)[leans].abs().amax(-1) > 0).all()


@pytest.mark.parametrize(("first", "second"), [(0.2, 0.3), (0.5, 0.5), (0.9, 0.1), (-0.2, 0.4)])
def test_shares_of_an_angle_compose(first: float, second: float) -> None:
    h = activations()
    twice = change(slerp(STEP, share=second), change(slerp(STEP, share=first), h))
    once = change(slerp(STEP, share=1 - (1 - first) * (1 - second)), h)
    torch.testing.assert_close(twice, once, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        angles(change(slerp(STEP, share=first), h)), (1 - first) * angles(h), rtol=1e-4, atol=1e-4
    )


def test_a_whole_share_ends_along_the_direction_from_everywhere() -> None:
    h = activations()
    h[0, 0] = -5 * UNIT
    new = change(slerp(STEP, share=1), h)
    torch.testing.assert_close(new, norms(h)[..., None] * UNIT, rtol=1e-4, atol=1e-4)
    half = change(slerp(STEP, share=0.5), h)[0, 0]
    assert abs(float(half @ UNIT)) < 1e-4, "from opposite to it, half the way is across it"


def test_slerp_is_the_published_formula() -> None:
    h = activations().double()
    size = norms(h)[..., None]
    omega = angles(h)[..., None]
    for t in (0.1, 0.6):
        wanted = (
            size
            * (((1 - t) * omega).sin() * h / size + (t * omega).sin() * UNIT.double())
            / omega.sin()
        )
        new = change(slerp(STEP, share=t), h.float())
        torch.testing.assert_close(new, wanted.float(), rtol=1e-4, atol=1e-4)


def test_spherical_turns_the_further_the_less_it_leans_there() -> None:
    h = activations()
    kappa, threshold, strength = 4.0, 0.1, 0.6
    edit = spherical(STEP, strength=strength, threshold=threshold, kappa=kappa)
    new = change(edit, h)
    cosine = angles(h).cos()
    softmax = torch.stack([kappa * cosine, -kappa * cosine]).softmax(0)
    doubt = softmax[1] - softmax[0]
    turned = doubt > threshold
    assert 0 < int(turned.sum()) < turned.numel()
    assert torch.equal(new[~turned], h[~turned])
    share = strength * (doubt - threshold) / (1 - threshold)
    wanted = (1 - share) * angles(h)
    torch.testing.assert_close(angles(new)[turned], wanted[turned], rtol=1e-4, atol=1e-4)
    assert float(share.max()) <= strength


def test_capping_lifts_to_the_level_and_leaves_what_is_above() -> None:
    h = activations()
    for level in (0.0, 0.5, 1.0, 2.0):
        new = change(cap(STEP, level=level), h)
        goal = change(affine(STEP, level=level), h) @ UNIT
        below = h @ UNIT < goal
        torch.testing.assert_close((new @ UNIT)[below], goal[below], rtol=1e-4, atol=1e-4)
        assert torch.equal(new[~below], h[~below])
        again = change(cap(STEP, level=level), new)
        torch.testing.assert_close(again, new, rtol=1e-5, atol=1e-5)
    assert 0 < int((h @ UNIT < change(affine(STEP, level=0.5), h) @ UNIT).sum()) < h[..., 0].numel()


def test_add_with_its_length_back_points_where_the_shift_leads() -> None:
    h = activations()
    shifted = change(add(STEP, strength=1.5), h)
    kept = change(add(STEP, strength=1.5, keep_norm=True), h)
    same = torch.nn.functional.cosine_similarity(shifted, kept, dim=-1)
    torch.testing.assert_close(same, torch.ones_like(same), rtol=1e-5, atol=1e-5)
    assert (angles(kept) < angles(h)).all(), "a turn towards the direction"


EVERY = {**{name: make(0.4) for name, make in KEEPING.items()}, "cap": cap(STEP, level=1.0)}


@pytest.mark.parametrize("name", EVERY)
def test_rows_of_a_stack_are_as_alone_and_no_padding_is_touched(name: str) -> None:
    h, places = activations(), where(4, 6)
    other = replace(STEP, unit=-STEP.unit)
    edits = [EVERY[name], add(other), EVERY[name], Edit(())]
    new = steer(stack(edits), h, places)
    for row, edit in enumerate(edits):
        alone = steer(edit, h, places)[row]
        assert same_bits(new[row], alone)
    plain = steer(Edit(()), h, places)
    assert same_bits(new[~places.text], plain[~places.text])


@pytest.mark.parametrize("name", EVERY)
def test_plain_hooks_do_the_same(name: str) -> None:
    h = activations()
    [(_, hook)] = EVERY[name].hooks(bos=False)
    torch.testing.assert_close(hook(h), change(EVERY[name], h), rtol=1e-5, atol=1e-5)


def test_the_dose_of_a_turn_is_its_chord() -> None:
    """‖Δh‖/‖h‖ of a turn by an angle is twice the sine of half of it."""
    h = activations()
    edit = slerp(STEP, share=0.3)
    with edit.on(fake := Fake()) as stats:
        fake(h, replace(where(4, 6, decode=True), step=True))
    seen: list[Tensor] = []
    looking = Fake()
    with looking.attached([("resid_post", 2, lambda x, _: seen.append(x))]):
        looking(h, where(4, 6))
    wanted = (2 * (0.3 * angles(seen[0]) / 2).sin()).mean(-1)
    torch.testing.assert_close(stats.doses(4).double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: turn_to(STEP, degrees=math.nan), "degrees is nan; give a finite number"),
        (lambda: slerp(STEP, share=math.inf), "share is inf"),
        (lambda: spherical(STEP, threshold=1.0), "threshold is 1.0; give a number from -1 to"),
        (lambda: spherical(STEP, threshold=-1.5), "threshold is -1.5"),
        (lambda: spherical(STEP, kappa=0), "kappa is 0; give a number above 0"),
        (lambda: cap(STEP, level=math.nan), "level is nan"),
        (lambda: turn_to(parallel()), "is parallel to the source's mean: no plane to turn in"),
        (lambda: slerp(nowhere()), "is zero: there is nothing to turn towards"),
        (lambda: spherical(nowhere()), "is zero: there is nothing to turn towards"),
        (lambda: cap(nowhere()), "is zero: there is nothing to set along it"),
        (lambda: add(nowhere(), keep_norm=True), "is zero at layers 2"),
    ],
)
def test_what_cannot_be_is_told(make: Callable[[], Any], told: str) -> None:
    with pytest.raises(SteerlabError, match=told):
        make()


def parallel() -> Any:
    return replace(STEP, start=2 * STEP.unit)


def nowhere() -> Any:
    return replace(STEP, unit=0 * STEP.unit)

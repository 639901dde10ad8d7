"""The algebra of edits: what each operator does to a vector, and what is refused."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from by_hand import EVERY
from edits_by_hand import (
    WIDTH,
    Fake,
    at_site,
    direction,
    edit_of,
    law,
    randn,
    same_bits,
    seeds,
    steer,
    where,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import (
    Edit,
    ablate,
    add,
    means_angle,
    rotate,
    stack,
)

# Identity


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("operator", EVERY)
def test_nothing_changes_not_one_bit_at_zero(operator: str, dtype: torch.dtype) -> None:
    h = randn(4, 5, WIDTH).to(dtype)
    h[0, 1, :3] = -0.0
    plain = Fake()(h, where(4, 5))
    assert same_bits(steer(edit_of(operator, 0.0, direction()), h), plain)
    assert same_bits(steer(stack([edit_of(operator, 0.0, direction())] * 4), h), plain)
    assert not same_bits(steer(edit_of(operator, 0.5, direction()), h), plain)


def test_rotation_by_zero_degrees_and_the_empty_edit_are_the_identity_too() -> None:
    h = randn(2, 5, WIDTH)
    for edit in (rotate(direction(), degrees=0), Edit(()), stack([Edit(()), Edit(())])):
        assert same_bits(steer(edit, h), Fake()(h, where(2, 5)))


# Operators


@law
@given(seeds, st.floats(-3, 3))
def test_add_moves_the_projection_by_just_so_many_gaps(seed: int, strength: float) -> None:
    step, h = direction(seed), randn(2, 3, WIDTH, seed=seed)
    moved = at_site(add(step, strength=strength), h) - h
    torch.testing.assert_close(
        moved @ step.unit[0], (strength * step.gap).expand(2, 3), atol=1e-4, rtol=1e-4
    )
    across = moved - (moved @ step.unit[0])[..., None] * step.unit[0]
    assert across.abs().max() < 1e-4


@law
@given(seeds, st.floats(-2, 2), st.floats(-2, 2))
def test_adding_twice_is_adding_the_sum(seed: int, a: float, b: float) -> None:
    step, h = direction(seed), randn(2, 3, WIDTH, seed=seed)
    twice = at_site(add(step, strength=a) | add(step, strength=b), h)
    torch.testing.assert_close(twice, at_site(add(step, strength=a + b), h), atol=1e-4, rtol=1e-4)


@law
@given(seeds, st.integers(1, 4))
def test_ablating_removes_the_subspace_and_twice_is_once(seed: int, rank: int) -> None:
    step, h = direction(seed, rank=rank), randn(2, 3, WIDTH, seed=seed) * 10
    once = at_site(ablate(step), h)
    assert (h @ step.basis[0].T).abs().max() > 0.1, "it is there before"
    assert (once @ step.basis[0].T).abs().max() < 1e-5 * h.abs().max()
    torch.testing.assert_close(at_site(ablate(step), once), once, atol=1e-5, rtol=1e-5)
    half = at_site(ablate(step, fraction=0.5), h)
    torch.testing.assert_close(half, (h + once) / 2, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(at_site(ablate(step, fraction=0.5), half), half, atol=1e-3), (
        "half and half is not once"
    )


def plane(step: Direction) -> tuple[Tensor, Tensor]:
    """Orthonormal axes of the plane of the source's mean and the direction, in double precision."""
    first = torch.nn.functional.normalize(step.start[0].double(), dim=0)
    second = step.unit[0].double() - (step.unit[0].double() @ first) * first
    return first, torch.nn.functional.normalize(second, dim=0)


@law
@given(seeds, st.floats(-350, 350))
def test_a_rotation_keeps_norms_and_turns_by_just_the_angle(seed: int, degrees: float) -> None:
    step, h = direction(seed), randn(2, 3, WIDTH, seed=seed) * 7
    turned = at_site(rotate(step, degrees=degrees), h).double()
    h = h.double()
    assert ((turned.norm(dim=-1) / h.norm(dim=-1)) - 1).abs().max() < 1e-6
    first, second = plane(step)
    before, after = (torch.complex(x @ first, x @ second) for x in (h, turned))
    angle = torch.polar(torch.ones(()).double(), torch.tensor(math.radians(degrees)).double())
    assert (after - before * angle).abs().max() < 1e-5 * h.norm(dim=-1).max()
    rest = lambda x: x - (x @ first)[..., None] * first - (x @ second)[..., None] * second  # noqa: E731
    assert (rest(turned) - rest(h)).abs().max() < 1e-5 * h.abs().max()


@law
@given(seeds, st.floats(-90, 90), st.floats(-90, 90))
def test_rotations_of_one_plane_add_up(seed: int, a: float, b: float) -> None:
    step, h = direction(seed), randn(2, 3, WIDTH, seed=seed)
    twice = at_site(rotate(step, degrees=a) | rotate(step, degrees=b), h)
    torch.testing.assert_close(twice, at_site(rotate(step, degrees=a + b), h), atol=1e-5, rtol=1e-5)


@law
@given(seeds)
def test_the_whole_share_turns_the_source_mean_onto_the_line_of_the_target_mean(seed: int) -> None:
    step = direction(seed)
    source, target = step.start[0], step.start[0] + step.gap[0] * step.unit[0]
    cosine = lambda h: float(torch.nn.functional.cosine_similarity(h, target, dim=0))  # noqa: E731
    turned = at_site(rotate(step, share=1.0), source.expand(1, 1, WIDTH))[0, 0]
    assert cosine(turned) == pytest.approx(1, abs=1e-5)
    half = at_site(rotate(step, share=0.5), source.expand(1, 1, WIDTH))[0, 0]
    assert cosine(source) < cosine(half) < cosine(turned)
    assert math.acos(min(1, cosine(source))) == pytest.approx(float(means_angle(step)[0]), abs=1e-3)


def test_a_share_of_the_angle_does_not_depend_on_the_unit_of_strength() -> None:
    """The angle between the two means is what it is; only a strength is counted in the unit."""
    means = randn(3, 1, WIDTH)
    fitted = Directions(means, randn(3, 1, 1, WIDTH), means, ("en", "de", "es"), (0,), "resid_post")
    steps = [
        made.between("en", "de") for made in (fitted, replace(fitted, strength_unit="absolute"))
    ]
    plain, absolute = (rotate(step, share=0.5).parts[0].tensors["angle"] for step in steps)
    assert torch.equal(plain, absolute)
    gaps, ones = (add(step).parts[0].tensors["shift"].norm() for step in steps)
    assert not torch.isclose(gaps, ones, atol=0.1), "whereas a strength does"


def test_a_rotation_keeps_norms_in_a_narrow_plane_too() -> None:
    """Where the direction is nearly parallel to the mean, single precision would lose the plane."""
    step = direction()
    start = step.start / step.start.norm()
    unit = torch.nn.functional.normalize(
        start + 3e-5 * torch.nn.functional.normalize(randn(1, WIDTH, seed=4)), dim=-1
    )
    narrow = Direction("de", "en", (2,), "resid_post", unit, step.gap, step.start, step.basis)
    h = step.start[None] + randn(1, 20, WIDTH)
    turned = at_site(rotate(narrow, degrees=60), h)
    assert ((turned.double().norm(dim=-1) / h.double().norm(dim=-1)) - 1).abs().max() < 1e-6


def test_bfloat16_is_computed_in_single_precision() -> None:
    h = randn(3, 8, WIDTH).to(torch.bfloat16)
    for operator in EVERY:
        edit = edit_of(operator, 1.0, direction())
        changed = at_site(edit, h)
        assert same_bits(changed, at_site(edit, h.float()).to(torch.bfloat16)), operator


# What is refused


def test_numbers_that_are_none_are_refused() -> None:
    nan, step = float("nan"), direction()
    for make, told in [
        (lambda: add(step, strength=nan), "strength is nan"),
        (lambda: add(step, strength=float("inf")), "strength is inf"),
        (lambda: ablate(step, fraction=nan), "fraction is nan"),
        (lambda: rotate(step, share=nan), "share is nan"),
        (lambda: rotate(step, degrees=nan), "degrees is nan"),
    ]:
        with pytest.raises(SteerlabError, match=f"{told}; give a finite number"):
            make()
    step.unit[0, 0] = nan
    with pytest.raises(SteerlabError, match="add: shift holds NaN or infinity"):
        add(step)


def test_rotate_takes_degrees_or_a_share() -> None:
    for degrees, share in ((None, None), (10.0, 1.0)):
        with pytest.raises(
            SteerlabError, match=r"rotate takes either degrees= or share= \(of the angle"
        ):
            rotate(direction(), degrees=degrees, share=share)


def test_unknown_positions_are_refused() -> None:
    with pytest.raises(SteerlabError, match="no positions 'latest'; use all, prompt, generated"):
        add(direction(), positions="latest")


@pytest.mark.parametrize("sign", [1, -1, 0])
def test_without_a_plane_there_is_no_rotation(sign: int) -> None:
    step = direction()
    step.start[:] = sign * 4 * step.unit
    with pytest.raises(
        SteerlabError, match="the direction to 'de' is parallel to the source's mean: no plane"
    ):
        rotate(step, degrees=30)


def test_removing_a_subspace_that_is_not_there_is_refused() -> None:
    step = direction(layers=(1, 2))
    step.basis[1] = 0
    with pytest.raises(SteerlabError, match="there is no subspace of 'de' to remove"):
        ablate(step)
    ablate(step.at(1))


def test_another_width_is_refused() -> None:
    narrow = add(direction(width=8))
    with (
        pytest.raises(SteerlabError, match="add: shift has width 8, fake has 16"),
        narrow.on(Fake()),
    ):
        pass
    with pytest.raises(
        SteerlabError, match=r"the edits of a stack have different widths: \[8, 16\]"
    ):
        stack([narrow, add(direction())])
    for operator in EVERY:
        with pytest.raises(SteerlabError, match=f"{operator}: .* has width 8, the model has 16"):
            edit_of(operator, 1.0, direction(width=8)).hooks(
                SimpleNamespace(cfg=SimpleNamespace(d_model=16))
            )


def test_another_model_is_refused() -> None:
    edit = add(direction())
    told = r"made with fake \(abc\), not with fake \(xyz\); .* collect and fit again"
    with pytest.raises(SteerlabError, match=told), edit.on(Fake("xyz")):
        pass
    foreign = Edit(add(direction(1)).parts, {"name": "other", "fingerprint": "xyz"})
    for join in (lambda: edit | foreign, lambda: stack([edit, foreign])):
        with pytest.raises(
            SteerlabError, match="the edits were made with different models: abc, xyz"
        ):
            join()
    nameless = Edit(add(direction(1)).parts)
    for both in (edit | nameless, nameless | edit, stack([nameless, edit])):
        assert both.model["fingerprint"] == "abc"


def test_a_layer_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(SteerlabError, match="no layer 9"), add(direction(layers=(9,))).on(Fake()):
        pass


def test_an_exception_inside_is_not_hidden_by_the_complaint() -> None:
    fake = Fake()

    def broken() -> None:
        with add(direction(), positions="generated").on(fake):
            fake(randn(2, 3, WIDTH), where(2, 3))
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        broken()


# Plain hooks


def test_hooks_carry_transformer_lens_names() -> None:
    edit = add(direction(layers=(1, 3))) | ablate(direction(1, site="resid_pre"))
    names = ["blocks.1.hook_resid_post", "blocks.3.hook_resid_post", "blocks.2.hook_resid_pre"]
    assert [name for name, _ in edit.hooks(bos=True)] == names


@pytest.mark.parametrize("operator", EVERY)
def test_a_plain_hook_does_what_the_edit_does_but_for_bos(operator: str) -> None:
    edit, h = edit_of(operator, 1.0, direction(rank=2)), randn(3, 5, WIDTH)
    [(_, hook)], [(_, whole)] = edit.hooks(bos=True), edit.hooks(bos=False)
    torch.testing.assert_close(hook(h, hook=None)[:, 1:], at_site(edit, h)[:, 1:])
    torch.testing.assert_close(whole(h, hook=None), at_site(edit, h))
    assert same_bits(hook(h, hook=None)[:, :1].contiguous(), h[:, :1].contiguous())
    torch.testing.assert_close(hook(h[:, :1], hook=None), at_site(edit, h[:, :1]))
    assert edit_of(operator, 0.0, direction()).hooks(bos=True)[0][1](h, hook=None) is None


def test_plain_hooks_of_a_stack_keep_to_their_rows() -> None:
    edits = [add(direction(layers=(1,))), add(direction(1)), Edit(()), add(direction(2))]
    h = randn(4, 5, WIDTH)
    for (_, hook), rows in zip(stack(edits).hooks(bos=True), ([0], [1, 3]), strict=True):
        changed = (hook(h, hook=None) != h).any(-1).any(-1)
        assert changed.nonzero()[:, 0].tolist() == rows
        with pytest.raises(
            SteerlabError, match="the batch has 3 rows and the stack 4 edits; give each row one"
        ):
            hook(h[:3], hook=None)


def test_plain_hooks_ask_what_no_model_tells() -> None:
    toy = SimpleNamespace(
        cfg=SimpleNamespace(d_model=WIDTH, default_prepend_bos=True), tokenizer=None
    )
    for known in ((), (toy,)):
        with pytest.raises(
            SteerlabError, match=r"does not see the tokens.*edit.hooks\(model\), or bos=True"
        ):
            add(direction()).hooks(*known)


def test_plain_hooks_refuse_positions_that_they_cannot_see() -> None:
    for positions in ("prompt", "generated"):
        with pytest.raises(
            SteerlabError, match=f"cannot know the positions '{positions}'; use edit.on"
        ):
            add(direction(), positions=positions).hooks()

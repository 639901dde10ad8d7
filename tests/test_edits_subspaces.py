"""The operators of subspaces, dimensions and conceptors."""

from dataclasses import replace

import pytest
import torch
from edits_by_hand import WIDTH, at_site, direction, law, randn, seeds
from hypothesis import given
from hypothesis import strategies as st

from steerlab.core.errors import SteerlabError
from steerlab.edits import (
    ablate,
    add,
    affine,
    conceptor,
    detour,
    overwrite,
    push,
)

# The operators of the subspaces, and the table of all


@law
@given(seeds, st.floats(-2, 2))
def test_affine_puts_every_position_at_one_level(seed: int, level: float) -> None:
    """At 0 and 1 the levels of the two means; `add` moves them all by the same and so keeps them
    apart."""
    step, h = direction(seed), randn(2, 3, WIDTH, seed=seed) * 5
    assert step.end is not None
    unit = step.unit[0]
    levels = (1 - level) * (step.start[0] @ unit) + level * (step.end[0] @ unit)
    moved = at_site(affine(step, level=level), h)
    torch.testing.assert_close(moved @ unit, levels.expand(2, 3), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        moved - (moved @ unit)[..., None] * unit, h - (h @ unit)[..., None] * unit
    )
    assert (at_site(add(step), h) @ unit).std() > 0.1
    torch.testing.assert_close(
        at_site(affine(step, level=level), moved), moved, atol=1e-4, rtol=1e-4
    )


def test_affine_lands_on_the_means_of_a_difference_of_means() -> None:
    """Where nothing says where the target's mean is, it is one gap from the source's."""
    step = replace(direction(), end=None)
    for level, place in ((0.0, step.start), (1.0, step.start + step.gap[:, None] * step.unit)):
        landed = at_site(affine(step, level=level), randn(1, 4, WIDTH))
        torch.testing.assert_close(landed @ step.unit[0], (place[0] @ step.unit[0]).expand(1, 4))


@law
@given(seeds, st.floats(-2, 2))
def test_a_negative_fraction_puts_back_what_was_removed(seed: int, fraction: float) -> None:
    step, h = direction(seed, rank=3), randn(2, 3, WIDTH, seed=seed)
    inside = h @ step.basis[0].T
    scaled = at_site(ablate(step, fraction=fraction), h)
    torch.testing.assert_close(
        scaled @ step.basis[0].T, (1 - fraction) * inside, atol=1e-4, rtol=1e-4
    )
    if abs(1 - fraction) > 0.2:
        back = at_site(ablate(step, fraction=-fraction / (1 - fraction)), scaled)
        torch.testing.assert_close(back, h, atol=1e-4, rtol=1e-4)


@law
@given(seeds, st.floats(-2, 2))
def test_push_moves_every_position_equally_far_inside_the_subspace(
    seed: int, strength: float
) -> None:
    step, h = direction(seed, rank=3), randn(2, 3, WIDTH, seed=seed)
    moved = at_site(push(step, strength=strength), h) - h
    torch.testing.assert_close(
        moved.norm(dim=-1), (abs(strength) * step.gap).expand(2, 3), atol=1e-4, rtol=1e-4
    )
    assert (moved - moved @ step.basis[0].T @ step.basis[0]).abs().max() < 1e-4
    outside = h - h @ step.basis[0].T @ step.basis[0]
    nowhere = replace(step, basis=step.basis[:, :1])
    exact = outside - (outside @ step.basis[0, 0])[..., None] * step.basis[0, 0]
    assert torch.isfinite(at_site(push(nowhere), exact * 0)).all(), (
        "nothing in the subspace, nowhere to go"
    )


@law
@given(seeds, st.floats(0.1, 2))
def test_overwriting_sets_the_dimensions_and_keeps_the_length(seed: int, scale: float) -> None:
    step, h = direction(seed), randn(2, 3, WIDTH, seed=seed) * 4
    mask, values = step.extra["mask"][0].bool(), step.extra["values"][0]
    new = at_site(overwrite(step, scale=scale), h)
    torch.testing.assert_close(new.norm(dim=-1), h.norm(dim=-1), atol=1e-4, rtol=1e-4)
    shrunk = (new[..., ~mask] / h[..., ~mask]).mean(-1, keepdim=True)
    torch.testing.assert_close(new[..., ~mask], h[..., ~mask] * shrunk, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        new[..., mask], (scale * values[mask] * shrunk), atol=1e-3, rtol=1e-3
    )


def test_a_conceptor_keeps_long_axes_and_drops_short_ones() -> None:
    step, h = direction(), randn(2, 3, WIDTH)
    axes, spectrum = (
        torch.eye(WIDTH)[None],
        torch.cat([torch.full((4,), 1e4), torch.full((12,), 1e-4)])[None],
    )
    step = replace(step, extra={"axes": axes, "spectrum": spectrum})
    sharp = at_site(conceptor(step, aperture=1.0, beta=1.0), h)
    torch.testing.assert_close(sharp[..., :4], h[..., :4], atol=1e-3, rtol=1e-3)
    assert sharp[..., 4:].abs().max() < 1e-3
    wide = at_site(conceptor(step, aperture=1e6, beta=1.0), h)
    torch.testing.assert_close(wide, h, atol=1e-3, rtol=1e-3)
    doubled = at_site(conceptor(step, aperture=1.0, beta=2.0), h)
    torch.testing.assert_close(doubled, 2 * sharp, atol=1e-4, rtol=1e-4)


@law
@given(seeds, st.floats(0.02, 0.9))
def test_a_quota_is_the_mean_share_and_beta_keeps_the_targets_own_length(
    seed: int, quota: float
) -> None:
    turn = torch.linalg.qr(randn(WIDTH, WIDTH, seed=seed))[0]
    spectrum = torch.logspace(3, -1, WIDTH)
    step = replace(direction(), extra={"axes": turn[None], "spectrum": spectrum[None]})
    [part] = conceptor(step, quota=quota, beta=1.0).parts
    assert float(part.tensors["half"].square().sum()) / WIDTH == pytest.approx(quota, rel=1e-3)
    white = (
        torch.linalg.qr(randn(4000, WIDTH, seed=seed))[0] * 4000**0.5
    )  # so that their second moment is R itself
    own = (white * spectrum.sqrt() @ turn)[None]
    kept = (
        at_site(conceptor(step, quota=quota), own).square().sum(-1).mean()
        / own.square().sum(-1).mean()
    )
    assert float(kept) == pytest.approx(1, abs=0.02)
    assert (
        at_site(conceptor(step, quota=quota, beta=1.0), own).square().mean() < own.square().mean()
    )


def test_a_detour_leaves_in_the_middle_and_returns_at_the_top() -> None:
    step = direction(layers=tuple(range(28)), rank=2)
    edit = detour(step, remove=0.3, restore=0.1)
    told = {part.layer: float(part.tensors["fraction"]) for part in edit.parts}
    assert told == pytest.approx(
        dict.fromkeys(range(10, 20), 0.3) | dict.fromkeys(range(20, 28), -0.1)
    )
    assert {part.layer for part in detour(step.at(5, 9, 18), depth=20).parts} == {9, 18}
    with pytest.raises(
        SteerlabError,
        match="none of the layers 5, 9 is in the top of 20; fit more layers, or name dep",
    ):
        detour(step.at(5, 9), depth=20)
    with pytest.raises(SteerlabError, match="none of the layers 18 is in the middle of 20"):
        detour(step.at(18), depth=20)

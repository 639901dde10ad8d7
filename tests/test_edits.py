"""The algebra of edits, and that a row of a stack is what its edit is alone."""

import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from by_hand import EVERY, Step, equipped, with_units
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import steerlab.edits as edits
from steerlab.core.directions import Direction, Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES
from steerlab.edits import (
    OPERATORS,
    POSITIONS,
    Edit,
    Operator,
    ablate,
    add,
    affine,
    conceptor,
    detour,
    erase,
    means_angle,
    overwrite,
    push,
    rotate,
    stack,
)
from steerlab.edits.operators import random_shift
from steerlab.models.positions import Positions

WIDTH, DEPTH = 16, 4
law = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 1000)


class Fake:
    """A model whose blocks act on each element alone, so that only edits can make rows or
    positions differ."""

    width, name, fingerprint = WIDTH, "fake", "abc"

    def __init__(self, fingerprint: str = "abc") -> None:
        self.fingerprint = fingerprint
        self.changes: Sequence[tuple[str, int, Any]] = ()

    def width_of(self, site: str) -> int:
        return self.width

    def need_layer(self, layer: int) -> None:
        if not 0 <= layer < DEPTH:
            raise SteerlabError(f"no layer {layer}")

    @contextmanager
    def attached(self, changes: Any) -> Iterator[None]:
        self.changes = changes
        try:
            yield
        finally:
            self.changes = ()

    def __call__(self, h: Tensor, where: Positions) -> Tensor:
        for layer in range(DEPTH):
            for site in SITES:
                for there, number, change in self.changes:
                    if (there, number) == (site, layer):
                        new = change(h, where)
                        h = h if new is None else new
                if site == "resid_pre":
                    h = h * (1 + 0.1 * layer) + 0.01
        return h


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def direction(
    seed: int = 0,
    *,
    layers: tuple[int, ...] = (2,),
    rank: int = 1,
    site: str = "resid_post",
    width: int = WIDTH,
) -> Direction:
    """One whose gap and unit lead from one mean to another, as a mean difference's do."""
    start, step = (
        randn(len(layers), width, seed=seed) * 3,
        randn(len(layers), width, seed=seed + 5000),
    )
    gap = step.norm(dim=-1)
    basis = torch.linalg.qr(randn(len(layers), width, rank, seed=seed + 9000))[0].mT.contiguous()
    about = {"name": "fake", "fingerprint": "abc"}
    return equipped(
        Direction("de", "en", layers, site, step / gap[:, None], gap, start, basis, about), seed
    )


def where(rows: int, length: int, *, decode: bool = False, prompt: int | None = None) -> Positions:
    """The first position of a prefill is BOS; every second row is padded by two more."""
    text = torch.ones(rows, length, dtype=torch.bool)
    if not decode:
        text[:, 0] = False
        text[1::2, :3] = False
    generated = torch.full((rows, length), decode)
    if prompt is not None:
        generated[:, prompt:] = True
    return Positions(text, generated, torch.arange(rows))


def steer(edit: Edit, h: Tensor, place: Positions | None = None) -> Tensor:
    fake = Fake()
    with edit.on(fake):
        return fake(h, place or where(*h.shape[:2]))


def at_site(edit: Edit, h: Tensor) -> Tensor:
    """What the edit makes of h at its own site, every position being text."""
    fake, everywhere = (
        Fake(),
        Positions(
            torch.ones(h.shape[:2], dtype=torch.bool),
            torch.zeros(h.shape[:2]).bool(),
            torch.arange(len(h)),
        ),
    )
    with edit.on(fake):
        for _, _, change in fake.changes:
            new = change(h, everywhere)
            h = h if new is None else new
    return h


def same_bits(a: Tensor, b: Tensor) -> bool:
    kind = {torch.float32: torch.int32, torch.bfloat16: torch.int16}[a.dtype]
    return a.dtype == b.dtype and torch.equal(a.view(kind), b.view(kind))


def edit_of(operator: str, size: float, step: Direction, positions: str = "all") -> Edit:
    return Step(operator, step, size, positions).edit


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


# Positions, padding, counts


@pytest.mark.parametrize("operator", EVERY)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("phase", ["prefill", "decode", "whole"])
def test_just_the_positions_that_were_asked_for_change(
    operator: str, positions: str, phase: str
) -> None:
    """`whole`: a pass without a cache, in which the last two positions are generated."""
    place = {
        "prefill": where(4, 6),
        "decode": where(4, 1, decode=True),
        "whole": where(4, 6, prompt=4),
    }[phase]
    h = randn(*place.text.shape, WIDTH)
    asked = {
        "all": place.text,
        "prompt": place.text & ~place.generated,
        "generated": place.text & place.generated,
    }
    fake, edit = Fake(), edit_of(operator, 1.0, direction(), positions)
    plain = fake(h, place)
    told = rf"touched no position \(positions: {positions}\); the outputs are unsteered"
    outcome = nullcontext() if asked[positions].any() else pytest.raises(SteerlabError, match=told)
    with outcome, edit.on(fake) as touched:
        steered = fake(h, place)
    assert torch.equal((steered != plain).any(-1), asked[positions])
    assert touched.prefill == {2: int((asked[positions] & ~place.generated).sum())}
    assert touched.decode == {2: int((asked[positions] & place.generated).sum())}


@pytest.mark.parametrize("rows", [None, 2])
@pytest.mark.parametrize("trash", [float("nan"), float("inf"), -0.0, 1e30])
def test_padding_stays_bit_for_bit_whatever_it_holds(trash: float, rows: int | None) -> None:
    h, place = randn(2, 5, WIDTH), where(2, 5)
    h[~place.text] = trash
    for operator in EVERY:
        edit = edit_of(operator, 1.0, direction())
        fake = Fake()
        with (stack([edit] * rows) if rows else edit).on(fake) as touched:
            steered = fake(h, place)
        assert same_bits(steered[~place.text], Fake()(h, place)[~place.text])
        assert torch.isfinite(steered[place.text]).all()
        assert torch.isfinite(touched.doses(2)).all()


def test_touched_counts_and_doses_over_prefill_and_decode() -> None:
    step, fake = direction(layers=(1, 2)), Fake()
    h, later = randn(3, 6, WIDTH), randn(2, 1, WIDTH, seed=1)
    left = where(2, 1, decode=True)
    left.rows = torch.tensor([2, 0])
    seen: dict[int, list[Tensor]] = {0: [], 1: [], 2: []}

    def look(value: Tensor, place: Positions) -> None:
        for row, number in enumerate(place.rows.tolist()):
            seen[number].append(1 / value[row][place.text[row]].norm(dim=-1))

    edit = add(step, strength=2.0)
    with edit.on(fake) as touched:
        fake.changes = [item for old in fake.changes for item in ((old[0], old[1], look), old)]
        fake(h, where(3, 6))
        fake(later, left)
    assert touched.prefill == {1: 5 + 3 + 5, 2: 5 + 3 + 5}
    assert touched.decode == {1: 2, 2: 2}
    doses, sizes = touched.doses(4), 2 * step.gap
    for row in range(3):
        ratios = [size * inverse for size, inverse in zip(sizes.repeat(2), seen[row], strict=False)]
        assert float(doses[row]) == pytest.approx(float(torch.cat(ratios).mean()), rel=1e-4)
    assert doses[3] == 0, "a row that was never there"


def test_doses_can_be_counted_in_and_out_of_inference_mode_and_keep_no_graph() -> None:
    fake = Fake()
    with add(direction()).on(fake) as touched:
        with torch.inference_mode():
            fake(randn(2, 5, WIDTH), where(2, 5))
        fake(randn(2, 5, WIDTH).requires_grad_(), where(2, 5))
    assert touched.decode == {2: 0}
    assert touched.prefill == {2: 2 * (4 + 2)}
    assert not touched.doses(2).requires_grad


def test_an_edit_that_touches_nothing_raises() -> None:
    fake, h = Fake(), randn(2, 3, WIDTH)
    nothing = where(2, 3)
    nothing.text[:] = False
    for edit, place in [
        (add(direction(), positions="generated"), where(2, 3)),
        (add(direction(), positions="prompt"), where(2, 3, decode=True)),
        (add(direction()), nothing),
        (stack([add(direction(), positions="generated"), Edit(())]), where(2, 3)),
    ]:
        with (
            pytest.raises(
                SteerlabError, match=r"touched no position \(positions: .*\); .* unsteered"
            ),
            edit.on(fake),
        ):
            fake(h, place)
    with add(direction()).on(fake):
        pass  # no pass, no complaint


# Stacks


def mixed(count: int) -> list[Edit]:
    """Every operator, layer, site, position, strength and rank, alone, in pairs, or none at all."""
    choose = torch.Generator().manual_seed(1)
    pick = lambda options: options[int(torch.randint(len(options), (), generator=choose))]  # noqa: E731

    def one(seed: int) -> Edit:
        layers = pick([(0,), (1,), (2,), (3,), (1, 3)])
        step = direction(seed, layers=layers, rank=pick([1, 2, 3]), site=pick(SITES))
        return edit_of(pick(EVERY), pick([0.0, 0.25, 0.5, 1.0, 2.0]), step, pick(POSITIONS))

    edits = []
    for seed in range(count):
        parts = [one(seed + 10_000 * turn) for turn in range(pick([0, 1, 1, 1, 2, 3]))]
        edits.append(Edit(tuple(part for edit in parts for part in edit.parts)))
    return edits


def alone(edit: Edit, h: Tensor, place: Positions, row: int) -> Tensor:
    one = Positions(
        place.text[row : row + 1], place.generated[row : row + 1], torch.zeros(1, dtype=torch.long)
    )
    fake = Fake()
    with suppress(SteerlabError), edit.on(fake):  # some touch nothing here, alone
        made = fake(h[row : row + 1], one)
    return made[0]


@pytest.mark.parametrize("phase", ["prefill", "decode", "whole"])
def test_row_i_of_a_stack_is_edit_i_alone(phase: str) -> None:
    count = 240
    edits = mixed(count)
    length, prompt = (1, None) if phase == "decode" else (5, 3 if phase == "whole" else None)
    place = where(count, length, decode=phase == "decode", prompt=prompt)
    h = randn(*place.text.shape, WIDTH)
    expected = torch.stack([alone(edit, h, place, row) for row, edit in enumerate(edits)])
    torch.testing.assert_close(steer(stack(edits), h, place), expected, atol=1e-5, rtol=1e-5)
    changed = (expected != Fake()(h, place)).any(-1).any(-1)
    assert changed.sum() > count / 4, "the rows do differ from no edit"
    assert not torch.allclose(steer(stack(edits[1:] + edits[:1]), h, place), expected, atol=0.1)


MIXED = stack(mixed(24))


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(24)), st.integers(1, 24))
def test_rows_that_stayed_in_the_batch_keep_their_edits(order: list[int], left: int) -> None:
    whole, h, rows = where(24, 1, decode=True), randn(24, 1, WIDTH), torch.tensor(order[:left])
    fake = Fake()
    with MIXED.on(fake) as touched:
        expected = fake(h, whole)
        some = fake(h[rows], Positions(whole.text[rows], whole.generated[rows], rows))
    torch.testing.assert_close(some, expected[rows], atol=1e-6, rtol=1e-6)
    assert len(touched.doses(24)) == 24


def test_the_order_of_operators_at_one_layer_is_that_of_each_row() -> None:
    step = direction(rank=2)
    shift, removal, turn = add(step), ablate(step), rotate(step, degrees=50)
    edits = [
        shift,
        removal | shift,
        shift | removal,
        turn | shift | turn,
        shift | turn,
        removal | turn | shift,
    ]
    h, place = randn(len(edits), 5, WIDTH), where(len(edits), 5)
    expected = torch.stack([alone(edit, h, place, row) for row, edit in enumerate(edits)])
    torch.testing.assert_close(steer(stack(edits), h, place), expected, atol=1e-5, rtol=1e-5)
    swapped = steer(removal | shift, h, place)
    assert not torch.allclose(swapped[2], expected[2], atol=0.01), "the order matters"


def test_doses_of_a_stack_are_those_of_each_row_alone() -> None:
    edits = [add(direction(seed), strength=0.5 * seed) for seed in range(1, 5)]
    h, place, fake = randn(4, 5, WIDTH), where(4, 5), Fake()
    with stack(edits).on(fake) as touched:
        fake(h, place)
    for row, edit in enumerate(edits):
        with edit.on(fake) as own:
            fake(h, place)
        assert float(touched.doses(4)[row]) == pytest.approx(float(own.doses(4)[row]), rel=1e-5)


def test_a_batch_with_more_rows_than_the_stack_is_refused() -> None:
    edit = stack([add(direction()), add(direction(1))])
    with pytest.raises(SteerlabError, match="the batch has 3 rows .* the stack 2 edits"):
        steer(edit, randn(3, 5, WIDTH))
    with pytest.raises(SteerlabError, match="the batch has 3 rows .* the stack 2 edits"):
        steer(edit | add(direction(2)), randn(3, 5, WIDTH))
    steer(edit, randn(2, 5, WIDTH))
    with pytest.raises(SteerlabError, match="a stack of 2 edits and one of 3 do not go together"):
        edit | stack([add(direction())] * 3)
    with pytest.raises(
        SteerlabError, match="a stack cannot hold a stack; give one edit for each row"
    ):
        stack([edit])


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


def test_the_table_lists_every_operator_with_its_knob_and_its_identity() -> None:
    whole = with_units(direction(layers=(0, 1, 2, 3)))
    assert set(edits.__all__) == {
        name for name, record in OPERATORS.items() if not isinstance(record.make, partial)
    }
    for name, record in OPERATORS.items():
        step = replace(whole, site="mlp_post") if record.units == "neurons" else whole
        assert isinstance(record.make, partial) or record.make is getattr(edits, name)
        for value in record.grid:
            edit = record.make(step, **{record.knob: value})
            assert edit.parts
            assert not any(part.identity for part in edit.parts), (name, value)
        given = {record.knob: record.grid[0]} | dict(record.identity)
        assert all(part.identity for part in record.make(step, **given).parts), name
        doses = []
        for value in record.grid:
            with record.make(step, **{record.knob: value}).on(fake := Fake()) as touched:
                fake(randn(2, 5, WIDTH), where(2, 5))
            doses.append(float(touched.doses(2).min()))
        assert min(doses) > 0, f"{name} counts no dose"


@pytest.mark.parametrize("name", OPERATORS)
def test_every_record_says_its_unit_and_has_a_twin_or_a_reason(name: str) -> None:
    record = OPERATORS[name]
    assert record.unit
    assert record.grid
    assert record.identity
    assert (record.twin is None) == bool(record.no_twin)
    step = with_units(direction(layers=(0, 1, 2, 3), rank=2))
    if record.units == "neurons":
        step = replace(step, site="mlp_post")
    edit = record.make(step, **{record.knob: record.grid[-1]})
    for part in edit.parts:
        assert part.change is record.change
        found = edits.record_of(part)
        assert found is not None
        assert (found.change, found.twin) == (record.change, record.twin)
        if record.twin is None:
            continue
        drawn, again, other, double = (
            record.twin(part.tensors, torch.Generator().manual_seed(seed), scale)
            for seed, scale in ((1, 1.0), (1, 1.0), (2, 1.0), (1, 2.0))
        )
        assert drawn.keys() <= part.tensors.keys()
        assert all(drawn[key].shape == part.tensors[key].shape for key in drawn)
        assert all(torch.equal(drawn[key], again[key]) for key in drawn)
        assert any(not torch.equal(drawn[key], other[key]) for key in drawn)
        assert any(not torch.equal(drawn[key], part.tensors[key]) for key in drawn)
        assert any(torch.equal(2 * drawn[key], double[key]) for key in drawn), "the dose grows"


def test_records_that_leave_something_out_are_refused() -> None:
    whole: dict[str, Any] = {"knob": "strength", "unit": "gaps", "grid": (1.0,)}
    whole |= {"identity": {"strength": 0.0}, "no_twin": "it is a test"}
    Operator(make=add, **whole)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"knob": "size"}, "the record of add names the knob 'size'; it has strength, positions"),
        ({"identity": {"fraction": 0.0}}, "the record of add names the knob 'fraction'"),
        ({"unit": "", "grid": ()}, "the record of add leaves out unit, grid; an operator has"),
        ({"identity": {}}, "the record of add leaves out identity"),
        ({"no_twin": ""}, "has either a random twin or, in no_twin, the reason"),
        ({"twin": random_shift}, "has either a random twin or, in no_twin, the reason"),
        ({"twin": random_shift, "no_twin": ""}, "has a twin, which belongs .*; give change= too"),
    ]
    for other, told in wrong:
        with pytest.raises(SteerlabError, match=told):
            Operator(make=add, **{**whole, **other})


NEWCOMER = '''
from steerlab.edits.edit import edit_along
from steerlab.edits.record import Operator
from steerlab.edits.requirements import need_finite


def scale_along(h, tensors, positions):
    unit = tensors["unit"][:, None]
    return tensors["factor"][:, None, None] * (h * unit).sum(-1, keepdim=True) * unit


def stretch(direction, *, factor=1.0, positions="all"):
    """Stretch what lies along the direction: h + factor · (u·h) u."""
    tensors = {"unit": direction.unit, "factor": 0 * direction.gap + need_finite("factor", factor)}
    return edit_along(direction, scale_along, tensors, operator="stretch", positions=positions,
                      identity=factor == 0)


RECORDS = {
    "%s": Operator(make=stretch, change=scale_along, knob="factor", unit="lengths along the unit",
                   grid=(0.5, 1.0), identity={"factor": 0.0}, no_twin="it is a test")
}
'''

# A file beside the package's own: a folder more in which Python looks for modules of `edits`.
BESIDE = """
import sys, importlib.util
spec = importlib.util.find_spec("steerlab.edits")
module = importlib.util.module_from_spec(spec)
module.__path__.append(sys.argv[1])
sys.modules["steerlab.edits"] = module
spec.loader.exec_module(module)
import steerlab as sl
from steerlab.sweeps.grid import STEERING, Grid
from steerlab.edits import stretch
assert "stretch" in sl.edits.__all__ and "stretch" in sl.edits.OPERATORS
assert STEERING["stretch"] == (0.5, 1.0)
print(Grid.of({"operators": "stretch"}).operators, sl.edits.stretch is stretch)
"""


def test_an_operator_in_a_file_of_its_own_is_found(tmp_path: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", BESIDE, str(tmp_path)]
        return subprocess.run(words, capture_output=True, text=True)

    assert "cannot import name 'stretch'" in run().stderr, "without the file there is none"
    (tmp_path / "newcomer.py").write_text(NEWCOMER % "stretch", "utf-8")
    found = run()
    assert found.stdout.split("\n")[0] == "{'stretch': (0.5, 1.0)} True", found.stderr
    (tmp_path / "newcomer.py").write_text(NEWCOMER % "add", "utf-8")
    twice = "'add' stands in RECORDS of steerlab.edits.operators and of steerlab.edits.newcomer"
    assert twice in run().stderr


def test_steer_takes_a_record_too() -> None:
    means = randn(2, DEPTH, WIDTH)
    basis = torch.nn.functional.normalize(means - means.mean(0), dim=-1)[:, :, None]
    fitted = Directions(means, basis, means, ("en", "de"), tuple(range(DEPTH)), "resid_post")
    by_name, by_record = (
        edits.steer(each, fitted, 1.5, source="en", target="de", layer=2)
        for each in ("add", OPERATORS["add"])
    )
    assert by_name == by_record
    assert by_name != edits.steer("add", fitted, 1.0, source="en", target="de", layer=2)


def test_steer_makes_the_edit_of_a_cell() -> None:
    means = randn(3, DEPTH, WIDTH)
    basis = torch.nn.functional.normalize(means - means.mean(0), dim=-1)[:, :, None]
    fitted = Directions(means, basis, means, ("en", "de", "es"), tuple(range(DEPTH)), "resid_post")
    h = randn(2, 5, WIDTH)
    for name, made in (
        ("add", add(fitted.between("en", "de").at(2), strength=1.5)),
        ("ablate", ablate(fitted["de"].at(2), fraction=1.5)),
        ("affine", affine(fitted.between("en", "de").at(2), level=1.5)),
        ("detour", detour(fitted["de"], remove=1.5)),
    ):
        assert same_bits(steer(steer_cell(name, fitted), h), steer(made, h)), name
    with pytest.raises(
        SteerlabError,
        match="there is no operator 'multiply'; there are add, rotate, ablate, affine",
    ):
        steer_cell("multiply", fitted)


def steer_cell(name: str, fitted: Directions) -> Edit:
    return edits.steer(name, fitted, 1.5, source="en", target="de", layer=2)


def test_operators_say_which_fit_they_need() -> None:
    bare = replace(direction(), extra={})
    for make, told in [
        (
            lambda: erase(bare),
            "erase needs the read, write, centre that leace fits, .* to 'de' has none: fit with "
            "leace",
        ),
        (
            lambda: conceptor(bare, quota=0.2),
            "conceptor needs the axes, spectrum that ellipsoid fits",
        ),
        (lambda: overwrite(bare), "overwrite needs the mask, values that sparse fits"),
    ]:
        with pytest.raises(SteerlabError, match=told):
            make()


def test_settings_of_the_new_operators_that_are_refused() -> None:
    step, nan = direction(), float("nan")
    empty = replace(step, extra={**step.extra, "mask": step.extra["mask"] * 0})
    for make, told in [
        (lambda: conceptor(step), r"conceptor takes either aperture= or quota="),
        (
            lambda: conceptor(step, aperture=1.0, quota=0.2),
            r"conceptor takes either aperture= or quota=",
        ),
        (lambda: conceptor(step, aperture=0.0), "aperture is 0.0; give a number above 0"),
        (lambda: conceptor(step, aperture=1.0, beta=-1.0), "beta is -1.0; give a number above 0"),
        (
            lambda: conceptor(step, quota=0.9),
            r"quota is 0.9; give a share above 0 and below 0.75, the axes that",
        ),
        (
            lambda: overwrite(empty),
            "there are no dimensions of 'de' to overwrite; its fit is from that language",
        ),
        (
            lambda: push(replace(step, basis=step.basis * 0)),
            "there is no subspace of 'de' to push along",
        ),
        (
            lambda: push(replace(step, gap=step.gap * 0)),
            "the means of 'de' and of its source are one: there is no gap",
        ),
        (
            lambda: affine(replace(step, unit=step.unit * 0)),
            "the direction to 'de' is zero: there is nothing to set",
        ),
        (lambda: affine(step, level=nan), "level is nan; give a finite number"),
        (lambda: erase(step, fraction=nan), "fraction is nan; give a finite number"),
        (lambda: overwrite(step, scale=nan), "scale is nan; give a finite number"),
        (lambda: push(step, strength=nan), "strength is nan; give a finite number"),
        (
            lambda: detour(direction(layers=(0, 1, 2, 3)), remove=nan),
            "remove is nan; give a finite number",
        ),
    ]:
        with pytest.raises(SteerlabError, match=told):
            make()
    push(replace(step, gap=step.gap * 0), strength=0)


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
    with pytest.raises(SteerlabError, match="no positions 'last'; use all, prompt, generated"):
        add(direction(), positions="last")


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

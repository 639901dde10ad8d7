"""A row of a stack is what its edit is alone."""

import pytest
import torch
from by_hand import EVERY
from edits_by_hand import WIDTH, Fake, alone, direction, edit_of, randn, steer, where
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES
from steerlab.edits import (
    POSITIONS,
    Edit,
    ablate,
    add,
    rotate,
    stack,
)
from steerlab.models.positions import Positions

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

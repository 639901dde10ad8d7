"""An edit changes the positions that were asked for, leaves padding alone, and counts."""

from contextlib import nullcontext

import pytest
import torch
from by_hand import EVERY
from edits_by_hand import WIDTH, Fake, direction, edit_of, randn, same_bits, where
from torch import Tensor

from steerlab.core.errors import SteerlabError
from steerlab.edits import (
    POSITIONS,
    Edit,
    add,
    stack,
)
from steerlab.models.positions import Positions

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
        # Every position is edited at both layers, whose doses add up.
        expected = 2 * float(torch.cat(ratios).mean())
        assert float(doses[row]) == pytest.approx(expected, rel=1e-4)
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

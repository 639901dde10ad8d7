"""Doses and displacements of known edits are what plain torch hooks find, on prefill and decode."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.edits import Edit, stack
from steerlab.edits.edit import edit as edit_of
from steerlab.engine.decoding import decode
from steerlab.engine.random_edits import doses
from steerlab.models.loading import load
from steerlab.models.model import Model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The functions of `experiments/doses.py`, which writes docs/doses.md."""
    return runpy.run_path(str(ROOT / "experiments" / "doses.py"))


@pytest.fixture(scope="module")
def made(polyglot: Model, lines: Corpus, script: dict[str, Any]) -> tuple[list[Any], list[str]]:
    direction, neurons, prompts = script["material"](polyglot, lines)
    return script["known"](direction, neurons), prompts[:2]


def test_known_edits_have_the_doses_that_are_found_by_hand(
    polyglot: Model, script: dict[str, Any], made: tuple[list[Any], list[str]]
) -> None:
    """All of them in one stack, whose rows share their prompts."""
    edits, prompts = made
    assert len(edits) >= 10
    decoded = decode(
        polyglot,
        [text for text in prompts for _ in edits],
        edit=stack([each.edit for each in edits] * len(prompts)),
        max_new_tokens=script["NEW"],
        one_line=False,
        displacement=True,
    )
    rows = iter(zip(decoded.dose, decoded.displacement, strict=True))
    for text in prompts:
        for each in edits:
            dose, displacement = next(rows)
            truth = script["by_hand"](polyglot, text, each.changes)
            assert dose == pytest.approx(truth.dose, rel=1e-3, abs=1e-6), each.name
            expected = pytest.approx(truth.displacement, rel=1e-3, abs=1e-5, nan_ok=True)
            assert displacement == expected, each.name


def test_on_the_prompt_alone_the_doses_are_those_by_hand(
    polyglot: Model, script: dict[str, Any], made: tuple[list[Any], list[str]]
) -> None:
    edits, [text, *_] = made
    read = [each for each in edits if any(change.prompt for change in each.changes)]
    given = doses(polyglot, [text], [each.edit for each in read])
    for each, dose in zip(read, given.tolist(), strict=True):
        truth = script["by_hand"](polyglot, text, each.changes, new=1)
        assert dose == pytest.approx(truth.dose, rel=1e-3, abs=1e-6), each.name


def test_parts_of_one_place_count_together_and_places_add_up(
    polyglot: Model, made: tuple[list[Any], list[str]]
) -> None:
    """`add(.5) | add(.5)` is `add(1)`, whatever else is in the stack; a mean over parts would be
    half of it."""
    edits, prompts = made
    by_name = {each.name: each.edit for each in edits}
    whole, twice = by_name["add, one gap"], by_name["add, half a gap, twice at one layer"]
    back = by_name["add, one gap forth and one back"]
    for given in ([whole, twice, back], [twice, back, whole]):
        found = dict(zip(map(id, given), doses(polyglot, prompts, given).tolist(), strict=True))
        assert found[id(whole)] == pytest.approx(found[id(twice)], rel=1e-5)
        assert found[id(whole)] > 0.3
        assert found[id(back)] == pytest.approx(0, abs=1e-6)
    # What is in no stack counts as what is.
    with twice.on(polyglot) as touched:
        ids = polyglot.tokenizer(prompts[0], return_tensors="pt").input_ids
        polyglot.body(ids, torch.ones_like(ids, dtype=torch.bool))
    alone = doses(polyglot, prompts[:1], [whole])
    assert float(touched.doses(1)[0]) == pytest.approx(float(alone[0]), rel=1e-4)
    # Each position is one of the mean's, though parts touch it twice or at eight layers.
    assert touched.prefill == {5: ids.shape[1] - 1}


def test_halves_of_the_positions_are_one_mean(polyglot: Model) -> None:
    """Another edit on the prompt than on what is generated: a position counts once."""

    def push(size: float, layer: int, positions: str) -> Edit:
        return edit_of(lambda h: size * h, layer=layer, positions=positions, name=f"{size}")

    both = push(0.1, 6, "prompt") | push(0.3, 2, "generated") | push(0.2, 6, "all")
    decoded = decode(polyglot, ["Good morning.\n"], edit=both, max_new_tokens=6, one_line=False)
    ids = polyglot.tokenizer("Good morning.\n").input_ids
    prompt, new = len(ids) - 1, 5
    # On the prompt 1.1 · 1.2 - 1 of the length at layer 6; then .3 at layer 2 and .2 at layer 6.
    expected = (prompt * 0.32 + new * (0.3 + 0.2)) / (prompt + new)
    assert decoded.dose == [pytest.approx(expected, rel=1e-4)]


def _seen(model: Model, ids: Tensor, site: str, layer: int) -> Tensor:
    """What is at a site in a pass over the tokens, by a function that only looks."""
    found: list[Tensor] = []
    with model.attached([(site, layer, lambda h, _: found.append(h.clone()))]):
        model.body(ids, torch.ones_like(ids, dtype=torch.bool))
    return found[0][0].float()


@pytest.mark.parametrize("shape", ["polyglot", "gemma2", "gpt2", "qwen2"])
@pytest.mark.parametrize(
    ("site", "there"),
    [
        ("attn_z", "resid_mid"),
        ("attn_out", "resid_mid"),
        ("mlp_post", "resid_post"),
        ("mlp_out", "resid_post"),
    ],
)
@torch.no_grad()
def test_an_edit_inside_a_block_counts_what_reaches_the_stream(
    shape: str, site: str, there: str, lively: Callable[[str], Path]
) -> None:
    """Through the projection and, in Gemma 2, the norm behind it: the stream with the edit less
    the stream without."""
    model = load(lively(shape))
    layer = 1
    ids = model.tokenizer("Good morning, how are you?", return_tensors="pt").input_ids
    width = model.width_of(site)
    shift = torch.randn(width, generator=torch.Generator().manual_seed(1))
    inside = edit_of(lambda h: 0.3 * shift - 0.2 * h, site=site, layer=layer)
    plain = _seen(model, ids, there, layer)
    with inside.on(model) as touched:
        steered = _seen(model, ids, there, layer)
    text = slice(1, None) if ids[0, 0] == model.tokenizer.bos_token_id else slice(None)
    moved = ((steered - plain).norm(dim=-1) / plain.norm(dim=-1))[text]
    assert float(touched.doses(1)[0]) == pytest.approx(float(moved.mean()), rel=1e-3)
    assert float(moved.mean()) > 0.01
    # Beside an edit of the stream at the same place, the two add up.
    scale = edit_of(lambda h: 0.5 * h, site=there, layer=layer)
    with (inside | scale).on(model) as both:
        model.body(ids, torch.ones_like(ids, dtype=torch.bool))
    assert float(both.doses(1)[0]) == pytest.approx(float(moved.mean()) + 0.5, rel=1e-3)
    assert set(both.site_doses(1)) == {site}
    assert float(both.site_doses(1)[site][0]) != pytest.approx(float(moved.mean()), rel=1e-2)


def test_what_cannot_be_followed_into_the_stream_has_no_dose_but_its_own(polyglot: Model) -> None:
    """Before the gate and the non-linearity nothing linear leads to the stream."""
    before = edit_of(lambda h: 0.1 * h, site="mlp_pre", layer=3)
    decoded = decode(polyglot, ["Yes.\n"], edit=before, max_new_tokens=2, displacement=True)
    assert torch.tensor(decoded.dose).isnan().all()
    assert decoded.site_doses == {"mlp_pre": [pytest.approx(0.1, rel=1e-5)]}
    assert 0 < decoded.displacement[0] < 1


def test_the_displacement_is_of_this_edit_alone_and_of_what_was_asked_for(
    polyglot: Model, made: tuple[list[Any], list[str]]
) -> None:
    edits, prompts = made
    first = edits[0].edit
    [here, *_] = decode(polyglot, prompts, edit=first, max_new_tokens=1).displacement
    assert torch.tensor(here).isnan(), "it was not asked for"
    plain = decode(polyglot, prompts, max_new_tokens=1, displacement=True)
    assert plain.displacement == [0.0, 0.0]
    with first.on(polyglot):
        nested = decode(polyglot, prompts, edit=first, max_new_tokens=1, displacement=True)
    assert torch.tensor(nested.displacement).isnan().all()
    mixed = stack([first, Edit(())])
    found = decode(polyglot, prompts, edit=mixed, max_new_tokens=4, displacement=True)
    assert found.displacement[0] > 0.1
    assert found.displacement[1] == 0
    without = decode(polyglot, prompts, edit=mixed, max_new_tokens=4)
    assert (found.texts, found.dose) == (without.texts, without.dose)


def test_a_model_of_transformer_lens_gives_the_same(
    polyglot: Model, made: tuple[list[Any], list[str]]
) -> None:
    """Its rows do not branch off: the prompts run along as rows of their own."""
    edits, prompts = made
    some = [each.edit for each in edits if each.edit.sites == ("resid_post",)][:5]
    texts = [text for text in prompts for _ in some]
    given = stack(some * len(prompts))
    ours, theirs = (
        decode(model, texts, edit=given, max_new_tokens=3, displacement=True)
        for model in (polyglot, load(polyglot.tl))
    )
    assert theirs.texts == ours.texts
    assert theirs.dose == pytest.approx(ours.dose, rel=1e-3, abs=1e-6)
    assert theirs.displacement == pytest.approx(ours.displacement, rel=1e-3, abs=1e-5)

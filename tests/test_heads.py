"""Heads one by one: read, edited and baked, alike in every view."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import random_directions

import steerlab as sl
from steerlab.core.errors import SteerlabError
from steerlab.estimate import head_gaps, only_heads
from steerlab.models.loading import load
from steerlab.models.model import Model

IDS = torch.tensor([[1, 50, 60, 70, 80, 90]])
LAYER, HEAD, EVERYWHERE = 1, 2, "everywhere"


def step_of(model: Model, heads: Any = (HEAD,)) -> sl.Directions:
    directions = random_directions(model, site="attn_z")
    return only_heads(directions, heads, count=model.heads)


@torch.inference_mode()
def by_hand(tl: Any, shift: torch.Tensor) -> torch.Tensor:
    """One head's vector is moved, in TransformerLens' own layout [row pos head width]."""

    def hook(z: torch.Tensor, hook: Any) -> torch.Tensor:
        z = z.clone()
        z[:, :, HEAD] += shift
        return z

    logits: torch.Tensor = tl.run_with_hooks(IDS, fwd_hooks=[(f"blocks.{LAYER}.attn.hook_z", hook)])
    return logits


# TransformerLens 3.9 makes no HookedTransformer of a Gemma 3 of other than the official sizes.
@pytest.mark.parametrize(
    ("shape", "view"),
    [
        *((shape, "bridge") for shape in ("polyglot", "llama", "gpt2", "gemma3")),
        *((shape, "hooked") for shape in ("polyglot", "llama", "gpt2")),
    ],
)
def test_one_head_is_that_head_in_every_view(shaped, lens, shape, view):
    model: Model = shaped(shape)
    direction = step_of(model).between("en", "es").at(LAYER)
    size = model.width_of("attn_z") // model.heads
    inside = slice(HEAD * size, HEAD * size + size)
    shift = direction.gap[0] * direction.unit[0]
    assert float(shift[inside].norm()) == pytest.approx(float(shift.norm()))
    edit = sl.add(direction, positions=EVERYWHERE)
    with torch.inference_mode():
        plain = model.hf(IDS).logits
        with edit.on(model):
            ours = model.hf(IDS).logits
    tl = lens(shape, view)
    torch.testing.assert_close(ours, by_hand(tl, shift[inside]), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, plain, atol=1e-2)
    with torch.inference_mode():
        theirs = tl.run_with_hooks(IDS, fwd_hooks=edit.hooks(tl, bos=False))
        with sl.bake(model, edit, texts=["A text."]).on(model):
            baked = model.hf(IDS).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(baked, ours, atol=1e-4, rtol=1e-4)


def test_what_is_collected_of_a_head_is_what_the_head_gives(polyglot, hooked, lines):
    few = lines.select(["en", "de"]).split("estimate").take(3)
    moments = sl.collect(polyglot, few, site="attn_z", also=[])
    total, count = torch.zeros(4, 64, dtype=torch.float64), 0
    for line in few["de"]:
        ids = [1, *polyglot.tokenizer(f"{line}\n", add_special_tokens=False).input_ids]
        with torch.inference_mode():
            z = hooked.run_with_cache(torch.tensor([ids]))[1]["blocks.5.attn.hook_z"]
        total += z[0, 1:].double().sum(0)
        count += len(ids) - 1
    found = moments.mean[moments.langs.index("de"), 5].view(4, 64)
    torch.testing.assert_close(found.float(), (total / count).float(), atol=1e-4, rtol=1e-4)
    gaps = head_gaps(sl.diffmean(moments), "en", "de", count=4)
    whole = sl.diffmean(moments).between("en", "de").gap
    assert gaps.shape == (8, 4)
    for layer in range(8):
        squares = float((gaps.to_numpy()[layer] ** 2).sum())
        assert squares == pytest.approx(float(whole[layer]) ** 2, rel=1e-4)


def test_every_operator_stays_inside(lively: Callable[[str], Path]) -> None:
    model = load(lively("llama"))
    kept = step_of(model, {0: [1], 2: [0, 3]})
    assert kept.layers == (0, 2)
    direction = kept.between("en", "es")
    h = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    inside = {0: [1], 2: [0, 3]}
    for edit in (
        sl.add(direction.at(2)) | sl.add(direction.at(0)),
        sl.ablate(kept["es"].at(0)) | sl.ablate(kept["es"].at(2)),
        sl.affine(direction.at(0)) | sl.affine(direction.at(2)),
        sl.rotate(direction.at(0), degrees=40) | sl.rotate(direction.at(2), degrees=40),
    ):
        for part in edit.parts:
            added = part.change(h, part.tensors, None).expand_as(h).reshape(5, 4, 8)
            moved = added.abs().amax((0, 2)) > 1e-6
            assert moved.nonzero()[:, 0].tolist() == inside[part.layer]
    rows = kept.basis[1]
    squares = rows @ rows.mT
    torch.testing.assert_close(squares, torch.eye(2).expand_as(squares), atol=1e-5, rtol=1e-5)


def test_what_has_no_heads_is_refused(polyglot):
    directions = random_directions(polyglot, site="attn_z")
    stream = random_directions(polyglot)
    assert load(polyglot.tl).heads == polyglot.heads == 4
    for given, heads, count, refused in (
        (stream, [0], 4, "heads lie side by side at attn_z, and these directions are of resid_p"),
        (directions, [0], 7, "7 heads do not divide the width 256"),
        (directions, [4], 4, "head 4 was asked for; there are heads 0 to 3"),
        (directions, [], 4, "no head was asked for; there are heads 0 to 3"),
        (directions, {9: [0]}, 4, "no layer 9 here; there are layers 0, 1"),
    ):
        with pytest.raises(SteerlabError, match=refused):
            only_heads(given, heads, count=count)
    with pytest.raises(SteerlabError, match="there is no 'fr'; there are en es"):
        head_gaps(directions, "en", "fr", count=4)

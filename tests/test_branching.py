"""Rows that branch off a shared prompt end where a whole pass of their own ends, and the blocks
below run once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPTS, SHAPES

from steerlab.core.directions import Direction
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES
from steerlab.edits import Edit, ablate, add, rotate, stack
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.prompts import encode, pad
from steerlab.models.branching import branch
from steerlab.models.loading import load
from steerlab.models.model import Model


def directions(model: Model, count: int = 3) -> list[Direction]:
    """Random ones at every site, at the first, a middle and the last layer."""
    made, random = [], torch.Generator().manual_seed(0)
    for layer in sorted({0, model.n_layers // 2, model.n_layers - 1})[:count]:
        for site in SITES:
            width = model.width_of(site)
            unit = torch.randn(1, width, generator=random)
            unit /= unit.norm()
            start = torch.randn(1, width, generator=random)
            made.append(
                Direction(
                    "de", "en", (layer,), site, unit, torch.tensor([3.0]), start, unit[:, None], {}
                )
            )
    return made


def edits_of(model: Model) -> list[Edit]:
    steps = directions(model)
    made = [Edit(())]
    for step in steps:
        made += [add(step), rotate(step, degrees=50)]
        if step.site.startswith("resid"):
            made += [add(step, positions="prompt"), ablate(step)]
    return [*made, add(steps[0]) | rotate(steps[-1], degrees=20), add(steps[-1]) | ablate(steps[1])]


@pytest.fixture(params=["polyglot", *SHAPES])
def model(request: pytest.FixtureRequest, polyglot: Model, tiny: Callable[[str], Path]) -> Model:
    return polyglot if request.param == "polyglot" else load(tiny(request.param))


def test_rows_join_before_the_block_that_an_edit_is_in(polyglot):
    """All sites lie before their block's end but the last, which is behind it."""
    for site in SITES:
        unit = torch.ones(1, polyglot.width_of(site))
        step = Direction(
            "de", "en", (3,), site, unit, torch.tensor([1.0]), 0 * unit, unit[:, None], {}
        )
        depth = 4 if site == "resid_post" else 3
        assert add(step).joins([0, 1], end=8) == [depth, depth]
        assert stack([Edit(()), add(step)]).joins([1, 0], end=8) == [depth, 8]


@torch.inference_mode()
def test_branched_rows_end_where_their_own_passes_end(model):
    edits = edits_of(model) * 2
    ids = encode(model.tokenizer, [PROMPTS[i >= len(edits) // 2] for i in range(len(edits))])
    edit = stack(edits)
    prompts, joined = branch(
        ids, edit.joins(range(len(edits)), model.n_layers), range(len(edits)), model.device
    )
    assert joined is not None
    assert len(prompts) == 2
    seen: list[int] = []
    counting = [
        block.register_forward_hook(
            lambda _, args, out: seen.append(len(args[0]) if args else 0), always_call=True
        )
        for block in model.blocks
    ]
    with edit.on(model):
        tokens, mask = pad(prompts, 0, model.device)
        logits, past = model.forward(tokens, mask, room=4, branch=joined)
    for handle in counting:
        handle.remove()
    assert seen[0] < len(edits)  # the prompts, and the rows that differ from the start
    assert seen == sorted(seen)
    for place, row in enumerate(joined.order):
        alone, mask = pad([ids[row]], 0, model.device)
        with edits[row].on(model):
            whole, own = model.forward(alone, mask, room=4)
        length = alone.shape[1]
        assert torch.allclose(logits[place, -length:], whole[0], atol=2e-4, rtol=1e-4)
        for mine, theirs in zip(past.layers, own.layers, strict=True):
            mine, theirs = (_kept(layer) for layer in (mine, theirs))
            assert torch.allclose(
                mine[place, :, -theirs.shape[2] :], theirs[0], atol=2e-4, rtol=1e-4
            )


def _kept(layer: Any) -> torch.Tensor:
    """The keys that a cache's layer has: a slab has room behind them."""
    return layer.keys[:, :, : layer.length] if hasattr(layer, "length") else layer.keys


@torch.inference_mode()
def test_cross_entropy_is_that_of_whole_passes(model):
    edits = edits_of(model)
    found = cross_entropy(model, PROMPTS, edits)
    for row, edit in zip(found, edits, strict=True):
        for value, ids in zip(row, encode(model.tokenizer, PROMPTS), strict=True):
            with edit.on(model):
                logits = model.hf(input_ids=torch.tensor([ids])).logits[0, :-1]
            assert float(value) == pytest.approx(
                float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]))), rel=1e-4
            )
    prompt = sum(any(part.positions == "prompt" for part in edit.parts) for edit in edits)
    assert (
        found.unique(dim=0).shape[0] == len(edits) - prompt
    )  # where nothing is generated all is prompt


def test_cross_entropy_does_not_depend_on_the_batch(polyglot):
    edits = edits_of(polyglot)
    whole = cross_entropy(polyglot, PROMPTS, edits)
    assert torch.allclose(cross_entropy(polyglot, PROMPTS, edits, batch=5), whole, atol=1e-5)
    assert torch.allclose(
        cross_entropy(polyglot.tl, PROMPTS[:1], edits[:3]), whole[:3, :1], atol=1e-4
    )


def test_the_same_text_twice_and_an_edit_around(polyglot):
    first, *_, last = directions(polyglot)
    twice = cross_entropy(polyglot, [PROMPTS[0]] * 2, [Edit(()), add(last)])
    assert torch.equal(twice[:, 0], twice[:, 1])
    with add(first).on(polyglot):
        inside = cross_entropy(polyglot, PROMPTS[:1], [Edit(()), add(last)])
    around = cross_entropy(polyglot, PROMPTS[:1], [add(first), add(first) | add(last)])
    assert torch.allclose(inside, around, atol=1e-5)
    assert not torch.allclose(inside, twice[:, :1], atol=1e-2)


def test_rows_of_one_prompt_each_do_not_branch(polyglot):
    ids = encode(polyglot.tokenizer, PROMPTS)
    prompts, joined = branch(ids, [0, 1, 2, 3], range(4), polyglot.device)
    assert (prompts, joined) == (ids, None)


def test_nothing_is_left_on_the_blocks(polyglot):
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in polyglot.hf.modules())

    before, step = hooks(), directions(polyglot)[2]
    broken = Direction(
        "de", "en", (4,), "resid_post", step.unit * torch.nan, step.gap, step.start, step.basis, {}
    )
    with pytest.raises(SteerlabError, match="add: shift holds NaN"):
        cross_entropy(polyglot, PROMPTS, [add(broken), add(step)])
    with pytest.raises(
        SteerlabError, match="a text has .* tokens; polyglot was made for 512: cut it"
    ):
        cross_entropy(polyglot, ["The weather " * 300], [add(step)])
    assert hooks() == before
    assert polyglot._where is None


def test_what_is_generated_is_not_read(polyglot):
    step = directions(polyglot)[0]
    told = "nothing is generated when texts are read; give edits of the positions 'all' or 'prompt'"
    with pytest.raises(SteerlabError, match=told):
        cross_entropy(polyglot, PROMPTS, [add(step), add(step, positions="generated")])

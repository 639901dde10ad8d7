"""New blocks: a shift of the stream behind a norm, as a block of its own, says what the hooks say,
to transformers, TransformerLens and steerlab, with and without a cache."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPTS
from test_sites import USUAL, made
from test_weights import EVERYWHERE, IDS, bake, says, step, under

import steerlab as sl
from steerlab.core.errors import SteerlabError
from steerlab.engine.weights.blocks import gain_weights
from steerlab.models.loading import load
from steerlab.models.model import Model

SHAPES = ("gemma2", "gemma3", "olmo2", "glm4")  # the last has gate and value in one map


def small(shape: str) -> Model:
    """A tiny model of a shape whose MLP has less than two neurons for each coordinate."""
    own = {"num_hidden_layers": 3, "num_key_value_heads": 2}
    return made(shape, USUAL | own | ({} if shape == "olmo2" else {"head_dim": 8}))


@pytest.fixture(scope="module")
def of(lively: Callable[[str], Path]) -> Callable[[str], Model]:
    """A tiny model whose MLP ends in a norm, loaded once, and as it was after each test."""
    return functools.cache(
        lambda shape: load(lively(shape)) if shape.startswith("gemma") else small(shape)
    )


def added(model: Any, *places: tuple[str, int]) -> Any:
    """A shift at each of some places, of other directions."""
    edits = [
        sl.add(step(model, site, layer, seed=seed), strength=0.7, positions=EVERYWHERE)
        for seed, (site, layer) in enumerate(places)
    ]
    whole = edits[0]
    for edit in edits[1:]:
        whole = whole | edit
    return whole


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_with_a_block_more_says_what_the_hooks_say(of, shape, tmp_path):
    """One, and at two layers and between a block's halves; and no weight is told of where it is."""
    from transformers import AutoModelForCausalLM

    model = of(shape)
    plain, kinds = says(model), getattr(model.config, "layer_types", None)
    for places, blocks, order in (
        ([("resid_post", 1)], [2], [0, 1, 1, 2]),
        ([("resid_mid", 1), ("resid_post", 0), ("resid_pre", 2)], [1, 2, 4], [0, 0, 1, 1, 1, 2]),
    ):
        edit = added(model, *places)
        weights = bake(model, edit, more_blocks=True)
        folder = weights.save(tmp_path / str(len(places)))
        wanted = under(edit, model)
        assert not close(wanted, plain)
        assert weights.apart is not None
        assert weights.apart.largest < 1e-5
        assert close(says(weights.build()), wanted)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ours = load(folder)
        assert ours.n_layers == model.n_layers + len(blocks)
        with torch.inference_mode():
            assert close(theirs(IDS).logits, wanted)
        assert close(says(ours), wanted)
        about = json.loads((folder / "steerlab.json").read_text())
        assert about["digest"] == weights.digest
        assert [each["block"] for each in about["new blocks"]] == blocks
        assert ("readers" in about) is bool(kinds)
        if kinds:
            assert "not llama.cpp" in about["readers"]
            assert ours.config.layer_types == [kinds[layer] for layer in order]
    assert torch.equal(says(model), plain)
    with torch.inference_mode():
        torch.testing.assert_close(ours.tl(IDS), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_decoded_with_a_cache_is_what_the_hooks_decode(of, shape, tmp_path):
    """Over more tokens than a window of Gemma's has; by steerlab and by the network itself."""
    model = of(shape)
    edit = added(model, ("resid_post", 0), ("resid_post", 1))
    baked = load(bake(model, edit, more_blocks=True).save(tmp_path / "baked"))
    said = sl.generate(model, PROMPTS, edit=edit, max_new_tokens=12, one_line=False)
    assert sl.generate(baked, PROMPTS, max_new_tokens=12, one_line=False) == said
    assert sl.generate(model, PROMPTS, max_new_tokens=12, one_line=False) != said
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    with edit.on(model):
        wanted = model.hf.generate(IDS, **options)
    assert wanted.shape == (2, 18)
    assert torch.equal(baked.hf.generate(IDS, **options), wanted)


def test_what_has_a_place_stays_there(of):
    """Only a shift behind a norm gets a block; what stands before it, and the embedding, do not."""
    model = of("gemma3")
    inside = added(model, ("attn_z", 1), ("resid_pre", 0))
    behind = added(model, ("attn_out", 2), ("mlp_out", 0))
    weights = bake(model, inside | behind, more_blocks=True)
    assert [(each.layer, each.half) for each in weights.blocks] == [(0, "MLP"), (2, "attention")]
    assert len(weights.changes) == 2
    assert close(says(weights.build()), under(inside | behind, model))
    assert not bake(model, inside, more_blocks=True).blocks
    assert close(says(bake(model, inside).build()), under(inside, model))
    assert "2 maps and 2 new blocks of" in repr(weights)
    assert weights.digest == bake(model, inside | behind, more_blocks=True).digest
    assert weights.digest != bake(model, inside, more_blocks=True).digest
    with (
        pytest.raises(SteerlabError, match=r"another network: weights.build\(\) gives it"),
        weights.on(model),
    ):
        raise AssertionError("on")


def test_first_one_and_then_the_other(of):
    """Blocks at one place are one, and none if they take each other back."""
    model = of("gemma2")
    one, other = added(model, ("resid_post", 1)), added(model, ("attn_z", 2), ("resid_post", 1))
    both = bake(model, one, more_blocks=True) | bake(model, other, more_blocks=True)
    assert len(both.blocks) == len(both.changes) == 1
    assert close(says(both.build()), under(one | other, model))
    here = step(model)
    back = sl.add(here, strength=-1, positions=EVERYWHERE)
    forth = sl.add(here, positions=EVERYWHERE)
    assert bake(model, forth, more_blocks=True).blocks
    none = bake(model, forth, more_blocks=True) | bake(model, back, more_blocks=True)
    assert not none.blocks


def test_the_unchanged_weights_are_the_models_own(of):
    model = of("gemma3")
    deeper = bake(model, added(model, ("resid_post", 1)), more_blocks=True).build()
    held = {value.data_ptr() for value in model.hf.parameters()}
    new = [name for name, value in deeper.hf.named_parameters() if value.data_ptr() not in held]
    assert new
    assert all(name.startswith("model.layers.2.") for name in new)


@pytest.mark.parametrize("shape", ["gemma3_text", "olmo2"])
def test_in_bfloat16_no_coordinate_is_lost(shape):
    """Gemma's gain is 1 + w, in which w of eight bits would swallow what is below 0.002."""
    model = small(shape)
    model.hf.to(torch.bfloat16)
    for size in (0.03, 0.3, 30.0):
        shift = size * torch.logspace(-5, 0, 32)
        edit = sl.edit(
            lambda h, tensors: tensors["shift"],
            layer=1,
            tensors={"shift": shift},
            positions=EVERYWHERE,
        )
        deeper = bake(model, edit, more_blocks=True).build()
        written = given(deeper, "model.layers.2.post_feedforward_layernorm")
        # A rounding, of at most 2^-8, of the weights, of what the MLP gives, of what the norm does.
        assert ((written / shift - 1).abs() < 3.1 * 2**-8).all()
        assert (written.norm(dim=1) / shift.norm() - 1).abs().max() < 2**-8


@torch.inference_mode()
def given(model: Any, module: str) -> torch.Tensor:
    """What a module gives, a row a position."""
    seen: list[torch.Tensor] = []
    look = model.hf.get_submodule(module).register_forward_hook(
        lambda _, __, out: seen.append(out.float().flatten(0, 1))
    )
    model.hf(IDS)
    look.remove()
    return seen[0]


@pytest.mark.parametrize("plus", [0, 1])
def test_the_gains_have_the_length_in_the_bits_that_there_are(plus):
    random = torch.Generator().manual_seed(0)
    for dtype, least, slack in ((torch.bfloat16, 0.01, 2e-4), (torch.float32, 1e-4, 1e-6)):
        for size in (least, 0.3, 1.0, 7.3, 900.0):
            shift = size * torch.randn(640, generator=random, dtype=torch.float64)
            weights = gain_weights(shift, plus, dtype)
            assert torch.equal(weights.to(dtype).double(), weights)
            length = (shift / (weights + plus)).square().mean().sqrt()
            assert float(length) == pytest.approx(1, abs=slack)


# ---------------------------------------------------------------------------------------- refusals


def test_without_the_option_the_message_names_it(of):
    model = of("olmo2")
    edit = added(model, ("resid_post", 1))
    with pytest.raises(SteerlabError, match=r"no bias \(more_blocks=True gives the shift a block"):
        bake(model, edit)
    away = sl.ablate(step(model, "mlp_out"), positions=EVERYWHERE)
    with pytest.raises(SteerlabError, match="and has no bias, so it has no exact form"):
        bake(model, away, more_blocks=True)
    with pytest.raises(SteerlabError, match="acts at the positions 'all'"):
        bake(model, sl.add(step(model)), more_blocks=True)


def test_what_can_have_no_block_more_is_refused_before_any_work(of, monkeypatch):
    model = of("gemma3")
    edit = added(model, ("resid_post", 1))
    monkeypatch.setattr(model.hf.config, "num_kv_shared_layers", 1, raising=False)
    with pytest.raises(SteerlabError, match="share keys and values by their numbers"):
        bake(model, edit, more_blocks=True)
    monkeypatch.undo()
    half = small("olmo2")
    half.hf.to(torch.float16)
    with pytest.raises(SteerlabError, match="too large for float16; load the model in float32 or"):
        bake(half, added(half, ("resid_post", 1)), more_blocks=True)


def test_a_block_that_does_not_add_its_shift_is_refused(of, monkeypatch):
    """As of an MLP that does something else: here, one that turns its sign."""
    from transformers.models.gemma3 import modeling_gemma3

    model = of("gemma3")
    edit = added(model, ("resid_post", 1))
    forward = modeling_gemma3.Gemma3MLP.forward
    monkeypatch.setattr(modeling_gemma3.Gemma3MLP, "forward", lambda self, x: -forward(self, x))
    with pytest.raises(SteerlabError, match="does not add the shift that add at resid_post of lay"):
        bake(model, edit, more_blocks=True)


def test_weights_that_the_class_has_not_are_refused(of):
    """As those of an adapter in a layer, and of blocks whose weights follow from their numbers."""
    model = small("olmo2")
    edit = added(model, ("resid_post", 1))
    plain = bake(model, added(model, ("attn_z", 1)), exact=False)
    beside = torch.nn.Parameter(torch.ones(2, 32))
    model.hf.model.layers[0].self_attn.q_proj.register_parameter("lora_A", beside)
    with pytest.raises(SteerlabError, match="moved by a new block, .* or of what was put into it"):
        bake(model, edit, more_blocks=True)
    with pytest.raises(SteerlabError, match=r"q_proj.lora_A is no weight .*merge_and_unload"):
        plain.build()

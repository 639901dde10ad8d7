"""Sites inside the MLP, whatever an architecture calls its projections, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_directions

from steerlab.core.errors import SteerlabError
from steerlab.edits import add
from steerlab.models.huggingface import Model
from steerlab.models.loading import PACKAGED

SIZES = {"vocab_size": 12288, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
USUAL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
OTHERS: dict[str, dict[str, Any]] = {
    "phi3": USUAL
    | {"num_key_value_heads": 2},  # one projection for the gate and what it multiplies
    "glm4": USUAL | {"num_key_value_heads": 2, "head_dim": 8},
    "gpt_neox": USUAL,
    "phi": USUAL,
    "starcoder2": USUAL | {"num_key_value_heads": 2},
    "nemotron": USUAL | {"num_key_value_heads": 2},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "rotary_dim": 4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
    },
}
WIDTHS = {"bloom": 128, "falcon": 128}


@pytest.fixture(scope="module", params=OTHERS)
def model(request: pytest.FixtureRequest) -> Model:
    """A tiny random model of one more architecture."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(request.param, **SIZES, **OTHERS[request.param])
    )
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
    return Model(hf, AutoTokenizer.from_pretrained(PACKAGED), name=request.param)


@torch.inference_mode()
def run(model: Model, *changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits, and what is at `mlp_post` of layer 1, under changes."""
    seen: list[torch.Tensor] = []
    ids = torch.tensor([[1, 50, 60, 70, 80], [0, 1, 55, 65, 75]])
    look = ("mlp_post", 1, lambda h, where: seen.append(h.clone()))
    with model.attached([*changes, look]):
        return model.forward(ids, ids > 0)[0][:, 1:], seen[0]


def test_every_architecture_has_its_sites(model):
    """A gate far below 0 is shut, so it is the gate that mlp_pre is; and what mlp_post is, the
    MLP's output is."""
    plain, inside = run(model)
    width = model.width_of("mlp_post")
    assert width == model.width_of("mlp_pre") == WIDTHS.get(model.name, 48)
    assert model.width_of("resid_post") == model.width == 32
    assert inside.shape == (2, 5, width)
    assert inside.abs().max() > 0.1
    shut, nothing = run(model, ("mlp_pre", 1, lambda h, where: torch.full_like(h, -1e4)))
    assert (nothing == 0).all()
    same, _ = run(model, ("mlp_post", 1, lambda h, where: torch.zeros_like(h)))
    torch.testing.assert_close(shut, same, atol=1e-5, rtol=1e-5)
    assert (shut - plain).abs().max() > 1e-2
    one, half = run(
        model, ("mlp_pre", 1, lambda h, where: h.index_fill(-1, torch.tensor([3]), -1e4))
    )
    assert (half[..., 3] == 0).all()
    kept = [unit for unit in range(width) if unit != 3]
    assert torch.equal(half[..., kept], inside[..., kept])
    assert not torch.equal(one, plain)


def test_an_edit_there_leaves_bos_and_padding_alone(model):
    step = random_directions(model, site="mlp_post").between("en", "es").at(1)
    plain, before = run(model)
    with add(step).on(model) as touched:
        steered, after = run(model)
    moved = (after - before).abs().amax(-1) > 0
    assert moved.tolist() == [[False, True, True, True, True], [False, False, True, True, True]]
    assert touched.prefill == {1: 7}
    assert not torch.allclose(plain, steered, atol=1e-3)


def test_an_mlp_that_nobody_knows_and_widths_that_differ(tiny):
    from steerlab.models.loading import load

    model = load(tiny("llama"))
    wide: Any = model.blocks[1].mlp
    wide.down_proj, wide.gate_proj = torch.nn.Linear(80, 32), torch.nn.Linear(32, 80)
    with pytest.raises(
        SteerlabError, match=r"different widths \[64, 80\], so mlp_post has none of its own"
    ):
        model.width_of("mlp_post")
    model.blocks[1].mlp = torch.nn.Sequential(torch.nn.Linear(32, 80), torch.nn.Linear(80, 32))
    with pytest.raises(
        SteerlabError,
        match="LlamaDecoderLayer has no MLP that steerlab knows, so no site 'mlp_pre'",
    ):
        model.width_of("mlp_pre")
    with pytest.raises(
        SteerlabError,
        match="there is no site 'mlp_mid'; the sites are resid_pre, attn_z, attn_out",
    ):
        model.width_of("mlp_mid")


def test_an_edit_of_another_width_is_refused(tiny):
    from steerlab.models.loading import load

    model = load(tiny("llama"))
    inner = add(random_directions(model, site="mlp_post").between("en", "es"))
    outer = random_directions(model).between("en", "es")
    wrong = add(type(outer)(**vars(outer) | {"site": "mlp_post"}))
    for target in (model, load(model.tl)):
        with (
            pytest.raises(SteerlabError, match="add: shift has width 32, .* has 64 at mlp_post"),
            wrong.on(target),
        ):
            raise AssertionError("attached")
        with inner.on(target):
            pass
    for width in (None, 64):
        brought = SimpleNamespace(cfg=SimpleNamespace(d_model=32, d_mlp=width))
        names = [f"blocks.{layer}.mlp.hook_post" for layer in range(3)]
        assert [name for name, _ in inner.hooks(brought, bos=True)] == names
    with pytest.raises(
        SteerlabError, match="add: shift has width 32, the model has 64 at mlp_post"
    ):
        wrong.hooks(brought)

"""Sites inside a block, whatever an architecture calls its modules and however it adds them up, and
what is refused."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_directions
from einops import rearrange
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES, hook_name
from steerlab.edits import add
from steerlab.engine.decoding import generate
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import PACKAGED, load
from steerlab.models.model import Model

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
    "olmo2": USUAL | {"num_key_value_heads": 2},  # norms behind attention and MLP, none before
    "gpt_neo": {  # an attention inside the attention
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 48,
        "attention_types": [[["global", "local"], 1]],
    },
}
WIDTHS = {"bloom": 128, "falcon": 128}
IDS = torch.tensor([[1, 50, 60, 70, 80], [0, 1, 55, 65, 75]])  # of padding 0 and BOS 1
SIDE_BY_SIDE = ("gpt_neox", "phi", "gptj", "falcon")


@pytest.fixture(scope="module", params=OTHERS)
def model(request: pytest.FixtureRequest) -> Model:
    """A tiny random model of one more architecture."""
    return made(request.param, OTHERS[request.param])


def made(shape: str, sizes: dict[str, Any]) -> Model:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape, **SIZES, **sizes))
    hf.config.architectures = [type(hf).__name__]  # by which TransformerLens knows it
    with torch.no_grad():
        for weight in hf.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
            else:  # so that no norm gives what it reads, and no bias is nothing
                weight.add_(0.3 * torch.randn_like(weight))
    return HuggingFaceModel(hf, AutoTokenizer.from_pretrained(PACKAGED), name=shape)


@torch.inference_mode()
def run(model: Model, *changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits, and what is at `mlp_post` of layer 1, under changes."""
    seen: list[torch.Tensor] = []
    look = ("mlp_post", 1, lambda h, where: seen.append(h.clone()))
    with model.attached([*changes, look]):
        return model.forward(IDS, IDS > 0)[0][:, 1:], seen[0]


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
    most = inside.abs().amax((0, 1)).argmax()  # another one may be off for all of the tokens
    one, half = run(model, ("mlp_pre", 1, lambda h, where: h.index_fill(-1, most, -1e4)))
    assert (half[..., most] == 0).all()
    kept = [unit for unit in range(width) if unit != most]
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


# ----------------------------------------------------------------- what a block adds to the stream


def sites_of(model: Model) -> list[str]:
    return [site for site in SITES if site != "resid_mid" or model.name not in SIDE_BY_SIDE]


@torch.inference_mode()
def read(model: Model, *changes: Any) -> dict[str, torch.Tensor]:
    """What is at each site of layer 1 under changes, kept as it was given, and the logits."""
    seen: dict[str, torch.Tensor] = {}
    looks = [(site, 1, lambda h, _, site=site: seen.update({site: h})) for site in sites_of(model)]
    with model.attached([*changes, *looks]):
        seen["logits"] = model.forward(IDS, IDS > 0)[0]
    return seen


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """At the positions that are no padding."""
    return torch.allclose(one[IDS > 0], other[IDS > 0], atol=1e-4, rtol=1e-4)


def test_what_is_read_adds_up(model):
    """Though nothing was copied that a later step may change in place, as Falcon does with its
    MLP's output."""
    h = read(model)
    assert [h[site].shape[-1] for site in sites_of(model)] == [
        model.width_of(site) for site in sites_of(model)
    ]
    if model.name in SIDE_BY_SIDE:
        assert close(h["resid_post"], h["resid_pre"] + h["attn_out"] + h["mlp_out"])
    else:
        assert close(h["resid_mid"], h["resid_pre"] + h["attn_out"])
        assert close(h["resid_post"], h["resid_mid"] + h["mlp_out"])
    for part in ("attn_out", "mlp_out"):
        assert h[part][IDS > 0].abs().mean() > 0.05


def test_what_is_changed_reaches_the_stream(model):
    """A step is the same step at every site between which nothing else is done."""
    step = 3 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    pairs = [("mlp_out", "resid_post")]
    pairs += [("attn_out", "resid_post" if model.name in SIDE_BY_SIDE else "resid_mid")]
    plain = read(model)["logits"]
    for pair in pairs:
        one, other = (read(model, (site, 1, lambda h, _: h + step)) for site in pair)
        assert close(one["logits"], other["logits"])
        assert close(one["resid_post"], other["resid_post"])
        assert not close(one["logits"], plain)
    if model.name not in SIDE_BY_SIDE:  # the negative control: the MLP reads the middle
        early, late = (
            read(model, (site, 1, lambda h, _: h + step)) for site in pairs[1][:1] + pairs[0][1:]
        )
        assert not close(early["logits"], late["logits"])


def test_what_heads_give_is_all_that_their_projection_reads(model):
    """Without it an attention gives the same at every position: its bias, or the norm of that."""
    nothing = read(model, ("attn_z", 1, lambda h, _: torch.zeros_like(h)))["attn_out"]
    assert torch.allclose(nothing, nothing[:1, :1].expand_as(nothing), atol=1e-6)
    before = read(model)["attn_out"]
    assert not torch.allclose(before[:, 1:], before[:, 1:2].expand_as(before[:, 1:]), atol=1e-2)


def test_a_bridge_has_the_same_at_every_site(model):
    """Read and changed; one head is the same head."""
    ids, names = IDS[:1], {hook_name(site, 1): site for site in sites_of(model)}
    with torch.inference_mode():
        cache = model.tl.run_with_cache(ids, names_filter=list(names))[1]
    for name, site in names.items():
        theirs = cache[name]
        theirs = rearrange(theirs, "r p h d -> r p (h d)") if site == "attn_z" else theirs
        torch.testing.assert_close(read(model)[site][:1], theirs, atol=1e-4, rtol=1e-4)
        edit = add(random_directions(model, site=site).between("en", "es").at(1))
        with edit.on(model), torch.inference_mode():
            ours = model.forward(ids, ids > 0)[0]
        with torch.inference_mode():
            given = model.tl.run_with_hooks(ids, fwd_hooks=edit.hooks(model))
            plain = model.forward(ids, ids > 0)[0]
        torch.testing.assert_close(ours, given, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(ours, plain, atol=1e-2)


def test_blocks_that_run_side_by_side_have_no_middle():
    model = made("gpt_neox", USUAL)
    edit = add(replace(random_directions(model).between("en", "es"), site="resid_mid"))
    for view in (model, load(model.tl)):
        refused = (
            "side by side.*no site 'resid_mid'; use resid_pre"
            if view is model
            else "has no blocks.0.hook_resid_mid"
        )
        with pytest.raises(SteerlabError, match=refused):
            view.width_of("resid_mid")
        with pytest.raises(SteerlabError, match=refused), edit.on(view):
            raise AssertionError("attached")
    # The same modules one after the other do have one.
    in_turn = made("gpt_neox", USUAL | {"use_parallel_residual": False})
    assert in_turn.width_of("resid_mid") == load(in_turn.tl).width_of("resid_mid") == 32


def test_what_is_scaled_before_it_is_added_is_refused():
    """And is not what a module gives; without the scale it is."""
    sizes = USUAL | {"num_key_value_heads": 2}
    model = made("granite", sizes | {"residual_multiplier": 0.5})
    for site in ("attn_out", "resid_mid", "mlp_out"):
        with pytest.raises(
            SteerlabError,
            match=f"what GraniteDecoderLayer adds to the residual stream is no.*no site '{site}'",
        ):
            model.width_of(site)
    assert model.width_of("attn_z") == 32
    plain = made("granite", sizes | {"residual_multiplier": 1.0})
    assert plain.width_of("resid_mid") == plain.width_of("attn_out") == 32


class Copying(LlamaDecoderLayer):
    """Its MLP reads a copy of the stream: what is written there in place is lost."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **options: Any) -> torch.Tensor:
        read = self.input_layernorm(hidden_states)
        h = hidden_states + self.self_attn(hidden_states=read, **options)[0]
        return h + self.mlp(self.post_attention_layernorm(h.clone()))


class Unknown(LlamaDecoderLayer):
    """Its attention is where nobody looks for it."""

    mixer: Any

    def forward(self, hidden_states: torch.Tensor, *_: Any, **options: Any) -> torch.Tensor:
        read = self.input_layernorm(hidden_states)
        h = hidden_states + self.mixer(hidden_states=read, **options)[0]
        return h + self.mlp(self.post_attention_layernorm(h))


def test_a_middle_of_which_the_mlp_reads_a_copy_is_refused(tiny):
    model = load(tiny("llama"))
    model.blocks[1].__class__ = Copying
    with pytest.raises(SteerlabError, match="Copying .* hands its MLP a copy of the residual str"):
        model.width_of("resid_mid")
    assert model.width_of("attn_out") == 32
    assert load(tiny("llama")).width_of("resid_mid") == 32


def test_an_attention_that_nobody_knows(tiny):
    model = load(tiny("llama"))
    block: Any = model.blocks[2]
    block.mixer = block.self_attn
    del block.self_attn
    block.__class__ = Unknown
    for site, refused in (
        ("attn_z", r"Unknown has no attention \(self_attn, .* steerlab can tell: .* 'attn_z'"),
        ("attn_out", "what Unknown adds to the residual stream is no output of its attention"),
        ("resid_mid", "what Unknown adds to the residual stream is no output of its attention"),
    ):
        with pytest.raises(SteerlabError, match=refused):
            model.width_of(site)
    with model.attached([("attn_z", 1, lambda h, where: None)]):
        pass  # the others have it
    with (
        pytest.raises(SteerlabError, match="Unknown has no attention"),
        model.attached([("attn_z", 2, lambda h, where: None)]),
    ):
        raise AssertionError("attached")


def test_the_pass_that_tells_them_is_no_pass_of_an_edit(tiny):
    model = load(tiny("llama"))
    edit = add(random_directions(model).between("en", "es").at(1), strength=5.0)
    with edit.on(model) as touched:
        assert model.width_of("attn_out") == 32
        assert touched.passes == 0
        generate(model, ["A text."], max_new_tokens=1)
        assert touched.passes > 0
    assert isinstance(model, HuggingFaceModel)
    assert isinstance(other := load(tiny("llama")), HuggingFaceModel)
    assert model.anatomy.streams == other.anatomy.streams


def test_an_mlp_that_nobody_knows_and_widths_that_differ(tiny):
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
    model = load(tiny("llama"))
    inner = add(random_directions(model, site="mlp_post").between("en", "es"))
    outer = random_directions(model).between("en", "es")
    wrong = add(replace(outer, site="mlp_post"))
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

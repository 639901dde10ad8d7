"""Weights: what an edit does with hooks, its weights do without, in memory and in a folder; what
has no exact form is refused with its error."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from conftest import PROMPTS, hooked_transformer, random_directions
from safetensors import safe_open
from test_sites import USUAL, made

import steerlab as sl
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, ablate_stream
from steerlab.engine.weights.affine import affine_of, no_change
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.writers import tables

IDS = torch.tensor([[1, 50, 60, 70, 80, 90], [1, 55, 65, 75, 85, 95]])
SHAPES = ("llama", "gpt2", "gemma3", "neox", "in turn")
INSIDE = ("attn_z", "mlp_pre", "mlp_post")
EVERYWHERE = "everywhere"
CLOSE = 3e-5  # of logits whose standard deviation is 1 to 5


@pytest.fixture(scope="module")
def of(lively: Callable[[str], Path]) -> Callable[[str], HuggingFaceModel]:
    """A lively tiny model of a shape of its own, loaded once, and as it was after each test."""
    kept: dict[str, Any] = {}

    def get(shape: str) -> HuggingFaceModel:
        if shape not in kept:
            beside = {"use_parallel_residual": shape == "neox"}
            one = shape in ("neox", "in turn")
            kept[shape] = (
                made("gpt_neox", USUAL | {"num_hidden_layers": 3} | beside)
                if one
                else load(lively(shape))
            )
        return kept[shape]

    return get


def bake(model: Model, edit: Edit, **options: Any) -> sl.WeightEdit:
    return sl.bake(model, edit, texts=["One short text."], **options)


def step(model: Model, site: str = "resid_post", layer: int = 1, **options: Any) -> Any:
    return random_directions(model, site=site, **options).between("en", "es").at(layer)


@torch.inference_mode()
def says(model: Model) -> torch.Tensor:
    logits: torch.Tensor = model.hf(IDS).logits
    return logits


def under(edit: Any, model: Model) -> torch.Tensor:
    with edit.on(model):
        return says(model)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=CLOSE, rtol=CLOSE)


def at_site(model: Model, site: str) -> list[Edit]:
    """A level that is set at a site; on one shape a shift and a rotation too."""
    here = step(model, site)
    level = sl.affine(here, positions=EVERYWHERE)
    if model.config.model_type != "llama":  # a level is a shift and a matrix
        return [level]
    turn = sl.rotate(here, degrees=50, positions=EVERYWHERE)
    return [sl.add(here, positions=EVERYWHERE), turn, level]


@pytest.mark.parametrize("shape", SHAPES[:-1])
@pytest.mark.parametrize("site", [*INSIDE, "attn_out", "mlp_out"])
def test_weights_say_what_hooks_say_inside_a_block(of, shape, site):
    model = of(shape)
    plain = says(model)
    for edit in at_site(model, site):
        if shape == "gemma3" and site not in INSIDE:
            with pytest.raises(SteerlabError, match=r"behind .*_proj stands a norm.*nats a token"):
                bake(model, edit)
            continue
        weights = bake(model, edit)
        assert same(under(weights, model), under(edit, model))
        assert not same(under(weights, model), plain)
        assert weights.apart is not None
        assert weights.apart.nats < 1e-9


@pytest.mark.parametrize("shape", ["llama", "gpt2", "neox", "in turn"])
def test_a_shift_of_the_stream_is_a_bias(of, shape):
    model = of(shape)
    for site in ("resid_pre", "resid_mid", "resid_post"):
        if shape == "neox" and site == "resid_mid":
            continue
        for layer in (0, 1):
            edit = sl.add(step(model, site, layer), positions=EVERYWHERE)
            weights = bake(model, edit)
            sides = {change.side for change in weights.changes}
            assert sides == ({"rows"} if (site, layer) == ("resid_pre", 0) else {"output"})
            assert same(under(weights, model), under(edit, model))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_done_to_the_embedding_is_exact(of, shape):
    """GPT-2's stream begins with two embeddings, and Gemma's with one times √width."""
    model = of(shape)
    found = tables(model)
    assert len(found) == (2 if shape == "gpt2" else 1)
    assert found[0].scale == pytest.approx(32**0.5 if shape == "gemma3" else 1.0, rel=1e-3)
    here = step(model, "resid_pre", 0)
    for edit in (
        sl.affine(here, positions=EVERYWHERE),
        sl.rotate(here, degrees=50, positions=EVERYWHERE),
    ):
        weights = bake(model, edit)
        assert {change.side for change in weights.changes} == {"rows"}
        assert same(under(weights, model), under(edit, model))


@pytest.mark.parametrize("shape", ["llama", "gpt2", "neox", "in turn"])
def test_a_removal_everywhere_is_in_the_embedding_and_all_writers(of, shape):
    model = of(shape)
    here = step(model)
    edit = ablate_stream(here, model.n_layers)
    weights = bake(model, edit)
    assert same(under(weights, model), under(edit, model))
    assert not same(under(weights, model), says(model))
    parts = components(model, here.basis[0], weights)
    assert max(parts) < 1e-4 < min(components(model, here.basis[0]))
    half = ablate_stream(here, model.n_layers, fraction=0.5)
    assert same(under(bake(model, half), model), under(half, model))


def components(model: Model, basis: torch.Tensor, weights: Any = None) -> list[float]:
    """The most that lies in a subspace at each block's end."""
    seen: list[float] = []
    looks = [
        ("resid_post", layer, lambda h, _: seen.append(float((h @ basis.mT).abs().max())))
        for layer in range(model.n_layers)
    ]
    with torch.inference_mode(), model.attached(looks):
        if weights is None:
            model.hf(IDS)
        else:
            with weights.on(model):
                model.hf(IDS)
    return seen


@pytest.mark.parametrize("shape", ["llama", "neox"])
def test_a_removal_from_the_stream_needs_every_place_up_to_its_last(of, shape):
    """The same basis at resid_pre of layer 0 and at each place behind it is what writers without it
    do; without one place, it is not."""
    model = of(shape)
    here = step(model)
    places = [("resid_pre", 0), ("resid_mid", 0), ("resid_post", 0), ("resid_mid", 1)]
    if shape == "neox":
        places = [("resid_pre", 0), ("resid_post", 0), ("resid_pre", 2)]
    parts = [
        sl.ablate(replace(here, site=site, layers=(layer,)), positions=EVERYWHERE)
        for site, layer in places
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole | part
    weights = bake(model, whole)
    assert same(under(weights, model), under(whole, model))
    broken = Edit((*parts[0].parts, *(each for part in parts[2:] for each in part.parts)))
    with pytest.raises(SteerlabError, match="changes what earlier layers wrote.*exact where it st"):
        bake(model, broken)
    # A level that is set stays set, and then a shift is a shift again.
    level = sl.affine(replace(here, site="resid_pre", layers=(0,)), positions=EVERYWHERE)
    after = sl.affine(replace(here, site="resid_post", layers=(0,)), positions=EVERYWHERE)
    if shape == "neox":
        shifted = level | after | sl.add(here, positions=EVERYWHERE)
        assert same(under(bake(model, shifted), model), under(shifted, model))


def test_gemma_loses_the_direction_and_not_the_same_length(of):
    """Behind a norm, G⁻¹ P G W takes exactly the direction away; the norm then lengthens the rest,
    so that it is no exact form."""
    model = of("gemma3")
    here = step(model)
    edit = ablate_stream(here, model.n_layers)
    with pytest.raises(SteerlabError, match="takes away the length of what is written, and has no"):
        bake(model, edit)
    nearest = bake(model, edit, exact=False)
    assert nearest.apart is not None
    assert nearest.apart.nats > 1e-4
    parts = components(model, here.basis[0], nearest)
    assert max(parts) < 1e-3 < min(components(model, here.basis[0]))
    # As writers without the direction alone would have it, before the norm's gain.
    naive = replace(
        nearest,
        changes=tuple(
            replace(each, left=here.basis[0].mT.double(), right=-here.basis[0].double())
            for each in nearest.changes
        ),
    )
    assert min(components(model, here.basis[0], naive)) > 0.1


def test_weights_come_back_bit_for_bit(of):
    model = of("llama")
    before = dict(model.hf.named_parameters())
    copies = {name: value.clone() for name, value in before.items()}
    edit = ablate_stream(step(model), model.n_layers) | sl.add(step(model), positions=EVERYWHERE)
    weights, fingerprint, bridge = bake(model, edit), model.fingerprint, model.tl
    plain = says(model)
    with weights.on(model):
        assert model.fingerprint != fingerprint
        assert model.hf.lm_head.weight is before["lm_head.weight"]
        with torch.inference_mode():
            torch.testing.assert_close(model.tl(IDS), says(model), atol=1e-4, rtol=1e-4)
    with pytest.raises(ZeroDivisionError), weights.on(model):
        raise ZeroDivisionError
    after = dict(model.hf.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is value for name, value in before.items())
    assert all(torch.equal(copies[name], value) for name, value in after.items())
    assert torch.equal(says(model), plain)
    assert model.fingerprint == fingerprint
    assert model.tl is bridge
    assert weights.digest == bake(model, edit).digest


def test_an_embedding_that_is_also_the_unembedding_keeps_what_is_compared_with(
    polyglot, directions
):
    edit = ablate_stream(directions["de"].at(4), polyglot.n_layers)
    tied = polyglot.hf.lm_head.weight
    with bake(polyglot, edit).on(polyglot):
        assert polyglot.hf.lm_head.weight is tied
        assert polyglot.hf.model.embed_tokens.weight is not tied
    assert polyglot.hf.model.embed_tokens.weight is tied


def test_first_one_and_then_the_other(of):
    model = of("llama")
    shift = sl.add(step(model, "mlp_out"), positions=EVERYWHERE)
    away = sl.ablate(step(model, "mlp_out"), positions=EVERYWHERE)
    one, other = bake(model, shift), bake(model, away)
    for edit, weights in ((shift | away, one | other), (away | shift, other | one)):
        assert same(under(weights, model), under(edit, model))
        assert same(under(weights, model), under(bake(model, edit), model))
    assert not same(under(one | other, model), under(other | one, model))
    with one.on(model):
        shifted = says(model)
    assert same(shifted, under(shift, model))
    with pytest.raises(SteerlabError, match="with another one, not with a Edit; sl.bake makes one"):
        one | shift  # type: ignore[operator]


def test_what_is_decoded_is_what_the_hooks_decode(polyglot, directions):
    edit = sl.add(directions.between("en", "de").at(4), strength=1.5, positions=EVERYWHERE)
    weights = bake(polyglot, edit)
    plain = sl.generate(polyglot, PROMPTS, max_new_tokens=6)
    with weights.on(polyglot):
        baked = sl.generate(polyglot, PROMPTS, max_new_tokens=6)
    assert baked == sl.generate(polyglot, PROMPTS, edit=edit, max_new_tokens=6)
    assert baked != plain == sl.generate(polyglot, PROMPTS, max_new_tokens=6)


# ---------------------------------------------------------------------------------------- a folder


KINDS = {"llama": "LLAMA", "gpt2": "GPT2", "neox": "GPTNEOX", "gemma3": "GEMMA3"}


@pytest.mark.parametrize("shape", KINDS)
def test_a_folder_of_its_own_says_the_same(of, shape, tmp_path):
    """To transformers and TransformerLens; and each of its tensors has the name by which llama.cpp
    reads it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = of(shape)
    edit = sl.affine(step(model, "resid_pre", 0), positions=EVERYWHERE) | sl.add(
        step(model, "attn_z" if shape == "gemma3" else "resid_post"), positions=EVERYWHERE
    )
    weights = bake(model, edit)
    folder = weights.save(tmp_path / "steered")
    wanted = under(weights, model)
    with torch.inference_mode():
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        assert torch.equal(theirs(IDS).logits, wanted)
        ours = load(folder)
        torch.testing.assert_close(ours.tl(IDS), wanted, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder)("A text.").input_ids
    assert ours.fingerprint != model.fingerprint
    about = json.loads((folder / "steerlab.json").read_text())
    assert about["digest"] == weights.digest
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, KINDS[shape]), model.n_layers)
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():
            assert names.get_name(name, try_suffixes=(".weight", ".bias")) is not None
    with pytest.raises(SteerlabError, match="is there already; give the name of a new folder"):
        weights.save(folder)


def test_a_tied_embedding_is_untied_in_the_folder(polyglot, directions, tmp_path):
    edit = ablate_stream(directions["de"].at(4), polyglot.n_layers)
    weights = bake(polyglot, edit)
    model = load(weights.save(tmp_path / "without"))
    assert not model.config.tie_word_embeddings
    assert torch.equal(under(weights, polyglot), says(model))
    with torch.inference_mode():  # which leaves no bias out, as there is none
        theirs = hooked_transformer(tmp_path / "without")(IDS)
    torch.testing.assert_close(theirs, says(model), atol=1e-3, rtol=1e-3)
    shifted = bake(polyglot, sl.add(directions.between("en", "de").at(4), positions=EVERYWHERE))
    config = json.loads((shifted.save(tmp_path / "shifted") / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["mlp_bias"] is True
    assert config["attention_bias"] is False


def test_an_architecture_without_such_a_bias_has_no_folder(tiny, tmp_path):
    model = load(tiny("qwen2"))
    weights = bake(model, sl.add(step(model), positions=EVERYWHERE))
    assert same(under(weights, model), under(sl.add(step(model), positions=EVERYWHERE), model))
    with pytest.raises(SteerlabError, match=r"Qwen2ForCausalLM has no place for .*down_proj.bias"):
        weights.save(tmp_path / "steered")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------- refusals


def test_what_weights_cannot_say_is_refused_with_its_error(of):
    model = of("llama")
    here = step(model)
    wide = sl.edit(lambda h: torch.tanh(h), layer=1, positions=EVERYWHERE, name="bent")
    gated = sl.add(here, positions=EVERYWHERE).when(sl.edits.gates.after(2))
    for edit, why in (
        (sl.add(here), "acts at the positions 'all'.*how a text begins"),
        (sl.add(here, positions="generated"), "acts at the positions 'generated'"),
        (sl.ablate(here, positions=EVERYWHERE), "changes what earlier layers wrote"),
        (sl.rotate(here, degrees=9, positions=EVERYWHERE), "changes what earlier layers wrote"),
        (sl.add(here, keep_norm=True, positions=EVERYWHERE), "is no affine map of what is there"),
        (wide, "bent at resid_post of layer 1 is no affine map"),
        (gated, "is behind the gate after"),
    ):
        with pytest.raises(SteerlabError, match=f"{why}.*the nearest is .* nats a token.*exact=F"):
            bake(model, edit)
        nearest = bake(model, edit, exact=False)
        assert nearest.apart is not None
        assert nearest.apart.nats > 1e-6
        assert 0 < nearest.apart.other <= 1
    other = load(model.tl)
    with pytest.raises(SteerlabError, match="bake takes a causal model of transformers"):
        bake(other, sl.add(here, positions=EVERYWHERE))
    with pytest.raises(SteerlabError, match="a stack is many edits"):
        bake(model, sl.stack([sl.add(here)]))
    with pytest.raises(SteerlabError, match="changes nothing, so that there is nothing to bake"):
        bake(model, sl.add(here, strength=0, positions=EVERYWHERE))
    with pytest.raises(SteerlabError, match="ablate_stream removes one direction of the residual"):
        ablate_stream(random_directions(model).between("en", "es"), 3)
    weights = bake(model, sl.add(here, positions=EVERYWHERE))
    with (
        pytest.raises(
            SteerlabError, match="these weights were changed in .*bake the edit for this"
        ),
        weights.on(of("gpt2")),
    ):
        raise AssertionError("on")


def test_the_mean_step_is_the_nearest_shift(of):
    """A shift at all positions but the first, as the mean of what it adds where it acts."""
    model = of("llama")
    here = step(model)
    bent = sl.edit(
        lambda h, tensors: 0 * h.pow(2) + tensors["step"] + 1e-9 * h.abs(),
        layer=1,
        tensors={"step": here.unit[0]},
        positions=EVERYWHERE,
    )
    wanted = sl.edit(
        lambda h, tensors: tensors["step"],
        layer=1,
        tensors={"step": here.unit[0]},
        positions=EVERYWHERE,
    )
    assert same(under(bake(model, bent, exact=False), model), under(wanted, model))


def test_what_is_affine_is_found_by_trying(of):
    """The map of an operator is that of its formula, and its rank is that of what it changes."""
    model = of("llama")
    here = step(model)
    basis, unit = here.basis[0].double(), here.unit[0].double()
    random = torch.Generator().manual_seed(3)
    h = torch.randn(32, generator=random, dtype=torch.float64)
    for edit, wanted, rank in (
        (sl.add(here), h + here.gap[0] * unit, 0),
        (sl.ablate(here, fraction=0.3), h - 0.3 * basis.mT @ (basis @ h), 2),
    ):
        found = affine_of(edit.parts[0], 32)
        assert found is not None
        assert found.rank == rank
        torch.testing.assert_close(found.of(h), wanted, atol=1e-5, rtol=1e-5)
    turned = affine_of(sl.rotate(here, degrees=77).parts[0], 32)
    assert turned is not None
    assert turned.rank == 2
    assert float(turned.of(h).norm()) == pytest.approx(float(h.norm()), rel=1e-6)
    assert affine_of(sl.add(here, keep_norm=True).parts[0], 32) is None
    assert no_change(32).of(h).equal(h)
    again = turned.after(turned)
    torch.testing.assert_close(again.of(h), turned.of(turned.of(h)))


def test_one_projection_for_gate_and_value():
    """Phi-3 has both in one map, of which mlp_pre is the first half."""
    model = made("phi3", USUAL | {"num_key_value_heads": 2})
    edit = sl.add(step(model, "mlp_pre"), positions=EVERYWHERE)
    assert same(under(bake(model, edit), model), under(edit, model))

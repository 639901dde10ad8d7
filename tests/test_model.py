"""One set of weights, two views: they agree with plain transformers and TransformerLens, and
edits attach cleanly."""

import contextlib
import copy
from typing import Any

import pytest
import torch
import transformers
from conftest import PROMPTS, RESIDUAL, SHAPES
from einops import rearrange

from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES, hook_name
from steerlab.edits import Edit, ablate, add, rotate, stack
from steerlab.engine.collect import collect
from steerlab.engine.decoding import generate
from steerlab.engine.prompts import encode, pad
from steerlab.models.encoder import Encoder
from steerlab.models.huggingface import HuggingFaceModel
from steerlab.models.loading import PACKAGED, load
from steerlab.models.model import Model
from steerlab.models.positions import Positions
from steerlab.models.transformerlens import LensModel


def batch(model: Model, prompts: list[str] = PROMPTS) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded (ids, mask)."""
    return pad(encode(model.tokenizer, prompts), model.tokenizer.pad_token_id, model.device)


@torch.inference_mode()
def logits(model: Model, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model.forward(ids, mask)[0]


@torch.inference_mode()
def states(model: Model, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """What functions attached to every site and layer see."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def look(h: torch.Tensor, where: Positions) -> None:
            seen[name] = h.clone()

        return look

    everywhere = [
        (site, layer, keep(hook_name(site, layer)))
        for site in SITES
        for layer in range(model.n_layers)
    ]
    with model.attached(everywhere):
        model.body(ids, mask)
    return seen


def hook_count(model: Model) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules()
    )


# --------------------------------------------------------------------------------- views that agree


def test_polyglot_is_a_plain_transformers_model(polyglot):
    plain = transformers.AutoModelForCausalLM.from_pretrained(PACKAGED, dtype=torch.float32).eval()
    ids, mask = batch(polyglot, PROMPTS[:1])
    with torch.inference_mode():
        assert torch.equal(plain(ids).logits, logits(polyglot, ids, mask))
    assert polyglot.dtype == torch.float32
    assert polyglot.tokenizer.padding_side == "left"
    assert (polyglot.name, polyglot.width) == ("polyglot", plain.config.hidden_size)


def test_weights_on_disk_are_16_bit():
    from safetensors import safe_open

    with safe_open(PACKAGED / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).element_size() for name in file.keys()} == {2}


def test_bridge_has_the_same_logits_and_no_second_set_of_weights(polyglot):
    model = load()
    ids, mask = batch(model)
    before, kind, hooks = (
        logits(model, ids, mask),
        [type(m) for m in model.hf.modules()],
        hook_count(model),
    )
    tl = model.tl
    assert tl is model.tl
    with torch.inference_mode():
        theirs = tl(ids, attention_mask=mask.long())
    torch.testing.assert_close(theirs[mask], before[mask], atol=1e-4, rtol=0)
    assert torch.equal(logits(model, ids, mask), before)
    assert [type(m) for m in model.hf.modules()] == kind
    assert hook_count(model) == hooks
    ours = {p.data_ptr() for p in model.hf.parameters()}
    shared = {p.data_ptr() for p in tl.parameters()} & ours
    assert shared == ours
    extra = sum(p.numel() for p in tl.parameters() if p.data_ptr() not in ours)
    assert extra <= len(model.tokenizer)  # the bridge brings a bias of zeros for the unembedding
    with torch.no_grad():
        next(iter(model.hf.parameters()))[5] += 1  # what one view changes, the other has
        assert not torch.allclose(
            tl(ids, attention_mask=mask.long())[mask], before[mask], atol=1e-4
        )


@pytest.mark.parametrize("folder", [True, False])
def test_bridge_built_inside_an_edit_is_unsteered(folder, directions):
    """Also of a model that no folder has, and that could not be loaded again."""
    model = load()
    if not folder:
        model = HuggingFaceModel(model.hf, model.tokenizer, name="no folder has it")
    ids, mask = batch(model, PROMPTS[:1])
    before = logits(model, ids, mask)
    with add(directions.between("en", "es").at(2), strength=3.0).on(model), torch.inference_mode():
        torch.testing.assert_close(model.tl(ids), before, atol=1e-4, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(model.tl(ids), before, atol=1e-4, rtol=0)


def test_hooked_transformer_has_the_same_logits(polyglot, hooked):
    ids, mask = batch(polyglot)
    with torch.inference_mode():
        theirs = hooked(ids, attention_mask=mask.long())
    torch.testing.assert_close(theirs[mask], logits(polyglot, ids, mask)[mask], atol=1e-4, rtol=0)


@pytest.fixture(params=["hooked", "bridge"])
def brought(request: pytest.FixtureRequest, polyglot: Model) -> Any:
    """A TransformerLens model that the user brings."""
    return request.getfixturevalue("hooked") if request.param == "hooked" else polyglot.tl


def test_a_brought_model_collects_the_same_moments(brought, polyglot, lines):
    part = lines.split("estimate").take(6)
    ours, theirs = collect(polyglot, part, batch=4), collect(brought, part, batch=4)
    assert torch.equal(ours.count, theirs.count)
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.last, theirs.last, atol=1e-3, rtol=0)


def test_a_brought_model_says_the_same(brought, polyglot, directions):
    step = directions.between("en", "es")
    edits = [
        None,
        add(step.at(5), strength=1.5),
        rotate(step.at(4), share=1.0),
        ablate(directions["en"].at(3)),
    ]
    for edit in edits:
        ours, theirs = (
            generate(m, PROMPTS, edit=edit, max_new_tokens=10) for m in (polyglot, brought)
        )
        assert ours == theirs, edit
    mixed = stack([edit or Edit(()) for edit in edits])
    ours, theirs = (
        generate(m, PROMPTS, edit=mixed, max_new_tokens=10) for m in (polyglot, brought)
    )
    assert ours == theirs


def test_edit_hooks_are_for_transformer_lens(brought, polyglot, directions):
    edit = add(directions.between("en", "es").at(5), strength=1.5)
    ids, mask = batch(polyglot, PROMPTS[:1])
    with edit.on(polyglot):
        steered = logits(polyglot, ids, mask)
    with torch.inference_mode():
        theirs = brought.run_with_hooks(ids, fwd_hooks=edit.hooks(brought))
    torch.testing.assert_close(theirs, steered, atol=1e-3, rtol=0)
    assert not torch.allclose(theirs, logits(polyglot, ids, mask), atol=1e-2)


def test_a_brought_models_own_calls_are_steered_too(brought, polyglot, directions):
    edit = add(directions.between("en", "es").at(5), strength=1.5)
    ids, mask = batch(polyglot, PROMPTS[:1])
    with edit.on(polyglot):
        steered = logits(polyglot, ids, mask)
    with edit.on(load(brought)) as touched, torch.inference_mode():
        torch.testing.assert_close(brought(ids), steered, atol=1e-3, rtol=0)
        torch.testing.assert_close(
            brought(ids, attention_mask=mask.long()), steered, atol=1e-3, rtol=0
        )
    assert touched.prefill == {5: 2 * (int(mask.sum()) - 1)}


def test_edits_of_a_brought_model_nest_and_leave(brought, directions):
    model, step = load(brought), directions.between("en", "es")
    ids, mask = batch(model)
    plain = logits(model, ids, mask)
    with add(step.at(3), strength=0.5).on(model):
        alone = logits(model, ids, mask)
        with add(step.at(5), strength=0.7).on(model):
            assert not torch.allclose(logits(model, ids, mask), alone)
        assert torch.equal(logits(model, ids, mask), alone)
    assert torch.equal(logits(model, ids, mask), plain)
    assert not torch.allclose(alone, plain)
    assert not brought._forward_pre_hooks
    assert not brought._forward_hooks


def test_a_generate_that_hides_its_tokens_is_refused(hooked, polyglot, directions):
    """`HookedTransformer.generate` runs embeddings: nobody could say what is BOS, so nothing is
    done in silence."""
    ids, _ = batch(polyglot, PROMPTS[:1])
    with (
        pytest.raises(
            SteerlabError,
            match=r"own generate does not say which tokens it runs.*edit.hooks\(model\)",
        ),
        add(directions.between("en", "es").at(5)).on(load(hooked)),
    ):
        hooked.generate(ids, max_new_tokens=2, verbose=False)


def test_load_takes_what_is_loaded(polyglot, hooked):
    assert load(polyglot) is polyglot
    view = load(hooked)
    assert isinstance(view, LensModel)
    assert view.tl is hooked
    assert (view.n_layers, view.width) == (polyglot.n_layers, polyglot.width)
    with pytest.raises(
        SteerlabError, match=r"load takes a Hub id, a folder, or a TransformerLens model, not int"
    ):
        load(7)


def test_a_model_is_abstract_or_final(polyglot, hooked):
    """So that none inherits half of another: whoever makes one calls the constructor of all."""
    assert set(Model.__subclasses__()) == {HuggingFaceModel, LensModel, Encoder}
    with pytest.raises(TypeError, match="abstract class Model"):
        Model(None, None)  # type: ignore[abstract, call-arg]
    for view in (polyglot, load(hooked)):
        assert getattr(type(view), "__final__", False)
        assert vars(view).keys() >= {"hf", "name", "n_layers", "width", "config", "fingerprint"}
        for name in Model.__abstractmethods__:
            assert name in vars(type(view)), "written out, and not another view's"


# ---------------------------------------------------------------------------------------- the sites


@pytest.mark.parametrize("shape", ["polyglot", *SHAPES])
def test_sites_are_the_hidden_states(shape, polyglot, tiny):
    model = polyglot if shape == "polyglot" else load(tiny(shape))
    ids, mask = batch(model)
    seen = states(model, ids, mask)
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        out = model.hf(
            ids, attention_mask=mask.long(), position_ids=positions, output_hidden_states=True
        )
        cache: Any = model.tl.run_with_cache(
            ids, attention_mask=mask.long(), names_filter=list(seen)
        )[1]
        norm = model.hf.transformer.ln_f if shape == "gpt2" else model.hf.model.norm
        last = norm(seen[hook_name("resid_post", model.n_layers - 1)])
    for layer in range(model.n_layers):
        pre, post = (seen[hook_name(site, layer)] for site in RESIDUAL)
        assert torch.equal(pre, out.hidden_states[layer])
        if layer + 1 < model.n_layers:
            assert torch.equal(post, out.hidden_states[layer + 1])
        for site in SITES:
            ours, theirs = (held[hook_name(site, layer)] for held in (seen, cache))
            # TransformerLens' heads have an axis of their own.
            theirs = rearrange(theirs, "r p h d -> r p (h d)") if site == "attn_z" else theirs
            torch.testing.assert_close(ours[mask], theirs[mask], atol=1e-4, rtol=1e-4)
    assert torch.equal(last, out.hidden_states[-1])  # so what was seen is before the final norm


def test_sites_of_a_hooked_transformer(polyglot, hooked):
    ids, mask = batch(polyglot)
    ours, theirs = states(polyglot, ids, mask), states(load(hooked), ids, mask)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name][mask], theirs[name][mask], atol=1e-3, rtol=0)


@pytest.mark.parametrize("site", SITES)
def test_what_looks_changes_nothing_and_what_changes_is_felt(site, polyglot):
    ids, mask = batch(polyglot)
    before = logits(polyglot, ids, mask)
    for layer in (0, polyglot.n_layers - 1):
        with polyglot.attached([(site, layer, lambda h, where: None)]):
            assert torch.equal(logits(polyglot, ids, mask), before)
        with polyglot.attached([(site, layer, lambda h, where: h.flip(-1))]):
            assert not torch.allclose(logits(polyglot, ids, mask), before, atol=0.1)


# ---------------------------------------------------------------------------------------- attaching


def test_hooks_are_gone_after_an_exception(polyglot, directions):
    edit, before = add(directions.between("en", "es").at(5)), hook_count(polyglot)
    attached = 0
    with contextlib.suppress(ZeroDivisionError), edit.on(polyglot):
        attached = hook_count(polyglot)
        _ = 1 / 0
    assert attached > before
    assert hook_count(polyglot) == before


def test_a_failed_attach_leaves_nothing(polyglot, hooked):
    before = hook_count(polyglot)
    wrong = [
        ("resid_post", 99, "layers 0 to 7; layer 99"),
        ("nowhere", 1, "there is no site 'nowhere'"),
    ]
    for site, layer, told in wrong:
        changes = [("resid_post", 0, lambda h, where: h * 0), (site, layer, lambda h, where: h)]
        for model in (polyglot, load(hooked)):
            with pytest.raises(SteerlabError, match=told), model.attached(changes):
                raise AssertionError("attached")
    assert hook_count(polyglot) == before
    assert not any(len(point.fwd_hooks) for point in hooked.hook_dict.values())


def test_nested_edits_both_act_and_leave_in_turn(polyglot, directions):
    step = directions.between("en", "es")
    inner, outer = add(step.at(5), strength=0.7), add(step.at(3), strength=0.5)
    ids, mask = batch(polyglot)
    plain, count = logits(polyglot, ids, mask), hook_count(polyglot)
    with (outer | inner).on(polyglot):
        both = logits(polyglot, ids, mask)
    with outer.on(polyglot):
        alone = logits(polyglot, ids, mask)
        with inner.on(polyglot):
            assert torch.equal(logits(polyglot, ids, mask), both)
        assert torch.equal(logits(polyglot, ids, mask), alone)
    assert torch.equal(logits(polyglot, ids, mask), plain)
    assert hook_count(polyglot) == count
    assert not torch.allclose(both, alone)


def test_identity_is_bit_identical(polyglot, directions):
    step, ids, mask = directions.between("en", "es").at(2, 5), *batch(polyglot)
    before = logits(polyglot, ids, mask)
    nothing = [
        add(step, strength=0),
        rotate(step, degrees=0),
        rotate(step, share=0),
        ablate(step, fraction=0),
    ]
    for edit in (*nothing, Edit(()), stack(nothing)):
        with edit.on(polyglot):
            assert torch.equal(logits(polyglot, ids, mask), before)
    with add(step, strength=1e-3).on(polyglot):  # and a small edit is felt
        assert not torch.equal(logits(polyglot, ids, mask), before)


@pytest.mark.parametrize("shape", ["polyglot", *SHAPES])
def test_padding_changes_nothing_under_an_edit(shape, polyglot, tiny):
    model = polyglot if shape == "polyglot" else load(tiny(shape))
    edit = add(some_direction(model).at(1), strength=1.0)
    ids, mask = batch(model)
    with edit.on(model):
        together = logits(model, ids, mask)
        for row, given in enumerate(PROMPTS):
            alone = logits(model, *batch(model, [given]))[0]
            torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-4, rtol=1e-4)


def some_direction(model: Model) -> Any:
    """A random direction as long as the model's own activations."""
    torch.manual_seed(1)
    means = torch.randn(2, model.n_layers, model.width)
    return Directions(
        vectors=means,
        basis=torch.nn.functional.normalize(means - means.mean(0), dim=-1)[:, :, None],
        means=means,
        langs=("en", "es"),
        layers=tuple(range(model.n_layers)),
        site="resid_post",
    ).between("en", "es")


def test_bos_is_left_alone(polyglot, directions):
    edit = add(directions.between("en", "es").at(5), strength=2.0)
    ids, mask = batch(polyglot)
    first = mask.long().cumsum(1) == 1
    with edit.on(polyglot):
        seen = states(polyglot, ids, mask)
    plain, name = states(polyglot, ids, mask), hook_name("resid_post", 5)
    assert torch.equal(seen[name][first], plain[name][first])
    moved = (seen[name] - plain[name])[mask & ~first].norm(dim=-1)
    gap = directions.between("en", "es").at(5).gap
    torch.testing.assert_close(moved, 2 * gap.expand_as(moved), atol=1e-3, rtol=0)


def test_an_edit_needs_token_ids(polyglot, directions):
    embedded = torch.zeros(1, 3, polyglot.width)
    with (
        pytest.raises(SteerlabError, match="an edit needs token ids"),
        add(directions.between("en", "es").at(5)).on(polyglot),
    ):
        polyglot.hf(inputs_embeds=embedded)


def test_auto_is_bfloat16_where_the_cpu_has_it(monkeypatch):
    for name in ("avx512_bf16", "amx_bf16", "bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True})
        assert load(dtype="auto").dtype == torch.bfloat16
        assert load().dtype == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert load(dtype="auto").dtype == torch.float32
    with pytest.warns(
        RuntimeWarning, match="no instructions for bfloat16 .* slower than in float32; use auto"
    ):
        load(dtype="bfloat16")


@pytest.mark.filterwarnings("ignore:this CPU has no instructions for bfloat16")
def test_dtype_and_fingerprint(polyglot):
    half = load(dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert (
        half.fingerprint == polyglot.fingerprint
    )  # the shipped weights are bfloat16: the same model
    assert half.metadata["dtype"] == "bfloat16"
    other = HuggingFaceModel(copy.deepcopy(polyglot.hf), polyglot.tokenizer, name="other")
    with torch.no_grad():
        next(other.hf.parameters())[0] += 1.0
    assert (
        HuggingFaceModel(other.hf, polyglot.tokenizer, name="other").fingerprint
        != polyglot.fingerprint
    )

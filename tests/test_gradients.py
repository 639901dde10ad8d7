"""CULNIG's score: gradients of the answer's probability are differences of it, and what cannot
matter scores 0."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from steerlab.core.errors import SteerlabError
from steerlab.core.sites import SITES
from steerlab.engine.collect_gradients import collect_gradients, differentiable
from steerlab.engine.prompts import encode
from steerlab.models.loading import load
from steerlab.models.model import Model

ITEMS = {
    "en": [
        ("The bread is on the", "table"),
        ("We eat in the morning.\n", "The weather is nice"),
        ("A dog and a", "cat"),
    ],
    "de": [("Das Brot liegt auf dem", "Tisch"), ("Ein Hund und eine", "Katze")],
}
CONTROL = {"en": [("The", "cat"), ("We", "eat")], "de": [("Das", "Brot")]}

Shaped = Callable[[str], Model]


def ids_of(model: Model, prompt: str, answer: str) -> tuple[list[int], int]:
    """All tokens, and how many of them are the answer's."""
    [before] = encode(model.tokenizer, [prompt])
    text = answer if prompt.endswith("\n") else f" {answer}"
    after = model.tokenizer(text, add_special_tokens=False).input_ids
    return [*before, *after], len(after)


def gate_of(model: Model, layer: int) -> torch.nn.Module:
    names = dict(model.blocks[layer].named_modules())
    return names["mlp.c_fc"] if "mlp.c_fc" in names else names["mlp.gate_proj"]


@torch.inference_mode()
def chance(model: Model, ids: Sequence[int], said: int) -> float:
    """exp(mean log-probability) of the last `said` tokens, from transformers' own logits, in
    double precision."""
    logits = model.hf(input_ids=torch.tensor([ids])).logits[0, -said - 1 : -1].double()
    return float(logits.log_softmax(-1)[range(said), ids[-said:]].mean().exp())


def by_difference(
    model: Model, prompt: str, answer: str, layer: int, units: Sequence[int]
) -> list[float]:
    """P · max over tokens of value · ΔP/Δvalue, moving one value at one token at a time."""
    ids, said = ids_of(model, prompt, answer)
    values: list[torch.Tensor] = []
    with torch.inference_mode():
        handle = gate_of(model, layer).register_forward_hook(
            lambda _, __, out: values.append(out[0].clone())
        )
        plain = chance(model, ids, said)
        handle.remove()

    def moved(place: int, unit: int, step: float) -> float:
        def hook(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
            new = out.clone()
            new[0, place, unit] += step
            return new

        handle = gate_of(model, layer).register_forward_hook(hook)
        found = chance(model, ids, said)
        handle.remove()
        return found

    step, places = 1e-5, range(1, len(ids) - 1)
    slopes = {
        unit: max(
            float(values[0][place, unit])
            * (moved(place, unit, step) - moved(place, unit, -step))
            / (2 * step)
            for place in places
        )
        for unit in units
    }
    return [plain * slopes[unit] for unit in units]


@pytest.fixture(scope="module")
def exact(lively: Callable[[str], Any]) -> Model:
    """A tiny GPT-2 in double precision throughout, as models with RMSNorm are not."""
    return load(lively("gpt2"), dtype="float64")


def test_scores_are_finite_differences(exact):
    """Several tokens in the answer, other items beside it in the batch, and layers below that
    matter to it."""
    found = collect_gradients(exact, ITEMS, site="mlp_pre", layers=[0, 2])
    assert (found.langs, found.layers, found.site) == (("en", "de"), (0, 2), "mlp_pre")
    units = [0, 7, 31, 63]
    for place, iso in enumerate(ITEMS):
        for depth, layer in enumerate(found.layers):
            each = torch.tensor([by_difference(exact, *item, layer, units) for item in ITEMS[iso]])
            assert each.abs().amax(0).min() > 0
            expected = each.mean(0)
            torch.testing.assert_close(
                found.score[place, depth, units], expected, atol=1e-18, rtol=1e-3
            )
    assert (found.control == 0).all()


def test_the_batch_makes_no_difference(exact):
    whole, single = (
        collect_gradients(exact, ITEMS, control=CONTROL, batch=batch) for batch in (16, 1)
    )
    torch.testing.assert_close(whole.score, single.score, rtol=1e-4, atol=1e-20)
    torch.testing.assert_close(whole.control, single.control, rtol=1e-4, atol=1e-20)
    assert whole.provenance["items"]["numbers"] == {"en": 3, "de": 2}


def test_the_control_has_its_items_terms_none_below_zero(exact):
    found = collect_gradients(exact, ITEMS, control=CONTROL, layers=[1])
    each = [
        collect_gradients(exact, {"en": [item]}, layers=[1]).score[0, 0] for item in CONTROL["en"]
    ]
    assert min(term.min() for term in each) < 0
    torch.testing.assert_close(
        found.control[0, 0], torch.stack(each).clamp(min=0).mean(0), rtol=1e-4, atol=1e-20
    )
    alone = collect_gradients(exact, ITEMS, layers=[1])
    torch.testing.assert_close(found.score, alone.score)


def test_a_neuron_that_writes_nothing_scores_zero(lively):
    model = load(lively("llama"))
    with torch.no_grad():
        model.hf.get_parameter("model.layers.1.mlp.down_proj.weight")[:, 5] = 0
    for site in ("mlp_pre", "mlp_post"):
        score = collect_gradients(model, ITEMS, site=site).score
        assert (score[:, 1, 5] == 0).all()
        assert (score[:, 1] != 0).sum() == 2 * 63
        assert (score[:, [0, 2], 5] != 0).all()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("shape", ["gpt2", "gemma2"])
def test_every_view_and_site_scores_alike(shape: str, site: str, shaped: Shaped, lens: Any) -> None:
    model = shaped(shape)
    ours = collect_gradients(model, ITEMS, site=site)
    assert ours.score.shape == (2, 3, model.width_of(site))
    assert ours.score[:, :2].abs().amax((1, 2)).min() > 0
    theirs = collect_gradients(lens(shape, "bridge"), ITEMS, site=site)
    scale = ours.score.abs().max()
    torch.testing.assert_close(ours.score, theirs.score, rtol=1e-2, atol=1e-3 * float(scale))


def test_weights_and_modes_are_left_as_they_were(shaped: Shaped) -> None:
    model = shaped("llama")
    with torch.inference_mode():
        inside = collect_gradients(model, ITEMS, layers=[1])
        assert torch.is_inference_mode_enabled()
    weights = list(model.hf.parameters())
    assert all(weight.requires_grad and weight.grad is None for weight in weights)
    torch.testing.assert_close(inside.score, collect_gradients(model, ITEMS, layers=[1]).score)


def test_a_likely_answer_is_weighed_by_its_chance(lively):
    """P(y|x)·s, with s itself proportional to P: one item against its log-probability's
    gradient, with a gated MLP."""
    exact = load(lively("llama"), dtype="float64")
    prompt, answer = ITEMS["en"][0]
    ids, said = ids_of(exact, prompt, answer)
    values: dict[str, torch.Tensor] = {}

    def hook(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
        values["gate"] = out.detach().requires_grad_()
        return values["gate"]

    handle = gate_of(exact, 2).register_forward_hook(hook)
    logits = exact.hf(input_ids=torch.tensor([ids])).logits[0, -said - 1 : -1]
    handle.remove()
    mean = logits.log_softmax(-1)[range(said), ids[-said:]].mean()
    [slope] = torch.autograd.grad(mean, values["gate"])
    expected = math.exp(2 * mean.item()) * (values["gate"].detach() * slope)[
        0, 1 : len(ids) - 1
    ].amax(0)
    found = collect_gradients(exact, {"en": [(prompt, answer)]}, site="mlp_pre", layers=[2]).score[
        0, 0
    ]
    torch.testing.assert_close(
        found, expected.float(), rtol=1e-3, atol=1e-4 * float(expected.abs().max())
    )


def test_what_cannot_be_scored_is_refused(shaped: Shaped) -> None:
    model = shaped("llama")
    with pytest.raises(
        SteerlabError, match="give \\(prompt, answer\\) items for each language, one at least"
    ):
        collect_gradients(model, {"en": []})
    with pytest.raises(SteerlabError, match="unknown language code 'xx'"):
        collect_gradients(model, {"xx": ITEMS["en"]})
    with pytest.raises(SteerlabError, match="the prompt 'The' has an empty answer"):
        collect_gradients(model, {"en": [("The", " ")]})
    with pytest.raises(
        SteerlabError, match="the control has items of en, the items are of en de; give a control"
    ):
        collect_gradients(model, ITEMS, control={"en": CONTROL["en"]})
    with pytest.raises(SteerlabError, match="a batch of 0 items is none"):
        collect_gradients(model, ITEMS, batch=0)
    with pytest.raises(SteerlabError, match="is a mixture of experts"):
        collect_gradients(shaped("mixtral"), ITEMS)
    with pytest.raises(SteerlabError, match="a text has .* tokens; .* was made for 128: cut it"):
        collect_gradients(model, {"en": [("word " * 200, "cat")]})


def test_a_slice_reaches_the_unembedding_in_one_piece(polyglot: Model) -> None:
    """The few positions whose logits are wanted, of several rows: multiplied at once, to the same
    numbers, and nothing stays on the model."""
    ids = torch.arange(20, 44).reshape(2, 12)
    mask = torch.ones_like(ids, dtype=torch.bool)
    head = polyglot.hf.get_output_embeddings()
    seen: list[bool] = []
    hook = head.register_forward_hook(lambda _, given, __: seen.append(given[0].is_contiguous()))
    try:
        with torch.no_grad():
            outside, _ = polyglot.forward(ids, mask, last=3)
        with differentiable(polyglot):
            inside, _ = polyglot.forward(ids, mask, last=3)
    finally:
        hook.remove()
    assert seen == [False, True]
    torch.testing.assert_close(inside, outside)
    assert not head._forward_pre_hooks

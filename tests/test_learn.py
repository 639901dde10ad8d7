"""Trained directions: a planted one is found, the weights stay, and what is trained is what is
said."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlab.core.corpus import Corpus
from steerlab.core.errors import SteerlabError
from steerlab.edits import add_code
from steerlab.engine.answers import answer_log_probs, answered
from steerlab.engine.collect_gradients import differentiable
from steerlab.engine.cross_entropy import cross_entropy
from steerlab.engine.learn import learn
from steerlab.engine.learned_parts import Code, Vector
from steerlab.engine.preferences import Preferences, preferences
from steerlab.engine.training import Knobs, Pairs, losses
from steerlab.estimate.controls import dictionary
from steerlab.models.loading import load
from steerlab.models.model import Model
from steerlab.models.positions import Positions

LAYER = 2


@pytest.fixture(scope="module")
def pairs(lines: Corpus) -> Preferences:
    """German is chosen, and English given as what to leave."""
    some = lines.split("estimate").take(12)
    return preferences(some, "en", "de", rejected=[f"{line}\n" for line in some["en"]])


@pytest.fixture(scope="module")
def planted(tiny: Callable[[str], Path], pairs: Preferences) -> tuple[Model, Tensor]:
    """A random model whose head reads German off one direction, and English off its opposite."""
    model = load(tiny("llama"))
    unit = torch.nn.functional.normalize(
        torch.randn(model.width, generator=torch.Generator().manual_seed(1)), dim=0
    )
    rows = (
        answered(model, pairs.prompts(model), pairs.chosen),
        answered(model, pairs.prompts(model), pairs.answers(model)),
    )
    german, english = (
        {token for ids, n in zip(one.ids, one.lengths, strict=True) for token in ids[-n:]}
        for one in rows
    )
    with torch.no_grad():
        model.hf.lm_head.weight.mul_(0.2)
        for tokens, sign in ((german - english, 0.5), (english - german, -0.5)):
            model.hf.lm_head.weight[sorted(tokens)] += sign * unit
    return model, unit


@pytest.mark.parametrize("how", ["bipo", "lm", "reft_r1"])
def test_a_planted_direction_is_found(
    planted: tuple[Model, Tensor], pairs: Preferences, how: str
) -> None:
    model, unit = planted
    start = None
    if how == "reft_r1":  # at length 1 it sets out from something
        other = learn(model, pairs, how="lm", layer=LAYER, steps=2, every=1, rate=0.5)
        noise = torch.randn(other.vectors.shape, generator=torch.Generator().manual_seed(0))
        start = replace(other, vectors=other.vectors + 0.05 * noise)
    made = learn(model, pairs, how=how, layer=LAYER, steps=40, rate=0.5, start=start)
    cosine = torch.cosine_similarity(made.between("en", "de").unit[0], unit, dim=0)
    assert cosine > 0.85
    curve = made.provenance["curve"]
    assert min(loss for _, _, loss in curve[1:]) < curve[0][2] - (
        0.001 if how == "reft_r1" else 0.1
    )


def test_a_start_that_no_gradient_reaches_is_told(
    tiny: Callable[[str], Any], pairs: Preferences
) -> None:
    """In a stream that all texts share most of, h·w has one sign at all tokens."""
    model = load(tiny("llama"))
    with torch.no_grad():
        model.hf.get_input_embeddings().weight += 20.0
    keys: dict[str, Any] = {"how": "reft_r1", "layer": LAYER, "steps": 2, "every": 1}
    some = [learn(model, pairs, seed=seed, **keys) for seed in range(4)]
    assert all(bool(made.means[0] @ made.vectors[1, 0] > 0) for made in some)
    away = replace(some[0], vectors=-some[0].vectors, basis=-some[0].basis)
    with pytest.warns(RuntimeWarning, match="is below 0 at every token"):
        made = learn(model, pairs, start=away, **keys)
    torch.testing.assert_close(made.between("en", "de").unit, away.between("en", "de").unit)


def test_weights_stay_and_take_no_gradient(planted: Any, pairs: Preferences) -> None:
    model, _ = planted
    before = {name: weight.clone() for name, weight in model.hf.state_dict().items()}
    asked = [weight.requires_grad for weight in model.hf.parameters()]
    learn(model, pairs, layer=LAYER, steps=3, every=1)
    after = model.hf.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(weight.grad is None for weight in model.hf.parameters())
    assert asked == [weight.requires_grad for weight in model.hf.parameters()]
    assert not model.attachments


def test_no_step_gives_the_start_and_one_seed_one_vector(
    planted: Any, pairs: Preferences, moments: Any
) -> None:
    model, _ = planted
    start = learn(model, pairs, how="lm", layer=LAYER, steps=4, every=2, rate=0.5)
    gap = (start.means[1] - start.means[0]).norm()
    again = learn(model, pairs, layer=LAYER, steps=0, start=start)
    unit = start.between("en", "de").unit
    torch.testing.assert_close(again.vectors[1], gap * unit)  # strength 1 of the start
    assert not learn(model, pairs, layer=LAYER, steps=0).vectors.any()
    runs = [learn(model, pairs, layer=LAYER, steps=4, every=2, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(runs[0].vectors, runs[1].vectors)
    assert not torch.equal(runs[0].vectors, runs[2].vectors)
    assert runs[0].provenance["seed"] == 0
    assert runs[0].source == "en"
    cost = runs[0].provenance["cost"]
    assert cost["seconds"] > 0
    assert cost["tokens"] > 100


def test_the_loss_is_that_of_its_formula_in_any_batch(planted: Any, pairs: Preferences) -> None:
    """log 2 without a vector; with one, what two plain runs give; a row does not hear of others,
    and a prompt that is read once for both answers says the same."""
    model, unit = planted
    settings = Knobs("bipo", 0.1, 4, 1, 0.1, 1, 1, 0)
    rows = Pairs.of(model, pairs, settings)
    signs = torch.tensor([1.0, -1.0] * 6)
    place = ("resid_post", LAYER)
    still = losses(
        model, rows, Vector(torch.zeros(model.width)), place, signs, how="bipo", beta=0.1
    )
    torch.testing.assert_close(still, torch.full((12,), 2.0).log(), atol=1e-5, rtol=0)
    with differentiable(model):
        grads, values = [], []
        whole: Any = [range(12)]
        for batches, shared in (
            (whole, False),
            ([[row] for row in range(12)], False),
            (whole, True),
        ):
            value = unit.clone().requires_grad_(True)
            said = [
                losses(
                    model,
                    rows.take(some),
                    Vector(value),
                    place,
                    signs[list(some)],
                    how="bipo",
                    beta=0.1,
                    shared=shared,
                )
                for some in batches
            ]
            values.append(torch.cat(said))
            grads.append(torch.autograd.grad(values[-1].mean(), value)[0])
    for other in (1, 2):
        torch.testing.assert_close(values[0], values[other], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(grads[0], grads[other], atol=1e-6, rtol=1e-3)
    push = Vector(unit).hook(torch.ones(1))
    one = [pairs.prompts(model)[0], pairs.chosen[0], pairs.answers(model)[0]]
    got = []
    for looks in ([], [(*place, push)]):
        for answer in one[1:]:
            row = answered(model, one[:1], [answer])
            with torch.no_grad():
                got.append(float(answer_log_probs(model, row, looks)[0]))
    margin = 0.1 * ((got[2] - got[0]) - (got[3] - got[1]))
    assert float(values[0][0].detach()) == pytest.approx(
        -float(torch.nn.functional.logsigmoid(torch.tensor(margin))), abs=1e-5
    )


def test_an_answers_log_probability_is_that_of_whole_texts(polyglot: Model) -> None:
    """log p(answer | prompt) = log p(prompt, answer) - log p(prompt), by the other way to read."""
    whole = cross_entropy(polyglot, ["The dog sleeps.\nDer Hund schläft."])
    rows = answered(polyglot, ["The dog sleeps.\n"], ["Der Hund schläft."])
    with torch.no_grad():
        given = answer_log_probs(polyglot, rows)
    count = rows.tokens - 1  # BOS is given
    start = cross_entropy(polyglot, ["The dog sleeps.\n"])
    before = rows.tokens - rows.lengths[0] - 1
    expected = -(float(torch.as_tensor(whole).flatten()[0]) * count)
    expected += float(torch.as_tensor(start).flatten()[0]) * before
    assert float(given[0]) == pytest.approx(expected, rel=1e-4)


def test_the_models_own_answers_are_left_out_where_they_are_the_chosen_ones(
    planted: Any, pairs: Preferences
) -> None:
    model, _ = planted
    same = replace(pairs, rejected=(*pairs.chosen[:5], "", *pairs.answers(model)[6:]))
    assert len(same.triples(model)) == 6
    nothing = replace(pairs, rejected=tuple(pairs.chosen))
    with pytest.raises(SteerlabError, match="there is nothing to prefer"):
        learn(model, nothing, layer=LAYER, steps=1)
    own = replace(pairs.take(3), rejected=None, new=4)
    assert own.answers(model) == own.answers(model)
    assert len(own.answers(model)) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("how", ["bipo", "lm", "reft_r1", "yapo"])
def test_it_trains_where_the_model_lies(
    tiny: Callable[[str], Path], pairs: Preferences, how: str
) -> None:
    model = load(tiny("llama"), device="cuda")
    sae = dictionary(model.width, 2 * model.width, layer=LAYER, seed=0) if how == "yapo" else None
    made = learn(model, pairs, how=how, layer=LAYER, steps=2, every=1, sae=sae)
    assert all(each.device.type == "cpu" for each in (made.vectors, *made.extra.values()))


def test_a_code_is_trained_and_added_as_it_was(planted: Any, pairs: Preferences) -> None:
    """On an orthonormal dictionary too, which finds the planted direction as a vector does."""
    model, unit = planted
    sae = dictionary(model.width, 2 * model.width, layer=LAYER, seed=0)
    h = torch.randn(2, 3, model.width, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sae.decode(sae.encode(h)), h, atol=1e-5, rtol=1e-5)
    made = learn(model, pairs, how="yapo", sae=sae, layer=LAYER, steps=40, rate=0.5)
    step = made.between("en", "de")
    assert torch.cosine_similarity(step.unit[0], unit, dim=0) > 0.8
    curve = made.provenance["curve"]
    assert curve[0][2] == pytest.approx(0.6931, abs=1e-4)
    assert curve[-1][2] < 0.5
    # The operator does what was trained under.
    units = [int(each) for each in made.extra["code"][1, 0].nonzero()[:, 0]]
    assert len(units) == made.extra["code"].shape[-1]
    value = made.extra["code"][1, 0]
    [part] = add_code(step, strength=-0.7).parts
    text = torch.ones(2, 3, dtype=torch.bool)
    places = Positions(text, text, torch.arange(2))
    whole = Code(value, sae=sae).added(h, places, torch.full((2,), -0.7))
    torch.testing.assert_close(part.change(h, part.tensors, None), whole, atol=1e-5, rtol=1e-4)
    with pytest.raises(SteerlabError, match="the SAE is of layer 1"):
        learn(model, pairs, how="yapo", sae=replace(sae, layer=1), layer=LAYER, steps=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"how": "dpo"}, "how is 'dpo'"),
        ({"layer": 9}, "layer 9"),
        ({"steps": -1}, "steps is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"beta": 0.0}, "beta is 0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"how": "yapo"}, "trains a code of an SAE"),
    ],
)
def test_what_cannot_be_trained_is_told(
    planted: Any, pairs: Preferences, change: dict[str, Any], told: str
) -> None:
    given: dict[str, Any] = {"preferences": pairs, "layer": LAYER, "steps": 1} | change
    with pytest.raises(SteerlabError, match=told):
        learn(planted[0], given.pop("preferences"), **given)


def test_preferences_ask_for_two_languages_and_an_answer_each(lines: Corpus) -> None:
    some = lines.take(4)
    with pytest.raises(SteerlabError, match="needs two languages"):
        preferences(some, "en", "en")
    with pytest.raises(SteerlabError, match="1 rejected answers to 4 sentences"):
        preferences(some, "en", "de", rejected=["a"])
    with pytest.raises(SteerlabError, match="no prompt form"):
        preferences(some, "en", "de", form="lines")
    echo = preferences(lines, "en", "de", split="dev", form="echo:2")
    assert echo.shots
    assert echo.prompts.__name__ == "prompts"
    assert preferences(some, "en", "de", form="chat").chosen == list(some["de"])

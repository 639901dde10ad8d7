"""Likelihood as a judge: gold outputs win, shuffled ones are at chance, and the numbers are the
model's own."""

import pickle

import numpy as np
import pytest
import torch

from steerlab.core.errors import SteerlabError
from steerlab.edits import add
from steerlab.engine.conditional import conditional
from steerlab.engine.prompts import encode
from steerlab.scores.chrf import rivals
from steerlab.scores.judges import Answer, Likelihood


@pytest.fixture(scope="module")
def dev(lines):
    return lines.split("dev").take(24)


def answers(dev, outputs, *, target="de"):
    told = zip(outputs, dev["en"], dev.numbers, strict=True)
    return [
        Answer(output, text + "\n", text, number, "en", target, target)
        for output, text, number in told
    ]


def by_hand(model, prompt, output):
    """Nats of an output after its prompt, one text alone."""
    before = encode(model.tokenizer, [prompt])[0]
    said = model.tokenizer(output, add_special_tokens=False).input_ids
    with torch.inference_mode():
        ids = torch.tensor([[*before, *said]])
        logits = model.forward(ids, torch.ones_like(ids, dtype=torch.bool))[0][0].log_softmax(-1)
    places = torch.arange(len(before) - 1, ids.shape[1] - 1)
    return -float(logits[places, torch.tensor(said)].sum())


def test_gold_outputs_win_and_shuffled_ones_are_at_chance(polyglot, dev):
    judge, outputs = Likelihood(dev, polyglot, distractors=7), list(dev["de"])
    shuffled = outputs[7:] + outputs[:7]
    gold, other = (judge.rate(answers(dev, made)[:12]) for made in (outputs, shuffled))
    assert gold["rating"].mean() >= 0.8
    assert other["rating"].mean() <= 0.45, "chance is 1/8, and 12 sentences spread"
    assert gold["margin"].mean() > 0 > other["margin"].mean()


@pytest.mark.parametrize("shape", ["polyglot", "gpt2", "gemma3"])
def test_the_nats_are_those_of_the_text_alone(shaped, shape, dev):
    model = shaped(shape)
    pairs = [(dev["en"][i] + "\n", dev["de"][j]) for i in (0, 1) for j in (0, 2, 3)] + [
        ("No:", "Nein.")
    ]
    [nats], lengths = conditional(model, pairs)
    wanted = [by_hand(model, prompt, output) for prompt, output in pairs[:-1]]
    wanted.append(
        by_hand(model, "No:", " Nein.")
    )  # no white space before: the output brings its own
    np.testing.assert_allclose(nats, wanted, rtol=1e-3)
    assert lengths.tolist()[0] == len(
        model.tokenizer(dev["de"][0], add_special_tokens=False).input_ids
    )


@pytest.mark.parametrize("kind", ["hooked", "bridge"])
def test_models_of_transformer_lens_say_the_same(polyglot, lens, kind, dev):
    from steerlab.models.loading import load

    pairs = [(dev["en"][i] + "\n", dev["de"][j]) for i in (0, 1) for j in (0, 2)]
    np.testing.assert_allclose(
        conditional(load(lens("polyglot", kind)), pairs)[0],
        conditional(polyglot, pairs)[0],
        rtol=1e-3,
    )


def test_batches_do_not_decide(polyglot, dev):
    few = answers(dev, dev["de"])[:4]
    whole = Likelihood(dev, polyglot, distractors=3).rate(few)
    parts = Likelihood(dev, polyglot, distractors=3, batch=3).rate(few)
    np.testing.assert_allclose(whole["margin"], parts["margin"], atol=1e-4)
    alone = Likelihood(dev, polyglot, distractors=3).rate(few[2:3])
    np.testing.assert_allclose(alone["margin"], whole["margin"][2:3], atol=1e-4)


def test_an_empty_output_is_0(polyglot, dev):
    found = Likelihood(dev, polyglot, distractors=1).rate(answers(dev, [" "] * len(dev)))
    assert found["rating"].tolist() == [0] * len(dev)
    assert np.isnan(found["margin"]).all()


def test_the_others_are_of_the_same_language_and_form(dev):
    answer = Answer(
        "x", f"English: {dev['en'][2]}\nGerman:", dev["en"][2], dev.numbers[2], "en", "de"
    )
    (prompts,) = Likelihood(dev, "no model is needed", distractors=5)._prompts([answer])
    assert prompts[0] == answer.prompt
    others = [prompt.removeprefix("English: ").removesuffix("\nGerman:") for prompt in prompts[1:]]
    assert len(set(others)) == 5
    assert set(others) < set(dev["en"]) - {dev["en"][2]}


def test_rivals_are_others_and_stay():
    found = rivals(40, 31, 0)
    assert all(len(set(row)) == 31 and own not in row for own, row in enumerate(found.tolist()))
    assert not np.array_equal(found, rivals(40, 31, 1))
    assert found.max() == 39
    assert found.min() == 0


def test_it_is_named_by_what_decides_and_travels(polyglot, dev):
    judge = Likelihood(dev)
    assert polyglot.fingerprint in judge.name
    assert judge.name == Likelihood(dev, polyglot).name == pickle.loads(pickle.dumps(judge)).name
    others = [Likelihood(dev, seed=1), Likelihood(dev, distractors=7), Likelihood(dev.take(20))]
    assert len({judge.name, *(other.name for other in others)}) == 4


def test_what_cannot_be_judged(polyglot, directions, dev):
    judge, good = Likelihood(dev, polyglot), answers(dev, dev["de"])[0]
    with pytest.raises(
        SteerlabError, match="give at least 25 sentences, or between 1 and 23 distractors"
    ):
        Likelihood(dev, polyglot, distractors=24).rate([good])
    with pytest.raises(SteerlabError, match="sentence -1 is not among the 24 of"):
        judge.rate([Answer("x", "p", "p", -1, "en", "de")])
    with pytest.raises(SteerlabError, match="the question 'Other' is not in its prompt"):
        judge.rate([Answer("x", good.prompt, "Other", good.sentence, "en", "de")])
    with pytest.raises(SteerlabError, match="has no 'fi'"):
        judge.rate([Answer("x", good.prompt, good.question, good.sentence, "fi", "de")])
    with pytest.raises(SteerlabError, match="tokens; polyglot was made for"):
        judge.rate(
            [
                Answer(
                    "lang " * polyglot.context,
                    good.prompt,
                    good.question,
                    good.sentence,
                    "en",
                    "de",
                )
            ]
        )
    with (
        add(directions.between("en", "de").at(3), strength=1).on(polyglot),
        pytest.raises(SteerlabError, match="leave the edit's `with` first"),
    ):
        judge.rate([good])

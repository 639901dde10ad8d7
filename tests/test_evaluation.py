"""Outputs to scores: gold texts win, copies and gibberish do not; bits per byte are the model's own."""

import math

import numpy as np
import pytest
import torch
from conftest import SHAPES

from steerlab.evaluation import DISTRACTORS, bits_per_byte, fluency, judge
from steerlab.langid import identifier
from steerlab.model import Model, load


@pytest.fixture(scope="module")
def dev(lines):
    return lines.split("dev")


def test_references_themselves_score_full(dev):
    sentences = list(dev.numbers[:20])
    found = judge(list(dev["es"][:20]), sentences, ["es"] * 20, dev, identifier())
    assert all(found["relevant"])
    assert np.mean(found["joint"]) >= 0.9
    assert np.mean(found["chrf"]) > 99
    assert found["output"] == list(dev["es"][:20])


def test_joint_is_the_language_and_the_meaning(dev):
    number, other = dev.numbers[3], dev["es"][9]
    cases = {
        "right": (dev["es"][3], True, True),
        "a copy of the prompt": (dev["en"][3], False, True),
        "another sentence": (other, True, False),
        "another language": (dev["ru"][3], False, True),
        "empty": ("", False, False),
        "digits": ("1 2 3", False, False),
    }
    outputs = [output for output, _, _ in cases.values()]
    found = judge(outputs, [number] * len(cases), ["es"] * len(cases), dev, identifier())
    for row, (name, (_, language, meaning)) in enumerate(cases.items()):
        assert (found["in_language"][row], found["relevant"][row]) == (language, meaning), name
        assert found["joint"][row] == (language and meaning), name
    assert found["language"][4:] == ["none", "none"]
    assert found["joint"].dtype == found["in_language"].dtype == bool


def test_only_the_first_line_is_judged(dev):
    found = judge([f"\n{dev['de'][0]}\n{dev['fr'][1]}"], [dev.numbers[0]], ["de"], dev, identifier())
    assert found["output"] == [dev["de"][0]]
    assert found["joint"].tolist() == [True]


def test_numbers_are_those_of_the_file(dev):
    """A sentence is named by its line in the file, also when only a part of the lines is asked about."""
    few = dev.take(5)
    found = judge(list(few["fr"]), list(few.numbers), ["fr"] * 5, dev, identifier())
    assert all(found["relevant"])
    assert len(dev) > DISTRACTORS


@torch.inference_mode()
def naive_bits(model: Model, text: str) -> float:
    tokenizer = model.tokenizer
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]])
    chances = model.hf(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
    nats = -chances[torch.arange(ids.shape[1] - 1), ids[0, 1:]].sum()
    return float(nats) / math.log(2) / len(text.encode())


@pytest.mark.parametrize("shape", ["polyglot", *SHAPES])
def test_bits_per_byte_is_text_by_text(shape, polyglot, tiny, dev):
    model = polyglot if shape == "polyglot" else load(tiny(shape))
    texts = [*dev["en"][:3], *dev["ru"][:3], "No.", dev["en"][0]]
    found = bits_per_byte(model, texts, batch=4)
    assert found == pytest.approx([naive_bits(model, text) for text in texts], rel=1e-4)
    assert found[0] == found[-1]


def test_text_is_likelier_than_its_words_shuffled(polyglot, dev):
    texts = dev["en"][:20]
    shuffled = [" ".join(sorted(text.split())) for text in texts]
    assert np.mean(fluency(polyglot, shuffled, texts)) > 1.1
    assert fluency(polyglot, texts, texts) == pytest.approx(1)


def test_empty_outputs_have_no_bits(polyglot, dev):
    found = fluency(polyglot, ["", "  ", dev["en"][0]], [*dev["en"][:3]])
    assert np.isnan(found).tolist() == [True, True, False]

"""Bits per byte are the model's own, text by text."""

import math

import numpy as np
import pytest
import torch
from conftest import SHAPES

from steerlab.engine.cross_entropy import bits_per_byte
from steerlab.models.loading import load
from steerlab.models.model import Model


@pytest.fixture(scope="module")
def dev(lines):
    return lines.split("dev")


@torch.inference_mode()
def naive_bits(model: Model, text: str) -> float:
    tokenizer = model.tokenizer
    ids = torch.tensor(
        [[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]]
    )
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
    ratio = bits_per_byte(polyglot, shuffled) / bits_per_byte(polyglot, texts)
    assert np.mean(ratio) > 1.1


def test_empty_texts_have_no_bits(polyglot, dev):
    assert np.isnan(bits_per_byte(polyglot, ["", "  ", dev["en"][0]])).tolist() == [
        True,
        True,
        False,
    ]
    assert np.isnan(bits_per_byte(polyglot, [""])).all()

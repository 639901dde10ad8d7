"""A language's mass is highest on its own text; no edit moves none; sets that stand for nothing
are refused."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from conftest import random_directions

from steerlab.core.corpus import Corpus, corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.edits import Edit, ablate, add
from steerlab.engine.language_mass import (
    Lexicon,
    gold_masses,
    language_masses,
    lexicon,
    mass_shift,
    mass_summary,
)
from steerlab.engine.prompts import encode
from steerlab.models.model import Model


@pytest.fixture(scope="module")
def words(polyglot: Model) -> Lexicon:
    """Of all sixteen languages, from the lines to estimate with."""
    return lexicon(polyglot, corpus().split("estimate"))


@pytest.fixture(scope="module")
def few(polyglot: Model, lines: Corpus) -> Lexicon:
    return lexicon(polyglot, lines.split("estimate"))


# ------------------------------------------------------------------------------------------ lexicon


def test_gold_text_has_the_most_mass_of_its_own_language(polyglot: Model, words: Lexicon) -> None:
    found = gold_masses(polyglot, corpus().split("test").take(4), words)
    assert found.shape == (16, 16)
    assert (found.argmax(1) == torch.arange(16)).all(), (
        "of a language's text, the language is the heaviest"
    )
    assert (found.argmax(0) == torch.arange(16)).all(), "a language is heaviest on its own text"
    assert (found.sum(1) < 1).all()


def test_a_lexicon_knows_words_of_every_script(polyglot: Model, words: Lexicon) -> None:
    owners = {
        "the": "en",
        "und": "de",
        "что": "ru",
        "що": "uk",
        "है": "hi",
        "です": "ja",
        "że": "pl",
    }
    for piece, iso in owners.items():
        tokens = [token for token, text in words.pieces.items() if text == piece]
        assert tokens, piece
        weight = words.weights[:, tokens]
        assert (weight.argmax(0) == words.langs.index(iso)).all(), piece
        assert (weight.max(0).values > 0.5).all(), piece
    assert min(words.sizes.values()) >= 50
    for text in (".", ",", "1", "?", "。"):
        ids = polyglot.tokenizer(text, add_special_tokens=False).input_ids
        assert not words.weights[:, ids[-1]].any(), f"{text} is nobody's"
    assert not words.weights[:, polyglot.tokenizer.all_special_ids].any()


def test_a_word_with_a_space_before_it_and_without_is_one(few: Lexicon) -> None:
    inside = [token for token, text in few.pieces.items() if text == "in"]
    assert len(inside) > 1
    assert few.weights[:, inside].std(1).max() == 0


def test_weights_are_shares_of_relative_frequency(polyglot: Model) -> None:
    told = Corpus(
        "told", {"en": ("I the the the the sun",), "de": ("I the die die die die die die.",)}, (0,)
    )
    found = lexicon(polyglot, told, least=1)
    pieces = {
        iso: [found.pieces.get(u) for u in encode(polyglot.tokenizer, told[iso])[0]]
        for iso in told.langs
    }
    share = {
        iso: known.count("the") / sum(piece is not None for piece in known)
        for iso, known in pieces.items()
    }
    the = next(token for token, text in found.pieces.items() if text == "the")
    assert share["en"] > 2 * share["de"] > 0
    assert float(found.weights[0, the]) == pytest.approx(share["en"] / (share["en"] + share["de"]))
    assert found.weights[1, the] == 0


def test_sets_by_script_on_raw_token_strings_are_empty_and_refused(
    polyglot: Model, few: Lexicon
) -> None:
    tokens = polyglot.tokenizer.convert_ids_to_tokens(range(polyglot.vocabulary))
    decoded = polyglot.tokenizer.batch_decode([[token] for token in range(polyglot.vocabulary)])
    for texts, empty in ((tokens, True), (decoded, False)):
        russian = torch.tensor(
            [any("а" <= letter <= "я" for letter in text) for text in texts]
        ).float()
        english = few.weights[0] * (1 - russian)
        weights = torch.stack([english, russian])
        if empty:
            with pytest.raises(
                SteerlabError, match=r"no token stands for ru.*Tokens of the others: \{'en': \['"
            ):
                Lexicon(("en", "ru"), weights, few.pieces)
        else:
            assert Lexicon(("en", "ru"), weights, few.pieces).sizes["ru"] > 300


def test_a_token_of_two_languages_is_refused_with_samples(
    polyglot: Model, lines: Corpus, few: Lexicon
) -> None:
    with pytest.raises(
        SteerlabError, match=r"tokens stand for two languages or more.*'de': 'es fr'|give share= of"
    ):
        lexicon(polyglot, lines.split("estimate"), share=0.1)
    with pytest.raises(SteerlabError, match="no token stands for fr"):
        lexicon(polyglot, Corpus("poor", {"en": ("the sun the sun",), "fr": ("1 2 3",)}, (0,)))
    with pytest.raises(SteerlabError, match="share lies between 0 and 1"):
        lexicon(polyglot, lines, share=1)
    assert len(few.sample("de")) == 10


# ------------------------------------------------------------------------------------------- masses


@torch.inference_mode()
def by_hand(
    model: Model, text: str, edit: Edit, words: Lexicon, positions: str
) -> tuple[torch.Tensor, float]:
    """Mass and divergence of one text by itself."""
    ids = torch.tensor(encode(model.tokenizer, [text]))
    mask = torch.ones_like(ids, dtype=torch.bool)
    plain = model.forward(ids, mask)[0][0].double().log_softmax(-1)
    with edit.on(model):
        steered = model.forward(ids, mask)[0][0].double().log_softmax(-1)
    kept = slice(1, None) if positions == "all" else slice(-1, None)
    plain, steered = plain[kept], steered[kept]
    kl = (steered.exp() * (steered - plain)).sum(-1).mean()
    return (steered.exp() @ words.weights.T.double()).mean(0), float(kl)


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("shape", ["polyglot", "gemma2"])
def test_masses_are_those_of_each_row_by_itself(
    shape: str, positions: str, shaped: Callable[[str], Model], few: Lexicon, lines: Corpus
) -> None:
    model = shaped(shape)
    texts = [*lines.split("dev")["en"][:2], lines["ru"][0], "No."]
    one = random_directions(model).between("en", "es")
    edits = [
        add(one.at(0), strength=0.4),
        ablate(one.at(model.n_layers - 1)),
        add(one.at(1), strength=1.5),
    ]
    words = Lexicon(few.langs, few.weights[:, : model.vocabulary], few.pieces)
    expected = [[by_hand(model, text, edit, words, positions) for text in texts] for edit in edits]
    for batch in (None, 3):
        found = language_masses(model, texts, edits, words, positions=positions, batch=batch)
        for e, t in product(range(len(edits)), range(len(texts))):
            mass, kl = expected[e][t]
            assert found.mass[e, t].tolist() == pytest.approx(mass.tolist(), abs=1e-4)
            assert float(found.kl[e, t]) == pytest.approx(kl, rel=1e-3, abs=1e-4)
    plain = torch.stack([by_hand(model, text, Edit(()), words, positions)[0] for text in texts])
    assert found.unsteered.numpy() == pytest.approx(plain.numpy(), abs=1e-4)


def test_an_edit_that_does_nothing_moves_no_mass_and_costs_nothing(
    polyglot: Model, few: Lexicon, lines: Corpus, directions: Directions
) -> None:
    nothing = add(directions.between("en", "de").at(4), strength=0)
    for positions in ("last", "all"):
        found = language_masses(
            polyglot, lines.split("dev")["en"][:4], [nothing, Edit(())], few, positions=positions
        )
        assert found.gain.abs().max() < 1e-6
        assert found.kl.abs().max() < 1e-6


def test_steering_moves_mass_from_the_source_to_the_target(
    polyglot: Model, few: Lexicon, lines: Corpus, directions: Directions
) -> None:
    dev = lines.split("dev").take(12)
    prompts = [f"{text}\n" for text in dev["en"]]
    edits = {
        target: add(directions.between("en", target).at(5), strength=1.0) for target in ("de", "ru")
    }
    rows = mass_shift(polyglot, prompts, edits, few, sentences=dev.numbers)
    assert len(rows) == 12 * 2 * 5
    assert set(rows["sentence"]) == set(dev.numbers)
    found: Any = mass_summary(rows).set_index(["edit", "language"])
    for target in edits:
        line = found.loc[(target, target)]
        assert line.gain_low > 0.01
        assert found.loc[target].gain.idxmax() == target
        assert found.loc[(target, "en")].gain_high < line.gain_low
        assert line.kl_low > 0
        assert line.n == 12


def test_what_is_wrong_is_said(polyglot: Model, few: Lexicon, directions: Directions) -> None:
    edit = add(directions.between("en", "de").at(4))
    with pytest.raises(SteerlabError, match="at positions 'last' or 'all', not at 'first'"):
        language_masses(polyglot, ["a"], [edit], few, positions="first")
    with edit.on(polyglot), pytest.raises(SteerlabError, match="an edit is on the model already"):
        language_masses(polyglot, ["a"], [edit], few)
    late = add(directions.between("en", "de").at(4), positions="generated")
    with pytest.raises(SteerlabError, match="nothing is generated when texts are read"):
        language_masses(polyglot, ["a"], [late], few)
    short = Lexicon(few.langs, few.weights[:, :5000], few.pieces)
    with pytest.raises(SteerlabError, match=r"has 5000 tokens and .* 12288: make its own"):
        language_masses(polyglot, ["a"], [edit], short)
    with pytest.raises(SteerlabError, match="made for"):
        language_masses(polyglot, ["word " * 2000], [edit], few)
    with pytest.raises(SteerlabError, match="one sentence number for each text; 2 for 1"):
        mass_shift(polyglot, ["a"], {"x": edit}, few, sentences=[1, 2])

"""The experiments on axes of words and on latents of deranged pairs: what is counted, chosen and
held against chance."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "concepts"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments" / "gated"))

from axes import choose, paired
from axes_bench import LANGS, Bench, Point, held_out_nouns, nouns, shuffled
from axes_fit import held_out
from off_topic import counts, texts
from static import before, commonest, selectors

import steerlab as sl


def test_the_list_has_as_many_of_each_sort_in_both_halves() -> None:
    for lang in LANGS:
        table = nouns(lang)
        assert len(table) >= 150
        assert table["word"].is_unique
        assert table.groupby(["half", "concrete"]).size().nunique() == 1
        assert table.groupby("category")["concrete"].nunique().eq(1).all()


def test_nouns_of_the_held_out_half_alone_are_counted() -> None:
    english = nouns("en")
    fitted, held = (english[english["half"] == half] for half in (0, 1))
    concrete, abstract = (held[held["concrete"] == side]["word"].tolist()[:2] for side in (1, 0))
    assert held_out_nouns(f"The {concrete[0]}s, a {concrete[1].upper()}!", "en") == (2, 0)
    assert held_out_nouns(f"{abstract[0]} and {concrete[0]}", "en") == (1, 1)
    assert held_out_nouns(" ".join(fitted["word"]), "en") == (0, 0)


def said(shares: dict[tuple[str, float], float], lang: str = "en") -> pd.DataFrame:
    """Ten outputs of each method and signed strength, this share of them in the language."""
    rows = []
    for (method, strength), share in shares.items():
        for sentence in range(10):
            rows.append(
                {
                    "kind": "frequency",
                    "lang": lang,
                    "method": method,
                    "layer": 3,
                    "fitted": "",
                    "strength": strength,
                    "sentence": sentence,
                    "in_language": sentence < 10 * share,
                    "frequency": strength + sentence,
                }
            )
    return pd.DataFrame(rows)


def test_the_largest_effect_that_stays_in_the_language_is_chosen() -> None:
    """Both ways: at 4 gaps the push down leaves the language."""
    shares = {("unsteered", 0.0): 1.0}
    for method in ("axis", "random", "shuffled"):
        shares |= {(method, sign * size): 1.0 for sign in (1, -1) for size in (1.0, 2.0, 4.0)}
    rows = said(shares | {("axis", -4.0): 0.8})
    effect = paired(rows, "frequency")
    assert (effect["value"] == 2 * effect["strength"]).all()
    chosen = choose(effect, rows, "en")
    assert chosen == {"axis": (3, 2.0), "random": (3, 4.0), "shuffled": (3, 4.0)}
    lost = said({**dict.fromkeys(shares, 0.0), ("unsteered", 0.0): 1.0})
    assert choose(paired(lost, "frequency"), lost, "en")["axis"] == (3, 1.0), "the least"


def test_an_output_without_words_has_no_pair() -> None:
    rows = said({("axis", 1.0): 1.0, ("axis", -1.0): 1.0})
    rows.loc[0, "frequency"] = np.nan
    assert sorted(paired(rows, "frequency")["sentence"]) == list(range(1, 10))


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench("polyglot", 2, 2)


def test_an_axis_knows_words_that_it_was_not_fitted_on_and_dealt_scores_none(bench: Bench) -> None:
    words, scores = bench.scored("concreteness", "en")
    y = np.array([scores[word] for word in words.words])
    folds = np.arange(len(y)) % 5
    found = held_out(words, scores, folds)
    assert min(np.corrcoef(each, y)[0, 1] for each in found) > 0.4
    dealt = shuffled(scores, words.words, 0)
    mixed = np.array([dealt[word] for word in words.words])
    assert max(np.corrcoef(each, mixed)[0, 1] for each in held_out(words, dealt, folds)) < 0.3


def test_every_method_steps_as_far(bench: Bench) -> None:
    layer = bench.layers[0]
    gaps = {
        method: bench.axis(Point("concreteness", "en", method, layer, 1.0, fitted), 1)
        .at(layer)
        .between("low", "high")
        .gap.item()
        for method, fitted in (("axis", ""), ("random", ""), ("shuffled", ""), ("axis", "de"))
    }
    assert len({round(gap, 4) for gap in gaps.values()}) == 1
    there, back = (
        bench.said([Point("concreteness", "en", "axis", layer, sign * 4.0)], "dev")["output"]
        for sign in (1, -1)
    )
    assert there.tolist() != back.tolist()


# ------------------------------------------------------------------------------ deranged pairs


def test_a_planted_latent_of_deranged_pairs_passes_and_exchanged_pairs_have_none() -> None:
    random = np.random.default_rng(0)
    own, other = (random.random((60, 50)) < 0.3 for _ in range(2))
    nothing = np.zeros((60, 50), np.float32)
    plain = counts(own, other, nothing)
    assert plain["pass"] == 0
    assert plain["largest"] <= plain["largest null"] + 0.1
    assert abs(plain["held out"]) < plain["held out null"] + 0.05
    own[:, 7], other[:, 7] = False, random.random(60) < 0.95
    found = counts(own, other, other.astype(np.float32) - own)
    assert found["apart"] == pytest.approx(found["held out"])
    assert plain["apart"] == 0
    assert found["pass"] == 1
    assert found["pass null"] < 0.01
    assert found["largest"] > 0.8 > found["largest null"]
    assert found["held out"] > found["held out null"]
    assert found["held out"] > plain["held out"] + 0.05


def test_pairs_are_the_same_sentences_and_none_is_true() -> None:
    corpus = sl.corpus(langs=["en", "de"]).split("dev").take(10)
    own, other = texts(corpus, "de")
    assert sorted(text.split("\n")[1] for text in own) == sorted(
        text.split("\n")[1] for text in other
    )
    assert not set(own) & set(other)


# ------------------------------------------------------------------------------ the static neuron


def test_the_commonest_word_that_english_lacks_and_what_stands_before_it() -> None:
    lines = ["Der Hund in der Stadt.", "Wo der Fluss endet", "in Ruhe"]
    assert commonest(lines, ["in the town"]) == "der"
    assert before(lines, "der") == ["Der Hund in", "Wo"]


def test_the_selector_and_the_neuron_act(polyglot: object) -> None:
    corpus = sl.corpus(langs=["en", "de"]).split("estimate").take(40)
    operators, told = selectors(sl.load(polyglot), corpus, ["de"], [3])
    assert told[0].startswith("de: *")
    direction = sl.diffmean(sl.collect(polyglot, corpus, layers=[3])).between("en", "de")
    plain = sl.generate(polyglot, ["The dog sleeps.\n"])
    for name, strength in (("selector of clusters", 2.0), ("static neuron", 400.0)):
        with operators[name].make(direction, strength=strength).on(polyglot):
            assert sl.generate(polyglot, ["The dog sleeps.\n"]) != plain

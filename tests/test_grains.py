"""Directions of the tokens that matter: what is taken away, what comes of it, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

import steerlab as sl
from steerlab.core.corpus import Corpus
from steerlab.core.directions import Directions
from steerlab.core.errors import SteerlabError
from steerlab.engine.answers import answer_log_probs, answered
from steerlab.engine.attribution import attribution, rows_of
from steerlab.engine.grains import _at_random, _take_away, _taken, grains
from steerlab.engine.preferences import Preferences, preferences
from steerlab.engine.prompts import encode
from steerlab.models.model import Model

LAYERS = [2, 4]


@pytest.fixture(scope="module")
def pairs(lines: Corpus) -> Preferences:
    """The model's own answers are those to leave."""
    return preferences(lines.split("estimate").take(4), "en", "de", new=8)


@pytest.fixture(scope="module")
def found(polyglot: Model, pairs: Preferences) -> pd.DataFrame:
    return attribution(polyglot, pairs)


def made_by_hand(
    model: Model, pairs: Preferences, taken: list[list[int]], layer: int
) -> torch.Tensor:
    """h of the last token less h without some tokens, one prompt at a time."""
    lost = []
    for text, places in zip(pairs.prompts(model), taken, strict=True):
        if not places:
            continue
        ids = torch.tensor(encode(model.tokenizer, [text]))
        embedded = model.hf.get_input_embeddings()(ids).detach()
        without = embedded.clone()
        without[0, places] = 0
        with torch.no_grad():
            last = [
                model.hf(inputs_embeds=each, output_hidden_states=True).hidden_states[layer + 1]
                for each in (embedded, without)
            ]
        lost.append((last[0] - last[1])[0, -1].double())
    return torch.stack(lost)


def top(found: pd.DataFrame, sign: int, share: float) -> list[list[int]]:
    taken = []
    for _, pair in found.groupby("pair"):
        value = sign * pair["attribution"].to_numpy()
        order = np.argsort(-value)[: max(1, round(share * len(pair)))]
        taken.append(sorted(int(pair["position"].iloc[at]) for at in order if value[at] > 0))
    return taken


@pytest.mark.parametrize("of", ["mean", "pca"])
def test_the_vector_is_that_of_its_formula(
    polyglot: Model, pairs: Preferences, found: pd.DataFrame, of: str
) -> None:
    """By plain passes of transformers, one prompt at a time, without padding."""
    made = grains(polyglot, pairs, layers=LAYERS, share=0.3, of=of, attributions=found)
    vector = torch.zeros(polyglot.width, dtype=torch.float64)
    for sign in (1, -1):
        lost = made_by_hand(polyglot, pairs, top(found, sign, 0.3), 2)
        mean = lost.mean(0)
        if of == "pca":
            first = torch.linalg.svd(lost, full_matrices=False)[2][0]
            mean = first * (first @ mean).sign()
        vector += sign * mean
    torch.testing.assert_close(made.vectors[1, 0].double(), vector, atol=1e-3, rtol=1e-3)
    assert not made.vectors[0].any()
    one, other = (
        grains(polyglot, pairs, layers=[2], share=0.3, of=of, groups=groups, attributions=found)
        for groups in ("positive", "negative")
    )
    torch.testing.assert_close(
        one.vectors + other.vectors, made.at(2).vectors, atol=1e-4, rtol=1e-4
    )


def test_what_it_says_of_itself(
    polyglot: Model, pairs: Preferences, found: pd.DataFrame, tmp_path: Path
) -> None:
    made = grains(polyglot, pairs, layers=LAYERS, attributions=found)
    assert (made.layers, made.source, made.langs) == ((2, 4), "en", ("en", "de"))
    about = made.provenance
    assert about["estimator"] == "grains"
    assert about["completeness"]["worst"] == found["error"].max() <= 0.05
    assert about["taken"] == {
        name: sum(map(len, top(found, sign, 0.25)))
        for name, sign in (("positive", 1), ("negative", -1))
    }
    assert about["cost"]["cpu_seconds"] > 0
    sl.add(made.between("en", "de").at(2), strength=0.5, keep_norm=True)
    text = sl.cite(made)
    assert "% estimator grains: nguyen2026grains, sundararajan2017axiomatic" in text
    whole = grains(polyglot, pairs.take(1), layers=[2], k=2)
    assert whole.provenance["cost"]["tokens"] > about["cost"]["tokens"]
    again = Directions.load(made.save(tmp_path / "grains.safetensors"))
    assert again == made


def test_random_tokens_are_as_many_and_others(
    polyglot: Model, pairs: Preferences, found: pd.DataFrame
) -> None:
    taken = _taken(rows_of(polyglot, pairs), found, 0.25, None, "both")
    drawn = _at_random(found, taken, 0)
    sizes = lambda groups: {sign: [len(each) for each in of] for sign, of in groups.items()}  # noqa: E731
    assert sizes(drawn) == sizes(taken)
    assert drawn != taken
    for one, other in zip(*drawn.values(), strict=True):
        assert not set(one) & set(other)
        assert 0 not in {*one, *other}  # BOS
    knobs: dict[str, Any] = {"layers": [2], "attributions": found, "tokens": "random"}
    first, same, other = (grains(polyglot, pairs, **knobs, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.vectors, same.vectors)
    assert not torch.equal(first.vectors, other.vectors)
    assert (
        first.provenance["taken"]
        == grains(polyglot, pairs, layers=[2], attributions=found).provenance["taken"]
    )
    assert "% estimator grains, random tokens: no entry; the control of grains" in sl.cite(first)


def test_attributions_say_what_a_token_does_when_it_is_taken_away(
    polyglot: Model, pairs: Preferences, found: pd.DataFrame
) -> None:
    """Their ranks and those of the losses agree, and those of tokens next to them do not."""
    triples = pairs.triples(polyglot)
    agree: list[list[float]] = [[], []]
    for (prompt, *answers), (_, of_pair) in zip(triples, found.groupby("pair"), strict=True):
        taken: list[list[int]] = [[], *([place] for place in of_pair["position"])]
        said = []
        for answer in answers:
            rows = answered(polyglot, [prompt] * len(taken), [answer] * len(taken))
            look = ("resid_pre", 0, partial(_take_away, taken, "zero"))
            with torch.no_grad():
                said.append(answer_log_probs(polyglot, rows, [look]).numpy())
        preferred = said[0] - said[1]
        own = of_pair["attribution"].to_numpy()
        for shift, found_here in enumerate(agree):
            lost = preferred[0] - preferred[1:]
            found_here.append(float(spearmanr(lost, np.roll(own, shift)).statistic))
    real, shifted = (float(np.mean(each)) for each in agree)
    assert real > 0.4
    assert real > shifted + 0.3


def test_a_prompt_without_a_token_of_a_sign_counts_for_the_other(
    polyglot: Model, pairs: Preferences, found: pd.DataFrame
) -> None:
    some = found.copy()
    first = some["pair"] == 0
    some.loc[first, "attribution"] = some.loc[first, "attribution"].abs()
    made = grains(polyglot, pairs, layers=[2], k=1, attributions=some)
    assert made.provenance["taken"] == {"positive": len(pairs), "negative": len(pairs) - 1}


def test_k_is_a_number_and_share_a_part(
    polyglot: Model, pairs: Preferences, found: pd.DataFrame
) -> None:
    one = grains(polyglot, pairs, layers=[2], k=1, attributions=found)
    assert one.provenance["taken"] == {"positive": len(pairs), "negative": len(pairs)}
    assert one.provenance["settings"]["share"] is None
    with pytest.raises(SteerlabError, match=r"k is 99, and the prompt of pair 0 has \d+ tokens"):
        grains(polyglot, pairs, layers=[2], k=99, attributions=found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share is 0.0; give a share"),
        ({"share": float("nan")}, "share is nan"),
        ({"k": 0}, "k is 0; give 1 or more"),
        ({"groups": "all"}, "groups is 'all'; give 'both', 'positive', 'negative'"),
        ({"of": "median"}, "of is 'median'; give 'pca', 'mean'"),
        ({"tokens": "last"}, "tokens is 'last'; give 'top', 'random'"),
        ({"baseline": "noise"}, "baseline is 'noise'"),
        ({"layers": [99]}, "layer 99 was asked for"),
        ({"site": "nowhere"}, "there is no site 'nowhere'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    polyglot: Model, pairs: Preferences, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SteerlabError, match=message):
        grains(polyglot, pairs, **options)


def test_other_attributions_are_refused(
    polyglot: Model, pairs: Preferences, found: pd.DataFrame
) -> None:
    broken = found.copy()
    broken.loc[2, "attribution"] = float("nan")
    shifted = found.assign(position=found["position"] + 1)
    for frame, message in (
        (found[found["pair"] < 2], "are of other prompts than these 4"),
        (shifted, "are of other prompts"),
        (found.drop(columns="error"), "have no column 'error'"),
        (broken, "hold NaN or infinity"),
        (found.assign(attribution=found["attribution"].abs()), "has a negative attribution"),
    ):
        with pytest.raises(SteerlabError, match=message):
            grains(polyglot, pairs, layers=[2], attributions=frame)


def test_without_preferences_there_is_nothing(polyglot: Model, pairs: Preferences) -> None:
    given: Any = [("a", "b", "c")]
    with pytest.raises(SteerlabError, match="preferences are needed, not a list"):
        grains(polyglot, given)
    same = replace(pairs, rejected=tuple(pairs.chosen))
    with pytest.raises(SteerlabError, match="there is no pair to attribute"):
        grains(polyglot, same, layers=[2])


@pytest.mark.parametrize("shape", ["gemma3", "gpt2"])
def test_other_architectures(
    shaped: Callable[[str], Model], pairs: Preferences, shape: str
) -> None:
    made = grains(shaped(shape), pairs.take(2), layers=[1], groups="positive")
    assert made.vectors[1].norm() == pytest.approx(1, abs=1e-4)
    assert made.provenance["completeness"]["worst"] <= 0.05

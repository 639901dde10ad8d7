"""Kinship is found where it was planted, and as seldom as chance has it where it was not."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from transformers import AutoTokenizer

from steerlab.corpora import corpus
from steerlab.geometry import kinship, neighbours, separation, unigrams, within_script
from steerlab.model import PACKAGED
from steerlab.stats import Moments
from steerlab.terms import SteerlabError, families, hook_name

LANGS = "en de nl sv es fr it pt ru uk bg pl hu tr hi ja".split()
ALONE = 4  # hu tr hi ja have no kin here


def vectors(seed: int, *, layers: int = 5, kin: float = 0.0, at: int | None = None) -> np.ndarray:
    """[layer lang width] with the family's own vector, `kin` times as long, at one layer or all of them."""
    random = np.random.default_rng(seed)
    found = random.standard_normal((layers, len(LANGS), 12))
    names, places = np.unique(families(LANGS), return_inverse=True)
    own = random.standard_normal((len(names), 12)) * kin
    for layer in range(layers) if at is None else [at]:
        found[layer] += own[places]
    return np.asarray(found + 100)  # far from the origin, as activations are


# Neighbours


def test_neighbours_are_the_nearest_by_the_cosine_of_centred_vectors() -> None:
    given = vectors(0)[0]
    centred = given - given.mean(0)
    for row, near in enumerate(neighbours(given)):
        cosines = [
            np.dot(centred[row], other) / np.linalg.norm(centred[row]) / np.linalg.norm(other) for other in centred
        ]
        cosines[row] = -2
        assert near == int(np.argmax(cosines))
    raw = given / np.linalg.norm(given, axis=1, keepdims=True)
    uncentred = (raw @ raw.T - 2 * np.eye(len(LANGS))).argmax(1)
    assert (uncentred != neighbours(given)).any(), "centring matters far from the origin"


# Kinship


def test_planted_families_are_found() -> None:
    found = kinship(vectors(0, kin=3.0), LANGS, permutations=2000)
    assert found.p == pytest.approx(1 / 2001), "no permutation reaches it, and none of them is the truth"
    assert min(found.accuracy) > 0.9 > found.null
    assert (found.n, found.layers, found.best) == (len(LANGS) - ALONE, (0, 1, 2, 3, 4), 0)


def test_families_planted_at_one_layer_are_found_there() -> None:
    found = kinship(vectors(1, kin=3.0, at=3), LANGS, layers=[2, 4, 6, 8, 10], permutations=1000)
    assert (found.best, found.layers[found.best]) == (3, 8)
    assert found.p < 0.01
    assert sorted(found.accuracy)[-2] < 0.7


def test_accuracy_counts_only_languages_with_kin() -> None:
    langs = ["en", "de", "ja", "hu"]
    given = np.array([[[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]])
    found = kinship(given, langs, permutations=50)
    assert (found.accuracy, found.n) == ((1.0,), 2)
    split = np.array([[[1.0, 0.1], [-1.0, -0.1], [1.0, -0.1], [-1.0, 0.1]]])
    assert kinship(split, langs, permutations=50).accuracy == (0.0,)


def p_values(layers: int) -> np.ndarray:
    return np.array([kinship(vectors(seed, layers=layers), LANGS, permutations=150).p for seed in range(120)])


@pytest.mark.parametrize("layers", [1, 6])
def test_p_is_calibrated_also_over_the_best_of_many_layers(layers: int) -> None:
    """Under the null P(p <= a) is at most a, and near it: accuracies are few, so p-values are coarse."""
    found = p_values(layers)
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() < level + 3 * np.sqrt(level * (1 - level) / len(found))
    assert 0.4 < found.mean() < 0.75
    assert found.min() >= 1 / 151


def test_without_the_correction_the_best_of_many_layers_would_look_like_kinship() -> None:
    best = []
    for seed in range(120):
        given = vectors(seed, layers=6)
        best.append(min(kinship(layer[None], LANGS, permutations=100).p for layer in given))
    assert np.mean(np.array(best) <= 0.05) > 0.12
    assert kstest(best, "uniform").pvalue < 1e-6


def test_the_seed_decides_p_and_nothing_else() -> None:
    given = vectors(5)
    one, same, other = (kinship(given, LANGS, permutations=100, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert other.accuracy == one.accuracy


def test_without_kin_there_is_no_kinship() -> None:
    with pytest.raises(SteerlabError, match="no two of en ja hu share a family; add relatives"):
        kinship(vectors(0)[:, :3], ["en", "ja", "hu"])
    with pytest.raises(SteerlabError, match="unknown language code 'xx'"):
        kinship(vectors(0)[:, :2], ["en", "xx"])


def test_within_script() -> None:
    assert [LANGS[i] for i in within_script(LANGS)] == "en de nl sv es fr it pt pl hu tr".split()
    assert [LANGS[i] for i in within_script(LANGS, "Cyrl")] == ["ru", "uk", "bg"]


# Separation


def texts(apart: list[float], *, seed: int, count: int = 40) -> dict[str, Tensor]:
    """h [text pos layer width] of three languages whose means lie `apart` at each layer."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(8)[:3]
    return {
        lang: torch.randn(count, 4, len(apart), 8, generator=generator) + torch.tensor(apart)[:, None] * axes[i] + 50
        for i, lang in enumerate(("en", "de", "ja"))
    }


def moments(given: dict[str, Tensor], *, scatter: bool = True) -> Moments:
    layers = next(iter(given.values())).shape[2]
    made = Moments(tuple(given), tuple(range(layers)), 8, scatter=scatter)
    for lang, h in given.items():
        made.update(lang, {hook_name("resid_post", i): h[:, :, i] for i in range(layers)}, torch.ones(h.shape[:2]) > 0)
    return made


def test_separation_grows_with_the_distance_of_the_means() -> None:
    apart = [0.0, 1.0, 6.0]
    unseen = {lang: h.mean(1) for lang, h in texts(apart, seed=1).items()}
    table = separation(moments(texts(apart, seed=0)), unseen)
    assert table.columns.tolist() == ["layer", "trace_ratio", "nearest_mean", "n"]
    assert table["layer"].tolist() == [0, 1, 2]
    assert table["n"].tolist() == [120] * 3
    assert table["nearest_mean"].iloc[2] == 1.0
    assert table["nearest_mean"].iloc[0] == pytest.approx(1 / 3, abs=0.15)
    assert table["nearest_mean"].is_monotonic_increasing
    assert table["trace_ratio"].is_monotonic_increasing


def test_the_trace_ratio_is_that_of_between_and_within() -> None:
    given = texts([1.0, 4.0], seed=0)
    given["ja"] = given["ja"][:10]  # unequal numbers
    table = separation(moments(given), {lang: h.mean(1) for lang, h in given.items()})
    for layer in range(2):
        tokens = {lang: h[:, :, layer].flatten(0, 1).double() for lang, h in given.items()}
        mean = torch.cat([*tokens.values()]).mean(0)
        between = sum(len(x) * (x.mean(0) - mean).square().sum() for x in tokens.values())
        within = sum((x - x.mean(0)).square().sum() for x in tokens.values())
        assert table["trace_ratio"].iloc[layer] == pytest.approx(float(between / within), rel=1e-4)


def test_separation_needs_scatter() -> None:
    given = texts([1.0], seed=0)
    with pytest.raises(SteerlabError, match=r"also=\['scatter'\]"):
        separation(moments(given, scatter=False), {lang: h.mean(1) for lang, h in given.items()})


# Unigrams


def test_unigrams_are_the_frequencies_of_tokens() -> None:
    tokenizer, part = AutoTokenizer.from_pretrained(PACKAGED), corpus().select(["en", "nl", "ja"]).take(20)
    found = unigrams(part, tokenizer)
    assert found.shape == (3, len(tokenizer))
    np.testing.assert_allclose(found.sum(1), 1)
    ids = [i for line in part["en"] for i in tokenizer(line, add_special_tokens=False).input_ids]
    for token in set(ids):
        assert found[0, token] == pytest.approx(ids.count(token) / len(ids))
    shared = np.minimum(found[0], found[1]).sum(), np.minimum(found[0], found[2]).sum()
    assert shared[0] > 2 * shared[1], "English shares more tokens with Dutch than with Japanese"
    assert not found[:, tokenizer.bos_token_id].any()

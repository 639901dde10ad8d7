"""Kinship is found where it was planted, and as seldom as chance has it where it was not."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from kin_vectors import ALONE, LANGS, vectors
from scipy.spatial.distance import cosine
from scipy.stats import kstest
from torch import Tensor
from transformers import AutoTokenizer

from steerlab.analysis.geometry import (
    FamilyNeighbours,
    beyond,
    by_layer,
    cosine_matrices,
    effective_rank,
    family_neighbours,
    neighbours,
    scripts,
    separation,
    unigrams,
    within_script,
)
from steerlab.core.corpus import corpus
from steerlab.core.errors import SteerlabError
from steerlab.core.languages import families
from steerlab.core.moments import Moments
from steerlab.core.sites import hook_name
from steerlab.models.loading import PACKAGED

# Neighbours


def test_neighbours_are_the_nearest_by_the_cosine_of_centred_vectors() -> None:
    given = vectors(0)[0]
    centred = given - given.mean(0)
    for row, near in enumerate(neighbours(given)):
        cosines = [
            np.dot(centred[row], other) / np.linalg.norm(centred[row]) / np.linalg.norm(other)
            for other in centred
        ]
        cosines[row] = -2
        assert near == int(np.argmax(cosines))
    raw = given / np.linalg.norm(given, axis=1, keepdims=True)
    uncentred = (raw @ raw.T - 2 * np.eye(len(LANGS))).argmax(1)
    assert (uncentred != neighbours(given)).any(), "centring matters far from the origin"


# Kinship


def test_planted_families_are_found() -> None:
    found = family_neighbours(vectors(0, kin=3.0), LANGS, permutations=2000)
    assert found.p == pytest.approx(1 / 2001), (
        "no permutation reaches it, and none of them is the truth"
    )
    assert min(found.accuracy) > 0.9 > found.null
    assert (found.n, found.layers, found.best) == (len(LANGS) - ALONE, (0, 1, 2, 3, 4), 0)


def test_families_planted_at_one_layer_are_found_there() -> None:
    found = family_neighbours(
        vectors(1, kin=3.0, at=3), LANGS, layers=[2, 4, 6, 8, 10], permutations=1000
    )
    assert (found.best, found.layers[found.best]) == (3, 8)
    assert found.p < 0.01
    assert sorted(found.accuracy)[-2] < 0.7


def test_accuracy_counts_only_languages_with_kin() -> None:
    langs = ["en", "de", "ja", "hu"]
    given = np.array([[[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]])
    found = family_neighbours(given, langs, permutations=50)
    assert (found.accuracy, found.n) == ((1.0,), 2)
    split = np.array([[[1.0, 0.1], [-1.0, -0.1], [1.0, -0.1], [-1.0, 0.1]]])
    assert family_neighbours(split, langs, permutations=50).accuracy == (0.0,)


def p_values(layers: int) -> np.ndarray:
    return np.array(
        [
            family_neighbours(vectors(seed, layers=layers), LANGS, permutations=150).p
            for seed in range(120)
        ]
    )


@pytest.mark.parametrize("layers", [1, 6])
def test_p_is_calibrated_also_over_the_best_of_many_layers(layers: int) -> None:
    """Under the null P(p <= a) is at most a, and near it: accuracies are few, so p-values are
    coarse."""
    found = p_values(layers)
    for level in (0.05, 0.2, 0.5):
        assert (found <= level).mean() < level + 3 * np.sqrt(level * (1 - level) / len(found))
    assert 0.4 < found.mean() < 0.75
    assert found.min() >= 1 / 151


def test_without_the_correction_the_best_of_many_layers_would_look_like_kinship() -> None:
    best = []
    for seed in range(120):
        given = vectors(seed, layers=6)
        best.append(
            min(family_neighbours(layer[None], LANGS, permutations=100).p for layer in given)
        )
    assert np.mean(np.array(best) <= 0.05) > 0.12
    assert kstest(best, "uniform").pvalue < 1e-6


def test_the_seed_decides_p_and_nothing_else() -> None:
    given = vectors(5)
    one, same, other = (
        family_neighbours(given, LANGS, permutations=100, seed=seed) for seed in (0, 0, 1)
    )
    assert one == same
    assert other.accuracy == one.accuracy


def test_without_kin_there_is_no_kinship() -> None:
    with pytest.raises(SteerlabError, match="no two of en ja hu share a family; add relatives"):
        family_neighbours(vectors(0)[:, :3], ["en", "ja", "hu"])
    with pytest.raises(SteerlabError, match="unknown language code 'xx'"):
        family_neighbours(vectors(0)[:, :2], ["en", "xx"])


# Beyond other vectors


def split(hits: list[list[int]], langs: list[str]) -> FamilyNeighbours:
    """Neighbours with these hits at each layer."""
    share = tuple(sum(row) / len(row) for row in hits)
    as_hits = tuple(tuple(map(bool, row)) for row in hits)
    return FamilyNeighbours(
        tuple(range(len(hits))), share, 0.5, 0.5, len(langs), tuple(langs), as_hits
    )


def test_hits_are_those_of_the_counted_languages() -> None:
    langs = ["en", "de", "ja", "hu"]
    given = np.array([[[1.0, 0.1], [1.0, -0.1], [-1.0, 0.1], [-1.0, -0.1]]])
    found = family_neighbours(given, langs, permutations=10)
    assert (found.langs, found.hits) == (("en", "de"), ((True, True),))


def test_beyond_counts_languages_and_its_p_is_that_of_every_pattern_of_signs() -> None:
    langs = list("abcdef")
    found, other = split([[1] * 6], langs), split([[0, 0, 0, 0, 0, 1]], langs)
    made = beyond(found, other)
    # Five languages differ, all of them upwards: of 2^5 patterns one is as extreme.
    assert (made.gained, made.lost, made.n, made.p) == (5, 0, 6, 1 / 32)
    assert made.difference == pytest.approx(5 / 6)
    turned = beyond(other, found)
    assert (turned.gained, turned.lost, turned.p) == (0, 5, 1.0)
    same = beyond(found, found)
    assert (same.difference, same.p) == (0.0, 1.0)


def test_beyond_pays_for_the_choice_of_a_layer() -> None:
    langs = list("abcdef")
    other = split([[0, 0, 0, 1, 1, 1]], langs)
    chosen = [1, 1, 1, 1, 1, 1]
    noise = [[0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]]
    one = beyond(split([chosen], langs), other)
    many = beyond(split([chosen, *noise], langs), other)
    assert (one.difference, one.layer) == (many.difference, many.layer)
    assert many.p > one.p == 1 / 8


def test_beyond_takes_the_largest_of_the_layers_in_every_pattern() -> None:
    """Both layers and the comparison drawn at random, p counted pattern by pattern."""
    random = np.random.default_rng(0)
    langs, p_values = list("abcdef"), set()
    for _ in range(10):
        hits = random.integers(0, 2, size=(2, 6)).tolist()
        other = random.integers(0, 2, size=6)
        patterns = list(product([1, -1], repeat=6))
        largest = [
            max((np.array(pattern) * (row - other)).sum() for row in np.array(hits))
            for pattern in patterns
        ]
        expected = np.mean([value >= largest[0] for value in largest])
        found = beyond(split(hits, langs), split([other.tolist()], langs))
        assert found.p == pytest.approx(expected)
        p_values.add(found.p)
    assert len(p_values) > 3


def test_beyond_of_many_languages_draws_patterns_and_refuses_others() -> None:
    langs = [f"l{index}" for index in range(30)]
    found, other = split([[1] * 30], langs), split([[0] * 12 + [1] * 18], langs)
    drawn = beyond(found, other, draws=999)
    assert drawn.p == pytest.approx(1 / 1000, abs=2e-3)
    assert drawn == beyond(found, other, draws=999)
    with pytest.raises(SteerlabError, match="give the same languages, and one layer"):
        beyond(found, split([[1, 1]], ["a", "b"]))
    with pytest.raises(SteerlabError, match="at 2 layers; give"):
        beyond(found, split([[1] * 30, [1] * 30], langs))


def test_beyond_holds_its_level_where_both_are_the_same_noise() -> None:
    p_values = []
    for seed in range(200):
        given = vectors(seed, layers=4)
        found = family_neighbours(given[:3], LANGS, permutations=1)
        p_values.append(beyond(found, family_neighbours(given[3:], LANGS, permutations=1)).p)
    # With three layers to choose from, against one: only the correction keeps the level.
    assert np.mean(np.array(p_values) <= 0.05) < 0.09


# Within scripts


def test_what_scripts_explain_is_no_kinship_within_them() -> None:
    """Languages lie by script alone. Slavic ones in Cyrillic seem kin against free labels; within
    scripts no label that matters can move."""
    langs = ["ru", "uk", "bg", "de", "fr", "hu", "tr", "vi", "sw", "id"]
    random = np.random.default_rng(3)
    script = np.array([[10.0, 0.0]] * 3 + [[-10.0, 0.0]] * 7)
    given = np.concatenate([script, random.standard_normal((10, 6))], 1)[None]
    free = family_neighbours(given, langs, permutations=2000)
    within = family_neighbours(given, langs, within=scripts(langs), permutations=2000)
    assert free.accuracy == within.accuracy
    assert free.p < 0.05
    assert within.p == 1.0


def test_planted_families_are_found_within_scripts_too() -> None:
    given = vectors(0, kin=3.0)
    found = family_neighbours(given, LANGS, within=scripts(LANGS), permutations=500)
    assert found.p == pytest.approx(1 / 501)
    with pytest.raises(SteerlabError, match="2 groups were named for"):
        family_neighbours(given, LANGS, within=["a", "b"], permutations=5)
    alone = family_neighbours(given, LANGS, within=range(len(LANGS)), permutations=5)
    assert alone.p == 1.0, "no label can change places"


def test_within_script() -> None:
    assert [LANGS[i] for i in within_script(LANGS)] == "en de nl sv es fr it pt pl hu tr".split()
    assert [LANGS[i] for i in within_script(LANGS, "Cyrl")] == ["ru", "uk", "bg"]


# Separation


def texts(apart: list[float], *, seed: int, count: int = 40) -> dict[str, Tensor]:
    """h [text pos layer width] of three languages whose means lie `apart` at each layer."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(8)[:3]
    return {
        lang: torch.randn(count, 4, len(apart), 8, generator=generator)
        + torch.tensor(apart)[:, None] * axes[i]
        + 50
        for i, lang in enumerate(("en", "de", "ja"))
    }


def moments(given: dict[str, Tensor], *, scatter: bool = True) -> Moments:
    layers = next(iter(given.values())).shape[2]
    made = Moments(tuple(given), tuple(range(layers)), 8, scatter=scatter)
    for lang, h in given.items():
        made.update(
            lang,
            {hook_name("resid_post", i): h[:, :, i] for i in range(layers)},
            torch.ones(h.shape[:2]) > 0,
        )
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
    tokenizer, part = (
        AutoTokenizer.from_pretrained(PACKAGED),
        corpus().select(["en", "nl", "ja"]).take(20),
    )
    found = unigrams(part, tokenizer)
    assert found.shape == (3, len(tokenizer))
    np.testing.assert_allclose(found.sum(1), 1)
    ids = [i for line in part["en"] for i in tokenizer(line, add_special_tokens=False).input_ids]
    for token in set(ids):
        assert found[0, token] == pytest.approx(ids.count(token) / len(ids))
    shared = np.minimum(found[0], found[1]).sum(), np.minimum(found[0], found[2]).sum()
    assert shared[0] > 2 * shared[1], "English shares more tokens with Dutch than with Japanese"
    assert not found[:, tokenizer.bos_token_id].any()


# ------------------------------------------------------------------------------------------- layers


def test_centring_ignores_what_all_languages_share() -> None:
    given = vectors(0, layers=3) - 100
    shift = np.random.default_rng(1).standard_normal((3, 1, 12)) * 50
    np.testing.assert_allclose(cosine_matrices(given), cosine_matrices(given + shift), atol=1e-9)
    raw = cosine_matrices(given, centre=False)
    assert np.abs(raw - cosine_matrices(given + shift, centre=False)).max() > 0.01, (
        "raw cosines are of the origin"
    )
    np.testing.assert_allclose(raw, raw.transpose(0, 2, 1))
    np.testing.assert_allclose(np.diagonal(raw, axis1=1, axis2=2), 1)


def test_statistics_by_layer_are_means_over_pairs() -> None:
    given = vectors(3, layers=2, kin=1.0)
    table = by_layer(given, LANGS, layers=[4, 9])
    names = families(LANGS)
    for place in range(2):
        here, centred = given[place], given[place] - given[place].mean(0)
        raw: list[float] = []
        within: list[float] = []
        between: list[float] = []
        gap: list[float] = []
        for a in range(len(LANGS)):
            for b in range(a):
                raw.append(1 - cosine(here[a], here[b]))
                (within if names[a] == names[b] else between).append(
                    1 - cosine(centred[a], centred[b])
                )
                gap.append(float(np.linalg.norm(here[a] - here[b])))
        row = table.iloc[place]
        expected = [np.mean(x) for x in (raw, within, between, gap)]
        assert row[["raw", "within", "between", "gap"]].tolist() == pytest.approx(expected)
        assert row["gap_ratio"] == pytest.approx(np.mean(gap) / np.linalg.norm(here, axis=1).mean())
        assert (row["n"], row["pairs"], row["pairs_within"]) == (16, 120, len(within))
    assert table["layer"].tolist() == [4, 9]


def test_planted_families_are_alike_and_shuffled_ones_are_not() -> None:
    given = vectors(0, layers=1, kin=3.0)
    table = by_layer(given, LANGS).iloc[0]
    assert table["within"] > 0.6 > 0 > table["between"]
    order = np.random.default_rng(3).permutation(len(LANGS))
    shuffled = by_layer(given[:, order], LANGS).iloc[0]
    assert abs(shuffled["within"] - shuffled["between"]) < 0.3


def test_effective_rank_is_the_number_of_equal_axes() -> None:
    axes = np.eye(6)[:4]
    corners = np.concatenate([axes, -axes])  # their mean is zero, and four axes have equal variance
    assert effective_rank(corners + 7) == pytest.approx(4)
    uneven = corners * np.array([1, 0.5, 0.1, 0.01, 0, 0])
    assert 1 < effective_rank(uneven) < 2.5
    assert effective_rank(np.random.default_rng(0).standard_normal((5, 400))) <= 4 + 1e-9


def test_a_language_without_direction_is_refused() -> None:
    given = vectors(0, layers=2)
    given[1, 0] = given[1, 1:].mean(0)  # the mean of the others is the mean of all
    with pytest.raises(SteerlabError, match="the mean of all or not finite at some layer"):
        cosine_matrices(given)
    with pytest.raises(SteerlabError, match="is zero or not finite"):
        cosine_matrices(given * np.array([0, 1])[:, None, None], centre=False)


def recorded(layer: int) -> tuple[list[str], np.ndarray]:
    """The languages, and vectors [1 lang width] that lie to one another as Llama's language
    means do at a layer."""
    told = json.loads((Path(__file__).parent / "golden" / "llama-means.json").read_text("utf-8"))
    langs, gram = told["langs"], np.zeros((32, 32))
    gram[np.triu_indices(32)] = told["gram"][str(layer)]
    values, axes = np.linalg.eigh(np.triu(gram) + np.triu(gram, 1).T)
    return langs, (axes * np.sqrt(np.clip(values, 0, None)))[None]


@pytest.mark.parametrize(
    ("layer", "within", "between", "right"), [(11, 0.557, -0.063, 15), (29, 0.108, -0.043, 14)]
)
def test_the_families_of_llama_are_those_that_were_measured(
    layer: int, within: float, between: float, right: int
) -> None:
    """Recorded from CLaS-Bench's release; 32 languages, of which 16 are of the three large
    families."""
    langs, given = recorded(layer)
    row = by_layer(given, langs).iloc[0]
    assert (round(row["within"], 3), round(row["between"], 3)) == (within, between)
    kin = family_neighbours(given, langs, least=3, permutations=200)
    assert (round(kin.accuracy[0] * kin.n), kin.n, kin.p) == (right, 16, 1 / 201)


# ---------------------------------------------------------------------------------------------- kin


def test_least_counts_only_large_families() -> None:
    langs = ["en", "de", "nl", "es", "fr", "hu", "ja"]
    given = np.zeros((1, 7, 3))
    given[0, :3, 0], given[0, 3:5, 1], given[0, 5:, 2] = 1, 1, 1
    given += 0.01 * np.random.default_rng(0).standard_normal(given.shape)
    assert family_neighbours(given, langs, permutations=50).n == 5
    large = family_neighbours(given, langs, permutations=50, least=3)
    assert (large.n, large.accuracy) == (3, (1.0,))
    mixed = given[:, [0, 3, 5, 1, 4, 2, 6]]  # now English, German and Dutch lie apart
    assert family_neighbours(mixed, langs, permutations=50, least=3).accuracy[0] < 0.5
    with pytest.raises(
        SteerlabError, match="no 4 of en de nl es fr hu ja share a family; add relatives"
    ):
        family_neighbours(given, langs, least=4)
